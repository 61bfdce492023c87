"""Loads the model that a command asks, by default the small one of the package."""

import argparse
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from linvt_cli.cli_checks import check_folder


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from linvt.processors.processing_linvt import LinVTProcessor

_PACKAGE = Path(find_spec("linvt").origin)  # type: ignore[arg-type]  # of its __init__.py, and without importing it
SMALL_MODEL = _PACKAGE.with_name("small_world_model")
SMALL_MODEL_NOTE = "no --model given, so the small model of the package answers, which knows coloured shapes only"


@dataclass(frozen=True)
class LoadedModel:
    """
    Holds the model that a command asks.

    Args:
        model (`PreTrainedModel`), processor ([`LinVTProcessor`]): Loaded.
        name (`str`): Its Hub id or folder; `"small-world"` for the small one of the package.
    """

    model: "PreTrainedModel"
    processor: "LinVTProcessor"
    name: str

    @property
    def is_small(self) -> bool:
        """Returns whether it is the small model of the package."""
        return self.name == "small-world"


def add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", help="Hub id or folder of a LinVT model (default: the small one of the package)")
    command.add_argument("--device", help="where the model runs, such as cuda (default: the CPU)")


def check_model(options: argparse.Namespace) -> None:
    if options.model is not None:
        check_folder(options.model)


def load_model(options: argparse.Namespace) -> LoadedModel:
    """Loads the model and its processor."""
    from linvt.hub.export import load_whole
    from linvt.processors.processing_linvt import LinVTProcessor

    name = SMALL_MODEL if options.model is None else options.model
    model = load_whole(name, dtype="auto", device_map=_device(options.device))
    processor = LinVTProcessor.from_pretrained(name)
    return LoadedModel(model, processor, "small-world" if options.model is None else str(options.model))


def _device(name: str | None) -> "torch.device":
    import torch

    try:
        device = torch.device(name or "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the model cannot run on {name!r}: {error}") from error
    return device
