"""The programs of the small world run from beginning to end: a few steps, a few scenes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import paper_tables
import pytest
import torch
import train_small_image_llm
import train_small_world
from filelock import FileLock
from small_world import long_data
from small_world.picture_chats import shuffle_tokens
from small_world.results import write_results
from small_world.run_results import STAGES
from small_world.training import Options, Run, in_batches_of_one_size
from small_world.video_rows import album_rows, picture_rows
from small_world.world_rows import BUDGETS, NUM_TOKENS, VARIANTS
from transformers import AutoModelForImageTextToText

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.training.video_sft_trainer import VideoSFTTrainer


@pytest.fixture(scope="module")
def image_llm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image-llm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_small_image_llm, "picture_rows", lambda split, number: picture_rows(split, 8))
        patch.setattr(train_small_image_llm, "album_rows", lambda split, number: album_rows(split, 8))
        settings = {"vision_steps": 2, "pictures": 40, "batch_size": 4, "evaluate_every": 1}
        options = train_small_image_llm.Options(str(folder), picture_steps=2, album_steps=2, **settings)
        train_small_image_llm.main(options)
        first = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
        # Nothing is left to do: what was saved is what is found again.
        train_small_image_llm.main(options)
    again = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    assert all((first[name] == again[name]).all() for name in first)
    return str(folder)


@pytest.fixture(scope="module")
def options(image_llm, tmp_path_factory):
    sizes = {"steps": 2, "videos": 6, "test_videos": 3, "test_pictures": 6, "batch_size": 2}  # a step for each stage
    sizes |= {"long_videos": 2, "long_test_videos": 1}  # of 16 and 32 shots
    return Options(image_llm, str(tmp_path_factory.mktemp("tables")), **sizes)


@pytest.fixture(autouse=True)
def files_of_two(monkeypatch):
    monkeypatch.setattr(long_data, "VIDEOS_PER_FILE", 2)


def test_tokens_of_every_other_picture_are_shuffled_in_training_only():
    projector = torch.nn.Identity()
    projector.register_forward_hook(shuffle_tokens)
    tokens = torch.arange(16.0)[None, :, None] + 100 * torch.arange(6)[:, None, None] + torch.zeros(1, 1, 4)
    shuffled = projector(tokens)
    assert torch.equal(shuffled[::2], tokens[::2]) and not torch.equal(shuffled[1::2], tokens[1::2])
    assert torch.equal(shuffled.sort(1).values, tokens)
    assert torch.equal(projector.eval()(tokens), tokens)


def expected_tokens(name: str, world: str) -> int:
    """Video tokens of a row, told by its name."""
    name = name.removeprefix("long, ")
    expected = {"question only": 0, "average tokens": 16, "all frame tokens": 256, "queries doubled": 56}
    expected |= {"queries halved": 14, "RED-VILLM, 8 frames": 8 + 16, "RED-VILLM, 32 frames": 32 + 16}
    expected |= {"RED-VILLM, temporal pooling": 16, "RED-VILLM, spatial pooling": 16}
    expected |= {"RED-VILLM, 4 spatial tokens": 16 + 4, "uniform frames, LoRA alone": 32}
    expected |= dict.fromkeys(("all tokens", "all tokens, LoRA alone"), 1024 if world == "long" else 256)
    expected["frames that tell"] = 5 * 16  # of the shot in which something moves, in the first test video
    if name.endswith(" tokens") and name.split()[-2].isdecimal() and not name.startswith("RED-VILLM"):
        number = int(name.split()[-2])
        return -(-number // 16) * 16 if name.startswith("uniform") else number
    return expected.get(name.removeprefix("from merging, "), 32 if name.startswith("RED-VILLM") else 28)


# Rows that differ in nothing but the number of tokens: the smallest and the usual number stand for all.
OTHER_BUDGETS = tuple(f", {number} tokens" for number in BUDGETS if number not in (min(BUDGETS), NUM_TOKENS))


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.endswith(OTHER_BUDGETS)])
def test_every_row_of_the_tables_can_be_run(options, name, monkeypatch):
    variant, contrastive_weights = VARIANTS[name], []

    class Recorded(VideoSFTTrainer):
        def __init__(self, *args, contrastive_weight, **kwargs):
            contrastive_weights.append(contrastive_weight)
            super().__init__(*args, contrastive_weight=contrastive_weight, **kwargs)

    monkeypatch.setattr("small_world.training.VideoSFTTrainer", Recorded)
    result = json.loads(json.dumps(Run(variant, 0, options).result()))
    stages = ["aligned"] * variant.aligns + ["tuned"] * variant.tunes_llm or ["untrained"]
    assert [stage for stage in STAGES if stage in result] == stages == list(result["right"])
    for stage in stages:
        assert set(result[stage]) == {"videos", "pictures"} and result["num_questions"]["pictures"] == 6
        for kind, number in result["num_questions"].items():
            answers = result["right"][stage][kind]
            assert sum(map(len, answers.values())) == number and set("".join(answers.values())) <= {"0", "1"}
            shares = {about: 100 * found.count("1") / len(found) for about, found in answers.items()}
            assert {about: result[stage][kind][about] for about in shares} == pytest.approx(shares)
    assert result["num_video_tokens"] == expected_tokens(name, variant.world)
    assert result["options"] == options.settings(variant.world)
    # LinVT's first stage alone contrasts; RED-VILLM has no such loss.
    stages = {(True, True): [0.1, 0.0], (True, False): [0.0], (False, True): [0.0], (False, False): []}
    assert contrastive_weights == stages[variant.aligns, variant.tunes_llm]


def test_batches_have_one_size():
    rng = np.random.default_rng(3)
    sizes = rng.choice([0, 7, 9, 11], 100).tolist()
    order = in_batches_of_one_size(sizes, 4, seed=1)
    assert len(set(order)) == len(order) >= 100 - 3 * 3
    batches = [[sizes[number] for number in order[start : start + 4]] for start in range(0, len(order), 4)]
    assert all(len(set(batch) - {0}) <= 1 for batch in batches) and len(order) % 4 == 0
    assert order != sorted(order) and order != in_batches_of_one_size(sizes, 4, seed=2)


def test_a_stage_of_no_steps_is_left_out(options):
    started = Run(VARIANTS["LinVT"], 0, options).model.state_dict()
    run = Run(VARIANTS["LinVT"], 0, replace(options, aligned_share=0.0, steps=0))
    run.result()
    ended = run.model.get_base_model().video_tokenizer.modules_to_save["default"].state_dict()
    assert all(torch.equal(value, started[f"video_tokenizer.{name}"]) for name, value in ended.items())


def test_an_image_llm_that_is_there_is_asked(image_llm, tmp_path, monkeypatch):
    monkeypatch.setattr(train_small_image_llm, "picture_rows", lambda split, number: picture_rows(split, 8))
    monkeypatch.setattr(train_small_image_llm, "album_rows", lambda split, number: album_rows(split, 8))
    train_small_image_llm.main(train_small_image_llm.Options(str(tmp_path), start=image_llm, album_steps=0))
    for name in ("accuracy.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (Path(image_llm) / name).read_bytes()


def test_runs_of_other_options_are_not_mixed(options, tmp_path):
    run = {"variant": "LinVT", "seed": 0, "options": options.settings("small")}
    (tmp_path / "LinVT, seed 0.json").write_text(json.dumps(run))
    paper_tables.run_once("LinVT", 0, replace(options, output="elsewhere"), tmp_path)
    other = replace(options, steps=3)
    with pytest.raises(ValueError, match="LinVT, seed 0.json was made with .*'steps': 2.*not .*'steps': 3"):
        paper_tables.run_once("LinVT", 0, other, tmp_path)
    (tmp_path / "LinVT, seed 1.json").write_text(json.dumps({**run, "seed": 1, "options": other.settings("small")}))
    with pytest.raises(ValueError, match="cannot be compared"):
        write_results(tmp_path, tmp_path / "results.md")


def test_the_tables_are_those_of_the_runs(request, tmp_path):
    docs = request.config.rootpath / "docs"
    page = tmp_path / "results.md"
    page.write_text((docs / "results.md").read_text())
    write_results(docs / "small_world_runs", page)
    assert page.read_text() == (docs / "results.md").read_text()


def test_tables_say_what_was_not_run(tmp_path):
    videos = {"mean": 50.0, "order": 25.0}
    for seed, mean in ((0, 50.0), (1, 60.0)):
        run = {
            "variant": "LinVT",
            "seed": seed,
            "num_video_tokens": 28,
            "video_tokenizer_parameters": 5000,
            "seconds": 60,
            "options": {},
            "losses": [],
        }
        run["tuned"] = {
            "videos": {
                **dict.fromkeys(
                    ("attribute", "existence", "count", "position", "motion", "order", "needle", "change", "caption"),
                    1.0,
                ),
                **videos,
                "mean": mean,
            },
            "pictures": {"mean": 90.0, "caption": 80.0},
        }
        (tmp_path / f"{seed}.json").write_text(json.dumps(run))
    page = tmp_path / "results.md"
    page.write_text("before <!-- tables -->of before<!-- /tables --> after")
    write_results(tmp_path, page)
    text = page.read_text()
    assert text.startswith("before ") and text.endswith(" after") and "of before" not in text
    assert "| LinVT | 0, 1 | 28 | 5 k | **55.0 ± 7.1** |" in text and "| SVR | not run |" in text
    assert "| 90.0 ± 0.0 | 80.0 ± 0.0 | 1 |" in text


def test_a_run_is_made_by_one_process_and_once(options, tmp_path, monkeypatch):
    made = {"seed": 1, "options": options.settings("small")}

    class Made:
        def __init__(self, variant, seed, options):
            assert seed == 1

        def result(self):
            return made

    monkeypatch.setattr(paper_tables, "Run", Made)
    result = tmp_path / "LinVT, seed 1.json"
    with FileLock(result.with_suffix(".lock")):
        paper_tables.run_once("LinVT", 1, options, tmp_path)
        assert not result.exists()
    paper_tables.run_once("LinVT", 1, options, tmp_path)
    assert json.loads(result.read_text()) == {"variant": "LinVT", **made}
    monkeypatch.setattr(paper_tables, "Run", None)
    paper_tables.run_once("LinVT", 1, options, tmp_path)


def test_the_small_model_is_saved_whole(options):
    train_small_world.main(options)
    folder = f"{options.output}/model"
    assert LinVTForConditionalGeneration.from_pretrained(folder).config.num_video_tokens == 28
    assert LinVTProcessor.from_pretrained(folder).video_processor.num_frames == 16


def test_last_first_gives_the_same_tokens_in_reverse(options):
    tokens = []
    for last_first in (False, True):
        run = Run(replace(VARIANTS["merging, 28 tokens"], last_first=last_first), 0, options)
        made = run._videos("test")
        tokens.append(made.tokens.unflatten(0, (len(made.num_frames), -1)))
    assert torch.equal(tokens[1], tokens[0].flip(1)) and not torch.equal(tokens[1], tokens[0])
