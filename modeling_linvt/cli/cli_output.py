"""What the `linvt` commands share: how they print, how they show progress, and what they check beforehand."""

import argparse
import os
import shutil
import sys
import textwrap
from pathlib import Path

from tqdm import tqdm

from linvt.processors.video.sampled_video import SampledVideo


class ProgressBar:
    """A progress bar on standard error, where a person looks at it. Entered, it gives `on_progress(fraction)`."""

    def __init__(self, task: str, options: argparse.Namespace):
        hidden = options.json or not sys.stderr.isatty()
        self.bar = tqdm(
            total=100, desc=task, unit="%", leave=False, disable=hidden, bar_format="{desc} {bar} {n:.0f}%"
        )

    def __enter__(self):
        return lambda fraction: self.bar.update(100 * fraction - self.bar.n)

    def __exit__(self, *error) -> None:
        self.bar.close()


def add_json_option(command: argparse._ActionsContainer) -> None:
    """To a command, or to a group of options that exclude each other."""
    command.add_argument("--json", action="store_true", help="print the result for machines")


def check_folder(name: str) -> None:
    """
    A path that is not there would be taken for a Hub id, and the error would speak of that.

    Raises:
        `ValueError`: if `name` is no Hub id and no folder.
    """
    if (name.startswith((".", "~", os.sep)) or name.count("/") > 1) and not Path(name).is_dir():
        raise ValueError(f"there is no folder {name}; give that of a saved model or the id of one on the Hub.")


def about_video(source: str, video: SampledVideo) -> dict:
    """What every command says of a video, for machines."""
    return {
        "source": source,
        "duration_seconds": round(video.duration_seconds, 3),
        "num_frames": video.total_num_frames,
        "num_lost_frames": video.num_lost_frames,
        "width": video.width,
        "height": video.height,
    }


def describe_video(about: dict) -> str:
    """The same for a person, in one line."""
    lost = f", {about['num_lost_frames']} frames lost" if about["num_lost_frames"] else ""
    return f"{about['source']}, {about['duration_seconds']:.2f} s, {about['width']} x {about['height']}{lost}"


def table(rows: dict[str, str]) -> str:
    """Rows with a title each, wrapped to the width of the terminal."""
    width, indent = min(shutil.get_terminal_size().columns, 100), max(map(len, rows)) + 2
    return "\n".join(
        textwrap.fill(
            text,
            width,
            initial_indent=title.ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,  # paths and names stay whole
            break_long_words=False,
        )
        for title, text in rows.items()
    )
