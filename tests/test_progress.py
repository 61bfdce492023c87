"""Progress of a task: a bar for a person, lines for a log, nothing where it is hidden."""

import io
import re

import pytest

from linvt.progress import Progress


@pytest.fixture
def shown(monkeypatch):
    """`shown(reports, ...)`: what is written to standard error by a task that reports (seconds, fraction)."""

    def show(reports, is_terminal=False, hidden=False, hint=None) -> str:
        stream = io.StringIO()
        stream.isatty = lambda: is_terminal
        monkeypatch.setattr("sys.stderr", stream)
        seconds = [0.0]
        monkeypatch.setattr("tqdm.std.time", lambda: seconds[0])
        with Progress("reading", hidden=hidden, hint=hint, clock=lambda: seconds[0]) as on_progress:
            for seconds[0], fraction in reports:
                on_progress(fraction)
        return stream.getvalue()

    return show


def test_a_log_gets_a_line_every_half_minute(shown):
    every_second = [(second, second / 400) for second in range(1, 401)]
    lines = shown(every_second).splitlines()
    assert len(lines) == 400 // 30
    assert lines[0] == "reading 8%, about 6 min left" and lines[-1] == "reading 98%, about 10 s left"


def test_the_time_that_is_left_is_told_in_a_unit_that_fits(shown):
    slow = [(40, 0.001), (80, 0.01), (8000, 0.99)]
    assert [line.split("about ")[1] for line in shown(slow).splitlines()] == ["11.1 h left", "2.2 h left", "81 s left"]


def test_a_short_task_says_nothing_in_a_log(shown):
    assert shown([(10, 0.3), (20, 0.6), (29, 1.0)], hint="--uniform") == ""
    assert shown([(29, 0.5), (31, 1.0)]) == ""  # it is done when its first line is due


def test_a_terminal_gets_a_bar_with_the_time_that_is_left(shown):
    text = shown([(second, second / 100) for second in range(1, 100)], is_terminal=True)
    assert re.search(r"reading .*\d+% [\d:]+ left", text) and "about" not in text


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
