"""The AutoShot weights that come with the package."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from synthetic_shots.pictures import invented_scene
from synthetic_shots.transitions import make_film
from tiny_families import write_video

from linvt import AutoShotConfig, AutoShotModel
from linvt.processors.shots.shot_detection import AUTOSHOT_WEIGHTS, load_shot_detector
from linvt.processors.shots.shot_evaluation import TransitionCounts, count_transitions, match_transitions
from linvt.processors.video.video_reading import read_video


UNSEEN_SEED = 10**6  # training counts its windows from 0


def found_scenes(path) -> list[tuple[int, int]]:
    video = read_video(path, num_frames=1, detect_shots=load_shot_detector())
    return [(start, end - 1) for start, end in video.shots_frames]


def test_the_file_holds_the_published_network_in_half_the_size():
    assert sum(path.stat().st_size for path in AUTOSHOT_WEIGHTS.iterdir()) < 18e6
    weights = load_file(AUTOSHOT_WEIGHTS / "model.safetensors")
    fresh = AutoShotModel(AutoShotConfig()).state_dict()
    assert {name: value.shape for name, value in weights.items()} == {n: v.shape for n, v in fresh.items()}
    dtypes = {name: torch.float16 if value.ndim > 1 else value.dtype for name, value in fresh.items()}
    assert {name: value.dtype for name, value in weights.items()} == dtypes
    model = AutoShotModel.from_pretrained(AUTOSHOT_WEIGHTS)
    assert model.dtype == torch.float32
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name].double(), value.double()) for name, value in weights.items())


def test_cuts_of_unseen_scenes_are_found(tmp_path):
    """Also after they were compressed. Bounds, not a benchmark: a network that has not learned is far below them."""
    counts = TransitionCounts()
    for seed in range(2):
        film = make_film(
            np.random.default_rng(UNSEEN_SEED + seed),
            lambda rng, num_frames: invented_scene(rng, num_frames, 54, 96),
            12,
            (10, 40),
            (1.0, 0.0, 0.0, 0.0),
            disturbed=False,
        )
        path = write_video(tmp_path / f"{seed}.mp4", film.frames.numpy(), fps=25)
        counts += count_transitions(film.scenes, found_scenes(path))
    assert counts.recall > 0.8 and counts.precision > 0.8


@pytest.mark.parametrize("name", ["montage_640x360", "montage_cuts"])
def test_every_cut_of_the_montages_is_found(shared_videos, name):
    """Some of their scenes are among the training clips, none of their transitions is."""
    annotation = json.loads((shared_videos / f"{name}.json").read_text())
    annotated = [(shot["start"], shot["end"]) for shot in annotation["shots"]]
    scenes = found_scenes(shared_videos / annotation["file"])
    cuts = {i for i in range(len(annotated) - 1) if annotated[i + 1][0] == annotated[i][1] + 1}
    assert cuts <= {truth for truth, _ in match_transitions(annotated, scenes)}
    assert count_transitions(annotated, scenes).f1 > 0.85


def test_the_card_is_installed_and_names_the_sources(request):
    card = (request.config.rootpath / "hub_cards" / "autoshot_weights.md").read_text()
    for part in ("license:", "Blender Foundation", "Intel Corporation", "train_autoshot.py", "shot_detection.py"):
        assert part in card
    assert "@" not in card  # nothing left to be filled in
