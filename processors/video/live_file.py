"""Receives bytes that are still coming, from pipes, growing files and servers, with time limits, for FFmpeg."""

import http.client
import io
import os
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from linvt.processors.video.video_container import HEAD_BYTES, describe_error


# How often a growing file is looked at.
_LOOK_SECONDS = 0.05


class LiveFile:
    """
    Implements the part of a Python file that FFmpeg needs, for what is still coming. Where more does not come, for
    whatever reason, FFmpeg sees the end of a file and hands out the frames that it holds; `ending` says what happened,
    and `interrupt` is the `KeyboardInterrupt` if it was that, which FFmpeg passes on to nobody.

    Args:
        receive (`Callable[[int], bytes]`): Waits for at most this many bytes; none are the end.
        stall_seconds (`float`): For how long `receive` waits before it raises `TimeoutError`.
    """

    def __init__(self, receive: Callable[[int], bytes], stall_seconds: float):
        self._receive = receive
        self._stall_seconds = stall_seconds
        self.ending: str | None = None
        self.interrupt: KeyboardInterrupt | None = None
        self.head = b""
        while len(self.head) < HEAD_BYTES and (piece := self._next(HEAD_BYTES - len(self.head))):
            self.head += piece
        self._unread = self.head

    def read(self, size: int) -> bytes:
        if not self._unread:
            try:
                return self._next(size)
            except KeyboardInterrupt as interrupt:
                self.ending, self.interrupt = "was interrupted", interrupt
                return b""
        piece, self._unread = self._unread[:size], self._unread[size:]
        return piece

    def _next(self, size: int) -> bytes:
        piece = b""
        if self.ending is None:
            try:
                piece = self._receive(size)
                self.ending = None if piece else "ended"
            except TimeoutError:
                self.ending = describe_stall(self._stall_seconds)
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.ending = f"broke off ({describe_error(error)})"
        return piece


def receive_url(response: http.client.HTTPResponse) -> Callable[[int], bytes]:
    """Returns the function that receives from a server, whose connection has a time limit already."""

    def receive(size: int) -> bytes:
        piece = response.read1(size)
        if not piece and response.length:  # http.client takes the end of a connection for the end of the file
            raise OSError(f"{response.length} bytes that the server promised are missing")
        return piece

    return receive


def receive_file(file: BinaryIO, seconds: float | None) -> Callable[[int], bytes]:
    """Returns the function that receives from a pipe or another open file; `None` seconds: waits for ever."""
    # What is there, where `read` of a buffered file would wait for all that was asked for.
    read = file.read1 if isinstance(file, io.BufferedIOBase) else file.read
    try:
        poll = select.poll()
        poll.register(file.fileno(), select.POLLIN)
    except (AttributeError, OSError):  # no file of the system, so nobody can say whether more is there
        return read

    def receive(size: int) -> bytes:
        if not poll.poll(None if seconds is None else 1000 * seconds):
            raise TimeoutError
        return read(size)

    return receive


def receive_growing(file: BinaryIO, stall_seconds: float) -> Callable[[int], bytes]:
    """Returns the function that receives from a file that is still being written."""

    def receive(size: int) -> bytes:
        last_look = time.monotonic() + stall_seconds
        while not (piece := file.read(size)):
            if os.fstat(file.fileno()).st_size < file.tell():
                raise OSError("the file became shorter, so it is another one now")
            if time.monotonic() >= last_look:
                raise TimeoutError
            time.sleep(_LOOK_SECONDS)
        return piece

    return receive


def is_pipe(path: Path) -> bool:
    """Tells whether a path is that of a named pipe."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except (OSError, ValueError):  # what there is instead is said where it is opened
        return False


def open_pipe(path: Path) -> BinaryIO:
    """Opens a named pipe for reading at once, whether or not somebody writes."""
    # Otherwise this would wait, without a limit, until somebody opens the other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb", buffering=0)


def open_growing(path: Path) -> BinaryIO:
    """
    Opens a file for [`receive_growing`].

    Raises:
        `OSError`: if it is not one. Its message is the reason.
    """
    if path.exists() and not path.is_file():
        raise OSError("it is neither a file nor a pipe. A camera needs format='v4l2' (Linux)")
    return path.open("rb", buffering=0)


def describe_stall(stall_seconds: float) -> str:
    """Returns the end of a sentence on a source that gave nothing for so long."""
    return f"gave nothing for {stall_seconds:g} s"


__all__ = [
    "LiveFile",
    "describe_stall",
    "is_pipe",
    "open_growing",
    "open_pipe",
    "receive_file",
    "receive_growing",
    "receive_url",
]
