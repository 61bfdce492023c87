"""Shots from probabilities: properties over all small cases, and the published rule written another way."""

import itertools

import numpy as np
import pytest
import torch

from linvt.processors.shots.shot_boundaries import iter_shot_starts, iter_shots, shots_from_boundaries


def published_starts(positive: list[bool]) -> list[int]:
    """First frames of the scenes by the rule of the AutoShot paper: a scene begins at 0 and after each run."""
    return [i for i, now in enumerate(positive) if not now and (i == 0 or positive[i - 1])]


def test_shots_hold_every_frame_once_for_every_pattern():
    for total in range(1, 12):
        for positive in itertools.product([False, True], repeat=total):
            shots = shots_from_boundaries(list(positive))
            assert [frame for start, end in shots for frame in range(start, end)] == list(range(total))
            starts = [start for start, _ in shots]
            # The same starts as the published rule, which has none at 0 when the first frame is positive.
            assert starts == sorted({0, *published_starts(list(positive))})


def joined(shots: list[tuple[int, int]], min_shot_frames: int) -> list[tuple[int, int]]:
    """Short shots joined one by one, each with the next, until only the last may be short."""
    shots = list(shots)
    while len(shots) > 1:
        short = [i for i, (start, end) in enumerate(shots) if end - start < min_shot_frames]
        if not short:
            break
        i = min(short[0], len(shots) - 2)
        shots[i : i + 2] = [(shots[i][0], shots[i + 1][1])]
    return shots


@pytest.mark.parametrize("min_shot_frames", [1, 2, 3, 5])
def test_no_shot_is_shorter_than_the_minimum(min_shot_frames):
    for total in range(1, 12):
        for positive in itertools.product([False, True], repeat=total):
            shots = shots_from_boundaries(list(positive), min_shot_frames=min_shot_frames)
            assert shots == joined(shots_from_boundaries(list(positive)), min_shot_frames)
            assert len(shots) == 1 or min(end - start for start, end in shots) >= min_shot_frames


def test_pieces_give_the_same_shots_and_each_as_soon_as_it_is_sure():
    positive = np.array([0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0], dtype=bool)
    whole = shots_from_boundaries(positive)
    for cut in range(1, 11):
        assert list(iter_shots([positive[:cut], positive[cut:]])) == whole
    num_seen = 0

    def frames():
        nonlocal num_seen
        for value in positive.tolist():
            num_seen += 1
            yield torch.tensor([value])

    def seen_at(min_shot_frames):
        nonlocal num_seen
        num_seen = 0
        return [(shot, num_seen) for shot in iter_shots(frames(), min_shot_frames=min_shot_frames)]

    assert seen_at(1) == [((0, 3), 4), ((3, 8), 9), ((8, 11), 12), ((11, 12), 12)]
    # Until the next shot is long enough, it might be the end of the video and part of this one.
    assert seen_at(3) == [((0, 3), 6), ((3, 8), 11), ((8, 12), 12)]


@pytest.mark.parametrize("min_shot_frames", [1, 2, 3, 5])
def test_starts_agree_with_the_shots_and_wait_no_longer_than_a_shortest_shot(min_shot_frames):
    for total in range(1, 10):
        for positive in itertools.product([False, True], repeat=total):
            given: list[bool] = []
            most_delayed = 0

            def frames(positive=positive, given=given):
                nonlocal most_delayed
                for number, value in enumerate(positive):
                    most_delayed = max(most_delayed, number - len(given))
                    yield torch.tensor([value])

            for is_start in iter_shot_starts(frames(), min_shot_frames=min_shot_frames):
                given.append(is_start)
            shots = joined(shots_from_boundaries(list(positive)), min_shot_frames)
            assert [number for number, is_start in enumerate(given) if is_start] == [start for start, _ in shots]
            assert len(given) == total
            assert most_delayed < min_shot_frames


def test_tensors_and_arrays_are_compared_alike():
    values = torch.tensor([0.0, 0.296, 0.0])  # above 0.296 once it is a double
    assert list(iter_shots([values])) == shots_from_boundaries(values.numpy()) == [(0, 2), (2, 3)]


def test_shots_known_values():
    assert shots_from_boundaries([0.1, 0.9, 0.0, 0.0]) == [(0, 2), (2, 4)]
    assert shots_from_boundaries([0.0, 0.9, 0.9, 0.9, 0.0]) == [(0, 4), (4, 5)]
    assert shots_from_boundaries([0.9, 0.0]) == [(0, 1), (1, 2)]
    assert shots_from_boundaries([0.0, 0.0, 0.9]) == [(0, 3)]
    assert shots_from_boundaries(np.ones(4, dtype=bool)) == [(0, 4)]


def test_threshold_is_exclusive_and_defaults_to_autoshots():
    assert shots_from_boundaries([0.0, 0.296, 0.0]) == [(0, 3)]
    assert shots_from_boundaries([0.0, 0.2961, 0.0]) == [(0, 2), (2, 3)]
    assert shots_from_boundaries([0.0, 0.4, 0.0], threshold=0.5) == [(0, 3)]


@pytest.mark.parametrize(
    ("boundaries", "message"),
    [([], r"shape \(0,\)"), (np.zeros((4, 1)), r"shape \(4, 1\)"), ([0.1, float("nan")], "NaN")],
)
def test_shots_refuses(boundaries, message):
    with pytest.raises(ValueError, match=message):
        shots_from_boundaries(boundaries)


def test_the_shortest_shot_has_a_frame():
    with pytest.raises(ValueError, match="min_shot_frames is 0"):
        shots_from_boundaries([0.1], min_shot_frames=0)
