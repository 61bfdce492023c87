"""Frame selection: properties over all small cases, and references written another way."""

import itertools
import random
import re
from fractions import Fraction

import numpy as np
import pytest

from linvt.processors.video.frame_selection import (
    check_sampling,
    shot_frame_indices,
    spread_frames_over_shots,
    uniform_frame_indices,
)


def all_splits(total: int):
    """Every way to cut `total` frames into shots, as lengths."""
    for cuts in itertools.product([False, True], repeat=total - 1):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [total]
        yield [end - start for start, end in zip([0, *ends], ends, strict=False)]


# uniform_frame_indices


def test_uniform_is_the_middle_of_each_segment_for_every_length():
    for total in range(1, 80):
        for num_frames in range(1, 70):
            indices = uniform_frame_indices(total, num_frames)
            num_picks = min(total, num_frames)
            assert len(set(indices)) == len(indices) == num_picks, (total, num_frames)
            assert indices == sorted(indices)
            for i, index in enumerate(indices):
                # The frame covers [index, index + 1), the segment [i * T / N, (i + 1) * T / N): the frame is the one
                # that holds the segment's middle, up to half a frame of integer rounding.
                middle = Fraction((2 * i + 1) * total, 2 * num_picks)
                assert index <= middle <= index + 1 + Fraction(1, 2 * num_picks), (total, num_frames, i)
                assert Fraction(i * total, num_picks) - 1 < index < Fraction((i + 1) * total, num_picks)


def test_uniform_known_values():
    assert uniform_frame_indices(8, 4) == [1, 3, 5, 7]
    assert uniform_frame_indices(9, 3) == [1, 4, 7]
    assert uniform_frame_indices(100, 1) == [50]
    assert uniform_frame_indices(3, 8) == [0, 1, 2]
    # Lengths for which a float range of step T / N gives one frame too many.
    assert len(uniform_frame_indices(15, 13)) == 13
    assert len(uniform_frame_indices(17, 7)) == 7


@pytest.mark.parametrize(("total", "num_frames", "name"), [(0, 4, "total_frames"), (4, 0, "num_frames")])
def test_uniform_refuses(total, num_frames, name):
    with pytest.raises(ValueError, match=f"{name} is 0, expected at least 1"):
        uniform_frame_indices(total, num_frames)


@pytest.mark.parametrize("num_frames", [4.0, 0.5, True, "4", np.float32(2)])
def test_a_number_of_frames_is_a_whole_number(num_frames):
    for call in (lambda: check_sampling(num_frames, None), lambda: uniform_frame_indices(9, num_frames)):
        with pytest.raises(ValueError, match=f"num_frames is {re.escape(repr(num_frames))}, .* whole number"):
            call()
    assert uniform_frame_indices(9, np.int64(3)) == [1, 4, 7]


@pytest.mark.parametrize("fps", [0, -2.5, float("nan"), float("inf"), "2"])
def test_a_rate_is_a_number_above_0(fps):
    with pytest.raises(ValueError, match=f"fps is {re.escape(repr(fps))}"):
        check_sampling(None, fps)


# spread_frames_over_shots


def test_spread_over_every_small_split():
    for total in range(1, 11):
        for lengths in all_splits(total):
            for num_frames in range(1, total + 3):
                given = spread_frames_over_shots(lengths, num_frames)
                assert sum(given) == min(num_frames, total), (lengths, num_frames)
                assert all(0 <= n <= length for n, length in zip(given, lengths, strict=True))
                if num_frames >= len(lengths):
                    assert min(given) >= 1
                else:
                    assert max(given) == 1


def test_spread_follows_the_quota():
    """Each shot gets one frame plus its exact share of the rest, rounded up or down."""
    rng = random.Random(0)
    for _ in range(300):
        lengths = [rng.randint(1, 400) for _ in range(rng.randint(1, 40))]
        num_frames = rng.randint(len(lengths), sum(lengths))
        given = spread_frames_over_shots(lengths, num_frames)
        rest, capacity = num_frames - len(lengths), sum(lengths) - len(lengths)
        for n, length in zip(given, lengths, strict=True):
            share = Fraction(rest * (length - 1), capacity) if capacity else 0
            assert abs(n - 1 - share) < 1, (lengths, num_frames)
        # Never less to a longer shot.
        by_length = sorted(zip(lengths, given, strict=True))
        for (short, few), (long, many) in itertools.pairwise(by_length):
            assert few <= many + (short == long), (lengths, num_frames)


def test_spread_known_values():
    assert spread_frames_over_shots([10, 10], 4) == [2, 2]
    assert spread_frames_over_shots([10, 10], 5) == [3, 2]  # a tie goes to the earlier shot
    assert spread_frames_over_shots([91, 11], 12) == [10, 2]
    assert spread_frames_over_shots([1, 1000], 4) == [1, 3]
    assert spread_frames_over_shots([2, 3], 64) == [2, 3]
    # Fewer frames than shots: evenly over the shot numbers, not the longest ones.
    assert spread_frames_over_shots([500, 400, 300, 1, 1, 1], 3) == [0, 1, 0, 1, 0, 1]
    assert spread_frames_over_shots([5, 5, 5], 1) == [0, 1, 0]


@pytest.mark.parametrize(
    ("lengths", "num_frames", "message"),
    [([], 4, "shot_lengths is empty"), ([3, 0], 4, "shot_lengths holds 0"), ([3], 0, "num_frames is 0")],
)
def test_spread_refuses(lengths, num_frames, message):
    with pytest.raises(ValueError, match=message):
        spread_frames_over_shots(lengths, num_frames)


# shot_frame_indices


def test_shot_indices_over_every_small_split():
    for total in range(1, 11):
        for lengths in all_splits(total):
            ends = list(itertools.accumulate(lengths))
            shots = list(zip([0, *ends[:-1]], ends, strict=True))
            for num_frames in range(1, total + 3):
                indices = shot_frame_indices(shots, num_frames)
                assert indices == sorted(set(indices))
                assert len(indices) == min(num_frames, total)
                per_shot = [sum(start <= i < end for i in indices) for start, end in shots]
                assert per_shot == spread_frames_over_shots(lengths, num_frames)


def test_one_shot_is_uniform():
    for total in range(1, 60):
        for num_frames in range(1, 60):
            assert shot_frame_indices([(0, total)], num_frames) == uniform_frame_indices(total, num_frames)


def test_frames_between_shots_are_never_picked():
    assert shot_frame_indices([(2, 4), (7, 9)], 10) == [2, 3, 7, 8]


@pytest.mark.parametrize("shots", [[(0, 5), (4, 8)], [(5, 8), (0, 5)], [(3, 3)], [(-1, 4)]])
def test_shot_indices_refuses(shots):
    with pytest.raises(ValueError, match="Invalid shot"):
        shot_frame_indices(shots, 4)
