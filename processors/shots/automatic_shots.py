"""The rule of `shot_detection="auto"`: shots are looked for where nobody waits long for them."""

import torch
from av.video.stream import VideoStream

from linvt.processors.video.source_files import SourceFile
from linvt.processors.video.video_container import open_video
from linvt.processors.video.video_timeline import stated_seconds


CPU_FRAMES = 2000
"""Most frames for a CPU: 80 seconds of film. Two cores without bfloat16 see 150 frames a second and decode 2000."""

ACCELERATOR_FRAMES = 100_000
"""Most frames for any other device, where decoding remains: an hour of film in about a minute."""


def looks_for_shots(file: SourceFile, device: str | int | torch.device | None) -> bool:
    """
    Tells whether a video is short enough for AutoShot on a device, by the length that its file states.

    Args:
        file ([`SourceFile`]): A video that can be read again.
        device (`str`, `int` or `torch.device`, *optional*): Where AutoShot would run, by default the CPU.

    Raises:
        [`VideoReadError`]: If it is not a video.
    """
    with open_video(file.content, file.name) as (_, stream):  # type: ignore[arg-type]  # not a URL, which is read once
        num_frames = stated_frames(stream)
    return num_frames is not None and num_frames <= most_frames(device)


def most_frames(device: str | int | torch.device | None) -> int:
    """Returns the number of frames up to which shots are looked for."""
    return CPU_FRAMES if device is None or torch.device(device).type == "cpu" else ACCELERATOR_FRAMES


def stated_frames(stream: VideoStream) -> int | None:
    """Returns how many frames a file says that it has, or its duration and rate do; `None` if it says neither."""
    if stream.frames > 0:
        return stream.frames
    seconds = stated_seconds(stream)
    if seconds == 0 and stream.container.duration is not None:
        seconds = stream.container.duration / 1e6  # the longest of all streams
    rate = stream.average_rate or stream.guessed_rate
    return round(seconds * rate) if seconds > 0 and rate else None


__all__ = ["ACCELERATOR_FRAMES", "CPU_FRAMES", "looks_for_shots", "most_frames", "stated_frames"]
