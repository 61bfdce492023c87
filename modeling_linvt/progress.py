"""Shows the progress of a long task on standard error: to a person as a bar, to a log as lines."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm


LINE_SECONDS = 30.0  # between two lines where there is no terminal
LONG_SECONDS = 60.0  # a task that takes longer gets its hint
ESTIMATE_SECONDS = 2.0  # before, an estimate means little


class Progress:
    """
    Shows a bar with the time left where standard error is a terminal, and a line every half minute where it is not,
    such as in the log of a job. Entering it gives `on_progress(fraction)`.

    Args:
        task (`str`): Such as `"reading"`.
        hidden (`bool`, *optional*, defaults to `False`): Whether nothing is shown, as on all ranks but the first.
        hint (`str`, *optional*): Shown once, as soon as the task seems to take more than a minute.
        clock (`Callable[[], float]`, *optional*): Gives the time in seconds.

    Example:

    ```python
    >>> with Progress("checking rows") as on_progress:
    ...     for number, row in enumerate(rows, start=1):
    ...         check(row)
    ...         on_progress(number / len(rows))
    ```
    """

    def __init__(
        self,
        task: str,
        *,
        hidden: bool = False,
        hint: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.task, self.hidden, self.hint, self.clock = task, hidden, hint, clock
        self.bar: tqdm | None = None

    def __enter__(self) -> Callable[[float], None]:
        self.start_seconds = self.line_seconds = self.clock()
        if not self.hidden and sys.stderr.isatty():
            bar_format = "{desc} {bar} {n:.0f}% {remaining} left"
            self.bar = tqdm(total=100, desc=self.task, leave=False, bar_format=bar_format)
        return self._report

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def _report(self, fraction: float) -> None:
        if self.hidden or fraction <= 0:
            return
        now = self.clock()
        elapsed = now - self.start_seconds
        if self.hint is not None and elapsed >= ESTIMATE_SECONDS and elapsed / fraction > LONG_SECONDS:
            _print_line(f"hint: {self.hint}")
            self.hint = None
        if self.bar is not None:
            self.bar.update(100 * fraction - self.bar.n)
        elif now - self.line_seconds >= LINE_SECONDS and fraction < 1:
            self.line_seconds = now
            left = elapsed / fraction - elapsed
            _print_line(f"{self.task} {fraction:.0%}, about {_duration(left)} left")


def _print_line(text: str) -> None:
    tqdm.write(text, file=sys.stderr)  # above a bar, if there is one
    sys.stderr.flush()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


__all__ = ["Progress"]
