"""Files that appear under their name whole or not at all: written beside the goal, then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def new_file(path: str | os.PathLike) -> Iterator[Path]:
    """
    Makes or replaces a file when the block ends, and leaves it as it was if the block raises or the process is killed.

    Args:
        path (`str` or `os.PathLike`): The file, in a folder that exists.

    Yields:
        `Path`: Where to write, with the same suffix.

    Raises:
        `OSError`: If it cannot be written, as on a full disk; safetensors has an error of its own for that.
    """
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield part
        os.replace(part, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


__all__ = ["new_file"]
