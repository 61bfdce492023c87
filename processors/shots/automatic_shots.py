"""The rule of `shot_detection="auto"`: shots are looked for where nobody waits long for them."""

from typing import Any, Literal

import torch
from av.video.stream import VideoStream
from transformers.utils import logging

from linvt.processors.video.live_source import resolve_live
from linvt.processors.video.source_files import SourceFile
from linvt.processors.video.video_container import open_video
from linvt.processors.video.video_sources import resolve_video
from linvt.processors.video.video_timeline import stated_seconds


logger = logging.get_logger(__name__)

CPU_FRAMES = 2000
"""Most frames for a CPU: 80 seconds of film, which two cores search in some seconds (docs/benchmarks)."""

ACCELERATOR_FRAMES = 100_000
"""Most frames for any other device, where decoding is what takes time: an hour of film."""


def choose_shot_detection(file: SourceFile, device: str | int | torch.device | None) -> Literal["autoshot", "uniform"]:
    """
    Chooses how a video is searched for shots by the length that its file states, and logs the choice.

    Args:
        file ([`SourceFile`]): A video that can be read again.
        device (`str`, `int` or `torch.device`, *optional*): Where AutoShot would run, by default the CPU.

    Returns:
        `str`: `"autoshot"`, or `"uniform"` for a video that is long or does not say how long it is.

    Raises:
        [`VideoReadError`]: If it is not a video.
    """
    on_cpu = is_cpu(device)
    most = CPU_FRAMES if on_cpu else ACCELERATOR_FRAMES
    with open_video(file.content, file.name) as (_, stream):  # type: ignore[arg-type]  # not a URL, which is read once
        num_frames = stated_frames(stream)
    found = "an unknown number of" if num_frames is None else f"{num_frames:,}"
    if num_frames is not None and num_frames <= most:
        logger.info(f"{file.name} has {found} frames: they are spread over its shots, which AutoShot finds.")
        return "autoshot"
    logger.info(f"{file.name} has {found} frames: they are spread over time.")
    # Without a name: in a training it would come with every video.
    logger.warning_once(
        f"Frames are evenly spaced over videos of more than {most:,} frames, or of unknown length: to find their shots"
        f"{' on the CPU' if on_cpu else ''} would take long. shot_detection='autoshot' looks for shots in all videos, "
        "'uniform' in none."
    )
    return "uniform"


def choose_stream_shot_detection(
    source: Any, device: str | int | torch.device | None
) -> Literal["autoshot", "uniform"]:
    """
    Chooses the same for a video that is read as a stream. A file that can be read only once, such as that of a URL, is
    not searched, since its length is not known; nor is a live source, whose frames would wait for AutoShot, which is
    sure of a frame some 100 frames later.

    Args:
        source: As [`iter_video`] takes it.
        device (`str`, `int` or `torch.device`, *optional*): Where AutoShot would run, by default the CPU.
    """
    if resolve_live(source) is not None:
        return "uniform"
    file = resolve_video(source)
    if isinstance(file, SourceFile) and file.can_be_reread:
        return choose_shot_detection(file, device)
    return "uniform"


def is_cpu(device: str | int | torch.device | None) -> bool:
    """Tells whether a device is the CPU, as it is by default."""
    return device is None or torch.device(device).type == "cpu"


def stated_frames(stream: VideoStream) -> int | None:
    """Returns how many frames a file says that it has, or its duration and rate do; `None` if it says neither."""
    if stream.frames > 0:
        return stream.frames
    seconds = stated_seconds(stream)
    if seconds == 0 and stream.container.duration is not None:
        seconds = stream.container.duration / 1e6  # the longest of all streams
    rate = stream.average_rate or stream.guessed_rate
    return round(seconds * rate) if seconds > 0 and rate else None


__all__ = [
    "ACCELERATOR_FRAMES",
    "CPU_FRAMES",
    "choose_shot_detection",
    "choose_stream_shot_detection",
    "is_cpu",
    "stated_frames",
]
