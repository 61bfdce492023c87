"""Differences between two rows that were asked the same questions, with their 95 percent intervals."""

from dataclasses import dataclass

import numpy as np


NUM_DRAWS = 2000
LEVELS = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Difference:
    """The mean accuracy of one row minus that of another, in points, and the interval that it is in."""

    points: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.points:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def paired_difference(
    ones: dict[str, np.ndarray], others: dict[str, np.ndarray], videos: dict[str, np.ndarray]
) -> Difference:
    """
    Compares two rows by a paired bootstrap over videos: questions about one video share its fate.

    Args:
        ones, others (`dict[str, np.ndarray]`): Per kind of question, for each question how often it is answered
            right, from 0 to 1: the mean over seeds. The mean over kinds is compared, as in the tables.
        videos (`dict[str, np.ndarray]`): Per kind the number of the video that each question is about.
    """
    num_videos = 1 + max(int(numbers.max()) for numbers in videos.values())
    drawn = np.random.default_rng(0).multinomial(num_videos, [1 / num_videos] * num_videos, NUM_DRAWS)
    differences, in_draws = [], []
    for kind, numbers in videos.items():
        gains = np.bincount(numbers, ones[kind] - others[kind], num_videos)
        asked = np.bincount(numbers, minlength=num_videos)
        differences.append(gains.sum() / asked.sum())
        in_draws.append((drawn @ gains) / (drawn @ asked))
    low, high = np.percentile(100 * np.mean(in_draws, axis=0), LEVELS)
    return Difference(100 * float(np.mean(differences)), float(low), float(high))
