"""All frames of a video in one pass, file or live: decoded one by one, with their times, tolerant of damage.

A stream cannot go back, as `read_video` does with its three strategies, each more tolerant than the one before. What
decodes is taken, times come from timestamps, and what was lost is reported at the end.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from transformers.utils import logging

from linvt.processors.video.live_source import LiveSource, LiveVideo, open_live
from linvt.processors.video.source_files import SourceFile, rereadable
from linvt.processors.video.video_container import VideoReadError, open_video, undecodable
from linvt.processors.video.video_damage import warn_about_damage
from linvt.processors.video.video_packets import (
    FORMATS_WITH_TIMES,
    MIN_FRAMES_TO_SEEK,
    PacketLog,
    UnreliableVideoError,
    decode_frames,
    frames_from_keyframe,
    read_packets,
)
from linvt.processors.video.video_pictures import FramePictures
from linvt.processors.video.video_timeline import frames_cut_off, stated_rate, stated_seconds


logger = logging.get_logger(__name__)

# A timestamp that goes back further than this begins a new clock; decoders and damaged files shuffle less.
_RESTART_SECONDS = 1


class _CountingLog(PacketLog):
    """Keeps counts where a log of a whole file keeps lists."""

    num_shown = 0

    def add(self, packet: Packet) -> None:
        super().add(packet)
        self.num_shown += len(self.timestamps)
        self.timestamps.clear()
        self.keyframes.clear()


@dataclass(frozen=True)
class ShownFrame:
    """
    A decoded frame and when it is shown.

    Args:
        index (`int`): Number among the frames that can be decoded, from 0.
        seconds (`Fraction`): Since the first frame.
        next_seconds (`Fraction`): When the next frame is shown, or the video ends.
        frame (`VideoFrame`): As it is stored.
    """

    index: int
    seconds: Fraction
    next_seconds: Fraction
    frame: VideoFrame


@dataclass
class _Keyframe:
    """The number of a keyframe, when it is shown and decoded, and when the first frame of the video is shown."""

    index: int
    pts: int
    dts: int
    first_pts: int


class TimedFrames:
    """
    Iterates once over an open video: over all frames in presentation order as [`ShownFrame`], each when the next one
    is there. At the end, and not where iteration stops before it, warnings say what happened to a live source and how
    much of a damaged file is lost.

    Args:
        name (`str`): Of the video.
        container (`InputContainer`), stream (`VideoStream`): Just opened.
        live ([`LiveVideo`], *optional*): If it is one.
    """

    def __init__(self, name: str, container: InputContainer, stream: VideoStream, live: LiveVideo | None = None):
        self.name, self.container, self.stream, self.live = name, container, stream, live
        self.num_frames = 0
        self.end_seconds = Fraction(0)
        self._log = _CountingLog()
        self._waited_seconds = 0.0
        packets = self._noting_waits(read_packets(container, stream, self._log, strict=False))
        self._decoded: Iterator[VideoFrame] = decode_frames(stream, packets, strict=False, log=self._log)
        self._stated_fps = stated_rate(stream)
        self._stores_times = container.format.name in FORMATS_WITH_TIMES
        self._has_timestamps = True
        self._num_late = 0
        self._last_seconds: Fraction | None = None
        self._offset: Fraction | None = None  # from timestamps to seconds since the first frame

    @cached_property
    def pictures(self) -> FramePictures:
        """
        Returns what turns frames into pictures, to be asked for when the first frame is there: that is when the shape
        of its pixels is known for sure.
        """
        return FramePictures(self.name, self.stream.sample_aspect_ratio)

    def seek(self, keyframe: _Keyframe) -> bool:
        """Begins at a keyframe instead; `False` if it is not found again, and then the video has to be opened anew."""
        try:
            frames = frames_from_keyframe(
                self.container, self.stream, keyframe.pts, keyframe.dts, self._log, strict=False
            )
        except UnreliableVideoError:
            return False
        first = next(frames, None)
        if first is None or first.pts != keyframe.pts:
            return False
        self._decoded = chain([first], frames)
        self.num_frames = keyframe.index
        self._log.num_packets += keyframe.index
        self._log.num_shown += keyframe.index
        self._offset = -keyframe.first_pts * self.stream.time_base
        return True

    def __iter__(self) -> Iterator[ShownFrame]:
        current = None
        for frame in self._decoded:
            seconds = self._next_seconds(frame.pts)
            if seconds is None:
                self._num_late += 1
                continue
            if current is not None:
                yield ShownFrame(self.num_frames - 1, current[0], seconds, current[1])
            current = seconds, frame
            self.num_frames += 1
            self._last_seconds = self.end_seconds = seconds
        if current is not None:
            self.end_seconds += self._last_duration(current[1].pts)
            yield ShownFrame(self.num_frames - 1, current[0], self.end_seconds, current[1])
        self._report_ending()

    def _noting_waits(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        while True:
            asked = time.monotonic()
            packet = next(packets, None)
            self._waited_seconds = time.monotonic() - asked
            if packet is None:
                return
            yield packet

    def _next_seconds(self, pts: int | None) -> Fraction | None:
        """Time of the next frame, never before that of the last one; `None` if the frame comes out of order."""
        last = self._last_seconds
        following = Fraction(0) if last is None else last + 1 / self._stated_fps
        if pts is None:
            self._has_timestamps = False
            return following
        if self._offset is None:
            self._offset = following - pts * self.stream.time_base
        seconds = pts * self.stream.time_base + self._offset
        if last is None or seconds > last:
            return seconds
        if last - seconds > _RESTART_SECONDS:
            logger.warning(f"{self.name} began anew after {float(last):.1f} s; its times are counted on.")
            self._offset += following - seconds
            return following
        # Behind damage a decoder can give frames out of order. Where FFmpeg has to work out the times, the order is
        # right and the times of neighbours may be swapped.
        return None if self._stores_times else last

    def _last_duration(self, pts: int | None) -> Fraction:
        if self._log.last_timestamp == pts and self._log.last_duration > 0:
            return self._log.last_duration * self.stream.time_base
        return self.end_seconds / (self.num_frames - 1) if self.end_seconds > 0 else 1 / self._stated_fps

    def _report_ending(self) -> None:
        log, num_lost = self._log, 0
        if self.num_frames == 0:
            if self.live is not None:
                raise self.live.no_frames_error(log.last_error, self._waited_seconds)
            raise undecodable(self.container, self.stream, self.name)
        # Packets that show no frame are usual in some codecs (VP8), but those decode without an error.
        if log.num_errors > 0 or self._num_late > 0:
            num_lost = max(log.num_shown - self.num_frames, 0)
        end_seconds, stated = float(self.end_seconds), 0.0
        if self.live is None:
            num_lost += frames_cut_off(self.stream, log, self.num_frames, end_seconds)
            stated = stated_seconds(self.stream)
        else:
            lost = f", {num_lost} were lost" if num_lost else ""
            ending = self.live.describe_ending(log.last_error, self._waited_seconds)
            logger.warning(f"{self.name} {ending} after {end_seconds:.1f} s; it gave {self.num_frames} frames{lost}.")
            num_lost = 0
        warn_about_damage(
            self.name,
            num_frames=self.num_frames,
            num_lost_frames=num_lost,
            end_seconds=end_seconds,
            stated_seconds=stated,
            stated_fps=None if self._has_timestamps else self._stated_fps,
        )


@contextmanager
def open_timed_frames(
    source: SourceFile | LiveSource, start_seconds: Fraction, stall_seconds: float
) -> Iterator[TimedFrames]:
    """
    Opens a video, a file near a time in it where its frames can be found for sure without decoding those before.

    Args:
        source ([`SourceFile`] or [`LiveSource`]): As [`resolve_video`] and [`resolve_live`] give it.
        start_seconds (`Fraction`): The frame shown then is among those that come, unless the video ends before.
        stall_seconds (`float`): For how long a live source may give nothing.

    Raises:
        [`VideoReadError`]: if it is not a video. Iteration raises it if no frame can be decoded.
    """
    name = source.name
    with ExitStack() as stack:
        if isinstance(source, LiveSource):
            live = stack.enter_context(open_live(source, stall_seconds))
            yield TimedFrames(name, live.container, live.stream, live)
            return
        try:
            content = stack.enter_context(rereadable(source))
        except OSError as error:
            raise VideoReadError(f"Cannot read a video from {name}: {error}.") from error
        keyframe = _keyframe_before(content, name, start_seconds)
        if keyframe is not None:
            with open_video(content, name) as opened:
                frames = TimedFrames(name, *opened)
                if frames.seek(keyframe):
                    yield frames
                    return
        yield TimedFrames(name, *stack.enter_context(open_video(content, name)))


def _keyframe_before(content: Path | bytes | BinaryIO, name: str, seconds: Fraction) -> _Keyframe | None:
    """The last keyframe shown by a time, as the packets until then say; `None` if in doubt, or near the start."""
    if seconds == 0:
        return None
    with open_video(content, name) as (container, stream):
        # VP8 has packets that show no frame, so packets cannot be counted instead of frames.
        if container.format.name not in FORMATS_WITH_TIMES or stream.codec_context.name == "vp8":
            return None
        try:
            keyframe = _scan(read_packets(container, stream, _CountingLog(), strict=True), seconds / stream.time_base)
        except UnreliableVideoError:
            return None
    return keyframe if keyframe is not None and keyframe.index >= MIN_FRAMES_TO_SEEK else None


def _scan(packets: Iterator[Packet], span: Fraction) -> _Keyframe | None:
    """The last keyframe within `span` (in units of the packets' times) after the first one."""
    keyframe = last_dts = None
    num_packets = first_pts = highest_pts = 0
    for packet in packets:
        if packet.is_discard:
            continue
        pts, dts = packet.pts, packet.dts
        if num_packets == 0:
            first_pts = highest_pts = pts
        if pts is None or pts < first_pts or (num_packets == 0 and not packet.is_keyframe):
            raise UnreliableVideoError
        # Matroska stores no decoding times, and those of the first packets FFmpeg cannot work out.
        if last_dts is not None and (dts is None or dts <= last_dts):
            raise UnreliableVideoError
        if dts is not None and dts > first_pts + span:
            break
        if keyframe is not None and pts < keyframe.pts:
            keyframe.index += 1  # it follows the keyframe, but is shown before it
        elif packet.is_keyframe and dts is not None and highest_pts <= pts <= first_pts + span:
            keyframe = _Keyframe(num_packets, pts, dts, first_pts)
        num_packets += 1
        highest_pts, last_dts = max(highest_pts, pts), dts
    return keyframe


__all__ = ["ShownFrame", "TimedFrames", "open_timed_frames"]
