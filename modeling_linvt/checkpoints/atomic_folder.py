"""Folders that appear under their name whole or not at all: written beside the goal, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


def check_new_folder(path: str | os.PathLike) -> None:
    """
    Refuses an output folder that would mix with what is there.

    Raises:
        `FileExistsError`: If `path` is a file, or a folder that is not empty.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists already; give the name of a new folder.")


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """
    Makes a folder that appears under its name when the block ends, and not if the block raises or the process is
    killed. What a killed process has left beside it is removed by the next one with the same output.

    Args:
        path (`str` or `os.PathLike`): The folder. Must not exist, or be empty. Its parents are made.

    Yields:
        `Path`: An empty folder of the same name, to write into.

    Raises:
        `FileExistsError`: If `path` holds something already, or another process is writing it.
    """
    path = Path(path).resolve()
    check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.unfinished")
    staging.mkdir(exist_ok=True)
    # Locked by the process that writes: the system unlocks it when that is killed, and the next one may clean up.
    lock = FileLock(staging / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise FileExistsError(
            f"another process is writing {path} (into {staging}); wait for it, or give the name of another folder."
        ) from error
    complete = staging / path.name
    try:
        shutil.rmtree(complete, ignore_errors=True)
        complete.mkdir()
        yield complete
        if path.exists():
            path.rmdir()
        complete.rename(path)
    finally:
        shutil.rmtree(complete, ignore_errors=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):  # another process may have begun
            staging.rmdir()


__all__ = ["check_new_folder", "new_folder"]
