import json
from pathlib import Path

import numpy as np
import pytest

from linvt.processors.shots.shot_evaluation import TransitionCounts, count_transitions, scenes_from_probabilities


@pytest.mark.parametrize(
    ("positive", "scenes"),
    [
        ([0, 0, 0], [(0, 2)]),
        ([0, 1, 0], [(0, 1), (2, 2)]),
        ([0, 1, 1, 1, 0, 0], [(0, 1), (4, 5)]),
        ([1, 0, 0], [(1, 2)]),
        ([1, 1, 0, 1, 0], [(2, 3), (4, 4)]),
        ([0, 0, 1], [(0, 2)]),
        ([0, 1, 0, 1, 1], [(0, 1), (2, 3)]),
        ([1, 1], [(0, 1)]),
        ([1], [(0, 0)]),
    ],
)
def test_scenes_by_the_published_rule(positive, scenes):
    assert scenes_from_probabilities(positive, 0.5) == scenes


def test_a_probability_at_the_threshold_is_no_boundary():
    assert scenes_from_probabilities([0.0, 0.5, 0.0], 0.5) == [(0, 2)]


def test_no_frames_are_an_error():
    with pytest.raises(ValueError, match="no frames"):
        scenes_from_probabilities([], 0.5)


def cuts(*frames: int, num_frames: int = 100) -> list[tuple[int, int]]:
    """Scenes of a video with hard cuts after these frames."""
    starts = [0, *(frame + 1 for frame in frames)]
    return list(zip(starts, [*frames, num_frames - 1], strict=True))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_cuts_match_within_two_frames(shift):
    counts = count_transitions(cuts(30, 60), cuts(30 + shift, 60 - shift))
    assert counts == TransitionCounts(2, 0, 0) and counts.f1 == 1


def test_cuts_three_frames_apart_do_not_match():
    assert count_transitions(cuts(30), cuts(33)) == TransitionCounts(0, 1, 1)


def test_a_transition_is_matched_once():
    assert count_transitions(cuts(30), cuts(30, 31)) == TransitionCounts(1, 1, 0)
    assert count_transitions(cuts(30, 31), cuts(30)) == TransitionCounts(1, 0, 1)


def test_a_cut_inside_a_dissolve_matches():
    dissolve = [(0, 30), (43, 99)]
    assert count_transitions(dissolve, cuts(36)) == TransitionCounts(1, 0, 0)
    assert count_transitions(dissolve, cuts(46)) == TransitionCounts(0, 1, 1)


def test_figures():
    counts = TransitionCounts(6, 2, 4) + TransitionCounts(0, 2, 0)
    assert (counts.precision, counts.recall) == (0.6, 0.6) and counts.f1 == pytest.approx(0.6)
    assert TransitionCounts().f1 == TransitionCounts(0, 0, 5).precision == TransitionCounts(0, 5, 0).recall == 0


@pytest.mark.parametrize(
    ("threshold", "tolerance", "expected"),
    [
        (0.02, 2, (2347, 1418, 169)),
        (0.1, 2, (2229, 706, 287)),
        (0.296, 2, (2098, 378, 418)),
        (0.5, 2, (1971, 265, 545)),
        (0.9, 2, (1576, 130, 940)),
        (0.296, 0, (2073, None, None)),
        (0.296, 1, (2092, None, None)),
        (0.296, 3, (2104, None, None)),
    ],
)
def test_the_published_predictions_give_the_published_figures(threshold, tolerance, expected):
    folder = Path(__file__).parents[2] / "shared" / "autoshot_reference"
    if not folder.is_dir():
        pytest.skip("the published predictions are not beside this checkout")
    annotated = json.loads((folder / "scenes.json").read_text())
    counts = TransitionCounts()
    with np.load(folder / "predictions.npz") as predictions:
        assert set(predictions.files) == set(annotated)
        for video in predictions.files:
            counts += count_transitions(
                annotated[video], scenes_from_probabilities(predictions[video], threshold), tolerance
            )
    got = (counts.true_positives, counts.false_positives, counts.false_negatives)
    assert all(value is None or value == number for value, number in zip(expected, got, strict=True))
    if (threshold, tolerance) == (0.296, 2):
        assert counts.f1 == pytest.approx(0.8405448718, abs=1e-10)
        assert counts.precision == pytest.approx(0.8473344103, abs=1e-10)
        assert counts.recall == pytest.approx(0.8338632750, abs=1e-10)
