"""AutoShot weights that travel with a checkpoint, as two files in its subfolder `autoshot/`."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers.utils import cached_file


AUTOSHOT_WEIGHTS = Path(__file__).parent / "autoshot_weights"
"""The weights of the package, trained by examples/train_autoshot.py; hub_cards/autoshot_weights.md says on what."""

AUTOSHOT_SUBFOLDER = "autoshot"

AUTOSHOT_IN_CHECKPOINT = "checkpoint:autoshot"
"""The `autoshot_model` of a processor whose weights lie in its checkpoint's subfolder; no path or Hub id looks so."""

_FILES = ("config.json", "model.safetensors")


def find_autoshot(name_or_path: str | os.PathLike | None = None, **hub_kwargs: Any) -> Path:
    """
    Finds the folder of AutoShot weights, after download where they are on the Hub.

    Args:
        name_or_path (`str` or `os.PathLike`, *optional*): Hub id or folder of the weights; by default those of the
            package.
        hub_kwargs: `revision`, `token`, `cache_dir`, `subfolder` and so on.

    Raises:
        `FileNotFoundError`: If one of the two files is not there.
    """
    name_or_path = AUTOSHOT_WEIGHTS if name_or_path is None else name_or_path
    try:
        paths = [cached_file(name_or_path, file, **hub_kwargs) for file in _FILES]
        if None in paths:  # for a missing config.json alone, instead of an error
            raise FileNotFoundError(f"there is no {_FILES[paths.index(None)]}.")
    except OSError as error:
        place = os.path.join(name_or_path, hub_kwargs.get("subfolder") or "")
        raise FileNotFoundError(
            f"{place} should hold weights of AutoShot, {' and '.join(_FILES)}, but: {error} Get the whole checkpoint "
            "again, or give other weights as autoshot_model."
        ) from error
    return Path(paths[-1]).absolute().parent


def find_autoshot_of_checkpoint(name_or_path: str | os.PathLike, **hub_kwargs: Any) -> Path:
    """Finds the subfolder `autoshot/` of a checkpoint, in a folder or on the Hub; errors as in [`find_autoshot`]."""
    subfolder = os.path.join(hub_kwargs.pop("subfolder", None) or "", AUTOSHOT_SUBFOLDER)
    return find_autoshot(name_or_path, subfolder=subfolder, **hub_kwargs)


def copy_autoshot(weights: str | os.PathLike, checkpoint: str | os.PathLike) -> None:
    """Copies the two files into the subfolder of a checkpoint, from which they may have come."""
    target = Path(checkpoint) / AUTOSHOT_SUBFOLDER
    target.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        if not (target / name).exists() or not os.path.samefile(Path(weights) / name, target / name):
            shutil.copyfile(Path(weights) / name, target / name)


__all__ = [
    "AUTOSHOT_IN_CHECKPOINT",
    "AUTOSHOT_SUBFOLDER",
    "AUTOSHOT_WEIGHTS",
    "copy_autoshot",
    "find_autoshot",
    "find_autoshot_of_checkpoint",
]
