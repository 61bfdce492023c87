"""Resolves every form of a video, in one place: to a file that FFmpeg reads, to frames in order, or to a memory.

The reader of videos, the check of training rows and the keys of caches all call `resolve_video`, so that none of them
accepts a form that another one refuses.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from transformers.video_utils import is_valid_video_frame

from linvt.processors.video.live_source import LiveSource
from linvt.processors.video.source_files import SourceFile, describe_source, resolve_file
from linvt.processors.video.video_container import VideoReadError
from linvt.video_tokenizer.video_memory import MEMORY_SUFFIX, VideoMemory


SourceFrame: TypeAlias = Image.Image | np.ndarray | torch.Tensor | SourceFile

_PICTURE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, eq=False)
class SourceFrames:
    """
    A video as its frames in order.

    Args:
        frames (`list`): At least one, each a `PIL.Image.Image`, a uint8 array or tensor of shape `(height, width, 3)`
            or `(3, height, width)`, or the [`SourceFile`] of a picture.
        name (`str`): The name of the video in errors and warnings; never long.
    """

    frames: list[SourceFrame] = field(repr=False)
    name: str


def resolve_video(video: Any) -> SourceFile | SourceFrames | VideoMemory:
    """
    Resolves a video in any form to a file or to frames, without opening it. Of a folder the names are read, and a
    memory is loaded.

    Args:
        video: One of

            - a video file in any form that [`resolve_file`] knows: a path, a URL (`http://`, `https://`, `file://`), a
              data URI, bytes, an open binary file, `{"path": ..., "bytes": ...}` as data sets have it
            - a uint8 array or tensor of shape `(frames, height, width, 3)` or `(frames, 3, height, width)`
            - a list of frames: pictures, arrays, tensors, or files of pictures in any of those forms
            - a folder of pictures, whose frames are its files in natural order (`2.png` before `10.png`)
            - a [`VideoMemory`], or the local file of one, whose name ends in `.memory.safetensors`

    Raises:
        [`VideoReadError`]: if it cannot be a video: an empty list, frames of several shapes, an unknown kind of URL.
        `TypeError`: if it is of another type.
    """
    if isinstance(video, (SourceFile, SourceFrames, VideoMemory)):
        return video
    if isinstance(video, LiveSource):
        raise VideoReadError(
            f"Cannot read a video from {video.name} as a whole: it is a LiveSource; iter_video reads it as it comes."
        )
    video = _names_as_list(video)
    if isinstance(video, (np.ndarray, torch.Tensor)):
        if video.ndim != 4:
            raise VideoReadError(
                f"A video was given as an array of shape {tuple(video.shape)}; expected (frames, height, width, 3) or "
                "(frames, 3, height, width). Several videos are a list, or go each into a part of its own."
            )
        return _source_frames(list(video), describe_source(video))
    if isinstance(video, (list, tuple)):
        return _source_frames(video, describe_source(video))
    file = resolve_file(video)
    if file is None:
        raise TypeError(
            f"A video was given as {type(video).__name__}; give a path, a URL, a data URI, bytes, a binary file, an "
            "array or tensor of frames, a list of frames, a folder of pictures, or {'path': ..., 'bytes': ...}."
        )
    content = file.content
    if os.fspath(content if isinstance(content, (str, Path)) else "").endswith(MEMORY_SUFFIX):
        return _load_memory(file)
    if isinstance(content, Path) and content.is_dir():
        return _source_frames(_pictures_of_folder(file), file.name)
    return file


def resolve_video_file(video: Any) -> SourceFile:
    """
    Resolves a video file in any form, without opening it.

    Args:
        video: As in [`resolve_video`].

    Raises:
        [`VideoReadError`]: if it is no file, but pictures or a memory, or as [`resolve_video`] does.
    """
    resolved = resolve_video(video)
    if isinstance(resolved, SourceFile):
        return resolved
    found = "these are pictures" if isinstance(resolved, SourceFrames) else "this is the memory of one"
    raise VideoReadError(
        f"Cannot read a video from {resolved.name}: {found}, expected a video file. Give it to the processor as a "
        "video, as it is."
    )


def _load_memory(file: SourceFile) -> VideoMemory:
    if file.is_url:
        raise VideoReadError(
            f"A memory of a video is read from local files alone; download {file.name} and give its path."
        )
    try:
        return VideoMemory.load(file.content)  # type: ignore[arg-type]  # a path
    except (ValueError, OSError) as error:
        raise VideoReadError(str(error)) from error


def flatten_videos(videos: Any) -> list:
    """
    Returns a flat list of single videos from one video, from several (a list of them, an array or tensor of 5
    dimensions, an array of names), or from a list of such lists, one per prompt.
    """
    videos = _names_as_list(videos)
    if isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)) or (videos and all(map(is_valid_video_frame, videos))):
        return [videos]
    if not any(map(_is_prompt, videos)):
        return list(videos)
    # Beside the videos of a prompt, an empty list is a prompt without any.
    return [video for item in videos for video in (item if _is_prompt(item) or _is_empty(item) else [item])]


def _is_prompt(item: Any) -> bool:
    """
    Tells whether a list in a list holds the videos of a prompt, and is not itself a video given as pictures. (Names of
    pictures look like several videos, so a video given by them has to stand in such a list.)
    """
    return isinstance(item, (list, tuple)) and not all(map(is_valid_video_frame, item))


def _is_empty(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and not item


def _names_as_list(value: Any) -> Any:
    """An array of names or objects, as pandas and data sets give a column, as the list that it stands for."""
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind in "OSU" else value


def _source_frames(frames: list | tuple, name: str) -> SourceFrames:
    if not frames:
        raise VideoReadError("A video without frames was given; a video needs at least one frame.")
    frames = [_source_frame(frame, place) for place, frame in enumerate(frames)]
    sizes = {picture_size(frame) for frame in frames if not isinstance(frame, SourceFile)}
    if len(sizes) > 1:
        raise VideoReadError(f"The frames of a video have different shapes (height, width): {sorted(sizes)}.")
    return SourceFrames(frames, name)


def _source_frame(frame: Any, place: int) -> SourceFrame:
    if isinstance(frame, (np.ndarray, torch.Tensor)):
        is_uint8 = frame.dtype in (np.uint8, torch.uint8)
        if frame.ndim != 3 or not is_uint8 or 3 not in (frame.shape[0], frame.shape[-1]):
            hint = ""
            if frame.ndim == 4:
                hint = " Give the metadata that load_video returns beside a video as video_metadata=."
            raise VideoReadError(
                f"Frame {place} of a video has shape {tuple(frame.shape)} and dtype {frame.dtype}; expected uint8 of "
                f"shape (height, width, 3) or (3, height, width).{hint}"
            )
        return frame
    if isinstance(frame, (Image.Image, SourceFile)):
        return frame
    file = resolve_file(frame)
    if file is None:
        raise TypeError(
            f"Frame {place} of a video was given as {type(frame).__name__}; give a picture, an array, a tensor, or "
            "the path, URL, data URI or bytes of a picture."
        )
    return file


def picture_size(picture: Image.Image | np.ndarray | torch.Tensor) -> tuple[int, int]:
    """Returns the height and width in pixels of a frame that is not a file."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return tuple(picture.shape[1:] if picture.shape[0] == 3 else picture.shape[:2])


