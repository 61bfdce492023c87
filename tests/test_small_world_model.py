"""The small model that comes with the package: what it answers is true, and its card says what was measured."""

import json
import re

import pytest
import torch
from make_clip import CLIP

from linvt import LinVTForConditionalGeneration
from linvt.cli import SMALL_MODEL


CLIP_FILE = "examples/shapes.mp4"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What colour is the circle?", CLIP.shots[1].shapes[0].colour),
        ("What shape is the yellow one?", CLIP.shots[1].shapes[1].kind),
        ("Is there a red square?", "yes"),
        ("Is there a red circle?", "no"),
        ("How many circle shapes are there?", "one"),
        ("Where is the yellow ring?", CLIP.shots[1].shapes[1].corner),
        ("Which comes first, the red square or the blue circle?", f"the {CLIP.shots[0].shapes[0].name}"),
        ("Which way does the blue circle move?", f"to the {CLIP.shots[1].shapes[0].direction}"),
    ],
)
def test_answers_about_the_clip_are_true(run, request, question, answer):
    code, output, errors = run("ask", request.config.rootpath / CLIP_FILE, question, "--json")
    assert code == 0 and errors == ""
    result = json.loads(output)
    assert result["text"] == answer and result["unknown_words"] == []


def test_it_is_small_and_complete():
    files = {path.name for path in SMALL_MODEL.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json", "evaluation.json"} <= files
    assert sum(path.stat().st_size for path in SMALL_MODEL.iterdir()) < 20e6
    model = LinVTForConditionalGeneration.from_pretrained(SMALL_MODEL)
    assert model.dtype == torch.float32 and model.config.num_video_tokens == 28


def test_every_figure_of_the_card_is_in_its_evaluation():
    measured = json.loads((SMALL_MODEL / "evaluation.json").read_text())
    figures = {
        f"{share:.1f}"
        for stage in ("aligned", "tuned")
        for part in measured[stage].values()
        for share in part.values()
    }
    rows = [
        line
        for line in (SMALL_MODEL / "README.md").read_text().splitlines()
        if line.startswith(("| videos", "| pictures"))
    ]
    shown = [figure for row in rows for figure in re.findall(r"\d+\.\d", row)]
    assert len(shown) > 25 and set(shown) <= figures
