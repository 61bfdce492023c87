"""Opens videos that are still coming: pipes, files that grow, URLs that never end, streams of servers, cameras.

What comes as bytes is received by `live_file.py`, and FFmpeg gets it as a file in which nothing can be sought.
Only what has a protocol of its own is opened by FFmpeg, by the name that the user gave, and only with the protocols
that it needs: no stream can make this process read files.
"""

import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from linvt.processors.video.live_file import (
    LiveFile,
    describe_stall,
    is_pipe,
    open_growing,
    open_pipe,
    receive_file,
    receive_growing,
    receive_url,
)
from linvt.processors.video.source_files import SourceFile, describe_source, resolve_file
from linvt.processors.video.video_container import VideoReadError, describe_error, refuse_text, video_stream
from linvt.processors.video.video_download import clear_url_errors, open_url


# What FFmpeg may open for each scheme that it reads by itself.
_PROTOCOLS = {
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "rtp": "rtp,udp",
    "rtsp": "rtp,tcp,udp",
    "rtsps": "rtp,tls,tcp,udp",
    "srt": "srt,udp",
    "tcp": "tcp",
    "udp": "udp",
}
_PLAYLIST_PROTOCOLS = "http,https,tcp,tls,crypto"
_PLAYLIST_START = b"#EXTM3U"

# FFmpeg's devices: Linux, macOS, Windows.
_CAMERAS = {"v4l2", "avfoundation", "dshow"}

