"""The windows in which AutoShot sees a video, as published: overlapping, of which only the middle counts."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
import torch

from linvt.configuration.configuration_autoshot import AutoShotConfig


Frames: TypeAlias = torch.Tensor | np.ndarray | Iterable[torch.Tensor | np.ndarray]


def iter_windows(frames: Frames, config: AutoShotConfig) -> Iterator[tuple[torch.Tensor, int]]:
    """
    Args:
        frames (`torch.Tensor`, `np.ndarray` or an iterable of either):
            All frames of a video in order, uint8 RGB: one array of shape `(num_frames, frame_height, frame_width, 3)`
            or an iterable of frames of shape `(frame_height, frame_width, 3)`.
        config ([`AutoShotConfig`]):
            Says how long the windows are and how much of each counts. Copies of the first and of the last frame stand
            in for what lies outside the video.

    Yields:
        A window of shape `(window_frames, frame_height, frame_width, 3)`, and how many of the frames that count in it
        are frames of the video: `kept_frames`, in the last window perhaps fewer.

    Raises:
        `ValueError`: If there is no frame, or a frame has another shape or dtype.
    """
    size, kept, context = config.window_frames, config.kept_frames, config.context_frames
    window = []
    num_frames = 0
    for frame in _checked(frames, (config.frame_height, config.frame_width, 3)):
        if num_frames == 0:
            window = [frame] * context
        window.append(frame)
        num_frames += 1
        if len(window) == size:
            yield torch.stack(window), kept
            del window[:kept]
    if num_frames == 0:
        raise ValueError("The video has no frames; at least one is needed to find shots.")
    num_left = len(window) - context  # frames of the video that have not counted yet
    for _ in range(-num_frames % kept + context):
        window.append(window[-1])
        if len(window) == size:
            yield torch.stack(window), min(kept, num_left)
            num_left -= kept
            del window[:kept]


def check_frames(frames: torch.Tensor | np.ndarray, shape: tuple[str | int, ...]) -> None:
    """
    Args:
        shape (`tuple[str | int, ...]`): What is expected; a name stands for any number.

    Raises:
        `ValueError`: If `frames` has another shape, or is not uint8.
    """
    fits = len(frames.shape) == len(shape) and all(
        isinstance(wanted, str) or wanted == got for wanted, got in zip(shape, frames.shape, strict=True)
    )
    if not fits or frames.dtype != (torch.uint8 if isinstance(frames, torch.Tensor) else np.uint8):
        raise ValueError(
            f"Expected uint8 RGB frames in 0..255 of shape ({', '.join(map(str, shape))}), height before width, "
            f"but got shape {tuple(frames.shape)} and dtype {frames.dtype}."
        )


def _checked(frames: Frames, size: tuple[int, int, int]) -> Iterator[torch.Tensor]:
    if isinstance(frames, (torch.Tensor, np.ndarray)):
        check_frames(frames, ("frames", *size))
    for frame in frames:
        if not isinstance(frame, (torch.Tensor, np.ndarray)):
            raise ValueError(f"A frame must be a torch.Tensor or a np.ndarray, got {type(frame).__name__}.")
        check_frames(frame, size)
        # A copy, because whoever yields frames may use the same memory for the next one.
        yield frame.clone() if isinstance(frame, torch.Tensor) else torch.from_numpy(frame.copy())


__all__ = ["check_frames", "iter_windows"]
