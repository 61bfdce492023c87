"""The small model that comes with the package: what it answers is true, and its card says what was measured."""

import json

import pytest
import torch
from make_clip import CLIP
from small_world.accuracy import accuracy
from small_world.video_rows import RowCollator, album_rows, picture_rows
from transformers import AutoModelForImageTextToText, AutoProcessor

from linvt import LinVTForConditionalGeneration
from linvt.hub.model_records import Evaluation, TrainingStage, read_records
from linvt_cli.cli_models import SMALL_MODEL


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
    assert {"config.json", "model.safetensors", "processor_config.json", "training.json", "evaluation.json"} <= files
    assert sum(path.stat().st_size for path in SMALL_MODEL.iterdir()) < 20e6
    model = LinVTForConditionalGeneration.from_pretrained(SMALL_MODEL)
    assert model.dtype == torch.float32 and model.config.num_video_tokens == 28


def test_the_image_llm_of_the_runs_knows_pictures_and_albums(request):
    folder = request.config.rootpath / "docs" / "small_world_runs" / "image_llm"
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    stated = json.loads((folder / "accuracy.json").read_text())
    for kind, rows in {"pictures": picture_rows("test", 400), "albums": album_rows("test", 400)}.items():
        found = accuracy(model, RowCollator(rows, "test", None, AutoProcessor.from_pretrained(folder), 0))
        assert abs(found["mean"] - stated[kind]["mean"]) < 4
    assert stated["pictures"]["mean"] > 95


def test_the_figures_of_the_card_are_those_of_its_records(request):
    evaluations = read_records(SMALL_MODEL, Evaluation)
    stages = read_records(SMALL_MODEL, TrainingStage)
    card = (request.config.rootpath / "hub_cards" / "small_world_model.md").read_text()
    header, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines() if line[:1] == "|"
    )
    records = {(evaluation.evaluated, evaluation.data_id): evaluation.values for evaluation in evaluations}
    before, after = "the model after stage 1", "this model"  # pictures do not change in stage 1
    shown = {
        "videos, after stage 1": records[before, "small-world-videos"],
        "videos, after stage 2": records[after, "small-world-videos"],
        "pictures, as the image-LLM before": records[before, "small-world-pictures"],
        "pictures, after stage 2": records[after, "small-world-pictures"],
    }
    assert [row[0] for row in rows] == list(shown)
    for row in rows:
        values = {about: f"{value:.1f}" for about, value in shown[row[0]].items()}
        assert dict(zip(header[1:], row[1:], strict=True)) == {**dict.fromkeys(header[1:], ""), **values}
    seconds = stages[-1].settings["seconds_with_evaluations"]
    steps, videos = sum(stage.num_steps for stage in stages), stages[0].settings["videos"]
    assert f"{seconds:,} seconds" in card and f"{steps:,} steps of {stages[0].batch_size}" in card
    assert f"{videos:,} videos of" in card and f"{evaluations[0].num_examples:,} questions" in card
