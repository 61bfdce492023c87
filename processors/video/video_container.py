"""Opening a video with PyAV, and one clear error for each thing that is not one.

Local files reach FFmpeg as Python files, never as names: a name lets FFmpeg guess a format from the extension (any
`.txt` would open as a 'tty' video) and expand patterns such as `%03d`. Local files also may not open anything else: a
playlist inside a file cannot make this process read other files or the network.
"""

import http.client
import io
import os
import shutil
import stat
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, Protocol, runtime_checkable

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream


# Seconds that a server may take to answer, and to send more data.
URL_TIMEOUT_SECONDS = 30.0

# Still pictures inside a video container say so in their brand.
_IMAGE_BRANDS = {"avif", "heic", "heix", "mif1"}


class VideoReadError(ValueError):
    """A video cannot be read. The message names the source, what was found, and what was expected."""


@runtime_checkable
class _BinaryFile(Protocol):
    """What a file object must be able to do. (`io.IOBase` would leave out the files of `tempfile`.)"""

    def read(self, size: int = -1) -> bytes: ...

    def seekable(self) -> bool: ...


class _File:
    """The part of a Python file that FFmpeg needs, without its name and without `close`."""

    def __init__(self, file: BinaryIO):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def describe_source(source: str | os.PathLike | bytes | BinaryIO) -> str:
    """How error messages and warnings name a source."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, str | os.PathLike):
        return repr(os.fspath(source))
    return repr(source)


@contextmanager
def rereadable(source: str | os.PathLike | bytes | BinaryIO) -> Iterator[str | os.PathLike | bytes | BinaryIO]:
    """
    Gives a source that can be read from its start, and sought in, more than once: the same one, or for a URL, a pipe
    or a socket its content in a temporary file. (FFmpeg could read a URL by itself, but an mp4 with its index at the
    end only from a server that serves parts.)

    Raises:
        [`VideoReadError`]: if a URL does not answer.
        `TypeError`: if `source` is not a path, a URL, bytes, or a file opened in binary mode.
    """
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        with tempfile.TemporaryFile() as copy:
            _download(source, copy)
            yield copy
        return
    if isinstance(source, str | os.PathLike | bytes):
        yield source
        return
    if isinstance(source, io.TextIOBase):
        raise TypeError(f"{source!r} is a text file, expected a file opened in binary mode ('rb').")
    if not isinstance(source, _BinaryFile):
        raise TypeError(
            f"Expected a video as a path, an http(s) URL, bytes or a binary file, got {type(source).__name__}."
        )
    if source.seekable():
        yield source
        return
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(source, copy)
        except OSError as error:
            raise VideoReadError(f"Cannot read a video from {describe_source(source)}: {error}.") from error
        yield copy


@contextmanager
def open_video(
    source: str | os.PathLike | bytes | BinaryIO, name: str, num_threads: int = 0
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """
    Opens a video at its start and finds its best video stream.

    Args:
        source (`str`, `os.PathLike`, `bytes` or `BinaryIO`):
            Path, content, or seekable binary file, as [`rereadable`] gives it. A file of the caller is left open.
        name (`str`):
            What error messages call it.
        num_threads (`int`, *optional*, defaults to 0):
            Threads of the decoder, 0 for one per core. HEVC always gets one.

    Yields:
        The open container and its video stream, whose decoder is ready.

    Raises:
        [`VideoReadError`]: if there is no file, or what is there is not a video that can be decoded.
    """
    with ExitStack() as stack:
        file = stack.enter_context(_open_file(source, name))
        container = stack.enter_context(_open_container(file, name))
        stream = _find_video_stream(container, name)
        # FFmpeg's HEVC decoder can wait for ever if it has several threads: on damaged files if they decode several
        # frames (8.0, one wrong bit is enough), and in 7.1.0 on whole files if they decode rows of one frame.
        stream.codec_context.thread_count = 1 if stream.codec_context.name == "hevc" else num_threads
        stream.codec_context.thread_type = "AUTO"
        # The decoder is freed by a thread that holds Python's lock, and waits for its own threads. Where PyAV's
        # logging is on (old versions of torchvision turn it on) these may wait for the same lock, to report damage:
        # neither would ever go on. Here they are waited for without the lock.
        stack.callback(stream.codec_context.flush_buffers)
        yield container, stream


def _download(url: str, file: BinaryIO) -> None:
    try:
        with urllib.request.urlopen(url, timeout=URL_TIMEOUT_SECONDS) as response:
            shutil.copyfileobj(response, file)
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and HTTPError are OSErrors
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            reason = f"the server answered {error.code} {error.reason}"
        elif isinstance(error, TimeoutError) or isinstance(reason, TimeoutError):
            reason = f"no answer within {URL_TIMEOUT_SECONDS:g} s"
        elif isinstance(reason, OSError):
            reason = reason.strerror
        raise VideoReadError(
            f"Cannot read a video from {url!r}: {reason}. Check the address and the connection, or download the file "
            "and give its path."
        ) from error


@contextmanager
def _open_file(source: str | os.PathLike | bytes | BinaryIO, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        file = io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        file = _open_path(source, name)
    else:
        file = source
    try:
        num_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        if num_bytes == 0:
            raise VideoReadError(f"Cannot read a video from {name}: it is empty (0 bytes).")
        yield file
    finally:
        if file is not source:
            file.close()


def _open_path(path: str | os.PathLike, name: str) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise VideoReadError(
            f"Cannot read a video from {name}: there is no such file. Give the path of a file or an http(s) URL."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise VideoReadError(f"Cannot read a video from {name}: {error}.") from error
    if stat.S_ISDIR(mode):
        raise VideoReadError(f"Cannot read a video from {name}: it is a directory, expected a file.")
    if not stat.S_ISREG(mode):  # reading a device or a named pipe may never end
        raise VideoReadError(f"Cannot read a video from {name}: it is not a regular file.")
    try:
        return open(path, "rb")
    except OSError as error:
        raise VideoReadError(f"Cannot read a video from {name}: {error.strerror}.") from error


def _open_container(file: BinaryIO, name: str) -> InputContainer:
    head = file.read(12)
    file.seek(0)
    try:
        return av.open(_File(file), container_options={"protocol_whitelist": ""}, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        if head[4:8] == b"ftyp":
            raise VideoReadError(
                f"Cannot read a video from {name}: it begins like an mp4 file, but its index (the 'moov' box) is "
                "missing or damaged. The file is probably truncated; copy or download it again."
            ) from error
        raise VideoReadError(
            f"Cannot read a video from {name}: its content is not a video that FFmpeg knows ({error.strerror})."
        ) from error


def _find_video_stream(container: InputContainer, name: str) -> VideoStream:
    container_format = container.format.name
    is_image_format = container_format.endswith("_pipe") or container_format in ("ico", "image2")
    if is_image_format or container.metadata.get("major_brand") in _IMAGE_BRANDS:
        raise VideoReadError(
            f"Cannot read a video from {name}: it is an image ({container_format}), not a video. Pass it as an image; "
            "an animation can be converted to gif or mp4."
        )
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        streams = container.streams  # asked for the type of one of no known kind, PyAV crashes before version 17
        kinds = {"attachment": streams.attachments, "audio": streams.audio, "data": streams.data}
        kinds["subtitle"] = streams.subtitles
        found = ", ".join(kind for kind, of_kind in kinds.items() if of_kind) or "nothing that is known"
        if stream is not None:
            found = "audio with cover art"
        raise VideoReadError(f"Cannot read a video from {name}: it has no video stream (found: {found}).")
    if container_format == "tty":
        raise VideoReadError(f"Cannot read a video from {name}: it is text, not a video.")
    if stream.codec_context is None:
        raise VideoReadError(
            f"Cannot read a video from {name}: there is no decoder for its video stream ({container_format} file). "
            "Convert it, for example to H.264 in mp4."
        )
    return stream
