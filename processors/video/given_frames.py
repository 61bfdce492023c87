"""Reads a video that is given as its frames: arrays, tensors, pictures or files of pictures."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.utils import logging

from linvt.processors.video.frame_selection import check_sampling, num_frames_wanted, uniform_frame_indices
from linvt.processors.video.sampled_video import SampledVideo
from linvt.processors.video.source_files import SourceFile, rereadable
from linvt.processors.video.video_container import VideoReadError, open_binary
from linvt.processors.video.video_sources import SourceFrame, SourceFrames, picture_size


logger = logging.get_logger(__name__)


def read_given_frames(
    source: SourceFrames,
    num_frames: int | None = None,
    *,
    fps: float | None = None,
    metadata: Mapping | None = None,
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> SampledVideo:
    """
    Picks frames of a video, evenly over all of them, and reads those that are files. The video is one shot.

    Args:
        source ([`SourceFrames`]): As [`resolve_video`] gives it.
        num_frames (`int`, *optional*): Number of frames to pick; a shorter video gives all its frames.
        fps (`float`, *optional*): Frames to pick per second, used if `num_frames` is not given. Without both, all.
        metadata (`Mapping`, *optional*): As `transformers.video_utils.VideoMetadata`: `fps`, from which times come
            (else frames are taken as one second apart, with a warning), `frames_indices` if the frames are a sample
            of a longer video, and `total_num_frames`.
        transform (`Callable`, *optional*): Gets each picked frame as a uint8 RGB tensor of shape `(3, height, width)`
            and returns the one that is kept.

    Raises:
        [`VideoReadError`]: if a picked frame cannot be read, or has another shape than the others.
        `ValueError`: if `num_frames`, `fps` or `metadata` do not fit.
    """
    check_sampling(num_frames, fps)
    total = len(source.frames)
    metadata = dict(metadata or {})
    source_fps, source_indices = _times(metadata, total)
    # The frames may be a sample already, from a part of a longer video: count the time that they span.
    span_seconds = (max(source_indices) - min(source_indices) + 1) / source_fps
    picked = uniform_frame_indices(total, num_frames_wanted(total, span_seconds, num_frames, fps))

    frames, sizes = [], []
    for index in picked:
        frame = _frame_tensor(source.frames[index])
        sizes.append(tuple(frame.shape[1:]))
        if sizes[-1] != sizes[0]:  # before the transform, which would squash both to one size
            raise VideoReadError(
                f"The frames of a video have different shapes (height, width): {sizes[0]} and {sizes[-1]}."
            )
        frames.append(frame if transform is None else transform(frame))

    height, width = sizes[0]
    num_source_frames = max(source_indices) + 1
    return SampledVideo(
        frames=torch.stack(frames),
        frame_indices=[source_indices[index] for index in picked],
        frame_seconds=[source_indices[index] / source_fps for index in picked],
        shot_ids=[0] * len(picked),
        shots_frames=[(0, num_source_frames)],
        shots_seconds=[(0.0, num_source_frames / source_fps)],
        total_num_frames=int(metadata.get("total_num_frames") or total),
        duration_seconds=num_source_frames / source_fps,
        fps=float(source_fps),
        width=width,
        height=height,
        num_lost_frames=0,
    )


def check_given_frames(source: SourceFrames) -> None:
    """
    Opens the local pictures of a video without decoding them; a URL is not fetched.

    Raises:
        [`VideoReadError`]: if one is missing or is not a picture, or if they have several sizes.
    """
    sizes = set()
    for frame in source.frames:
        if not isinstance(frame, SourceFile):
            sizes.add(picture_size(frame))
        elif frame.can_be_reread:
            with _opened_picture(frame) as picture:
                sizes.add((picture.height, picture.width))
    # What stands on its side may be turned by EXIF data, which Pillow finds in a PNG file only by decoding it.
    if len({tuple(sorted(size)) for size in sizes}) > 1:
        raise VideoReadError(f"The frames of a video have different shapes (height, width): {sorted(sizes)}.")


def _times(metadata: Mapping, total: int) -> tuple[float, list[int]]:
    """The frame rate of the video that the frames are of, and their numbers in it."""
    fps, indices = metadata.get("fps"), metadata.get("frames_indices")
    if fps is not None and not fps > 0:
        raise ValueError(f"fps of video_metadata is {fps}, expected a number above 0.")
    if fps is None:
        logger.warning_once(
            "A video was given as frames without video_metadata, so their times are unknown; they are taken as one "
            "second apart. Give video_metadata={'fps': ..., 'total_num_frames': ...} for true times."
        )
    indices = list(range(total)) if indices is None else [int(index) for index in indices]
    if len(indices) != total:
        raise ValueError(f"A video of {total} frames came with {len(indices)} frames_indices; give one each.")
    return (1.0 if fps is None else fps), indices


def _frame_tensor(frame: SourceFrame) -> torch.Tensor:
    """A frame as uint8 RGB tensor of shape `(3, height, width)`."""
    if isinstance(frame, SourceFile):
        with _opened_picture(frame) as picture:
            frame = ImageOps.exif_transpose(picture).convert("RGB")
    if isinstance(frame, Image.Image):
        frame = np.asarray(frame.convert("RGB"))
    if isinstance(frame, np.ndarray):
        frame = torch.from_numpy(frame.copy())  # tensors cannot share memory that is read-only or runs backwards
    return frame if frame.shape[0] == 3 else frame.permute(2, 0, 1)


@contextmanager
def _opened_picture(file: SourceFile) -> Iterator[Image.Image]:
    """A picture that is not decoded yet; whatever goes wrong until it is let go is one clear error."""
    try:
        with ExitStack() as stack:
            content = stack.enter_context(rereadable(file))
            yield Image.open(stack.enter_context(open_binary(content)))
    except Exception as error:  # Pillow's decoders raise what they like
        reason = "it is not a picture" if isinstance(error, UnidentifiedImageError) else error
        raise VideoReadError(f"a frame of a video, {file.name}, cannot be read: {reason}") from error


__all__ = ["check_given_frames", "read_given_frames"]
