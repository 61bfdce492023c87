"""Progress of a long task: a bar on a terminal, a line every 30 s anywhere else, such as in the log of a batch job."""

import sys
import time

from tqdm import tqdm


SECONDS_BETWEEN_LINES = 30


class Progress:
    """
    Shows on standard error how much of a task is done.

    Args:
        task (`str`): What is being done, such as `"Checking rows"`.
        total (`int`): Units of the whole task.
        unit (`str`): Name of a unit, such as `"row"`.
        hidden (`bool`, *optional*, defaults to `False`): Whether nothing is shown, as on all ranks but the first.

    Example:

    ```python
    >>> with Progress("Checking rows", len(rows), "row") as progress:
    ...     for row in rows:
    ...         check(row)
    ...         progress.advance()
    ```
    """

    def __init__(self, task: str, total: int, unit: str, *, hidden: bool = False):
        self.task, self.total, self.unit, self.hidden = task, total, unit, hidden
        self.done = 0.0
        self._bar: tqdm | None = None
        self._start_seconds = self._line_seconds = time.monotonic()
        self._done_in_last_line: float | None = None

    def __enter__(self) -> "Progress":
        if not self.hidden and sys.stderr.isatty():
            self._bar = tqdm(desc=self.task, total=self.total, unit=self.unit)
        self._start_seconds = self._line_seconds = time.monotonic()
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done_in_last_line not in (None, self.done):
            self._write_line()  # a log that says that the task has begun also says how it ended

    def advance(self, count: float = 1) -> None:
        """Adds units that are done; a fraction is as good as a whole one."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif not self.hidden and time.monotonic() - self._line_seconds >= SECONDS_BETWEEN_LINES:
            self._write_line()

    def _write_line(self) -> None:
        self._line_seconds = time.monotonic()
        self._done_in_last_line = self.done
        seconds = self._line_seconds - self._start_seconds
        left = f", {_time(seconds / self.done * (self.total - self.done))} left" if self.done < self.total else ""
        unit = self.unit if self.total == 1 else f"{self.unit}s"
        sys.stderr.write(f"{self.task}: {self.done:,.0f} of {self.total:,} {unit} in {_time(seconds)}{left}\n")
        sys.stderr.flush()


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


__all__ = ["SECONDS_BETWEEN_LINES", "Progress"]
