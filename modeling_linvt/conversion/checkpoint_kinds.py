"""Describes published formats for `linvt convert`: one [`CheckpointKind`] per base, with rules for its keys."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, ProcessorMixin


Shapes = dict[str, tuple[int, ...]]
"""Key of a checkpoint to the shape of its tensor."""


@dataclass(frozen=True)
class KeyRule:
    r"""
    Maps keys of a source to keys of the result. Of several rules that match a key, the first counts.

    Args:
        pattern (`str`): Regular expression that matches the whole key of the source.
        targets (`tuple[str, ...]`): Keys of the result, with `\1`, `\2`, ... for the groups of the pattern. None: the
            tensor is known and not needed.
        split (`Callable`, *optional*): Makes one tensor per target of the source's; by default it is taken as it is.
            It is also run on the meta device, to check shapes before anything is read.
    """

    pattern: str
    targets: tuple[str, ...]
    split: Callable[[torch.Tensor, PreTrainedConfig], Sequence[torch.Tensor]] | None = None


@dataclass(frozen=True)
class JoinRule:
    """
    Joins several tensors of the source to one of the result.

    Args:
        sources (`tuple[str, ...]`): Their keys, literally; none of them may match a [`KeyRule`] too.
        target (`str`): Key of the result.
        join (`Callable`): Makes the tensor; also run on the meta device.
    """

    sources: tuple[str, ...]
    target: str
    join: Callable[[list[torch.Tensor], PreTrainedConfig], torch.Tensor]


class CheckpointKind(ABC):
    """
    Describes the format of one base.

    Attributes:
        name (`str`): For `--kind`, such as `"internvl2"`.
        model_class (`type[PreTrainedModel]`): Class of the result.
    """

    name: str
    model_class: type[PreTrainedModel]

    @abstractmethod
    def recognises(self, config: dict, shapes: Shapes) -> bool:
        """Tells whether a folder with this `config.json` and these tensors is of this kind; true for one at most."""

    @abstractmethod
    def config(self, config: dict, shapes: Shapes) -> PreTrainedConfig:
        """
        Returns the configuration of the result.

        Args:
            config (`dict`): `config.json` of the source.
            shapes (`dict[str, tuple[int, ...]]`): Its tensors, for sizes that `config.json` does not state.

        Raises:
            `ValueError`: If something is not stated, or is stated as what the result cannot be.
        """

    @abstractmethod
    def rules(self, config: PreTrainedConfig) -> Sequence[KeyRule | JoinRule]:
        """Returns the rules for all keys, for a result of this configuration."""

    @abstractmethod
    def processor(self, folder: Path, config: PreTrainedConfig) -> ProcessorMixin | None:
        """Returns the processor with its chat template and tokenizer; `None` if the folder holds no tokenizer."""

    def generation_config(self, folder: Path, config: PreTrainedConfig) -> GenerationConfig:
        """Returns where an answer ends: the special tokens of the source's `generation_config.json` or config."""
        stated = config.get_text_config()
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        ids = {name: getattr(stated, name, None) for name in names}
        path = folder / "generation_config.json"
        if path.is_file():
            published = json.loads(path.read_text(encoding="utf-8"))
            ids |= {name: published[name] for name in names if published.get(name) is not None}
        return GenerationConfig(**{name: value for name, value in ids.items() if value is not None})


def has_tokenizer(folder: Path) -> bool:
    """Tells whether a folder holds a vocabulary."""
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "*.tiktoken")
    return any(any(folder.glob(name)) for name in names)


def stated(config: dict, *names: str) -> Any:
    """Returns `config[names[0]][names[1]]...`; raises a `ValueError` that names it where it is not stated."""
    value = config
    for name in names:
        if not isinstance(value, dict) or value.get(name) is None:
            raise ValueError(f"config.json does not state {'.'.join(names)}, which the conversion needs.")
        value = value[name]
    return value


def num_layers(shapes: Shapes, prefix: str) -> int:
    """Counts the layers `{prefix}0.`, `{prefix}1.`, ... that the tensors belong to, such as `model.layers.`."""
    return 1 + max(
        (int(key.removeprefix(prefix).split(".")[0]) for key in shapes if key.startswith(prefix)), default=-1
    )


__all__ = ["CheckpointKind", "JoinRule", "KeyRule", "Shapes", "has_tokenizer", "num_layers", "stated"]
