"""Answers questions about videos: the command `linvt ask`."""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

from linvt_cli.cli_answering import INDENT, Questioner, add_answer_options, say_about, say_answer
from linvt_cli.cli_models import add_model_options, check_model, load_model
from linvt_cli.cli_output import add_json_option, json_text, say, table
from linvt_cli.cli_seeing import SeenVideo, add_reading_options, check_reading, see_video


def add_ask_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("ask", help="answer questions about videos", description=ask.__doc__)
    command.set_defaults(check=check_ask, run=ask)
    command.add_argument("videos", nargs="+", metavar="video", help="path or URL of a video, or a memory of one")
    question = command.add_argument("question", help="left out with --questions")
    question.required = False  # `check_ask` knows when; with nargs="?" it could not stand behind options
    command.add_argument(
        "--questions", metavar="FILE", help="ask every line of a file, or of standard input (-); videos are seen once"
    )
    add_model_options(command)
    add_reading_options(command)
    add_answer_options(command)
    add_json_option(command)


def check_ask(options: argparse.Namespace) -> None:
    if options.questions is None:
        if options.question is None:
            raise ValueError("the following arguments are required: question, or --questions FILE")
        if os.path.isfile(options.question):
            raise ValueError(f"the last argument is the question, but {options.question} is a file; add a question.")
    else:
        if options.question is not None:  # the last positional argument, which is one more video then
            options.videos.append(options.question)
            options.question = None
        if options.questions != "-" and not Path(options.questions).is_file():
            raise FileNotFoundError(f"there is no file {options.questions} of questions.")
    check_reading(options, options.videos)
    check_model(options)


def ask(options: argparse.Namespace) -> None:
    """
    Answers a question about one or several videos, or one question after the other with --questions. Answers appear
    as they are generated; --json prints one object, with --questions one per question, each on a line of its own.
    """
    questions = [options.question] if options.questions is None else _read_questions(options.questions)
    loaded = load_model(options)
    questioner = Questioner(loaded, options)
    for question in questions:
        questioner.check(question)
    videos = [see_video(loaded, source, options, hidden=options.json) for source in options.videos]
    if options.json:
        for question in questions:
            answer = questioner.ask(videos, question)
            if options.questions is None:
                say(json_text({**_for_machines(questioner, videos), **asdict(answer)}) + "\n")
            else:
                say(json_text({"videos": options.videos, **asdict(answer)}, indent=None) + "\n")
        return
    say_about(questioner, videos)
    if options.questions is None:
        say_answer(questioner, videos, options.question, with_tokens=True)
        return
    say(table({"tokens": questioner.tokens_row(videos)}, INDENT) + "\n")
    for question in questions:
        say("\n" + table({"asked": question}, INDENT) + "\n")
        say_answer(questioner, videos, question)


def _for_machines(questioner: Questioner, videos: list[SeenVideo]) -> dict:
    merged = questioner.merged_frame_tokens(videos)
    return {
        "model": questioner.loaded.name,
        "videos": [video.for_machines() for video in videos],
        "num_video_tokens": questioner.num_video_tokens,
        "only_merges": merged is not None,
        "merged_frame_tokens": merged,
    }


def _read_questions(name: str) -> list[str]:
    """Lines of a file, or of standard input, without empty ones."""
    shown = "standard input" if name == "-" else name
    try:
        # Editors of Windows begin files with a byte order mark, which is no part of the first question.
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown} is no text in UTF-8 ({error}); save it as that.") from error
    questions = [line.strip() for line in text.splitlines() if line.strip()]
    if not questions:
        raise ValueError(f"{shown} holds no question; write one on each line.")
    return questions
