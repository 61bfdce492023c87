"""Type checking is a test like the others: mypy on the package as it is installed, and on code that uses it."""

import io
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ROOT = Path(__file__).parents[1]
PACKAGE_DIR = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]

USES = """
from pathlib import Path

from linvt import LinVTConfig, LinVTForConditionalGeneration, LinVTProcessor
from linvt.processors.video.frame_selection import uniform_frame_indices
from linvt.processors.video.video_reading import read_video
from linvt.training.row_checks import check_rows

model: LinVTForConditionalGeneration = LinVTForConditionalGeneration.from_pretrained(Path("model"), dtype="auto")
wrapped: LinVTForConditionalGeneration = LinVTForConditionalGeneration.from_image_llm("llm", {"top_k": 64})
processor: LinVTProcessor = LinVTProcessor.from_pretrained("model")
inputs = processor(text="<video>", videos=["clip.mp4"], num_frames=8, return_tensors="pt")
answer = processor.batch_decode(model.generate(**inputs, max_new_tokens=20))
count: int = LinVTConfig().num_video_tokens
indices: list[int] = uniform_frame_indices(100, count)
seconds: list[float] = read_video("clip.mp4", 8).frame_seconds
places: list[int] = list(check_rows([{"messages": []}], processor, max_length=64))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the packages under their import names, which the folders of the checkout do not have."""
    folder = tmp_path_factory.mktemp("installed")
    for package, source in PACKAGE_DIR.items():
        target = folder.joinpath(*package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for path in [*(ROOT / source).glob("*.py"), *(ROOT / source).glob("py.typed")]:
            shutil.copy(path, target)
    return folder


def run_mypy(folder: Path, *targets: str) -> subprocess.CompletedProcess:
    command = (sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", "cache")
    return subprocess.run([*command, *targets], cwd=folder, capture_output=True, text=True)


def test_the_package_has_no_type_errors(installed):
    done = run_mypy(installed, "-p", "linvt", "-p", "linvt_cli")
    assert done.returncode == 0, done.stdout + done.stderr
    num_files = len(list(installed.rglob("*.py")))
    assert f"no issues found in {num_files} source files" in done.stdout


def test_code_that_uses_the_package_has_none_either(installed):
    (installed / "uses.py").write_text(USES)
    done = run_mypy(installed, "-m", "uses")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module, wrong, code",
    [
        ("linvt.processors.video.frame_selection", "uniform_frame_indices('a', 1)", "arg-type"),
        ("linvt.processors.video.frame_selection", "name: str = uniform_frame_indices(9, 1)", "assignment"),
        ("linvt.processors.video.video_reading", "read_video('clip.mp4', num_frames='all')", "arg-type"),
        ("linvt.processors.video.video_reading", "read_video('clip.mp4').frame_second", "attr-defined"),
        ("linvt.configuration.configuration_linvt", "LinVTConfig().num_video_tokens.upper()", "attr-defined"),
        ("linvt", "LinVTForConditionalGeneration.from_pretrained(3)", "arg-type"),
        ("linvt", "LinVTProcessor.from_image_llm_processor(None, '112')", "arg-type"),
        ("linvt_cli.cli_main", "main(3)", "arg-type"),
    ],
)
def test_a_wrong_use_is_found(installed, module, wrong, code):
    (name,) = re.findall(r"\b(\w+)\b(?=\(|\.from)", wrong)[:1]
    (installed / "wrong.py").write_text(f"from {module} import {name}\n\n{wrong}\n")
    done = run_mypy(installed, "-m", "wrong")
    assert re.findall(r"^(\S+):(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE) == [("wrong.py", "3", code)]


def test_every_ignored_type_error_has_its_code_and_a_reason():
    folders = {ROOT / folder for folder in (*PACKAGE_DIR.values(), "tests", "examples", "docs")}
    paths = {path for folder in folders for path in folder.rglob("*.py")} | set(ROOT.glob("*.py"))
    for path in sorted(paths):
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.COMMENT and re.search(r"type:\s*ignore", token.string):
                has_reason = re.match(r"# type: ignore\[[a-z-]+(, [a-z-]+)*\]  # \S", token.string)
                assert has_reason, f"{path.relative_to(ROOT)}:{token.start[0]} {token.string}"
