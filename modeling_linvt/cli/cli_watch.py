"""Watches a live source and asks the same question again and again: the command `linvt watch`."""

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linvt_cli.cli_answering import INDENT, Questioner, add_answer_options, say_answer
from linvt_cli.cli_checks import check_video
from linvt_cli.cli_encode import about_saved, check_memory_output, saved_rows
from linvt_cli.cli_models import SMALL_MODEL_NOTE, add_model_options, check_model, load_model
from linvt_cli.cli_output import add_json_option, json_text, say, table
from linvt_cli.cli_seeing import (
    WHOLE_VIDEO_NOTE,
    SeenVideo,
    add_shot_options,
    check_shot_options,
    is_memory,
    reading_settings,
)


if TYPE_CHECKING:
    from linvt.streaming_encoder import StreamingEncoder


def add_watch_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("watch", help="ask about a live source while it runs", description=watch.__doc__)
    command.set_defaults(check=check_watch, run=watch)
    command.add_argument(
        "source", help="URL (http, HLS, rtsp, rtmp, srt, ...), a named pipe, a file that grows, - for standard input"
    )
    command.add_argument("question")
    command.add_argument(
        "--every", type=float, required=True, metavar="SECONDS", help="time from question to question"
    )
    command.add_argument("--fps", type=float, default=1.0, help="frames to look at per second (default: 1)")
    command.add_argument("--memory", metavar="OUTPUT", help="also save what was seen, as `linvt encode` does")
    command.add_argument("--format", help="of the source, where FFmpeg cannot tell: v4l2 for a camera on Linux")
    add_model_options(command)
    add_shot_options(command)
    add_answer_options(command)
    add_json_option(command)


def check_watch(options: argparse.Namespace) -> None:
    if not options.every > 0:
        raise ValueError(f"--every is {options.every:g}; give a number of seconds above 0.")
    if is_memory(options.source):
        raise ValueError(f"{options.source} is a memory, which nothing is added to; give it to `linvt ask`.")
    if options.source != "-" and options.format is None:
        check_video(options.source)
    if options.memory is not None:
        check_memory_output(options.memory)
    check_shot_options(options)
    check_model(options)


def watch(options: argparse.Namespace) -> None:
    """
    Sees a live source while it runs, and asks about all that it has seen so far, again and again at equal intervals,
    until the source ends, or until Ctrl-C. --json prints one object per answer, each on a line of its own.
    """
    from linvt.processors.video.live_source import LiveSource
    from linvt.streaming_encoder import StreamingEncoder, piece_frames

    loaded = load_model(options)
    questioner = Questioner(loaded, options)
    questioner.check(options.question)
    encoder = StreamingEncoder(loaded.model)
    notes = [SMALL_MODEL_NOTE] if loaded.is_small else []
    notes += [] if encoder.by_shot else [WHOLE_VIDEO_NOTE]
    if notes and not options.json:
        say(table({"note": "; ".join(notes)}, INDENT) + "\n")
    pieces = loaded.processor.video_processor.iter_video(
        LiveSource(options.source, format=options.format),
        fps=options.fps,
        frames_per_piece=1,
        **reading_settings(loaded, options),
    )
    seconds: float | None = None  # of the last frame, and when the next question is due
    due, answered = 0.0, False
    try:
        for piece in pieces:
            last, seconds = seconds, piece["video_milliseconds"][-1].item() / 1000
            due = seconds + options.every if last is None else due
            with _finished_before_interrupt():
                encoder.add(**piece_frames(piece))
            answered = seconds >= due
            if answered:
                _answer(questioner, encoder, options)
                due = seconds + options.every
        if not answered:
            _answer(questioner, encoder, options)
    except KeyboardInterrupt:
        if seconds is None:
            raise
    if options.memory is not None:
        output, memory = Path(options.memory), encoder.memory()
        memory.save(output)
        saved = about_saved(loaded, memory, output)
        say(json_text(saved, indent=None) + "\n" if options.json else f"\n{table(saved_rows(saved), INDENT)}\n")


def _answer(questioner: Questioner, encoder: "StreamingEncoder", options: argparse.Namespace) -> None:
    """Asks about what was seen so far, and saves it in case the process is killed."""
    memory = encoder.memory()
    if options.memory is not None:
        memory.save(options.memory)
    seen, seconds = [SeenVideo(options.source, memory)], memory.span_seconds[1]
    if options.json:
        about: dict[str, Any] = {"seconds": round(seconds, 3), "num_frames": memory.num_frames}
        say(json_text({**about, **asdict(questioner.ask(seen, options.question))}, indent=None) + "\n")
        return
    say("\n" + table({"seen": f"{seconds:.2f} s, {memory.num_frames} frames"}, INDENT) + "\n")
    say_answer(questioner, seen, options.question)


@contextmanager
def _finished_before_interrupt() -> Iterator[None]:
    """Puts off a Ctrl-C until the block is over, so that it leaves no frame half added."""
    interrupts: list[Any] = []
    previous = signal.signal(signal.SIGINT, lambda *interrupt: interrupts.append(interrupt))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupts:
        raise KeyboardInterrupt
