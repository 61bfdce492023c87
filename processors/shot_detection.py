"""Shot detection with trained AutoShot weights: frames of a video in, shots out."""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from transformers import AutoConfig

from linvt.configuration.configuration_autoshot import AutoShotConfig
from linvt.processors.frame_selection import shots_from_boundaries
from linvt.processors.modeling_autoshot import AutoShotModel


@lru_cache(maxsize=1)
def load_shot_detector(name_or_path: str | os.PathLike) -> Callable[[Iterator[np.ndarray]], list[tuple[int, int]]]:
    """
    Loads the weights; those of the last call are kept, so a data set of videos does not load them once per video.

    Args:
        name_or_path (`str` or `os.PathLike`): Hub id or folder of trained AutoShot weights.

    Returns:
        `Callable`: From all frames of a video, uint8 RGB of shape `(27, 48, 3)`, to its shots as half-open ranges of
        frames, in order.

    Raises:
        `ValueError`: If the weights are not those of AutoShot, or not all of them: a network with random weights
            would find shots too.
    """
    config = AutoConfig.from_pretrained(name_or_path)
    if not isinstance(config, AutoShotConfig):
        raise ValueError(f"{name_or_path} holds a {config.model_type!r} model; give trained AutoShot weights.")
    network, info = AutoShotModel.from_pretrained(name_or_path, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"{name_or_path} lacks weights of AutoShot: {', '.join(sorted(info['missing_keys']))}.")

    def detect_shots(frames: Iterator[np.ndarray]) -> list[tuple[int, int]]:
        return shots_from_boundaries(network.shot_probabilities(frames), network.config.threshold)

    return detect_shots


__all__ = ["load_shot_detector"]
