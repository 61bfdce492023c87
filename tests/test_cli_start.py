"""What the command line does before it imports anything that takes seconds."""

import subprocess
import sys

import pytest

from linvt.checkpoints.atomic_folder import new_folder
from linvt.conversion import KINDS
from linvt.hub.export import FORMATS, export_model
from linvt.processors.shots.contact_sheet import MAX_THUMBNAILS
from linvt.video_tokenizer import video_memory
from linvt_cli import cli_choices
from linvt_cli.cli_checks import check_video


SLOW = {"torch", "torchvision", "transformers", "linvt", "av", "PIL", "numpy", "peft", "huggingface_hub"}

COMMANDS = ("ask", "encode", "chat", "watch", "wrap", "convert", "shots", "export", "push")

# Runs one command after another, and prints after each its exit code and which of the slow modules are imported.
CHILD = """
import io, shlex, sys
from contextlib import redirect_stderr, redirect_stdout
from linvt_cli.cli_main import main

for line in sys.argv[2:]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
        try:
            code = main(shlex.split(line))
        except SystemExit as error:
            code = error.code
    print(code, sorted(set(sys.argv[1].split()) & set(sys.modules)), *errors.getvalue().splitlines()[-1:])
"""


def start(*lines: str, cwd) -> list[str]:
    child = [sys.executable, "-c", CHILD, " ".join(SLOW), *lines]
    done = subprocess.run(child, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_help_and_version_import_nothing_slow(tmp_path):
    lines = ("--help", "--version", *(f"{command} --help" for command in COMMANDS))
    assert start(*lines, cwd=tmp_path) == ["0 []"] * len(lines)


def test_errors_in_arguments_and_paths_import_nothing_slow(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    for name in ("clip.mp4", "seen.memory.safetensors"):
        (tmp_path / name).touch()
    errors = {
        "": "required: command",
        "aks clip.mp4 what?": "invalid choice: 'aks'",
        "ask clip.mp4": "required: question",
        "ask nothing.mp4 --uniform what?": "Cannot read a video from 'nothing.mp4': there is no such file",
        "ask clip.mp4 --uniform nothing.mp4 --questions clip.mp4": "Cannot read a video from 'nothing.mp4'",
        "ask clip.mp4 what? --unifrom": "--unifrom",
        "ask nothing.mp4 what?": "Cannot read a video from 'nothing.mp4': there is no such file",
        "ask clip.mp4 what? --model ./nothing": "there is no folder ./nothing",
        "ask clip.mp4 what? --model nothing": "there is no folder nothing",
        "ask clip.mp4 what? --autoshot ./nothing": "there is no folder ./nothing",
        "ask clip.mp4 clip.mp4": "the last argument is the question, but clip.mp4 is a file",
        "ask clip.mp4 --questions nothing.txt": "there is no file nothing.txt",
        "ask what.memory.safetensors what?": "Cannot read a video from 'what.memory.safetensors'",
        "ask seen.memory.safetensors what? --fps 2": "--fps cannot be chosen for a memory",
        "ask seen.memory.safetensors clip.mp4 what? --fps two": "invalid float value: 'two'",
        "ask clip.mp4 what? --fps 2 --num-frames 8": "not allowed with argument",
        "chat": "required: video",
        "chat nothing.mp4": "Cannot read a video from 'nothing.mp4': there is no such file",
        "chat seen.memory.safetensors --uniform": "--uniform cannot be chosen for a memory",
        "encode nothing.mp4 new.memory.safetensors": "Cannot read a video from 'nothing.mp4': there is no such file",
        "encode clip.mp4 new.safetensors": "let it end in .memory.safetensors",
        "encode clip.mp4 seen.memory.safetensors": "seen.memory.safetensors exists already",
        "encode clip.mp4 nothing/new.memory.safetensors": "there is no folder nothing",
        "encode seen.memory.safetensors new.memory.safetensors": "is a memory of a video already",
        "encode clip.mp4 new.memory.safetensors --model ./nothing": "there is no folder ./nothing",
        "watch nothing.ts what? --every 5": "Cannot read a video from 'nothing.ts': there is no such file",
        "watch clip.mp4 what?": "required: --every",
        "watch clip.mp4 what? --every 0": "--every is 0",
        "watch - what? --every 5 --memory new.mp4": "let it end in .memory.safetensors",
        "shots nothing.mp4": "Cannot read a video from 'nothing.mp4': there is no such file",
        "shots clip.mp4 --autoshot ./nothing": "there is no folder ./nothing",
        "shots clip.mp4 --contact-sheet nothing/sheet.png": "there is no folder nothing for sheet.png",
        "shots clip.mp4 --contact-sheet taken": "taken is not a file",
        "shots clip.mp4 --csv --json": "not allowed with argument",
        "wrap ./nothing new": "there is no folder ./nothing",
        "wrap org/model taken": "taken exists already",
        "wrap org/model new --dtype float17": "invalid choice: 'float17'",
        "wrap org/model new --frame-size 3": "--frame-size: expected 2 arguments",
        "wrap org/model new --video-tokenizer {": "'{' is no JSON",
        "wrap org/model new --video-tokenizer 3": "'3' is no JSON object",
        "convert ./nothing new": "there is no folder ./nothing",
        "convert nothing.pth new": "there is no file nothing.pth",
        "convert org/model taken": "taken exists already",
        "convert org/model new --kind internvl3": "invalid choice: 'internvl3'",
        "export ./nothing new": "there is no folder ./nothing",
        "export org/model taken": "taken exists already",
        "export org/model new --format tiny": "invalid choice: 'tiny'",
        "push ./nothing me/model": "there is no folder ./nothing",
    }
    for message, line in zip(errors.values(), start(*errors, cwd=tmp_path), strict=True):
        assert line.startswith("2 [] ") and message in line


@pytest.mark.parametrize("source", ["https://host/clip.mp4", "file:///clip.mp4", "data:video/mp4;base64,AAAA", "."])
def test_only_missing_paths_are_refused_before_the_reader_is_asked(source):
    check_video(source)


def test_choices_are_those_of_the_library():
    assert cli_choices.FORMATS == FORMATS
    assert cli_choices.KINDS == tuple(kind.name for kind in KINDS)
    assert cli_choices.MAX_THUMBNAILS == MAX_THUMBNAILS
    assert cli_choices.MEMORY_SUFFIX == video_memory.MEMORY_SUFFIX


def test_an_output_that_is_there_is_refused_in_the_same_words(run, tmp_path):
    (tmp_path / "taken").touch()
    said = []
    for make in (lambda path: new_folder(path).__enter__(), lambda path: export_model("org/model", path)):
        with pytest.raises(FileExistsError) as error:
            make(tmp_path / "taken")
        said.append(str(error.value))
    for command in ("wrap", "convert", "export"):
        code, _, error = run(command, "org/model", tmp_path / "taken")
        assert code == 2
        said.append(error.removeprefix(f"linvt {command}: ").rstrip())
    assert set(said) == {f"{tmp_path}/taken exists already; give the name of a new folder."}
