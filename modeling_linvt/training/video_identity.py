"""Content keys of videos, to find cached results and to invalidate them when a video changes."""

import hashlib
import os
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from linvt.processors.shots.autoshot_files import find_autoshot
from linvt.processors.video.video_container import VideoReadError, describe_source


def video_identity(video) -> str:
    """
    A hash of what a video is: of a file its path, size and time of change, of bytes and frames their content. A URL
    stands for itself: what a server changes behind it is not noticed.

    Raises:
        [`VideoReadError`]: If there is no such file.
        `TypeError`: If the video is of another type, such as an open file.
    """
    digest = hashlib.sha256()
    _add(video, digest)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def shot_detector_identity(name_or_path: str | None) -> str:
    """A hash of AutoShot's weights and settings; those of the package by default, as in [`load_shot_detector`]."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update((find_autoshot(name_or_path) / name).read_bytes())
    return digest.hexdigest()


def _add(video, digest) -> None:
    if isinstance(video, (str, os.PathLike)):
        name = os.fspath(video)
        digest.update(f"\0{_file_identity(name)}".encode())
    elif isinstance(video, bytes):
        digest.update(f"\0bytes {len(video)}".encode() + video)
    elif isinstance(video, Image.Image):
        digest.update(f"\0{video.mode} {video.size}".encode() + video.tobytes())
    elif isinstance(video, (np.ndarray, torch.Tensor)):
        array = np.ascontiguousarray(video)
        digest.update(f"\0{array.dtype} {array.shape}".encode() + array.tobytes())
    elif isinstance(video, (list, tuple)):
        digest.update(f"\0{len(video)} frames".encode())
        for frame in video:
            _add(frame, digest)
    else:
        raise TypeError(
            f"A video was given as {type(video).__name__}, whose content cannot be told; give a path, URL, bytes, "
            "array, tensor or frames."
        )


def _file_identity(name: str) -> str:
    if name.lower().startswith(("http://", "https://", "data:")):
        return name
    try:
        status = os.stat(name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoReadError(f"Cannot read a video from {describe_source(name)}: {reason}.") from error
    return f"{os.path.realpath(name)} {status.st_size} {status.st_mtime_ns}"


__all__ = ["shot_detector_identity", "video_identity"]
