"""Reads a video as a stream: in one pass and bounded memory, each frame as soon as it is certain, files and live ones.

`read_video` picks frames when it knows the whole video. Here the frames are those on a grid in time, which depends
neither on the length of the video nor on where reading begins, so that parts of a video give together what the whole
gives.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Real
from typing import Any

import av
import numpy as np
import torch

from linvt.processors.video.frame_selection import check_sampling
from linvt.processors.video.live_source import LiveSource, resolve_live
from linvt.processors.video.source_files import SourceFile
from linvt.processors.video.timed_frames import ShownFrame, TimedFrames, open_timed_frames
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_sources import resolve_video_file


STALL_SECONDS = 30.0
"""For how long a live source may give nothing. (The segments of an HLS stream come every 6 to 10 seconds.)"""

MAX_DELAY_FRAMES = 2048
"""Frames by which a shot detector may lag behind: picked pictures wait for it in memory."""

# A fps or a second as a `float` means the fraction near it: 0.1 is 1/10, 29.97002997 is 30000/1001.
_MAX_DENOMINATOR = 10**6

Transform = Callable[[torch.Tensor], torch.Tensor]
ShotStartDetector = Callable[[Iterator[np.ndarray]], Iterable[bool]]


@dataclass(frozen=True, eq=False)
class StreamedFrame:
    """
    A frame picked from a stream.

    Args:
        picture (`torch.Tensor` of shape `(3, height, width)`): uint8 RGB as displayed, or what the transform
            made of it.
        seconds (`float`): When it is shown, from the first frame of the video.
        shot_id (`int`): Number of its shot, ascending, 0 where reading began.
        index (`int`): Number of the frame among all frames of the video that can be decoded, from 0.
    """

    picture: torch.Tensor
    seconds: float
    shot_id: int
    index: int


def iter_video(
    source: Any,
    *,
    fps: float,
    transform: Transform | None = None,
    detect_shot_starts: ShotStartDetector | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    stall_seconds: float = STALL_SECONDS,
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[StreamedFrame]:
    """
    Reads a video in one pass and yields the frames that are shown at the times k / fps, k = 0, 1, ..., each as soon
    as it is certain: when the next frame is there and, with a shot detector, its shot is known.

    The grid counts from the first frame of the video, whatever the length of the video and of its shots, and wherever
    reading begins. A frame that is shown at several times of the grid is given once, for the first of them, so that
    reading `[0, a)` and `[a, end)` gives together exactly the frames of reading all. (`read_video` instead takes
    the middles of equal segments, and spreads their number over the shots, for which it has to know them all.)

    Times come from the timestamps, as in `read_video`. Where timestamps begin anew, as after a reconnection, the clock
    goes on and a warning says so. A damaged video gives the frames that decode, those that come out of order left
    out, and a warning at the end says how many are lost. Memory does not depend on the length of the video.

    Args:
        source:
            A video file in any form that [`resolve_video`] knows, or a [`LiveSource`], which is read as it comes. So
            is, without being called one, what cannot be read otherwise: a named pipe, a file object that cannot be
            sought in, a URL of a streaming protocol (`rtsp://...`). An http(s) URL is downloaded first and a file
            ends where it ends now, unless they stand in a `LiveSource`.
        fps (`float`):
            Times per second at which a frame is picked; a video with fewer frames gives all of them.
        transform (`Callable`, *optional*):
            Gets each picked frame as an upright uint8 RGB tensor of shape `(3, height, width)` and returns the one
            that is given.
        detect_shot_starts (`Callable`, *optional*):
            Gets an iterator over *all* frames in presentation order as upright uint8 RGB arrays of shape
            `(27, 48, 3)`, and gives one `bool` per frame, in order, each as soon as it is certain: whether a shot
            begins at it. By default all is one shot.
        start_seconds, end_seconds (`float`, *optional*):
            Only frames for times of the grid in `[start_seconds, end_seconds)`. The detector sees the frames shown in
            it. A file is sought in where that is exact.
        stall_seconds (`float`, *optional*, defaults to 30):
            For how long a live source may give nothing; then it counts as ended, and a warning says so. `math.inf`
            waits for ever. It cannot be told of file objects without a file descriptor.
        on_progress (`Callable[[float], None]`, *optional*):
            Called with the fraction of the time read, ascending, at last with 1. Not called before the end where
            the length is unknown.

    Yields:
        [`StreamedFrame`]: in the order of time. An endless source ends when nobody asks for more.

    Raises:
        [`VideoReadError`]: if the source is missing, or not a video, if no frame of it can be decoded, or if it ends
            before `start_seconds`. A live source that fails later ends with a warning: frames seen are frames seen.
        `ValueError`: if a setting does not fit, or the detector gives more or fewer answers than there are frames.
        `TypeError`: if the source is of another type.
    """
    if fps is None:
        raise ValueError("fps is None; a stream has no number of frames to take all of, so give how many per second.")
    check_sampling(None, fps)
    start = _checked_seconds("start_seconds", 0 if start_seconds is None else start_seconds)
    end = None if end_seconds is None else _checked_seconds("end_seconds", end_seconds)
    if end is not None and end <= start:
        raise ValueError(f"end_seconds is {end_seconds}, expected more than start_seconds, {start_seconds or 0}.")
    if not stall_seconds > 0:
        raise ValueError(f"stall_seconds is {stall_seconds}, expected a number above 0.")
    resolved = resolve_live(source) or resolve_video_file(source)
    part = _Part(_near_fraction(fps), start, end)
    return _stream(resolved, part, transform, detect_shot_starts, stall_seconds, on_progress)


@dataclass(frozen=True)
class _Part:
    """Which frames are picked: the fields are the arguments of [`iter_video`] as fractions."""

    fps: Fraction
    start: Fraction
    end: Fraction | None

    def frames(self, video: TimedFrames, on_progress: Callable[[float], None] | None) -> Iterator[ShownFrame]:
        """Yields the frames of the video that are shown in this part."""
        end = self.end
        if video.container.duration is not None:
            stated = Fraction(video.container.duration, av.time_base)
            end = stated if end is None else min(end, stated)
        num_frames = 0
        for frame in video:
            if self.end is not None and frame.seconds >= self.end:
                return
            if frame.next_seconds <= self.start:
                continue
            num_frames += 1
            yield frame
            if on_progress is not None and end is not None and self.start < frame.next_seconds < end:
                on_progress(float((frame.next_seconds - self.start) / (end - self.start)))
        if num_frames == 0:
            seconds = float(video.end_seconds)
            raise VideoReadError(
                f"{video.name} ends after {seconds:.1f} s, before start_seconds={float(self.start):g}."
            )

    def picks(self, frame: ShownFrame) -> bool:
        """Tells whether the first time of the grid since the frame began lies in this part, and the frame lasts."""
        time = math.ceil(frame.seconds * self.fps) / self.fps
        return self.start <= time < frame.next_seconds and (self.end is None or time < self.end)


def _stream(
    source: SourceFile | LiveSource,
    part: _Part,
    transform: Transform | None,
    detect_shot_starts: ShotStartDetector | None,
    stall_seconds: float,
    on_progress: Callable[[float], None] | None,
) -> Iterator[StreamedFrame]:
    with open_timed_frames(source, part.start, stall_seconds) as video:

        def picked(frame: ShownFrame) -> StreamedFrame | None:
            if not part.picks(frame):
                return None
            picture = video.pictures.displayed(frame.frame)
            if transform is not None:
                picture = transform(picture)
            return StreamedFrame(picture, float(frame.seconds), 0, frame.index)

        frames = part.frames(video, on_progress)
        streamed: Iterator[StreamedFrame | None] = map(picked, frames)
        if detect_shot_starts is not None:
            streamed = _with_shots(frames, picked, video, detect_shot_starts)
        yield from (frame for frame in streamed if frame is not None)
    if on_progress is not None:
        on_progress(1.0)


def _with_shots(
    frames: Iterator[ShownFrame],
    picked: Callable[[ShownFrame], StreamedFrame | None],
    video: TimedFrames,
    detect_shot_starts: ShotStartDetector,
) -> Iterator[StreamedFrame | None]:
    """Lets the detector look at all frames, and yields what is picked of them as its answers come."""
    waiting: deque[StreamedFrame | None] = deque()

    def thumbnails() -> Iterator[np.ndarray]:
        for frame in frames:
            if len(waiting) == MAX_DELAY_FRAMES:
                raise ValueError(
                    f"detect_shot_starts has not answered for {MAX_DELAY_FRAMES} frames; it has to answer while it "
                    "sees the video, not at its end."
                )
            waiting.append(picked(frame))
            yield video.pictures.thumbnail(frame.frame)

    shot_id = 0
    seen = thumbnails()
    for number, is_start in enumerate(detect_shot_starts(seen)):
        if not waiting:
            raise ValueError(f"detect_shot_starts gave more than {number} answers for {number} frames.")
        shot_id += bool(is_start) and number > 0
        frame = waiting.popleft()
        yield None if frame is None else replace(frame, shot_id=shot_id)
    if waiting or next(seen, None) is not None:
        raise ValueError("detect_shot_starts gave fewer answers than it was given frames.")


def _near_fraction(number: float) -> Fraction:
    return Fraction(number).limit_denominator(_MAX_DENOMINATOR) or Fraction(number)


def _checked_seconds(name: str, seconds: float) -> Fraction:
    if not (isinstance(seconds, Real) and 0 <= seconds < math.inf):
        raise ValueError(f"{name} is {seconds!r}, expected a number of seconds, 0 or more.")
    return _near_fraction(seconds)


__all__ = ["LiveSource", "ShotStartDetector", "StreamedFrame", "iter_video"]
