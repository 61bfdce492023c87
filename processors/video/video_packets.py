"""Packets and decoded frames of an open video, from its start or from a keyframe, strict or tolerant of damage."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, dropwhile

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream


# A seek throws away the frames that the decoder's threads have in work, so short gaps are decoded through.
MIN_FRAMES_TO_SEEK = 32

# FFmpeg's name of the mp4 format, which lists all its frames in one index.
MP4_FORMAT = "mov,mp4,m4a,3gp,3g2,mj2"

# The containers that store the time of every frame. In others FFmpeg works out times from what came before, and after
# a seek that may give a frame the time of its neighbour.
FORMATS_WITH_TIMES = {MP4_FORMAT, "matroska,webm", "flv"}


class UnreliableVideoError(Exception):
    """Internal: this way of reading cannot say for sure which frame is which. Never reaches the user."""


@dataclass
class PacketLog:
    """What the packets of one pass over a file say."""

    # Of the packets that show a frame, in units of the stream's time base.
    timestamps: list[int | None] = field(default_factory=list)
    # The highest timestamp so far, and for how long its frame is shown (0: the file does not say).
    last_timestamp: int | None = None
    last_duration: int = 0
    # (pts, dts) of the packets where decoding can start.
    keyframes: list[tuple[int, int]] = field(default_factory=list)
    num_packets: int = 0
    # Of reading and decoding, while what is damaged is skipped.
    num_errors: int = 0
    last_error: Exception | None = None

    def add_error(self, error: Exception) -> None:
        self.num_errors += 1
        self.last_error = error

    def add(self, packet: Packet) -> None:
        self.num_packets += 1
        # What an edit list cuts off is decoded, because later frames need it, but never shown.
        if packet.is_discard:
            return
        self.timestamps.append(packet.pts)
        if packet.pts is None:
            return
        if packet.is_keyframe:
            self.keyframes.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        if self.last_timestamp is None or packet.pts >= self.last_timestamp:
            self.last_timestamp, self.last_duration = packet.pts, packet.duration or 0


def read_packets(container: InputContainer, stream: VideoStream, log: PacketLog, *, strict: bool) -> Iterator[Packet]:
    """
    Yields the packets of a stream from the current position and notes them in `log`.

    Raises:
        `UnreliableVideoError`: if `strict` and a packet is damaged. Otherwise damage is skipped.
    """
    got_packet = True
    while got_packet:  # after an error FFmpeg can often go on behind it; two errors in a row end the file
        got_packet = False
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except IndexError:
                # All packets were read. PyAV (seen in 18.1) then trips over a stream that began in mid-file.
                return
            except (av.error.FFmpegError, OSError) as error:
                if strict:
                    raise UnreliableVideoError from error
                log.add_error(error)
                if isinstance(error, av.error.ExitError):  # the time to wait for a live source is up
                    return
                break
            if packet is None:
                return
            # To a decoder an empty packet is the end of the video, so one in mid-file must not get there.
            if packet.size == 0:
                continue
            if strict and packet.is_corrupt:
                raise UnreliableVideoError
            got_packet = True
            log.add(packet)
            yield packet


def decode_frames(
    stream: VideoStream, packets: Iterator[Packet], *, strict: bool, log: PacketLog | None = None
) -> Iterator[VideoFrame]:
    """
    Yields the frames of `packets` in presentation order.

    Args:
        log ([`PacketLog`], *optional*): Notes what is skipped.

    Raises:
        `UnreliableVideoError`: if `strict` and a packet does not decode. Otherwise it is skipped.
    """
    for packet in chain(packets, [None]):  # None: hand out the frames that the decoder still holds
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError as error:
            if strict:
                raise UnreliableVideoError from error
            if log is not None:
                log.add_error(error)
            continue
        yield from frames


def frames_from_keyframe(
    container: InputContainer, stream: VideoStream, pts: int, dts: int, log: PacketLog, *, strict: bool
) -> Iterator[VideoFrame]:
    """
    Seeks to a keyframe, and returns an iterator over the frames from it on.

    Args:
        pts (`int`), dts (`int`): When it is shown and decoded.
        log ([`PacketLog`]): Notes the packets from the keyframe on.
        strict (`bool`): As in [`decode_frames`].

    Raises:
        `UnreliableVideoError`: if the keyframe cannot be found again.
    """
    # Some demuxers look for the presentation timestamp, others for the decoding timestamp.
    for target in (pts, dts):
        try:
            container.seek(target, stream=stream)
        except av.error.FFmpegError as error:
            raise UnreliableVideoError from error
        packets = read_packets(container, stream, log, strict=strict)
        packets = dropwhile(lambda packet: not packet.is_keyframe, packets)
        first = next(packets, None)
        if first is not None and first.pts is not None and first.pts <= pts:
            frames = decode_frames(stream, chain([first], packets), strict=strict, log=log)
            # The seek may land at an earlier keyframe, and frames may follow a keyframe that are shown before it.
            return dropwhile(lambda frame: frame.pts is not None and frame.pts < pts, frames)
    raise UnreliableVideoError
