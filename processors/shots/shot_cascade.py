"""Runs AutoShot only where shots may change, and there in half precision first, where that is faster.

1. A window in which pictures a quarter of a second apart are nearly the same is skipped: no shot ends in it.
2. On a CPU that multiplies bfloat16 more than twice as fast as float32, the network runs in bfloat16.
3. Where that is too near to the threshold for shots to be sure, the window runs in float32.

Each step depends on one window alone: the result is the same however the frames come.
"""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from linvt.processors.shots.autoshot_inference import multiplies_bfloat16_tiles
from linvt.processors.shots.autoshot_windows import Frames, iter_windows
from linvt.processors.shots.modeling_autoshot import AutoShotModel


PLACE_PIXELS = 3
"""Side of the places whose mean colours are compared: noise and what compression adds average out."""

FRAMES_APART = 6
"""Frames from one compared picture to the other: a gradual change shows in them, slow motion less than in more."""

LARGEST_STILL = 4.0
"""
Largest difference, in levels of 0..255, in a window that is skipped: well below the smallest with which the network
found a change, or nearly one, in films, in darkened ones, and in drawn dissolves and fades.
"""

BFLOAT16_MARGIN = 0.02
"""
Largest difference between a probability near the threshold in bfloat16 and in float32, in the films that were tried.
"""


class ShotCascade:
    """
    Computes the probabilities of AutoShot as far as they matter for shots.

    Args:
        network ([`AutoShotModel`]): The network in float32, in evaluation mode, on the device where it runs.
    """

    def __init__(self, network: AutoShotModel):
        self.network = network
        self.half: AutoShotModel | None = None
        if network.device.type == "cpu" and network.dtype == torch.float32 and multiplies_bfloat16_tiles():
            self.half = copy.deepcopy(network).to(torch.bfloat16)

    def iter_probabilities(self, frames: Frames) -> Iterator[torch.Tensor]:
        """
        Yields probabilities that a shot ends at a frame, `kept_frames` at a time: those of the network, or those of
        it in bfloat16 where shots are the same to a frame, or 0 where none ends.

        Args:
            frames: As in [`AutoShotModel.shot_probabilities`].
        """
        config = self.network.config
        in_float32 = self.network.window_probabilities()
        in_bfloat16 = None if self.half is None else self.half.window_probabilities()
        for number, (window, num_counted) in enumerate(iter_windows(frames, config)):
            if largest_difference(window, config.kept_frames) <= LARGEST_STILL:
                yield torch.zeros(num_counted, device=self.network.device)
                continue
            probabilities = None if in_bfloat16 is None else in_bfloat16(number, window)
            if probabilities is None or not ends_are_sure(probabilities, config.threshold):
                probabilities = in_float32(number, window)
            yield probabilities[:num_counted]


def largest_difference(window: torch.Tensor, kept_frames: int) -> float:
    """
    Compares all pictures that are `FRAMES_APART` frames apart with a frame that counts among or between them.

    Args:
        window (`torch.Tensor` of shape `(frames, height, width, 3)`): uint8 RGB.
        kept_frames (`int`): How many frames in the middle count.

    Returns:
        `float`: Mean over all places of how much they changed, in levels of 0..255, for the two that differ most.
    """
    context = (len(window) - kept_frames) // 2
    near = window[max(context - FRAMES_APART, 0) : context + kept_frames + FRAMES_APART]
    places = F.avg_pool2d(near.permute(0, 3, 1, 2).float(), PLACE_PIXELS)
    if len(places) <= FRAMES_APART:
        places = torch.cat([places[:1].expand(FRAMES_APART, -1, -1, -1), places])
    return (places[FRAMES_APART:] - places[:-FRAMES_APART]).abs().mean(dim=(1, 2, 3)).max().item()


def ends_are_sure(probabilities: torch.Tensor, threshold: float, margin: float = BFLOAT16_MARGIN) -> bool:
    """Tells whether shots end at the same frames, give or take one, wherever in the margin the threshold lies."""
    early, late = (_ends_of_runs(probabilities > threshold + shift) for shift in (margin, -margin))
    return len(early) == len(late) and bool(((early - late).abs() <= 1).all())


def _ends_of_runs(positive: torch.Tensor) -> torch.Tensor:
    followed = torch.cat([positive[1:], positive.new_zeros(1)])
    return torch.nonzero(positive & ~followed).flatten()


__all__ = ["ShotCascade", "ends_are_sure", "largest_difference"]
