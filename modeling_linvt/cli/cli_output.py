"""Shapes what the `linvt` commands print."""

import argparse
import json
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from linvt.processors.video.sampled_video import SampledVideo


def add_json_option(command: argparse._ActionsContainer) -> None:
    """Adds `--json` to a command, or to a group of options that exclude each other."""
    command.add_argument("--json", action="store_true", help="print the result for machines")


def about_video(source: str, video: "SampledVideo") -> dict:
    """Describes a video for machines, as every command does."""
    return {
        "source": source,
        "duration_seconds": round(video.duration_seconds, 3),
        "num_frames": video.total_num_frames,
        "num_lost_frames": video.num_lost_frames,
        "width": video.width,
        "height": video.height,
    }


def describe_video(about: dict) -> str:
    """Describes the same for a person, in one line."""
    lost = f", {about['num_lost_frames']} frames lost" if about["num_lost_frames"] else ""
    return f"{about['source']}, {about['duration_seconds']:.2f} s, {about['width']} x {about['height']}{lost}"


def say(text: str) -> None:
    """Prints at once what belongs to a result that is still coming."""
    sys.stdout.write(text)
    sys.stdout.flush()


def json_text(result: dict, indent: int | None = 2) -> str:
    """Formats a result for machines, on one line without `indent`."""
    return json.dumps(result, indent=indent, ensure_ascii=False)


def size_text(num_bytes: int) -> str:
    """Formats the size of a file."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} B"


def table(rows: dict[str, str], indent: int = 0) -> str:
    """
    Formats rows with a title each, wrapped to the width of the terminal; a size such as 640 x 360 stays whole.

    Args:
        indent (`int`, *optional*, defaults to 0): Columns that titles take up at least, as in other parts of a table.
    """
    width, indent = _width(), max(indent, max(map(len, rows)) + 2)
    wrapped = "\n".join(
        textwrap.fill(
            text.replace(" x ", "\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}"),
            width,
            initial_indent=title.ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,  # paths and names stay whole
            break_long_words=False,
        )
        for title, text in rows.items()
    )
    return wrapped.replace("\N{NO-BREAK SPACE}", " ")


class StreamedRow:
    """
    Prints a row of a table while its text is still being written, wrapped as `table` does.

    Args:
        title (`str`), indent (`int`): As in `table`.
    """

    def __init__(self, title: str, indent: int):
        self.indent, self.column, self.is_empty, self._space = indent, indent, True, False
        say(title.ljust(indent))

    def write(self, text: str) -> None:
        """Prints more of the text, without what a terminal would take for a command."""
        for part in re.findall(r"\s+|\S+", printable(text)):
            if part.isspace():
                self._space = not self.is_empty
                continue
            if self._space and self.column + 1 + len(part) > _width():
                say("\n" + " " * self.indent)
                self.column, self._space = self.indent, False
            part = f" {part}" if self._space else part
            say(part)
            self.column, self.is_empty, self._space = self.column + len(part), False, False

    def end(self) -> None:
        """Ends the row, and says where its text was empty."""
        say("(empty)\n" if self.is_empty else "\n")


def printable(text: str) -> str:
    """Returns a text with spaces in place of line ends and of characters that control a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 100)
