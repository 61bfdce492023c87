"""Writes tensors that come one by one to `model.safetensors`, or to several such files and their index."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


class ShardWriter:
    """
    Writes tensors to files of a limited size; holds them until they fill one.

    Args:
        folder (`Path`): To write to.
        max_shard_bytes (`int`, *optional*): Largest file, unless a single tensor is larger.
    """

    def __init__(self, folder: Path, max_shard_bytes: int = 2 * 10**9):
        self.folder, self.max_shard_bytes = folder, max_shard_bytes
        self.num_bytes, self.num_parameters = 0, 0
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes = 0
        self._shards: list[list[str]] = []

    def add(self, key: str, tensor: torch.Tensor) -> None:
        """Adds a copy of the tensor, which may be a view of something that goes."""
        if self._held and self._held_bytes + tensor.nbytes > self.max_shard_bytes:
            self._write_shard()
        self._held[key] = tensor.clone(memory_format=torch.contiguous_format)
        self._held_bytes += tensor.nbytes
        self.num_bytes += tensor.nbytes
        self.num_parameters += tensor.numel()

    def finish(self) -> None:
        """Writes what is held, gives the files their names, and writes the index."""
        self._write_shard()
        total = len(self._shards)
        weight_map: dict[str, str] = {}
        for number, keys in enumerate(self._shards, 1):
            name = "model.safetensors" if total == 1 else f"model-{number:05}-of-{total:05}.safetensors"
            (self.folder / _unfinished(number)).rename(self.folder / name)
            weight_map |= dict.fromkeys(keys, name)
        if total > 1:
            index = {"metadata": {"total_size": self.num_bytes}, "weight_map": dict(sorted(weight_map.items()))}
            (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    def _write_shard(self) -> None:
        self._shards.append(list(self._held))
        save_file(self._held, self.folder / _unfinished(len(self._shards)), metadata={"format": "pt"})
        self._held, self._held_bytes = {}, 0


def _unfinished(number: int) -> str:
    return f"shard-{number:05}.safetensors"


__all__ = ["ShardWriter"]
