"""Holds a conversation about videos in the terminal: the command `linvt chat`."""

import argparse
import sys
from contextlib import suppress

from linvt_cli.cli_answering import INDENT, Questioner, add_answer_options, say_about, say_answer
from linvt_cli.cli_models import add_model_options, check_model, load_model
from linvt_cli.cli_output import say, table
from linvt_cli.cli_seeing import add_reading_options, check_reading, see_video


def add_chat_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("chat", help="have a conversation about a video", description=chat.__doc__)
    command.set_defaults(check=check_chat, run=chat, json=False)
    command.add_argument("videos", nargs="+", metavar="video", help="path or URL of a video, or a memory of one")
    add_model_options(command)
    add_reading_options(command)
    add_answer_options(command)


def check_chat(options: argparse.Namespace) -> None:
    check_reading(options, options.videos)
    check_model(options)


def chat(options: argparse.Namespace) -> None:
    """
    Holds a conversation about videos, each of which is seen once. The questions and answers so far stay in the prompt.
    Ctrl-D ends it.
    """
    with suppress(ImportError):  # not everywhere; `input` edits lines and knows earlier ones where it is
        import readline  # noqa: F401

    loaded = load_model(options)
    questioner = Questioner(loaded, options)
    videos = [see_video(loaded, source, options, hidden=False) for source in options.videos]
    say_about(questioner, videos)
    say(table({"tokens": questioner.tokens_row(videos)}, INDENT) + "\n")
    history: list[dict] = []
    while (question := _next_question()) is not None:
        try:
            questioner.check(question)
        except ValueError as error:
            say(table({"error": str(error)}, INDENT) + "\n")
            continue
        answer = say_answer(questioner, videos, question, history)
        for role, text in (("user", question), ("assistant", answer.text)):
            history.append({"role": role, "content": [{"type": "text", "text": text}]})


def _next_question() -> str | None:
    """Reads the next line that is not empty; `None` at the end."""
    is_terminal = sys.stdin.isatty()
    while True:
        try:
            line = input("\n> " if is_terminal else "").strip()
        except EOFError:
            if is_terminal:
                say("\n")
            return None
        if line:
            return line
