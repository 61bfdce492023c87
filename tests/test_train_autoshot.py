"""Training of AutoShot: are the films what their labels say, and does a stopped run go on as if it had not stopped?"""

import json
import sys
from functools import partial

import numpy as np
import pytest
import torch
import train_autoshot
from safetensors.torch import load_file
from synthetic_shots.disturbances import disturb
from synthetic_shots.pictures import Footage, invented_scene, split_at_jumps
from synthetic_shots.transitions import KINDS, Film, Transition, make_film
from synthetic_shots.windows import Windows, labels
from tiny_families import write_video

from linvt import AutoShotConfig, AutoShotModel


class PlainPictures:
    """Every shot in a colour of its own: shot i has the red (i + 1) / 64, and all are far apart in green and blue."""

    def __init__(self):
        self.num_calls = 0

    def __call__(self, rng, num_frames):
        self.num_calls += 1
        color = torch.tensor([self.num_calls / 64, self.num_calls % 2, self.num_calls // 2 % 2])
        return color[None, :, None, None].expand(num_frames, 3, 9, 16)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_shots_and_transitions_are_where_the_film_says(kind, seed):
    shares = tuple(float(k == kind) for k in KINDS)
    film = make_film(np.random.default_rng(seed), PlainPictures(), 9, (4, 60), shares, disturbed=False)
    frames = film.frames.float()
    assert film.frames.dtype == torch.uint8 and film.frames.shape[1:] == (9, 16, 3)
    assert [transition.kind for transition in film.transitions] == [kind] * 8 and len(film.scenes) == 9
    colors = []
    for first, last in film.scenes:
        assert last - first + 1 >= 4 and (frames[first : last + 1] == frames[first]).all()
        colors.append(frames[first, 0, 0])
    for transition, before, after in zip(film.transitions, colors[:-1], colors[1:], strict=True):
        assert not torch.equal(before, after)
        if kind == "cut":
            assert transition.last == transition.first - 1
        else:
            # No frame of it looks like one of the old shot, but for a border that has not come far enough to be seen.
            during = frames[transition.first : transition.last + 1]
            assert 3 <= len(during) <= 40
            changed = (during != before).flatten(1).any(dim=1)
            assert changed.float().mean() > 0.5 and changed[-1]
    assert film.scenes[0][0] == 0 and film.scenes[-1][1] == len(frames) - 1


def test_labels_lie_around_those_of_the_published_code():
    """The middle of the gap from the last old to the first new frame, and all frames from the last old one on."""
    film = Film(
        torch.zeros(99, 1, 1, 3), [Transition(*t) for t in (("cut", 20, 19), ("wipe", 30, 34), ("fade", 50, 73))]
    )
    one_hot, many_hot = labels(film)
    assert one_hot.nonzero().flatten().tolist() == [19, 29 + (35 - 29) // 2, *range(61 - 3, 61 + 4)]
    assert many_hot.nonzero().flatten().tolist() == [19, *range(29, 35), *range(49, 74)]


def test_there_is_no_flash_at_a_transition():
    frames = torch.full((3000, 3, 12, 12), 0.5)
    transitions = [(start, start + 5) for start in range(50, 2950, 50)]
    rng, flashes = np.random.default_rng(0), 0
    for _ in range(5):
        disturbed = disturb(rng, frames, transitions)
        jumps = (disturbed[1:] - disturbed[:-1]).abs().flatten(1).min(dim=1).values > 0.15
        flashes += int(jumps.sum())
        for first, last in transitions:
            assert not jumps[first - 4 : last + 4].any()
    assert flashes > 10


def test_invented_scenes_are_pictures_without_a_jump():
    for seed in range(10):
        frames = invented_scene(np.random.default_rng(seed), 40, 27, 48)
        assert frames.shape == (40, 3, 27, 48) and 0 <= frames.min() and frames.max() <= 1
        assert torch.equal(frames, invented_scene(np.random.default_rng(seed), 40, 27, 48))
        assert len(split_at_jumps((frames * 255).to(torch.uint8))) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one video: two shots of 30 frames, red with a growing bar and blue with a growing bar."""
    frames = np.zeros((60, 60, 80, 3), np.uint8)
    frames[:30, :, :, 0], frames[30:, :, :, 2] = 200, 200
    for number in range(60):
        frames[number, :, : 10 + number] += 20
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "two_shots.mp4", frames, fps=25)
    return folder


def test_footage_is_split_at_cuts(folder):
    footage = Footage([folder / "two_shots.mp4"], 54, 96)
    assert [len(run) for run in footage.runs] == [30, 30]
    rng = np.random.default_rng(0)
    for _ in range(20):
        frames = footage.as_filmed(rng, 50)
        assert len(frames) == 30  # no run is longer
        red, blue = frames[:, 0].mean(dim=(1, 2)), frames[:, 2].mean(dim=(1, 2))
        assert (red > blue).all() or (red < blue).all()
        assert (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3)).max() < 0.05
        assert footage.varied(rng, 50, 27, 48).shape == (50, 3, 27, 48)


def test_windows_repeat_and_differ(folder):
    config = AutoShotConfig(stage_channels=[8, 8, 8], hidden_size=8)
    footage = Footage([folder / "two_shots.mp4"], 54, 96)
    windows, again, other = (Windows(footage, config, 8, 0.5, seed) for seed in (1, 1, 2))
    assert len(windows) == 8
    for index in (0, 5):
        assert all(torch.equal(windows[index][name], again[index][name]) for name in windows[index])
        assert not torch.equal(windows[index]["frames"], other[index]["frames"])
    window = windows[3]
    assert window["frames"].shape == (100, 27, 48, 3) and window["frames"].dtype == torch.uint8
    assert ((window["one_hot"] <= window["many_hot"]) & (window["one_hot"].shape == (100,))).all()
    assert sum(windows[index]["one_hot"].sum() for index in range(8)) > 4


def train(monkeypatch, folder, output, steps: int, *options) -> dict[str, torch.Tensor]:
    tiny = partial(AutoShotConfig, stage_channels=[8, 8, 8], hidden_size=8)
    monkeypatch.setattr(train_autoshot, "AutoShotConfig", tiny)
    arguments = f"--videos {folder} --held_out {folder} --output {output} --steps {steps} --windows_per_step 2"
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "train_autoshot.py",
            *arguments.split(),
            "--evaluate_every",
            "2",
            "--held_out_films",
            "1",
            *map(str, options),
        ],
    )
    train_autoshot.main()
    return load_file(output / "model.safetensors")


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(folder, tmp_path, monkeypatch):
    whole = train(monkeypatch, folder, tmp_path / "whole", 4)

    def stop(trainer, *args, **kwargs):
        if trainer.state.global_step == 4:
            raise KeyboardInterrupt
        return evaluate(trainer, *args, **kwargs)

    evaluate = train_autoshot.AutoShotTrainer.evaluate
    monkeypatch.setattr(train_autoshot.AutoShotTrainer, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        train(monkeypatch, folder, tmp_path / "stopped", 4)
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    monkeypatch.setattr(train_autoshot.AutoShotTrainer, "evaluate", evaluate)
    resumed = train(monkeypatch, folder, tmp_path / "stopped", 4)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)

    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert 0 < config["threshold"] < 1
    torch.manual_seed(0)  # that of the run
    fresh = AutoShotModel(AutoShotConfig(stage_channels=[8, 8, 8], hidden_size=8)).state_dict()
    loaded = AutoShotModel.from_pretrained(tmp_path / "whole")
    assert loaded.dtype == torch.float32
    for name, value in loaded.state_dict().items():
        if value.ndim > 1:
            assert not torch.equal(fresh[name].half().float(), value), name


def test_training_can_start_from_weights(folder, tmp_path, monkeypatch):
    train(monkeypatch, folder, tmp_path / "first", 2)
    later = train(monkeypatch, folder, tmp_path / "second", 2, "--start", tmp_path / "first", "--learning_rate", 0)
    first = load_file(tmp_path / "first" / "model.safetensors")
    assert all(torch.equal(later[name], first[name]) for name in first if "batch_norm" not in name)
