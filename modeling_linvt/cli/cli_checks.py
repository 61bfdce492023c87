"""Checks local paths without importing what takes seconds, so that errors in them come at once."""

import os
import re
import tempfile
from pathlib import Path


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of an address; one letter is a Windows drive


def check_video(source: str) -> None:
    """
    Rejects a path at which there is nothing. All else is left to the reader of videos.

    Raises:
        `FileNotFoundError`: If `source` is a path, and neither a file nor a folder.
    """
    if not _SCHEME.match(source) and not os.path.exists(source):
        raise FileNotFoundError(f"Cannot read a video from {source!r}: there is no such file.")


def check_folder(name: str) -> None:
    """
    Rejects a missing local path before it is mistaken for a Hub id, which has one slash inside.

    Raises:
        `FileNotFoundError`: If `name` is no Hub id and no folder.
    """
    if (name.startswith((".", "~", os.sep)) or name.count("/") != 1) and not Path(name).is_dir():
        raise FileNotFoundError(
            f"there is no folder {name}; give that of a saved model, or the id of one on the Hub (NAMESPACE/NAME)."
        )


def check_new_folder(path: str) -> None:
    """
    Rejects an output folder that holds something, as `linvt.checkpoints.atomic_folder.check_new_folder` does.

    Raises:
        `FileExistsError`: If `path` is a file, or a folder that is not empty.
    """
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise FileExistsError(f"{path} exists already; give the name of a new folder.")


def check_new_file(path: str) -> None:
    """
    Rejects a place where no new file can be written.

    Raises:
        `FileExistsError`: If something is there.
        `ValueError`: If its folder is missing.
        `OSError`: If nothing can be written into the folder.
    """
    place = Path(path)
    if place.exists():
        raise FileExistsError(f"{path} exists already; give the name of a new file.")
    _check_parent(place)


def check_new_picture(path: str) -> None:
    """
    Rejects a place where no picture can be written.

    Raises:
        `ValueError`: If the folder is missing, or the path is something else than a file.
        `OSError`: If nothing can be written into the folder.
    """
    place = Path(path)
    if place.exists() and not place.is_file():
        raise ValueError(f"{path} is not a file; give the name of a picture, such as shots.png.")
    _check_parent(place)


def _check_parent(place: Path) -> None:
    if not place.parent.is_dir():
        raise ValueError(f"there is no folder {place.parent} for {place.name}; make it first.")
    with tempfile.TemporaryFile(dir=place.parent):
        pass
