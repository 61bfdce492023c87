"""PyTorch in forked processes, such as those of `datasets.map(num_proc=...)`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch


_IMPORTED_IN = os.getpid()

Value = TypeVar("Value")


@contextmanager
def one_thread_in_forks() -> Iterator[None]:
    """
    Runs PyTorch on one thread where this process was forked from the one that imported this module, and sets the
    number of threads back at the end. OpenMP's threads do not survive a fork, and an operation that waits for them
    never ends.
    """
    if os.getpid() == _IMPORTED_IN:
        yield
        return
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def on_one_thread_in_forks(values: Iterator[Value]) -> Iterator[Value]:
    """Yields the values; each is computed under [`one_thread_in_forks`], but not what is done between them."""
    while True:
        with one_thread_in_forks():
            try:
                value = next(values)
            except StopIteration:
                return
        yield value


__all__ = ["on_one_thread_in_forks", "one_thread_in_forks"]
