"""How well found shots agree with annotated ones: precision, recall and F1 over transitions.

The matching rule and the tolerance are those of the code that the AutoShot authors published for their SHOT benchmark,
and so is the way from probabilities to scenes that the figures were made with. It leaves frames inside a transition
out of every scene; `shot_boundaries.shots_from_boundaries`, which videos are read with, leaves out none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


Scene = tuple[int, int]
"""First and last frame of a scene, both included, counted from 0."""

TOLERANCE_FRAMES = 2


@dataclass(frozen=True)
class TransitionCounts:
    """
    Transitions of one or more videos; counts of videos are added with `+`.

    Args:
        true_positives (`int`), false_positives (`int`), false_negatives (`int`).
    """

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def __add__(self, other: "TransitionCounts") -> "TransitionCounts":
        return TransitionCounts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def precision(self) -> float:
        """Share of the predicted transitions that are annotated; 0 without any."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the annotated transitions that are predicted; 0 without any."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are."""
        return _share(2 * self.precision * self.recall, self.precision + self.recall)


def scenes_from_probabilities(probabilities: Sequence[float] | np.ndarray, threshold: float) -> list[Scene]:
    """
    Scenes by the published rule: of each run of frames with a probability above `threshold`, the first ends a scene,
    the others belong to none, and the next scene starts after the run.

    Raises:
        `ValueError`: If there are no frames.
    """
    positive = np.asarray(probabilities).reshape(-1) > threshold
    if len(positive) == 0:
        raise ValueError("There are no frames to make scenes of.")
    scenes, start = [], 0
    for frame, is_positive in enumerate(positive):
        if not is_positive:
            continue
        if frame == 0 or not positive[frame - 1]:
            if frame > 0:
                scenes.append((start, frame))
        start = frame + 1
    if not positive[-1]:
        scenes.append((start, len(positive) - 1))
    return scenes or [(0, len(positive) - 1)]


def match_transitions(
    annotated: Sequence[Scene], predicted: Sequence[Scene], tolerance_frames: int = TOLERANCE_FRAMES
) -> list[tuple[int, int]]:
    """
    Matches the transitions of one video. A transition is the gap between two scenes, widened on either side by half of
    `tolerance_frames`; two transitions match if they touch, each at most once, walking through both in order. With the
    published tolerance of 2, two hard cuts match if they are at most 2 frames apart.

    Returns:
        `list[tuple[int, int]]`: Numbers of an annotated and of a predicted transition that match, ascending; number i
        stands between the scenes i and i + 1.
    """
    truths, guesses = (_transitions(scenes, tolerance_frames) for scenes in (annotated, predicted))
    matches, truth, guess = [], 0, 0
    while truth < len(truths) and guess < len(guesses):
        if guesses[guess][1] < truths[truth][0]:
            guess += 1
        elif guesses[guess][0] > truths[truth][1]:
            truth += 1
        else:
            matches.append((truth, guess))
            truth, guess = truth + 1, guess + 1
    return matches


def count_transitions(
    annotated: Sequence[Scene], predicted: Sequence[Scene], tolerance_frames: int = TOLERANCE_FRAMES
) -> TransitionCounts:
    """Counts the matches of [`match_transitions`] in one video, and what is left over on either side."""
    matched = len(match_transitions(annotated, predicted, tolerance_frames))
    num_predicted, num_annotated = (max(len(scenes) - 1, 0) for scenes in (predicted, annotated))
    return TransitionCounts(matched, num_predicted - matched, num_annotated - matched)


def _transitions(scenes: Sequence[Scene], tolerance_frames: int) -> list[tuple[float, float]]:
    widened = tolerance_frames / 2
    return [
        (last + 0.5 - widened, first - 0.5 + widened)
        for (_, last), (first, _) in zip(scenes, scenes[1:], strict=False)
    ]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


__all__ = [
    "TOLERANCE_FRAMES",
    "TransitionCounts",
    "count_transitions",
    "match_transitions",
    "scenes_from_probabilities",
]
