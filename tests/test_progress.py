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


@pytest.fixture
def shown(monkeypatch):
    """`shown(reports, ...)`: what is written by a task of percent that reports (seconds, fraction)."""

    def show(reports, is_terminal=False, **kwargs) -> str:
        stream, seconds = Stream(is_terminal), [0.0]
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr("tqdm.std.time", lambda: seconds[0])
        with Progress("reading", clock=lambda: seconds[0], **kwargs) as progress:
            for seconds[0], fraction in reports:
                progress.reach(fraction)
        return stream.getvalue()

    return show


def test_percent_in_a_log(shown):
    """A line every half minute, and one at the end."""
    lines = shown([(second, second / 400) for second in range(1, 401)]).splitlines()
    assert len(lines) == 400 // 30 + 1
    assert lines[0] == "reading: 8% in 30 s, 6 min left" and lines[-1] == "reading: 100% in 7 min"
    assert shown([(10, 0.3), (20, 0.6), (29, 1.0)]) == ""


def test_percent_on_a_terminal(shown):
    text = shown([(second, second / 100) for second in range(1, 100)], is_terminal=True)
    assert re.search(r"reading .*\d+% [\d:]+ left", text) and "reading:" not in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_hint_is_given_once_and_only_where_it_takes_more_than_a_minute(shown, is_terminal):
    fast, slow = ([(second, second / total) for second in range(1, 50)] for total in (59, 61))
    assert "hint" not in shown(fast, is_terminal, hint="--uniform is faster")
    assert shown(slow, is_terminal, hint="--uniform is faster").count("hint: --uniform is faster\n") == 1
    assert "hint" not in shown(slow, is_terminal)
    assert shown(slow, is_terminal, hint="--uniform is faster", hidden=True) == ""
    # The first moment, in which the decoder is opened, says nothing about the rest.
    assert "hint" not in shown([(1.5, 0.01), (3, 0.5), (4, 1.0)], is_terminal, hint="--uniform is faster")
