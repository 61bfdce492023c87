"""What all suites share."""

import unittest
from collections.abc import Iterator
from contextlib import contextmanager

from tests.generation.test_utils import GenerationTesterMixin


HAS_GENERATION_TESTS = hasattr(GenerationTesterMixin, "test_greedy_generate")
"""Not with Transformers' source distribution, which lacks them."""


class Suite(unittest.TestCase):
    """
    Tests of Transformers on one class. `control` is the suite of a class of Transformers itself to compare with.

    A sub-test that fails fails its test: each suite has one class, and a test counts once.
    """

    control: type["Suite"] | None = None

    @contextmanager
    def subTest(self, *args, **kwargs) -> Iterator[None]:
        yield
