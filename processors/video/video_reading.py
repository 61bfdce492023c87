"""Reading frames of a video file at exact places, with exact times, in bounded memory.

Where every frame has to be decoded anyway, to find the shots, the frames that may be picked are held, so that one
pass is enough (`HeldFrames`); what could not be held, or was never decoded, is sought and decoded in a second visit.
Only picked frames are kept, at the size that the caller's transform gives them: memory does not grow with the length
of the video (but for its list of timestamps).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from linvt.processors.video.frame_selection import check_sampling, num_frames_wanted, shot_frame_indices
from linvt.processors.video.held_frames import HeldFrames
from linvt.processors.video.sampled_video import SampledVideo
from linvt.processors.video.source_files import rereadable
from linvt.processors.video.video_container import VideoReadError, open_video, undecodable
from linvt.processors.video.video_damage import warn_about_damage
from linvt.processors.video.video_packets import PacketLog, UnreliableVideoError, decode_frames, read_packets
from linvt.processors.video.video_pictures import FramePictures
from linvt.processors.video.video_sources import resolve_video_file
from linvt.processors.video.video_timeline import Timeline, fetch_frames, make_timeline, timeline_of_packets


# Share of the progress that finding the shots takes; the rest is decoding the picked frames.
_SHOTS_SHARE = 0.8

ShotDetector = Callable[[Iterator[np.ndarray]], Iterable[tuple[int, int]]]
Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Contents:
    """What one pass found in a video."""

    timeline: Timeline
    shots: list[tuple[int, int]]
    held: HeldFrames
    sample_aspect_ratio: Fraction | None


@dataclass(frozen=True)
class _Strategy:
    """How to read a video."""

    decode_all: bool  # know the frames from decoding all of them, or from the packets
    strict: bool  # refuse anything doubtful, or take what decodes
    num_threads: int  # of the decoder, 0 for one per core


# Tried in this order until one is sure of its frames. What several threads make of damaged data is not repeatable,
# so the last strategy has one.
_STRATEGIES = (
    _Strategy(decode_all=False, strict=True, num_threads=0),
    _Strategy(decode_all=True, strict=True, num_threads=0),
    _Strategy(decode_all=True, strict=False, num_threads=1),
)


def read_video(
    source: Any,
    num_frames: int | None = None,
    *,
    fps: float | None = None,
    transform: Transform | None = None,
    detect_shots: ShotDetector | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> SampledVideo:
    """
    Reads frames of a video, spread over its shots and evenly inside each shot.

    Times come from the timestamps in the file, never from a frame rate. (For streams without usable timestamps, such
    as raw H.264, the stated frame rate is used and a warning says so.) A damaged file gives the frames that decode,
    and a warning says how many were lost.

    Args:
        source:
            A video file in any form that [`resolve_video`] knows: a path, a URL, a data URI, bytes, a file opened in
            binary mode, which is left open. Frames are read by [`read_given_frames`].
        num_frames (`int`, *optional*):
            Number of frames to pick, at least 1. A shorter video gives all its frames.
        fps (`float`, *optional*):
            Frames to pick per second of video, used if `num_frames` is not given; at least one frame is picked.
            Without both, all frames are kept.
        transform (`Callable`, *optional*):
            Gets each picked frame as an upright uint8 RGB tensor of shape `(3, height, width)` and returns the tensor
            that is kept, of the same shape for all frames. By default the frames are kept as they are.
        detect_shots (`Callable`, *optional*):
            Gets an iterator over *all* frames in presentation order as upright uint8 RGB arrays of shape
            `(27, 48, 3)`, and gives the shots as ascending half-open frame ranges `[start, end)`: all at the end, or
            each as soon as it is known, which needs less memory. It is called a second time, from the first frame, if
            the file turns out to be damaged. By default the video is one shot, and only what is needed for the picked
            frames is decoded.
        on_progress (`Callable[[float], None]`, *optional*):
            Called with the finished fraction of the work, ascending, at last with 1.

    Returns:
        [`SampledVideo`]

    Raises:
        [`VideoReadError`]: if the source is missing, or not a video, or no frame of it can be decoded.
        `ValueError`: if `num_frames` is below 1 or `fps` not above 0, if `detect_shots` gives ranges that are not
            in the video, or if `transform` returns tensors of several shapes.
        `TypeError`: if the source is of another type.
    """
    check_sampling(num_frames, fps)
    file = resolve_video_file(source)
    name = file.name
    progress = _Progress(on_progress)
    with ExitStack() as stack:
        try:
            source = stack.enter_context(rereadable(file))
        except OSError as error:
            raise VideoReadError(f"Cannot read a video from {name}: {error}.") from error
        for strategy in _STRATEGIES:
            if detect_shots is not None and not strategy.decode_all:
                continue
            try:
                contents = _find_frames(source, name, num_frames, detect_shots, progress, strategy)
                timeline, shots = contents.timeline, contents.shots
                num_wanted = num_frames_wanted(len(timeline), timeline.seconds(len(timeline)), num_frames, fps)
                indices = shot_frame_indices(shots, num_wanted)
                frames, pictures = _keep_frames(source, name, contents, indices, transform, progress, strategy)
                break
            except UnreliableVideoError:
                continue
        else:
            raise VideoReadError(f"Cannot read a video from {name}: it decodes differently each time. Does it change?")
    progress.report(1.0)
    warn_about_damage(
        name,
        num_frames=len(timeline),
        num_lost_frames=timeline.num_lost_frames,
        end_seconds=timeline.seconds(len(timeline)),
        stated_seconds=timeline.stated_seconds,
        stated_fps=None if timeline.has_usable_timestamps else 1 / timeline.time_base,
    )

    shot_starts = [start for start, _ in shots]
    duration_seconds = timeline.seconds(len(timeline))
    return SampledVideo(
        frames=frames,
        frame_indices=indices,
        frame_seconds=[timeline.seconds(index) for index in indices],
        shot_ids=[bisect_right(shot_starts, index) - 1 for index in indices],
        shots_frames=shots,
        shots_seconds=[(timeline.seconds(start), timeline.seconds(end)) for start, end in shots],
        total_num_frames=len(timeline),
        duration_seconds=duration_seconds,
        fps=len(timeline) / duration_seconds,
        width=pictures.width,
        height=pictures.height,
        num_lost_frames=timeline.num_lost_frames,
        looked_for_shots=detect_shots is not None,
    )


def _find_frames(
    source: Path | bytes | BinaryIO,
    name: str,
    num_frames: int | None,
    detect_shots: ShotDetector | None,
    progress: "_Progress",
    strategy: _Strategy,
) -> _Contents:
    """The first pass: which frames there are, and in which shots."""
    held = HeldFrames(num_frames)
    with open_video(source, name, strategy.num_threads) as (container, stream):
        shots = None
        if strategy.decode_all:
            timeline, shots = _decode_all(container, stream, name, held, detect_shots, progress, strategy)
        else:
            timeline = timeline_of_packets(container, stream)
        if len(timeline) == 0:
            raise undecodable(container, stream, name)
        sample_aspect_ratio = stream.sample_aspect_ratio
    if shots is None:
        shots = [(0, len(timeline))]
    elif not shots or shots[-1][1] > len(timeline):
        raise ValueError(f"detect_shots returned {shots}, expected ranges of the video's {len(timeline)} frames.")
    if timeline.decoded_numbers is not None:
        held.clear()  # they were numbered as they came
    return _Contents(timeline, shots, held, sample_aspect_ratio)


def _decode_all(
    container: InputContainer,
    stream: VideoStream,
    name: str,
    held: HeldFrames,
    detect_shots: ShotDetector | None,
    progress: "_Progress",
    strategy: _Strategy,
) -> tuple[Timeline, list[tuple[int, int]] | None]:
    """Decodes every frame once, for its timestamp, for the shot detector, and to be held if it may be picked."""
    log = PacketLog()
    timestamps = []

    def packets() -> Iterator[Packet]:
        for packet in read_packets(container, stream, log, strict=strategy.strict):
            if packet.pos is not None and container.size > 0:
                progress.report(_SHOTS_SHARE * packet.pos / container.size)
            yield packet

    def frames() -> Iterator[VideoFrame]:
        for frame in decode_frames(stream, packets(), strict=strategy.strict):
            timestamps.append(frame.pts)
            held.add(frame)
            yield frame

    remaining = frames()
    first = next(remaining, None)
    shots = None
    if detect_shots is not None and first is not None:
        pictures, shots = FramePictures(name, stream.sample_aspect_ratio), []
        for shot in detect_shots(pictures.thumbnail(frame) for frame in chain([first], remaining)):
            shots.append(shot)
            held.end_shot(*shot)
    for _ in remaining:  # all of them without a detector, and what a detector left
        pass
    return make_timeline(timestamps, stream, log, strict=strategy.strict), shots


def _keep_frames(
    source: Path | bytes | BinaryIO,
    name: str,
    contents: _Contents,
    indices: list[int],
    transform: Transform | None,
    progress: "_Progress",
    strategy: _Strategy,
) -> tuple[torch.Tensor, FramePictures]:
    """The picked frames, each transformed as soon as it is there."""
    place = {index: i for i, index in enumerate(indices)}
    share_done = _SHOTS_SHARE if strategy.decode_all else 0.0
    kept = None
    pictures = FramePictures(name, contents.sample_aspect_ratio)
    missing = contents.held.missing(indices)
    frames = merge(
        contents.held.take(indices), _visit(source, name, contents.timeline, missing, strategy), key=itemgetter(0)
    )
    for num_done, (index, frame) in enumerate(frames, start=1):
        picture = pictures.displayed(frame)
        if transform is not None:
            picture = transform(picture)
        if kept is None:
            kept = picture.new_empty((len(indices), *picture.shape))
        elif picture.shape != kept.shape[1:]:
            raise ValueError(
                f"transform returned shapes {tuple(kept.shape[1:])} and {tuple(picture.shape)} for frames of one "
                "video, expected the same shape for all."
            )
        kept[place[index]] = picture
        progress.report(share_done + (1 - share_done) * num_done / len(indices))
    return kept, pictures


def _visit(
    source: Path | bytes | BinaryIO, name: str, timeline: Timeline, indices: list[int], strategy: _Strategy
) -> Iterator[tuple[int, VideoFrame]]:
    """Opens the video once more for some of its frames, if any are wanted."""
    if indices:
        with open_video(source, name, strategy.num_threads) as (container, stream):
            yield from fetch_frames(container, stream, timeline, indices, strict=strategy.strict)


class _Progress:
    """Reports a fraction that never goes back, whatever strategy is tried next."""

    def __init__(self, on_progress: Callable[[float], None] | None):
        self.on_progress = on_progress
        self.fraction = 0.0

    def report(self, fraction: float) -> None:
        if self.on_progress is not None and fraction > self.fraction:
            self.fraction = fraction
            self.on_progress(fraction)
