"""Shapes what the `linvt` commands print."""

import argparse
import shutil
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


def table(rows: dict[str, str]) -> str:
    """Formats rows with a title each, wrapped to the width of the terminal; a size such as 640 x 360 stays whole."""
    width, indent = min(shutil.get_terminal_size().columns, 100), max(map(len, rows)) + 2
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
