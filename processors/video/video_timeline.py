"""Which frames a video has and when each is shown, and the frames themselves by number.

The timeline comes from the packets, which costs no decoding, or from the decoded frames. Reading is strict by
default: whatever makes the number or the time of a frame doubtful raises `UnreliableVideoError`, and the caller reads
again with a slower and more tolerant strategy (`read_video` has all three). So a frame is never mistaken for another.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from linvt.processors.video.video_packets import (
    FORMATS_WITH_TIMES,
    MIN_FRAMES_TO_SEEK,
    MP4_FORMAT,
    PacketLog,
    UnreliableVideoError,
    decode_frames,
    frames_from_keyframe,
    read_packets,
)


# H.264 and HEVC can hold back this many frames. Timestamps further out of order than that are no presentation order.
MAX_REORDERED_FRAMES = 16


@dataclass
class Timeline:
    """
    The shown frames of a video in presentation order, numbered from 0.

    Args:
        timestamps (`list[int]`):
            When each frame is shown, in units of `time_base`; never decreasing.
        last_duration (`Fraction`):
            How long the last frame is shown, in units of `time_base`.
        time_base (`Fraction`):
            Seconds per unit.
        keyframes (`list[tuple[int, int, int]]`):
            (frame number, pts, dts) of the frames that can be sought, ascending.
        num_lost_frames (`int`):
            Frames that the file should have and that cannot be decoded.
        has_usable_timestamps (`bool`):
            `False` if the times had to be computed from the frame rate that the file states.
        stated_seconds (`float`):
            Duration that the file states for the video; 0 if it states none.
        decoded_numbers (`list[int]`, *optional*):
            Number of the first, second, ... frame that the decoder gives, where a damaged file makes it give them out
            of order. `None` if they come in order.
    """

    timestamps: list[int]
    last_duration: Fraction
    time_base: Fraction
    keyframes: list[tuple[int, int, int]]
    num_lost_frames: int
    has_usable_timestamps: bool
    stated_seconds: float
    decoded_numbers: list[int] | None = None

    def __len__(self) -> int:
        return len(self.timestamps)

    def seconds(self, index: int) -> float:
        """Start of a frame in seconds since the first frame; the end of the video for `index == len(self)`."""
        units: int | Fraction
        if index == len(self):
            units = self.timestamps[-1] + self.last_duration
        else:
            units = self.timestamps[index]
        return float((units - self.timestamps[0]) * self.time_base)


def timeline_of_packets(container: InputContainer, stream: VideoStream) -> Timeline:
    """
    The timeline that the packets state, without decoding.

    Raises:
        `UnreliableVideoError`: if a packet is damaged or has no timestamp, or if two have the same.
    """
    log = PacketLog()
    for _ in read_packets(container, stream, log, strict=True):
        pass
    known = [timestamp for timestamp in log.timestamps if timestamp is not None]
    if len(known) < len(log.timestamps):
        raise UnreliableVideoError
    return make_timeline(sorted(known), stream, log, strict=True)


def make_timeline(timestamps: Sequence[int | None], stream: VideoStream, log: PacketLog, *, strict: bool) -> Timeline:
    """
    Checks the timestamps of the shown frames, in the order in which they are decoded, and makes a timeline of them.

    Raises:
        `UnreliableVideoError`: if `strict` and there is no frame, or a timestamp is missing or not above the one
            before it. Otherwise frames that are slightly out of order are sorted, and a file without usable
            timestamps gets its times from the frame rate that it states.
    """
    num_frames = len(timestamps)
    known = [timestamp for timestamp in timestamps if timestamp is not None]
    has_all = len(known) == num_frames > 0
    if strict and not (has_all and all(a < b for a, b in pairwise(known))):
        raise UnreliableVideoError

    container = stream.container
    stores_times = container.format.name in FORMATS_WITH_TIMES
    by_time = sorted(range(num_frames), key=known.__getitem__) if has_all else []
    usable = has_all and all(abs(number - i) <= MAX_REORDERED_FRAMES for number, i in enumerate(by_time))
    decoded_numbers = None
    if usable:
        times, time_base = [known[i] for i in by_time], stream.time_base
        # Behind damage a decoder can give frames out of order. Elsewhere its order is right and the times are swapped.
        if stores_times and times != known:
            decoded_numbers = sorted(range(num_frames), key=by_time.__getitem__)  # the inverse permutation
        last_duration = Fraction(log.last_duration if log.last_timestamp == times[-1] else 0)
        if last_duration <= 0 and times[-1] > times[0]:
            last_duration = Fraction(times[-1] - times[0], num_frames - 1)
        if last_duration <= 0:
            last_duration = 1 / (stated_rate(stream) * time_base)
    else:
        times, time_base, last_duration = list(range(num_frames)), 1 / stated_rate(stream), Fraction(1)

    keyframes = []
    for pts, dts in sorted(log.keyframes) if usable and stores_times else []:
        number = bisect_left(times, pts)
        if number < num_frames and times[number] == pts:
            keyframes.append((number, pts, dts))

    timeline = Timeline(times, last_duration, time_base, keyframes, 0, usable, stated_seconds(stream), decoded_numbers)
    if not strict:
        # Packets that show no frame are usual in some codecs (VP8), but those decode without an error.
        timeline.num_lost_frames += max(len(log.timestamps) - num_frames, 0)
    if num_frames > 0:
        timeline.num_lost_frames += frames_cut_off(stream, log, num_frames, timeline.seconds(num_frames))
    return timeline


def frames_cut_off(stream: VideoStream, log: PacketLog, num_frames: int, end_seconds: float) -> int:
    """
    Returns how many frames an mp4 file lacks at its end.

    Args:
        log ([`PacketLog`]): Of all packets.
        num_frames (`int`): Frames that were decoded, at least 1.
        end_seconds (`float`): End of the last one, since the first.
    """
    # The index also counts the frames behind the point where the file was cut off, but so it does frames that an edit
    # list leaves out; only the first are missing from the duration.
    is_short = stated_seconds(stream) > end_seconds + end_seconds / num_frames
    if stream.container.format.name != MP4_FORMAT or not is_short:
        return 0
    return max(stream.frames - log.num_packets, 0)


def stated_rate(stream: VideoStream) -> Fraction:
    """Frames per second that the file states; raw streams that state none get FFmpeg's own default."""
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def stated_seconds(stream: VideoStream) -> float:
    """Duration that the file states for the video; 0 if it states none, or only one of all its streams together."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    container = stream.container
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base
    return 0.0


def fetch_frames(
    container: InputContainer, stream: VideoStream, timeline: Timeline, indices: Sequence[int], *, strict: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """
    Yields the frames with the given numbers from a video that was just opened, each with its number.

    If `strict`, they come in order: it seeks over long gaps and compares the timestamp of every decoded frame with
    the timeline. Otherwise it decodes everything and counts.

    Raises:
        `UnreliableVideoError`: if a decoded frame is not the one that the timeline says, or one is missing.
    """
    frames = decode_frames(stream, read_packets(container, stream, PacketLog(), strict=strict), strict=strict)
    if not strict:
        missing = set(indices)
        for index, frame in zip(timeline.decoded_numbers or range(len(timeline)), frames, strict=False):
            if index in missing:
                missing.remove(index)
                yield index, frame
            if not missing:
                return
        raise UnreliableVideoError

    position = 0  # number of the next frame to come out of the decoder
    for index in indices:
        keyframe = bisect_right(timeline.keyframes, index, key=lambda keyframe: keyframe[0]) - 1
        if keyframe >= 0 and timeline.keyframes[keyframe][0] - position >= MIN_FRAMES_TO_SEEK:
            position, pts, dts = timeline.keyframes[keyframe]
            frames = frames_from_keyframe(container, stream, pts, dts, PacketLog(), strict=True)
        while position <= index:
            frame = next(frames, None)
            if frame is None or frame.pts != timeline.timestamps[position]:
                raise UnreliableVideoError
            position += 1
        yield index, frame
