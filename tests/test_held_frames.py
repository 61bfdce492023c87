"""What is let go of a long video must be what cannot be picked."""

import random
from types import SimpleNamespace

import pytest

from linvt.processors.video.frame_selection import shot_frame_indices
from linvt.processors.video.held_frames import HeldFrames


FRAME = SimpleNamespace(planes=[SimpleNamespace(buffer_size=1)])


def read(held: HeldFrames, shots: list[tuple[int, int]], delay: int) -> int:
    """Shows a video of these shots, each known `delay` frames after its end; returns the most that was held."""
    total, ended, most = shots[-1][1], 0, 0
    for number in range(total):
        held.add(FRAME)
        most = max(most, held.num_bytes)
        while shots[ended][1] + delay <= number:
            held.end_shot(*shots[ended])
            ended += 1
    for shot in shots[ended:]:
        held.end_shot(*shot)
    return most


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_let_go_that_is_picked(seed):
    rng = random.Random(seed)
    lengths = [rng.randint(1, rng.choice([5, 40, 200])) for _ in range(rng.randint(1, 60))]
    shots = [(sum(lengths[:i]), sum(lengths[: i + 1])) for i in range(len(lengths))]
    num_frames = rng.randint(1, 80)
    held = HeldFrames(num_frames, max_bytes=rng.randint(200, 900))
    most = read(held, shots, delay=rng.randint(0, 75))
    assert most <= held.max_bytes
    indices = shot_frame_indices(shots, num_frames)
    if not held.gave_up:
        assert held.missing(indices) == []
        assert [index for index, _ in held.take(indices)] == indices


def test_a_long_video_of_ordinary_shots_needs_little():
    shots = [(start, start + 75) for start in range(0, 3000, 75)]
    held = HeldFrames(32, max_bytes=500)
    assert read(held, shots, delay=75) <= 500 and not held.gave_up
    assert held.missing(shot_frame_indices(shots, 32)) == []


def test_what_does_not_fit_is_not_held():
    held = HeldFrames(32, max_bytes=500)
    read(held, [(0, 1000)], delay=0)
    assert held.gave_up and held.num_bytes == 0 and held.missing([3, 7]) == [3, 7] and not list(held.take([3, 7]))


def test_without_a_number_of_frames_all_are_held_while_they_fit():
    held = HeldFrames(None, max_bytes=500)
    read(held, [(0, 100), (100, 500)], delay=0)
    assert held.missing(list(range(500))) == []
