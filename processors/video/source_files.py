"""Resolves every form of a file: a path, a URL, a data URI, bytes, an entry of a data set, an open file."""

import base64
import binascii
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable
from urllib.parse import unquote_to_bytes

import numpy as np
import torch

from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_download import download


MAX_NAME_LENGTH = 100
"""Characters of a source that an error shows: a data URI is as long as the video in it."""

# No system has longer paths. What is longer is the content of a file, which errors of the system would repeat.
_MAX_PATH_LENGTH = 2**15

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_FILE_URL = re.compile(r"file:(?://(?P<host>[^/]*)|(?!//))(?P<path>/.*)", re.IGNORECASE | re.DOTALL)
_BYTES = (bytes, bytearray, memoryview)


@runtime_checkable
class _BinaryFile(Protocol):
    """What a file object must be able to do. (`io.IOBase` would leave out the files of `tempfile`.)"""

    def read(self, size: int = -1) -> bytes: ...

    def seekable(self) -> bool: ...


@dataclass(frozen=True, eq=False)
class SourceFile:
    """
    A file: a video, or the picture of one frame.

    Args:
        content (`pathlib.Path`, `str`, `bytes` or `BinaryIO`): A local path, an http(s) URL (the `str`), the content
            itself, or a file opened in binary mode.
        name (`str`): The name of the file in errors and warnings; never long.
    """

    content: Path | str | bytes | BinaryIO = field(repr=False)
    name: str

    @property
    def is_url(self) -> bool:
        return isinstance(self.content, str)

    @property
    def can_be_reread(self) -> bool:
        """Tells whether it can be read now and once more later. A pipe cannot; a URL would be downloaded twice."""
        return not self.is_url and (isinstance(self.content, (Path, bytes)) or self.content.seekable())


def resolve_file(source: Any) -> SourceFile | None:
    """
    Resolves a file in any form, without opening it.

    Args:
        source: A path; a URL (`http://`, `https://`, percent-encoded `file://`); a data URI; bytes, a bytearray or a
            memoryview; a file opened in binary mode; or `{"path": ..., "bytes": ...}` with one of them or both, as
            `datasets.Video(decode=False)` and `Image(decode=False)` give them.

    Returns:
        [`SourceFile`], or `None` for an object of another type.

    Raises:
        [`VideoReadError`]: if it names no file: an unknown kind of URL, broken base64, a dict with other keys.
        `TypeError`: if a file is open in text mode, or a dict holds something of another type.
    """
    if isinstance(source, Mapping):
        return _file_of_dict(source)
    if isinstance(source, os.PathLike):
        return SourceFile(Path(os.fsdecode(source)), describe_source(source))
    if isinstance(source, str):
        return SourceFile(_content_of_text(source), describe_source(source))
    if isinstance(source, _BYTES):
        return SourceFile(bytes(source), describe_source(source))
    if isinstance(source, io.TextIOBase):
        raise TypeError(f"{describe_source(source)} is a text file, expected a file opened in binary mode ('rb').")
    if isinstance(source, _BinaryFile):
        return SourceFile(source, describe_source(source))  # type: ignore[arg-type]  # BinaryIO is no protocol
    return None


def describe_source(source: Any) -> str:
    """Returns the name of a source for errors and warnings: some 100 characters at most, whatever its size."""
    if isinstance(source, Mapping):
        source = source.get("bytes") if source.get("path") is None else source["path"]
    if isinstance(source, (str, os.PathLike)):
        text = os.fsdecode(source)
        return repr(text) if len(text) <= MAX_NAME_LENGTH else f"{_shortened(text)!r} ({len(text)} characters)"
    if isinstance(source, _BYTES):
        return f"<{memoryview(source).nbytes} bytes>"
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return f"<{source.dtype} array of shape {tuple(source.shape)}>"
    if isinstance(source, (list, tuple)):
        return f"<{len(source)} frames>"
    return _shortened(repr(source))


