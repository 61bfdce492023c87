"""Content keys of videos, to find cached results and to invalidate them when a video changes."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from linvt.processors.shots.autoshot_files import find_autoshot
from linvt.processors.video.source_files import SourceFile
from linvt.processors.video.video_container import VideoReadError, describe_error
from linvt.processors.video.video_sources import SourceFrames, resolve_video
from linvt.video_tokenizer.video_memory import VideoMemory


def video_identity(video: Any) -> str:
    """
    Returns a hash of a video: of the path, size and time of change of a local file; of the content of bytes, data
    URIs, open files and frames; of a URL itself, so that changes on the server are not noticed.

    Args:
        video: In any form that [`resolve_video`] knows.

    Raises:
        [`VideoReadError`]: If there is no such file, or it can be read only once.
        `TypeError`: If the video is of another type, or a memory.
    """
    digest = hashlib.sha256()
    source = resolve_video(video)
    if isinstance(source, VideoMemory):
        raise TypeError(f"{source.name} is a memory of a video, which has no content of its own; give the video.")
    if isinstance(source, SourceFrames):
        digest.update(f"\0{len(source.frames)} frames".encode())
    for item in source.frames if isinstance(source, SourceFrames) else [source]:
        if isinstance(item, SourceFile):
            _add_file(item, digest)
        elif isinstance(item, Image.Image):
            digest.update(f"\0{item.mode} {item.size}".encode() + item.tobytes())
        else:
            array = np.ascontiguousarray(item)
            digest.update(f"\0{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def shot_detector_identity(name_or_path: str | None) -> str:
    """Returns a hash of AutoShot's weights and settings, by default those of the package ([`load_shot_detector`])."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update((find_autoshot(name_or_path) / name).read_bytes())
    return digest.hexdigest()


def _add_file(file: SourceFile, digest: Any) -> None:
    content = file.content
    if isinstance(content, str):  # a URL
        digest.update(f"\0{content}".encode())
    elif isinstance(content, bytes):
        digest.update(f"\0bytes {len(content)}".encode() + content)
    elif isinstance(content, Path):
        try:
            status = content.stat()
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise VideoReadError(f"Cannot read a video from {file.name}: {describe_error(error)}.") from error
        digest.update(f"\0{os.path.realpath(content)} {status.st_size} {status.st_mtime_ns}".encode())
    elif file.can_be_reread:
        num_bytes = content.seek(0, os.SEEK_END)
        content.seek(0)
        digest.update(f"\0bytes {num_bytes}".encode())
        while piece := content.read(2**20):
            digest.update(piece)
    else:
        raise VideoReadError(
            f"{file.name} can be read only once, so nothing can be kept for it; give a path or bytes."
        )


__all__ = ["shot_detector_identity", "video_identity"]
