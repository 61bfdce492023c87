"""The cascade against the whole network in float32, on drawn films."""

from functools import lru_cache

import numpy as np
import pytest
import torch

from linvt import AutoShotModel
from linvt.processors.shots import shot_cascade
from linvt.processors.shots.shot_boundaries import iter_shots
from linvt.processors.shots.shot_cascade import ends_are_sure, largest_difference
from linvt.processors.shots.shot_detection import AUTOSHOT_WEIGHTS, ShotDetector, load_shot_detector


STILL, SHOT = 70, 60


def picture(rng: np.random.Generator, mean: float = 128) -> np.ndarray:
    """Large patches and some texture: float64 `(27, 48, 3)`."""
    patches = np.kron(rng.uniform(-90, 90, (3, 4, 3)), np.ones((9, 12, 1)))
    return (mean + (patches + rng.normal(0, 12, patches.shape)) * mean / 128).clip(0, 255)


def joined(rng: np.random.Generator, weights: np.ndarray, mean: float = 128) -> np.ndarray:
    """A picture, and another one by its weight in each frame, `(frames,)` or `(frames, height, width)`, and still."""
    old, new = picture(rng, mean), picture(rng, mean)
    weights = weights.reshape(*weights.shape, *[1] * (4 - weights.ndim))
    return np.concatenate([np.tile(old, (SHOT, 1, 1, 1)), old + (new - old) * weights, np.tile(new, (SHOT, 1, 1, 1))])


def ramp(num_frames: int) -> np.ndarray:
    return np.arange(1, num_frames + 1) / (num_frames + 1)