_MP4_ADVICE = (
    "An mp4 file with its index at the end can only be read as a whole: give its path, or send Matroska, MPEG-TS or "
    "fragmented mp4"
)

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True)
class LiveSource:
    """
    A video to be read as it comes, and not as a file that is there as a whole.

    Args:
        source (`str`, `os.PathLike` or `BinaryIO`): One of

            - an http(s) URL that is sent for as long as one listens, or of an HLS playlist
            - a URL of another protocol that FFmpeg knows: `rtsp://`, `rtmp://`, `srt://`, `udp://`, `tcp://`, ...
            - the path of a file that grows, or of a named pipe
            - `"-"`, standard input
            - a file opened in binary mode, such as a pipe or a socket
            - a camera by its name, such as `"/dev/video0"`, if `format` is that of cameras
        format (`str`, *optional*): FFmpeg's name of the format, where it cannot be told from the content: `"h264"` or
            `"mjpeg"` for raw streams, `"v4l2"` (Linux), `"avfoundation"` (macOS) or `"dshow"` (Windows) for cameras.
        options (`Mapping[str, str]`): Options of FFmpeg for the format and the protocol, as in `{"framerate": "30"}`.
    """

    source: str | os.PathLike | BinaryIO
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Returns its name in errors and warnings: short, and without the password that a URL may hold."""
        return _PASSWORD.sub("", describe_source(self.source))

    @property
    def scheme(self) -> str | None:
        """Returns the scheme of a URL, in lower case; `None` for all else."""
        match = _SCHEME.match(self.source) if isinstance(self.source, str) else None
        return match and match[1].lower()


def resolve_live(source: Any) -> LiveSource | None:
    """
    Returns the live source if `source` is one, or can only be read as one: a pipe, a file object that cannot be sought
    in, a URL with one of FFmpeg's streaming protocols. `None` for all else, such as http(s) URLs and files.
    """
    if isinstance(source, LiveSource):
        return source
    if isinstance(source, str) and LiveSource(source).scheme in _PROTOCOLS:
        return LiveSource(source)
    file = source if isinstance(source, SourceFile) else resolve_file(source)
    if file is None or file.is_url or isinstance(file.content, bytes):
        return None
    is_live = is_pipe(file.content) if isinstance(file.content, Path) else not file.can_be_reread
    return LiveSource(file.content) if is_live else None


@dataclass(frozen=True)
class LiveVideo:
    """
    A live source that was opened.

    Args:
        name (`str`): Of the source.
        container (`InputContainer`), stream (`VideoStream`): Its best video stream, whose decoder is ready.
        file ([`LiveFile`], *optional*): What it is received through; `None` if FFmpeg receives it.
        stall_seconds (`float`): For how long it may give nothing.
    """

    name: str
    container: InputContainer
    stream: VideoStream
    file: LiveFile | None
    stall_seconds: float

    def describe_ending(self, last_error: Exception | None, waited_seconds: float) -> str:
        """
        Returns the reason why no more came, as the rest of a sentence on the source.

        Args:
            last_error (`Exception`, *optional*): That reading or decoding met.
            waited_seconds (`float`): How long it was waited for more at last.
        """
        if self.file is not None:
            return self.file.ending or f"could not be read any further ({describe_error(last_error)})"
        if waited_seconds >= self.stall_seconds:  # of which not all of FFmpeg's formats make an error
            return describe_stall(self.stall_seconds)
        return f"broke off ({describe_error(last_error)})" if isinstance(last_error, OSError) else "ended"

    def no_frames_error(self, last_error: Exception | None, waited_seconds: float) -> VideoReadError:
        """Returns the error of a source that gave no frame; the arguments are those of `describe_ending`."""
        found = f"{self.describe_ending(last_error, waited_seconds)} before its first frame"
        if self.file is not None and _is_mp4(self.file):
            found += f". {_MP4_ADVICE}"
        return VideoReadError(f"Cannot read a video from {self.name}: it {found}.")


@contextmanager
def open_live(live: LiveSource, stall_seconds: float) -> Iterator[LiveVideo]:
    """
    Opens a live source and finds its best video stream.

    Args:
        stall_seconds (`float`): For how long it may give nothing, at the start and later.

    Raises:
        [`VideoReadError`]: if there is no such source, it gives nothing, or nothing that is a video.
    """
    with ExitStack() as stack:
        file = None
        protocols = _protocols(live)
        if protocols is None:
            receiving = stack.enter_context(ExitStack())
            try:
                file = receiving.enter_context(_received(live, stall_seconds))
            except OSError as error:
                raise VideoReadError(f"Cannot read a video from {live.name}: {describe_error(error)}.") from error
            protocols = _check_head(live, file)
            if protocols == _PLAYLIST_PROTOCOLS:  # a short text, whose videos FFmpeg receives
                receiving.close()
                file = None
        container = stack.enter_context(_open_container(live, file, protocols, stall_seconds))
        # A frame comes out of one thread when the packet after it is there, out of several some frames later.
        stream = stack.enter_context(video_stream(container, live.name, num_threads=1))
        yield LiveVideo(live.name, container, stream, file, stall_seconds)


def _protocols(live: LiveSource) -> str | None:
    """The protocols with which FFmpeg opens a source by its name; `None` for what is received here."""
    if live.format in _CAMERAS:
        return ""
    scheme = live.scheme
    if scheme not in _PROTOCOLS and scheme not in (None, "http", "https", "file"):
        known = ", ".join(f"{other}://" for other in ("http", "https", *_PROTOCOLS))
        raise VideoReadError(f"Cannot read a video from {live.name}: {scheme}:// is not supported; known are {known}.")
    return _PROTOCOLS.get(scheme) if scheme is not None else None


@contextmanager
def _received(live: LiveSource, stall_seconds: float) -> Iterator[LiveFile]:
    """What comes as bytes; `OSError` with the reason if there is nothing to listen to."""
    seconds = None if stall_seconds == math.inf else stall_seconds
    with ExitStack() as stack:
        file = SourceFile(sys.stdin.buffer, "'-'") if live.source == "-" else resolve_file(live.source)
        if file is None or isinstance(file.content, bytes):
            raise TypeError(f"A live source was given as {live.name}; give a URL, a path, '-' or a binary file.")
        if isinstance(file.content, str):
            with clear_url_errors(seconds):
                receive = receive_url(stack.enter_context(open_url(file.content, seconds)))
        elif not isinstance(file.content, Path):
            receive = receive_file(file.content, seconds)
        elif is_pipe(file.content):
            receive = receive_file(stack.enter_context(open_pipe(file.content)), seconds)
        else:
            receive = receive_growing(stack.enter_context(open_growing(file.content)), stall_seconds)
        received = LiveFile(receive, stall_seconds)
        try:
            yield received
        finally:
            if received.interrupt is not None:  # now that all frames have come
                raise received.interrupt


def _check_head(live: LiveSource, file: LiveFile) -> str:
    """Refuses what is no video by its first bytes; returns the protocols that the content may open."""
    if not file.head:
        found = "it is empty (0 bytes)" if file.ending == "ended" else f"it {file.ending}, not one byte"
        raise VideoReadError(f"Cannot read a video from {live.name}: {found}.")
    refuse_text(file.head, live.name)
    if not file.head.startswith(_PLAYLIST_START):
        return ""
    if live.scheme not in ("http", "https"):
        raise VideoReadError(f"Cannot read a video from {live.name}: it is a playlist; give its http(s) URL.")
    return _PLAYLIST_PROTOCOLS


def _open_container(live: LiveSource, file: LiveFile | None, protocols: str, stall_seconds: float) -> InputContainer:
    options = {}
    if live.scheme in ("rtsp", "rtsps"):
        # Over UDP packets are lost, and a lost one damages all frames until the next keyframe.
        options["rtsp_transport"] = "tcp"
        # RTSP is deaf to the time limit of PyAV, and has one of its own, in microseconds.
        if stall_seconds < math.inf:
            options["timeout"] = str(round(1e6 * stall_seconds))
    options = {**options, **live.options, "protocol_whitelist": protocols}
    asked = time.monotonic()
    try:
        if file is not None:
            return av.open(file, format=live.format, container_options=options, metadata_errors="replace")
        return av.open(
            os.fspath(live.source),  # type: ignore[arg-type]  # a name of FFmpeg's
            format="hls" if protocols == _PLAYLIST_PROTOCOLS else live.format,
            container_options=options,
            metadata_errors="replace",
            timeout=None if stall_seconds == math.inf else stall_seconds,
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if file is None and time.monotonic() - asked >= stall_seconds:
            found = f"it {describe_stall(stall_seconds)}"
        elif file is None:
            found = (
                f"FFmpeg cannot open it ({describe_error(error)}). Check the address, the format and the connection"
            )
        elif file.ending not in (None, "ended"):
            found = f"it {file.ending} before its first frame"
        else:
            found = f"its content is not a video that FFmpeg knows ({describe_error(error)})"
            if _is_mp4(file):
                found += f". {_MP4_ADVICE}"
        raise VideoReadError(f"Cannot read a video from {live.name}: {found}.") from error


def _is_mp4(file: LiveFile) -> bool:
    return file.head[4:8] == b"ftyp"


__all__ = ["LiveSource", "LiveVideo", "open_live", "resolve_live"]