@contextmanager
def rereadable(file: SourceFile) -> Iterator[Path | bytes | BinaryIO]:
    """
    Yields content that can be read and sought in more than once: that of the file itself, or for a URL, a pipe or a
    socket a copy in a temporary file. (FFmpeg could read a URL by itself, but an mp4 with its index at the end
    only from a server that serves parts.)

    Raises:
        `OSError`: if a URL does not answer, or with less than it promised, or a pipe breaks; its message is the
            reason.
    """
    content = file.content
    if not isinstance(content, str) and file.can_be_reread:
        yield content
        return
    with tempfile.TemporaryFile() as copy:
        if isinstance(content, str):
            download(content, copy)
        else:
            shutil.copyfileobj(content, copy)  # type: ignore[arg-type]  # paths and bytes can be reread
        yield copy


@contextmanager
def rereadable_file(file: SourceFile) -> Iterator[SourceFile]:
    """
    Yields the same under the same name, so that what reads it twice loads it once.

    Raises:
        [`VideoReadError`]: where [`rereadable`] raises an `OSError`.
    """
    with ExitStack() as stack:
        try:
            content = stack.enter_context(rereadable(file))
        except OSError as error:
            raise VideoReadError(f"Cannot read a video from {file.name}: {error}.") from error
        yield SourceFile(content, file.name)


def _file_of_dict(source: Mapping) -> SourceFile:
    given = {key: value for key, value in source.items() if value is not None}
    if not given or not given.keys() <= {"path", "bytes"}:
        found = ", ".join(map(repr, given)) or "neither of them"
        raise VideoReadError(f"A file was given as a dict with {found}; expected 'path', 'bytes' or both.")
    for key, types in (("path", (str, os.PathLike)), ("bytes", _BYTES)):
        if key in given and not isinstance(given[key], types):
            raise TypeError(f"A file was given as a dict whose {key!r} is of type {type(given[key]).__name__}.")
    # A data set that was moved has the bytes alone; the path in it says where they once came from.
    if "bytes" in given:
        return SourceFile(bytes(given["bytes"]), describe_source(given))
    return resolve_file(given["path"])  # type: ignore[return-value]  # a path is always a file


def _content_of_text(text: str) -> Path | str | bytes:
    start = text[:5].lower()
    scheme = _SCHEME.match(text)
    problem = None
    if start == "data:":
        return _content_of_data_uri(text)
    if start == "file:":
        return _path_of_file_url(text)
    if scheme is not None and scheme[1].lower() in ("http", "https"):
        return text
    if scheme is not None:
        problem = f"{scheme[0]} is not supported; download the file and give its path, or an http(s) URL of it"
    elif not text:
        problem = "the path is empty"
    elif len(text) > _MAX_PATH_LENGTH:
        problem = "too long for a path; the content of a file goes in as bytes or as 'data:video/mp4;base64,...'"
    if problem is not None:
        raise VideoReadError(f"Cannot read a video from {describe_source(text)}: {problem}.")
    return Path(text)


def _content_of_data_uri(uri: str) -> bytes:
    """Decodes a data URI (RFC 2397)."""
    header, comma, data = uri.partition(",")
    content = unquote_to_bytes(data)
    problem = None if comma else "it has no comma in front of its data"
    if comma and header.lower().endswith(";base64"):
        try:
            content = base64.b64decode(b"".join(content.split()), validate=True)
        except binascii.Error as error:
            problem = f"its data are no base64 ({error})"
    if problem is not None:
        raise VideoReadError(
            f"Cannot read a video from {describe_source(uri)}: {problem}; expected 'data:video/mp4;base64,...'."
        )
    return content


def _path_of_file_url(url: str) -> Path:
    """The path of a `file:` URL (RFC 8089), percent-decoded; `?` and `#` are part of it, as no file has a query."""
    match = _FILE_URL.fullmatch(url)
    if match is None or (match["host"] or "localhost").lower() != "localhost":
        raise VideoReadError(
            f"Cannot read a video from {describe_source(url)}: a file URL has an absolute path on this machine, as in "
            "'file:///videos/clip.mp4'."
        )
    return Path(os.fsdecode(unquote_to_bytes(match["path"])))


def _shortened(text: str) -> str:
    """The start and the end of a text, which tell most of a path or a URL."""
    if len(text) <= MAX_NAME_LENGTH:
        return text
    return f"{text[: MAX_NAME_LENGTH * 2 // 3]}...{text[-MAX_NAME_LENGTH // 3 + 3 :]}"


__all__ = ["SourceFile", "describe_source", "rereadable", "rereadable_file", "resolve_file"]
