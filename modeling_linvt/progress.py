"""Progress of a long task: a bar on a terminal, a line every 30 s anywhere else, such as in the log of a batch job."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm


SECONDS_BETWEEN_LINES = 30

LONG_SECONDS = 60  # a task that takes longer gets its hint
ESTIMATE_SECONDS = 2  # before, an estimate means little


class Progress:
    """
    Shows on standard error how much of a task is done.

    Args:
        task (`str`): What is being done, such as `"Checking rows"`.
        total (`float`, *optional*, defaults to 1): Units of the whole task.
        unit (`str`, *optional*): Name of a unit, such as `"row"`; by default percent are shown.
        hidden (`bool`, *optional*, defaults to `False`): Whether nothing is shown, as on all ranks but the first.
        hint (`str`, *optional*): How it could be faster, shown once it seems that the task takes over a minute.
        clock (`Callable[[], float]`, *optional*): Gives the time in seconds.

    Example:

    ```python
    >>> with Progress("Checking rows", len(rows), "row") as progress:
    ...     for row in rows:
    ...         check(row)
    ...         progress.advance()
    ```
    """

    def __init__(
        self,
        task: str,
        total: float = 1,
        unit: str | None = None,
        *,
        hidden: bool = False,
        hint: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.task, self.total, self.unit, self.hidden, self.hint, self.clock = task, total, unit, hidden, hint, clock
        self.done: float = 0
        self._bar: tqdm | None = None
        self._start_seconds = self._line_seconds = clock()
        self._done_in_last_line: float | None = None

    def __enter__(self) -> "Progress":
        if not self.hidden and sys.stderr.isatty():
            if self.unit is None:
                bar_format = "{desc} {bar} {percentage:.0f}% {remaining} left"
                self._bar = tqdm(desc=self.task, total=self.total, leave=False, bar_format=bar_format)
            else:
                self._bar = tqdm(desc=self.task, total=self.total, unit=self.unit)
        self._start_seconds = self._line_seconds = self.clock()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done_in_last_line not in (None, self.done):
            self._write_line(self.clock())  # a log that says that the task has begun also says how it ended

    def advance(self, count: float = 1) -> None:
        """Adds units that are done; a fraction is as good as a whole one."""
        self.reach(self.done + count)

    def reach(self, done: float) -> None:
        """Sets how many units are done, such as the fraction that an `on_progress` gets."""
        count, self.done = done - self.done, done
        if self.hidden or done <= 0:
            return
        now = self.clock()
        seconds = now - self._start_seconds
        if self.hint is not None and seconds >= ESTIMATE_SECONDS and seconds / done * self.total > LONG_SECONDS:
            tqdm.write(f"hint: {self.hint}", file=sys.stderr)  # above the bar
            self.hint = None
        if self._bar is not None:
            self._bar.update(count)
        elif now - self._line_seconds >= SECONDS_BETWEEN_LINES:
            self._write_line(now)

    def _write_line(self, now: float) -> None:
        self._line_seconds = now
        self._done_in_last_line = self.done
        seconds = now - self._start_seconds
        left = f", {_time(seconds / self.done * (self.total - self.done))} left" if self.done < self.total else ""
        part = f"{self.done / self.total:.0%}"
        if self.unit is not None:
            part = f"{self.done:,.0f} of {self.total:,} {self.unit if self.total == 1 else f'{self.unit}s'}"
        sys.stderr.write(f"{self.task}: {part} in {_time(seconds)}{left}\n")
        sys.stderr.flush()


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


__all__ = ["SECONDS_BETWEEN_LINES", "Progress"]
