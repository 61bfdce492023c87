"""From the probabilities that a shot ends at a frame to shots, as half-open ranges of frame numbers `[start, end)`."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
import torch

from linvt.configuration.configuration_autoshot import AUTOSHOT_THRESHOLD
from linvt.processors.video.frame_selection import check_at_least_one


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
    Yields the shots of a video whose probabilities come piece by piece, each shot as soon as its end is certain.

    Args:
        boundaries (`Iterable[np.ndarray | torch.Tensor]`):
            Pieces of shape `(frames,)` in order; otherwise as in [`shots_from_boundaries`], as are the other two.

    Raises:
        `ValueError`: if a piece holds NaN, or `min_shot_frames` is below 1.
    """
    start = total = 0
    for number, is_start in enumerate(iter_shot_starts(boundaries, threshold, min_shot_frames)):
        if is_start and number > 0:
            yield start, number
            start = number
        total = number + 1
    yield start, total


def iter_shot_starts(
    boundaries: Iterable[np.ndarray | torch.Tensor],
    threshold: float = AUTOSHOT_THRESHOLD,
    min_shot_frames: int = 1,
) -> Iterator[bool]:
    """
    Yields for every frame of a video whether a shot begins at it, as soon as that is certain: at once, but
    `min_shot_frames - 1` frames later for the beginning of a shot and the frames behind it.

    Args:
        boundaries (`Iterable[np.ndarray | torch.Tensor]`):
            Pieces of shape `(frames,)` in order; otherwise as in [`shots_from_boundaries`], as are the other two.

    Raises:
        `ValueError`: if a piece holds NaN, or `min_shot_frames` is below 1.
    """
    check_at_least_one("min_shot_frames", min_shot_frames)
    start = number = 0
    num_uncertain = 0  # frames of a shot that would be joined with the one before if the video ended here
    was_positive = False
    for piece in boundaries:
        piece = torch.as_tensor(piece).double()
        if piece.isnan().any():
            raise ValueError("boundaries holds NaN, expected probabilities or booleans.")
        for is_positive in (piece > threshold).tolist():
            is_start = was_positive and not is_positive and number - start >= min_shot_frames
            if is_start:
                start = number
            was_positive = is_positive
            number += 1
            if not is_start and num_uncertain == 0:
                yield number == 1
                continue
            num_uncertain += 1
            if num_uncertain == min_shot_frames:
                yield True
                yield from repeat(False, num_uncertain - 1)
                num_uncertain = 0
    yield from repeat(False, num_uncertain)
