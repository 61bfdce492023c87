"""Which frames of a video to show to the model: integers in, integers out, always the exact number asked for.

Shots are half-open ranges of frame numbers `[start, end)`. The frames are spread over the shots first, then evenly
inside each shot. Section 3 of the LinVT paper (arXiv:2412.05185) only says that AutoShot cuts the video into clips;
how many frames each clip gets is our choice and is written down in `spread_frames_over_shots`.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch


# The AutoShot authors' threshold on the probability that a shot ends at a frame.
AUTOSHOT_THRESHOLD = 0.296


def check_sampling(num_frames: int | None, fps: float | None) -> None:
    """
    Raises:
        `ValueError`: if `num_frames` is below 1, or `fps` not above 0.
    """
    if num_frames is not None:
        _check_at_least_one("num_frames", num_frames)
    if fps is not None and not fps > 0:
        raise ValueError(f"fps is {fps}, expected a number above 0.")


def num_frames_wanted(total_frames: int, duration_seconds: float, num_frames: int | None, fps: float | None) -> int:
    """How many frames to pick: `num_frames` if given, else `fps` per second, else all; at least 1."""
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
    _check_at_least_one("total_frames", total_frames)
    _check_at_least_one("num_frames", num_frames)
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
    _check_at_least_one("num_frames", num_frames)
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
    indices = []
    for (start, _), length, num_in_shot in zip(
        shots, lengths, spread_frames_over_shots(lengths, num_frames), strict=True
    ):
        if num_in_shot > 0:
            indices.extend(start + index for index in uniform_frame_indices(length, num_in_shot))
    return indices


def shots_from_boundaries(
    boundaries: Sequence[float] | Sequence[bool] | np.ndarray,
    threshold: float = AUTOSHOT_THRESHOLD,
    min_shot_frames: int = 1,
) -> list[tuple[int, int]]:
    """
    Turns "the shot ends at this frame" into shots that hold every frame exactly once.

    A gradual transition gives a run of several positive frames. All of them belong to the shot that ends, and the
    next shot begins after the last one. The published AutoShot rule ends the shot at the first frame of the run and
    drops the others; both begin the shots at the same frames. Here a video whose last frame is positive also keeps
    its last shot, which the published rule loses.

    Args:
        boundaries (`Sequence` or `np.ndarray` of shape `(total_frames,)`):
            For each frame the probability, or a boolean, that it is the last of its shot.
        threshold (`float`, *optional*, defaults to `0.296`):
            A frame is positive if its probability is greater. The default is AutoShot's.
        min_shot_frames (`int`, *optional*, defaults to 1):
            A shorter shot is joined with the next one, the last one of a video with the one before.

    Returns:
        `list[tuple[int, int]]`: half-open frame ranges `[start, end)`, the first starts at 0, each starts where the
        one before it ends, the last ends at `total_frames`.

    Raises:
        `ValueError`: if `boundaries` is empty, has not one dimension, or holds NaN, or `min_shot_frames` is below 1.
    """
    probabilities = np.asarray(boundaries, dtype=np.float64)
    if probabilities.ndim != 1 or len(probabilities) == 0:
        raise ValueError(f"boundaries has shape {probabilities.shape}, expected (total_frames,) with 1 frame or more.")
    return list(iter_shots([probabilities], threshold, min_shot_frames))


def iter_shots(
    boundaries: Iterable[np.ndarray | torch.Tensor],
    threshold: float = AUTOSHOT_THRESHOLD,
    min_shot_frames: int = 1,
) -> Iterator[tuple[int, int]]:
    """
    The same for probabilities that come piece by piece, in order: yields each shot as soon as it is sure.

    Raises:
        `ValueError`: if a piece holds NaN, or `min_shot_frames` is below 1.
    """
    _check_at_least_one("min_shot_frames", min_shot_frames)
    before = None  # a shot that has ended, but may have to take in a short rest of the video
    start = number = 0
    was_positive = False
    for piece in boundaries:
        piece = torch.as_tensor(piece).double()
        if piece.isnan().any():
            raise ValueError("boundaries holds NaN, expected probabilities or booleans.")
        for is_positive in (piece > threshold).tolist():
            if was_positive and not is_positive and number - start >= min_shot_frames:
                before, start = (start, number), number
            was_positive = is_positive
            number += 1
            if before is not None and number - start >= min_shot_frames:
                yield before
                before = None
    yield (start if before is None else before[0]), number


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1.")
