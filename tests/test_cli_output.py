"""How the commands print."""

import re

import pytest

from linvt_cli.cli_output import StreamedRow, table


@pytest.mark.parametrize("columns", range(20, 60))
def test_sizes_are_not_torn_where_lines_end(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = table({"video": "a name, 6.00 s, 1920 x 1080, seen at 448 x 448 pixels", "more": "words " * 30})
    assert "1920 x 1080" in text and "448 x 448" in text and max(map(len, text.splitlines())) <= columns
    assert text.split() == ["video", *"a name, 6.00 s, 1920 x 1080, seen at 448 x 448 pixels".split(), "more"] + (
        ["words"] * 30
    )


@pytest.mark.parametrize("columns", [20, 33, 47])
@pytest.mark.parametrize("piece", [1, 3, 8])
def test_a_row_that_comes_in_pieces_is_wrapped_as_a_whole_one(monkeypatch, capsys, columns, piece):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = " A red square\nmoves to the right,\x1b[31m then a \t blue circle; a-word-longer-than-the-line-is ends it. "
    row = StreamedRow("text", 8)
    words = re.findall(r"\s*\S+|\s+", text)  # a streamer gives whole words
    for start in range(0, len(words), piece):
        row.write("".join(words[start : start + piece]))
    row.end()
    assert capsys.readouterr().out == table({"text": " ".join(text.replace("\x1b", " ").split())}, 8) + "\n"
    row = StreamedRow("text", 8)
    row.write(" \n ")
    row.end()
    assert capsys.readouterr().out == "text    (empty)\n"