def _pictures_of_folder(folder: SourceFile) -> list[SourceFile]:
    """The pictures of a folder in natural order, without hidden files, which systems leave in folders."""
    try:
        paths = sorted(folder.content.iterdir(), key=lambda path: _natural_order(path.name))
    except OSError as error:
        raise VideoReadError(f"Cannot read a video from {folder.name}: {error.strerror}.") from error
    paths = [path for path in paths if not path.name.startswith(".")]
    odd = [path.name for path in paths if path.suffix.lower() not in _PICTURE_SUFFIXES or not path.is_file()]
    if odd or not paths:
        found = ", ".join(map(describe_source, odd[:3])) + (f" and {len(odd) - 3} more" if odd[3:] else "")
        raise VideoReadError(
            f"Cannot read a video from {folder.name}: it is a directory with {found or 'no files'}; expected a file, "
            f"or a folder of pictures alone ({', '.join(sorted(_PICTURE_SUFFIXES))})."
        )
    return [SourceFile(path, describe_source(path)) for path in paths]


def _natural_order(name: str) -> list[tuple[bool, int | str]]:
    """A key that sorts numbers by their value, wherever they stand in a name."""
    parts = re.split(r"([0-9]+)", name)  # texts and numbers in turns, beginning with a text
    return [(place % 2 == 1, int(part) if place % 2 else part) for place, part in enumerate(parts)]


__all__ = ["SourceFrame", "SourceFrames", "flatten_videos", "picture_size", "resolve_video", "resolve_video_file"]
