"""Streams of rows: data sets whose rows come one after the other, so that nobody knows how many there are."""

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import count
from typing import Any

from torch.utils.data import IterableDataset
from transformers.utils import is_datasets_available


def is_stream(dataset: Any) -> bool:
    """Tells whether a data set is a stream, of `datasets`, of PyTorch, or any other iterable without a length."""
    return isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized)


def map_stream(dataset: Any, function: Callable[[dict, int], dict]) -> Iterable[dict]:
    """Returns the stream of `function(row, place)`; one of `datasets` stays one, as trainers ask for it."""
    if _is_of_datasets(dataset):
        return dataset.map(function, with_indices=True)
    return _MappedStream(dataset, function)


def filter_stream(dataset: Any, function: Callable[[dict], bool]) -> Iterable[dict]:
    """Returns the stream of the rows for which `function(row)` is true; one of `datasets` stays one."""
    if _is_of_datasets(dataset):
        return dataset.filter(function)
    return _FilteredStream(dataset, function)


def _is_of_datasets(dataset: Any) -> bool:
    if not is_datasets_available():
        return False
    import datasets

    return isinstance(dataset, datasets.IterableDataset)


class _MappedStream(IterableDataset):
    def __init__(self, dataset: Any, function: Callable[[dict, int], dict]):
        self.dataset, self.function = dataset, function

    def __iter__(self) -> Iterator[dict]:
        return map(self.function, self.dataset, count())


class _FilteredStream(IterableDataset):
    def __init__(self, dataset: Any, function: Callable[[dict], bool]):
        self.dataset, self.function = dataset, function

    def __iter__(self) -> Iterator[dict]:
        return filter(self.function, self.dataset)


__all__ = ["filter_stream", "is_stream", "map_stream"]
