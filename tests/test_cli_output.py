"""How the commands print."""

import pytest

from linvt_cli.cli_output import table


@pytest.mark.parametrize("columns", range(20, 60))
def test_sizes_are_not_torn_where_lines_end(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = table({"video": "a name, 6.00 s, 1920 x 1080, seen at 448 x 448 pixels", "more": "words " * 30})
    assert "1920 x 1080" in text and "448 x 448" in text and max(map(len, text.splitlines())) <= columns
    assert text.split() == ["video", *"a name, 6.00 s, 1920 x 1080, seen at 448 x 448 pixels".split(), "more"] + (
        ["words"] * 30
    )
