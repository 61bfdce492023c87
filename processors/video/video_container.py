"""Opens a video with PyAV, with one clear error for each thing that is not one.

Local files reach FFmpeg as Python files, never as names: a name lets FFmpeg guess a format from the extension (any
`.txt` would open as a 'tty' video) and expand patterns such as `%03d`. Local files also may not open anything else: a
playlist inside a file cannot make this process read other files or the network.
"""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream


HEAD_BYTES = 512
"""First bytes of a file that are looked at before FFmpeg sees it."""

# Still pictures inside a video container say so in their brand.
_IMAGE_BRANDS = {"avif", "heic", "heix", "mif1"}

# Texts that often lie where a video should be, by their beginning.
_HTML = "a page of HTML, such as the error or log-in page of a server; download the video itself"
_TEXTS = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the file; get that with `git lfs pull`",
    b"<!doctype html": _HTML,
    b"<html": _HTML,
}


class VideoReadError(ValueError):
    """A video cannot be read. The message names the source, what was found, and what was expected."""


class _File:
    """The part of a Python file that FFmpeg needs, without its name and without `close`."""

    def __init__(self, file: BinaryIO):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def open_video(
    source: Path | bytes | BinaryIO, name: str, num_threads: int = 0
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """
    Opens a video at its start and finds its best video stream.

    Args:
        source (`pathlib.Path`, `bytes` or `BinaryIO`):
            Local path, content, or seekable binary file, as [`rereadable`] gives it. An open file is left open.
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
        try:
            file = stack.enter_context(open_binary(source))
        except OSError as error:
            raise VideoReadError(f"Cannot read a video from {name}: {error}.") from error
        container = stack.enter_context(_open_container(file, name))
        yield container, stack.enter_context(video_stream(container, name, num_threads))


@contextmanager
def video_stream(container: InputContainer, name: str, num_threads: int) -> Iterator[VideoStream]:
    """
    Finds the best video stream of an open container and readies its decoder; the arguments are those of
    [`open_video`].

    Raises:
        [`VideoReadError`]: if it has none that can be decoded.
    """
    stream = _find_video_stream(container, name)
    # FFmpeg's HEVC decoder can wait for ever if it has several threads: on damaged files if they decode several
    # frames (8.0, one wrong bit is enough), and in 7.1.0 on whole files if they decode rows of one frame.
    stream.codec_context.thread_count = 1 if stream.codec_context.name == "hevc" else num_threads
    stream.codec_context.thread_type = "AUTO"
    try:
        yield stream
    finally:
        # The decoder is freed by a thread that holds Python's lock, and waits for its own threads. Where PyAV's
        # logging is on (old versions of torchvision turn it on) these may wait for the same lock, to report damage:
        # neither would ever go on. Here they are waited for without the lock.
        stream.codec_context.flush_buffers()


@contextmanager
def open_binary(content: Path | bytes | BinaryIO) -> Iterator[BinaryIO]:
    """
    Opens a local file or bytes at the start, and closes it afterwards. A file that is open already is wound back and
    left open.

    Raises:
        `OSError`: if there is no such file, or it is empty, or cannot be read. Its message is the reason.
    """
    if isinstance(content, bytes):
        file: BinaryIO = io.BytesIO(content)
    elif isinstance(content, Path):
        file = _open_path(content)
    else:
        file = content
    try:
        if file.seek(0, os.SEEK_END) == 0:
            raise OSError("it is empty (0 bytes)")
        file.seek(0)
        yield file
    finally:
        if file is not content:
            file.close()


def _open_path(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        # Reading a device or a named pipe may never end.
        file = path.open("rb") if stat.S_ISREG(mode) else None
    except FileNotFoundError as error:
        raise OSError("there is no such file. Give the path of a file or an http(s) URL") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise OSError(describe_error(error)) from error
    if file is None:
        raise OSError("it is a directory, expected a file" if stat.S_ISDIR(mode) else "it is not a regular file")
    return file


def _open_container(file: BinaryIO, name: str) -> InputContainer:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    refuse_text(head, name)
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


def describe_error(error: Exception | None) -> object:
    """Returns the reason that an error gives, of one of the system without its number and file."""
    return getattr(error, "strerror", None) or error


def refuse_text(head: bytes, name: str) -> None:
    """
    Raises:
        [`VideoReadError`]: if the first `HEAD_BYTES` are those of a text that often lies where a video should be.
    """
    for start, found in _TEXTS.items():
        if head.lstrip().lower().startswith(start):
            raise VideoReadError(f"Cannot read a video from {name}: it is {found}.")


def undecodable(container: InputContainer, stream: VideoStream, name: str) -> VideoReadError:
    """Returns the error of a video stream that gives no frame."""
    return VideoReadError(
        f"Cannot read a video from {name}: none of its frames can be decoded ({stream.codec_context.name}, "
        f"{container.format.name} file). It is damaged, or not a video."
    )


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
