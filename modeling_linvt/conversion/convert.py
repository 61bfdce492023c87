"""Converts a checkpoint folder of a published format to one that Transformers loads, tensor by tensor."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import snapshot_download
from transformers import PreTrainedConfig

from linvt.checkpoints.atomic_folder import check_new_folder, new_folder
from linvt.conversion import KINDS
from linvt.conversion.checkpoint_kinds import CheckpointKind, Shapes
from linvt.conversion.checkpoint_reader import CheckpointReader
from linvt.conversion.key_plan import expected_shapes, plan_conversion
from linvt.conversion.shard_writer import ShardWriter


# Everything but weights and code.
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")


class Converted(NamedTuple):
    """Describes a converted checkpoint."""

    kind: str
    config: PreTrainedConfig
    num_parameters: int
    has_processor: bool


def convert_checkpoint(
    source: str | os.PathLike,
    output: str | os.PathLike,
    kind: str | None = None,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Converted:
    """
    Converts a published checkpoint. Memory holds one file of the source and one of the result at most.

    Args:
        source (`str` or `os.PathLike`): Folder or Hub id.
        output (`str` or `os.PathLike`): New folder, see `checkpoints.atomic_folder.new_folder`.
        kind (`str`, *optional*): Name of the format; by default it is recognised.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        dtype (`torch.dtype`, *optional*): Of the weights; by default as they are.
        on_progress (`Callable`, *optional*): Gets the fraction that is done.

    Raises:
        `FileExistsError`: If `output` holds something already.
        `FileNotFoundError`: If the source lacks a file.
        `ValueError`: If the format is not known, or a key is missing, unexpected or misshapen.
    """
    check_new_folder(output)
    folder = _source_folder(source, revision)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{source} has no config.json, so its format cannot be told; give the whole folder.")
    published = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    reader = CheckpointReader(folder)
    found = checkpoint_kind(published, reader.shapes, kind)
    config = found.config(published, reader.shapes)
    try:
        expected = expected_shapes(found.model_class, config)
        steps = plan_conversion(reader.shapes, found.rules(config), config, expected)
    except ValueError as error:
        raise ValueError(f"the tensors of {source} are not those of {found.name}: {error}.") from error

    with new_folder(output) as unfinished:
        writer = ShardWriter(unfinished)
        written_dtype = None
        for number, step in enumerate(steps, 1):
            made = step.make([reader.tensor(key) for key in step.sources])
            for target, tensor in zip(step.targets, made, strict=True):
                tensor = tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
                writer.add(target, tensor)
                if tensor.is_floating_point():
                    written_dtype = torch.promote_types(written_dtype or tensor.dtype, tensor.dtype)
            if on_progress is not None:
                on_progress(number / len(steps))
        writer.finish()
        processor = found.processor(folder, config)
        if processor is not None:
            processor.save_pretrained(unfinished)
        found.generation_config(folder, config).save_pretrained(unfinished)
        # Last, since nothing loads without it.
        config.architectures, config.dtype = [found.model_class.__name__], written_dtype
        config.save_pretrained(unfinished)
    return Converted(found.name, config, writer.num_parameters, processor is not None)


def checkpoint_kind(config: dict, shapes: Shapes, name: str | None = None) -> CheckpointKind:
    """
    Recognises the format of a checkpoint, or finds the one of this name.

    Raises:
        `ValueError`: If there is none.
    """
    known = ", ".join(kind.name for kind in KINDS)
    if name is not None:
        found = [kind for kind in KINDS if kind.name == name]
        if not found:
            raise ValueError(f"unknown kind {name!r}; choose one of {known}.")
    else:
        found = [kind for kind in KINDS if kind.recognises(config, shapes)]
    if len(found) != 1:
        stated = f"model_type {config.get('model_type')!r}, architectures {config.get('architectures')}"
        match = " and ".join(kind.name for kind in found) or "none"
        raise ValueError(
            f"the format cannot be told: config.json states {stated}, which fits {match} of {known}. If it is one of "
            "them, name it with --kind; a folder that Transformers loads needs no conversion."
        )
    return found[0]


def _source_folder(source: str | os.PathLike, revision: str | None) -> Path:
    if Path(source).is_dir():
        if revision is not None:
            raise ValueError(f"{source} is a folder, which has no revision {revision!r}; leave it out.")
        return Path(source)
    for weights in ("*.safetensors", "*.bin"):
        folder = Path(snapshot_download(str(source), revision=revision, allow_patterns=[*_SMALL_FILES, weights]))
        if any(folder.glob(weights)):
            return folder
    raise FileNotFoundError(f"{source} on the Hub has neither safetensors nor .bin files.")


__all__ = ["Converted", "checkpoint_kind", "convert_checkpoint"]
