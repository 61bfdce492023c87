"""Which frames of a video to show to the model: integers in, integers out, always the exact number asked for.

Shots are half-open ranges of frame numbers `[start, end)`. The frames are spread over the shots first, then evenly
inside each shot. Section 3 of the LinVT paper (arXiv:2412.05185) only says that AutoShot cuts the video into clips;
how many frames each clip gets is our choice and is written down in `spread_frames_over_shots`.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real


def check_sampling(num_frames: int | None, fps: float | None) -> None:
    """
    Checks the settings that decide how many frames are picked.

    Raises:
        `ValueError`: if `num_frames` is not a whole number or below 1, or `fps` not a finite number above 0.
    """
    if num_frames is not None:
        check_at_least_one("num_frames", num_frames)
    if fps is not None and not (isinstance(fps, Real) and 0 < fps < math.inf):
        raise ValueError(f"fps is {fps!r}, expected a number above 0.")


def num_frames_wanted(total_frames: int, duration_seconds: float, num_frames: int | None, fps: float | None) -> int:
    """Returns the number of frames to pick: `num_frames` if given, else `fps` per second, else all; at least 1."""
    if num_frames is not None:
        return num_frames
    if fps is not None:
        return max(1, round(duration_seconds * fps))
    return total_frames


def uniform_frame_indices(total_frames: int, num_frames: int) -> list[int]:
    """
    Picks the frames in the middle of equal segments of a video.

    Integer arithmetic: the steps of a floating-point range give one frame too many or too few for some lengths.

    Args:
        total_frames (`int`):
            Number of frames of the video, at least 1.
        num_frames (`int`):
            Number of frames wanted, at least 1.

    Returns:
        `list[int]`: `min(num_frames, total_frames)` distinct frame numbers, ascending.

    Raises:
        `ValueError`: if either number is below 1.
    """
    check_at_least_one("total_frames", total_frames)
    check_at_least_one("num_frames", num_frames)
    num_picks = min(num_frames, total_frames)
    return [(i * total_frames + total_frames // 2) // num_picks for i in range(num_picks)]


def spread_frames_over_shots(shot_lengths: Sequence[int], num_frames: int) -> list[int]:
    """
    Gives each shot its number of frames.

    - With fewer frames than shots, one frame goes to each of `num_frames` shots, spaced evenly over the shot numbers
      (the midpoint rule of [`uniform_frame_indices`]). Taking the longest shots instead would show one long scene
      and lose the start or the end of the story.
    - Otherwise every shot gets one frame, and the rest goes to the shots in proportion to the frames they have left,
      by largest remainder; on a tie the earlier shot wins. The share is never larger than what a shot has left, so
      no shot is given more frames than it has.

    Args:
        shot_lengths (`Sequence[int]`):
            Number of frames of each shot, each at least 1.
        num_frames (`int`):
            Number of frames to give, at least 1.

    Returns:
        `list[int]`: frames given to each shot. The sum is exactly `min(num_frames, sum(shot_lengths))`.

    Raises:
        `ValueError`: if there is no shot, a shot is empty, or `num_frames` is below 1.
    """
    check_at_least_one("num_frames", num_frames)
    if len(shot_lengths) == 0:
        raise ValueError("shot_lengths is empty, expected at least one shot.")
    if min(shot_lengths) < 1:
        raise ValueError(f"shot_lengths holds {min(shot_lengths)}, expected at least 1 frame in every shot.")

    num_shots = len(shot_lengths)
    if num_frames < num_shots:
        chosen = set(uniform_frame_indices(num_shots, num_frames))
        return [int(shot in chosen) for shot in range(num_shots)]

    frames_left = [length - 1 for length in shot_lengths]
    total_left = sum(frames_left)
    to_give = min(num_frames - num_shots, total_left)
    if to_give == 0:
        return [1] * num_shots
    # The exact share of a shot is to_give * left / total_left: its whole part now, the fractions compete below.
    given = [1 + to_give * left // total_left for left in frames_left]
    by_remainder = sorted(range(num_shots), key=lambda shot: -(to_give * frames_left[shot] % total_left))
    for shot in by_remainder[: num_shots + to_give - sum(given)]:
        given[shot] += 1
    return given


def shot_frame_indices(shots: Sequence[tuple[int, int]], num_frames: int) -> list[int]:
    """
    Picks frames spread over the shots, evenly inside each shot.

    Args:
        shots (`Sequence[tuple[int, int]]`):
            Half-open frame ranges `[start, end)` in ascending order, without overlap. Frames between two shots are
            never picked.
        num_frames (`int`):
            Number of frames wanted, at least 1.

    Returns:
        `list[int]`: distinct frame numbers, ascending; exactly `min(num_frames, frames in the shots)` of them.

    Raises:
        `ValueError`: if a shot is empty, the shots overlap or are out of order, or `num_frames` is below 1.
    """
    previous_end = 0
    for start, end in shots:
        if start < previous_end or end <= start:
            raise ValueError(
                f"Invalid shot [{start}, {end}) after frame {previous_end}: expected half-open, non-empty ranges in "
                "ascending order without overlap."
            )
        previous_end = end

    lengths = [end - start for start, end in shots]
    indices: list[int] = []
    for (start, _), length, num_in_shot in zip(
        shots, lengths, spread_frames_over_shots(lengths, num_frames), strict=True
    ):
        if num_in_shot > 0:
            indices.extend(start + index for index in uniform_frame_indices(length, num_in_shot))
    return indices


def check_at_least_one(name: str, value: int) -> None:
    """
    Checks that a count is a whole number of at least 1.

    Raises:
        `ValueError`: if `value` is not a whole number, such as `4.0`, or is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1, as an `int`.")
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1.")
