"""Long tasks say how far they are where a person looks, and where only a log file does."""

import io
import re

import pytest

from linvt import progress
from linvt.progress import Progress


class Stream(io.StringIO):
    def __init__(self, is_terminal: bool):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def run(monkeypatch, is_terminal: bool = False, seconds_between_lines: float = 0, **kwargs) -> str:
    stream = Stream(is_terminal)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", seconds_between_lines)
    with Progress("Checking rows", 2000, "row", **kwargs) as shown:
        for _ in range(4):
            shown.advance(500)
    return stream.getvalue()


def test_a_log_gets_lines(monkeypatch):
    lines = run(monkeypatch).splitlines()
    assert [re.match(r"Checking rows: ([\d,]+) of 2,000 rows in \d+ s", line)[1] for line in lines] == [
        "500",
        "1,000",
        "1,500",
        "2,000",
    ]
    assert all(line.endswith(" left") for line in lines[:-1]) and "left" not in lines[-1]


def test_a_short_task_says_nothing_in_a_log(monkeypatch):
    assert run(monkeypatch, seconds_between_lines=1000) == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    shown = run(monkeypatch, is_terminal=True, seconds_between_lines=1000)
    assert "2000/2000" in shown and "\r" in shown


@pytest.mark.parametrize("is_terminal", [True, False])
def test_nothing_is_shown_where_it_is_hidden(monkeypatch, is_terminal):
    assert run(monkeypatch, is_terminal, hidden=True) == ""