def fade(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    frames = joined(rng, (ramp(num_frames) >= 0.5).astype(float))
    frames[SHOT : SHOT + num_frames] *= np.abs(2 * ramp(num_frames) - 1)[:, None, None, None]
    return frames


def wipe(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    border = ramp(num_frames)[:, None, None] * 48
    return joined(rng, np.broadcast_to(np.arange(48) < border, (num_frames, 27, 48)).astype(float))


def flash(rng: np.random.Generator) -> np.ndarray:
    frames = np.tile(picture(rng), (2 * STILL, 1, 1, 1))
    frames[STILL] = 255
    return frames


def pan(rng: np.random.Generator) -> np.ndarray:
    wide = np.concatenate([picture(rng) for _ in range(4)], axis=1)
    return np.stack([wide[:, start : start + 48] for start in range(140)])


FILMS = {
    "cut": lambda rng: joined(rng, np.ones(0)),
    "dark cut": lambda rng: joined(rng, np.ones(0), mean=16),
    "two cuts": lambda rng: np.concatenate([joined(rng, np.ones(0)), joined(rng, np.ones(0))[: SHOT + 7]]),
    "dissolve": lambda rng: joined(rng, ramp(12)),
    "long dissolve": lambda rng: joined(rng, ramp(45)),
    "fade": lambda rng: fade(rng, 24),
    "wipe": lambda rng: wipe(rng, 30),
    "flash": flash,
    "pan": pan,
    "still": lambda rng: np.tile(picture(rng), (2 * STILL, 1, 1, 1)),
    "noise": lambda rng: rng.uniform(0, 255, (130, 27, 48, 3)),
    "short": lambda rng: joined(rng, np.ones(0))[SHOT - 3 : SHOT + 3],
    "cut far into a still film": lambda rng: np.concatenate(
        [np.tile(frames[:1], (n, 1, 1, 1)) for frames, n in ((joined(rng, np.ones(0)), 312), (flash(rng), 90))]
    ),
}


def film(name: str, grain: float = 2) -> np.ndarray:
    rng = np.random.default_rng(list(FILMS).index(name))
    frames = FILMS[name](rng)
    return (frames + rng.normal(0, grain, frames.shape)).round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def network():
    return AutoShotModel.from_pretrained(AUTOSHOT_WEIGHTS, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def expected_shots(network):
    """Of the whole network, by the name of the film."""

    @lru_cache
    def shots(name: str) -> list[tuple[int, int]]:
        probabilities = network.iter_shot_probabilities(film(name))
        return list(iter_shots(probabilities, network.config.threshold, network.config.min_shot_frames))

    return shots


@pytest.fixture
def detector():
    return load_shot_detector()


@pytest.fixture(params=["in half precision first", "in float32"])
def either(request, network, monkeypatch):
    """On any CPU as on one with fast bfloat16, and as on one without."""
    fast = request.param != "in float32"
    monkeypatch.setattr(shot_cascade, "multiplies_bfloat16_tiles", lambda: fast)
    detector = ShotDetector(network)
    assert (detector._cascade.half is not None) == fast
    return detector


@pytest.mark.parametrize("name", FILMS)
def test_shots_are_those_of_the_whole_network(either, expected_shots, name):
    found, expected = list(either(iter(film(name)))), expected_shots(name)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=1)
    if "cut" in name:  # else being equal would mean little
        assert len(expected) == {"two cuts": 4}.get(name, 2)


@pytest.mark.parametrize("name", ["two cuts", "dissolve", "cut far into a still film"])
def test_starts_are_those_of_the_shots(detector, name):
    frames = film(name)
    starts = list(detector.starts(iter(frames)))
    assert len(starts) == len(frames)
    assert [number for number, starts_here in enumerate(starts) if starts_here] == [s for s, _ in detector(frames)]


def test_at_once_is_as_frame_by_frame(detector):
    frames = film("two cuts")
    cascade = detector._cascade
    at_once = torch.cat(list(cascade.iter_probabilities(frames)))
    one_by_one = torch.cat(list(cascade.iter_probabilities(frame.copy() for frame in frames)))
    tensors = torch.cat(list(cascade.iter_probabilities(torch.from_numpy(frames))))
    assert torch.equal(at_once, one_by_one) and torch.equal(at_once, tensors)


def test_starts_come_while_frames_come(detector):
    """A stream never ends: nothing may wait for more than a window behind a frame."""
    given = 0

    def frames():
        nonlocal given
        for frame in film("cut far into a still film"):
            given += 1
            yield frame

    starts = detector.starts(frames())
    for number, _ in zip(range(200), starts, strict=False):
        assert given - number <= detector.config.window_frames


def test_the_network_runs_only_where_pictures_change(detector, monkeypatch):
    seen = []
    for part in {detector._cascade.network, detector._cascade.half} - {None}:
        run = part.window_probabilities()

        def noted(number, window, run=run):
            seen.append(number)
            return run(number, window)

        monkeypatch.setattr(part, "window_probabilities", lambda noted=noted: noted)
    frames = film("cut far into a still film")
    assert [start for start, _ in detector(frames)] == [0, 312]
    assert set(seen) == {312 // 50}
    seen.clear()
    assert list(detector(film("still"))) == [(0, 2 * STILL)] and not seen


def test_windows_may_be_left_out(network):
    """What the last window has computed for the next one is not taken for another's."""
    windows = torch.from_numpy(film("two cuts"))[:150].unfold(0, 100, 50).permute(0, 4, 1, 2, 3).contiguous()
    windows = [windows[0], windows[1], windows[0], windows[1]]
    alone = [network.window_probabilities()(0, window) for window in windows]
    some = network.window_probabilities()
    for number in (0, 1, 3):
        torch.testing.assert_close(some(number, windows[number]), alone[number], rtol=0, atol=1e-5)


def test_the_largest_difference_is_that_of_two_pictures_near_a_frame_that_counts():
    window = torch.zeros(100, 27, 48, 3, dtype=torch.uint8)
    assert largest_difference(window, 50) == 0
    window[81:] = 200  # at the first frame behind which no pair of pictures begins among those that count
    assert largest_difference(window, 50) == 0
    window[80:, :, :24] = 200
    assert largest_difference(window, 50) == pytest.approx(100)
    ramp_of_levels = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 27, 48, 3)
    assert largest_difference(ramp_of_levels, 50) == pytest.approx(shot_cascade.FRAMES_APART)
    checks = (torch.arange(27)[:, None] + torch.arange(48) + torch.arange(100)[:, None, None]) % 2 * 255
    assert largest_difference(checks[..., None].expand(-1, -1, -1, 3).to(torch.uint8), 50) < 30  # below a place


@pytest.mark.parametrize(
    "probabilities, sure",
    [
        ([0.1, 0.9, 0.1], True),
        ([0.1, 0.41, 0.1], False),
        ([0.1, 0.43, 0.1], False),
        ([0.1, 0.9, 0.41, 0.1], True),  # one frame more or less
        ([0.1, 0.9, 0.41, 0.43, 0.1], False),
        ([0.1, 0.9, 0.41, 0.9, 0.1], False),  # one shot or two
        ([0.1, 0.1, 0.9], True),
        ([0.1, 0.1, 0.42], False),
        ([0.1], True),
    ],
)
def test_ends_are_sure_where_half_precision_moves_none_by_more_than_a_frame(probabilities, sure):
    assert ends_are_sure(torch.tensor(probabilities), threshold=0.42) is sure


def test_the_network_runs_on_the_device_that_is_given(monkeypatch):
    moved = []
    monkeypatch.setattr(AutoShotModel, "to", lambda self, device: moved.append(device) or self)
    monkeypatch.setattr(shot_cascade, "multiplies_bfloat16_tiles", lambda: False)
    load_shot_detector.cache_clear()
    try:
        load_shot_detector(device="cuda:1")
        assert moved == ["cuda:1"]
        load_shot_detector()
        assert moved == ["cuda:1"]
    finally:
        load_shot_detector.cache_clear()
    assert load_shot_detector(device="cpu").device == torch.device("cpu")
