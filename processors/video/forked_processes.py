"""PyTorch in forked processes, such as those of `datasets.map(num_proc=...)`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


_IMPORTED_IN = os.getpid()


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


__all__ = ["one_thread_in_forks"]
