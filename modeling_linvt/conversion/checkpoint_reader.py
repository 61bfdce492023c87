"""Reads the tensors of a checkpoint folder one by one: safetensors or `.bin`, one file or several with an index."""

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open


_NAMES = ("model.safetensors", "pytorch_model.bin")


class CheckpointReader:
    """
    Reads the tensors of a folder. One file is open at a time, and mapped instead of read where its format allows it
    (all but `.bin` files older than PyTorch 1.6), so that no more than one file is in memory.

    Args:
        folder (`Path`): With `model.safetensors` or `pytorch_model.bin`, or several such files and their index.

    Attributes:
        shapes (`dict[str, tuple[int, ...]]`): Key to shape, in the order of the files.

    Raises:
        `FileNotFoundError`: If there are no weights, or a file that the index names is missing.
        `ValueError`: If a file is damaged, holds something else than tensors, or lacks a key that the index names.
    """

    def __init__(self, folder: Path):
        self._path: Path | None = None
        self._open: Any = None
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path, indexed_keys in _weight_files(folder).items():
            shapes = self._shapes(path)
            missing = sorted(indexed_keys - shapes.keys())
            if missing:
                raise ValueError(f"the index says that {path.name} holds {missing[0]}, but it does not.")
            self._files |= dict.fromkeys(shapes, path)
            self.shapes |= shapes

    def tensor(self, key: str) -> torch.Tensor:
        """Returns one tensor, on the CPU; fast if it lies in the same file as the one before."""
        tensors = self._tensors(self._files[key])
        return tensors[key] if isinstance(tensors, Mapping) else tensors.get_tensor(key)

    def _shapes(self, path: Path) -> dict[str, tuple[int, ...]]:
        tensors = self._tensors(path)
        if isinstance(tensors, Mapping):
            return {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}

    def _tensors(self, path: Path) -> Any:
        if path != self._path:
            self._path, self._open = None, None  # the last file goes before the next one comes
            self._open = _open_safetensors(path) if path.suffix == ".safetensors" else _load_bin(path)
            self._path = path
        return self._open


def _weight_files(folder: Path) -> dict[Path, set[str]]:
    """Lists the files with weights, in order, and the keys that the index says each of them holds."""
    for name in _NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files: dict[Path, set[str]] = {folder / file: set() for file in sorted(set(weight_map.values()))}
            for key, file in weight_map.items():
                files[folder / file].add(key)
            absent = [path.name for path in files if not path.is_file()]
            if absent:
                raise FileNotFoundError(
                    f"{folder} lacks {', '.join(absent)}, which {index.name} names; load it again."
                )
            return files
        if (folder / name).is_file():
            return {folder / name: set()}
    raise FileNotFoundError(f"{folder} holds no weights: neither {' nor '.join(_NAMES)}, nor an index of several.")


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error


def _load_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged or not a torch checkpoint that holds only tensors.") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} is not a state dict: every entry of it has to be a tensor.")
    return tensors


__all__ = ["CheckpointReader"]
