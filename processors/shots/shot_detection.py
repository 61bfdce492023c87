"""Shot detection with trained AutoShot weights: frames of a video in, shots out."""

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig

from linvt.configuration.configuration_autoshot import AutoShotConfig
from linvt.processors.shots.autoshot_files import AUTOSHOT_WEIGHTS, find_autoshot
from linvt.processors.shots.modeling_autoshot import AutoShotModel
from linvt.processors.shots.shot_boundaries import iter_shot_starts, iter_shots
from linvt.processors.shots.shot_cascade import ShotCascade
from linvt.processors.video.forked_processes import on_one_thread_in_forks


class ShotDetector:
    """
    Finds the shots of videos with AutoShot, as `detect_shots` of [`read_video`] or by itself.

    Args:
        network ([`AutoShotModel`]): With trained weights, in float32 and in evaluation mode.
    """

    def __init__(self, network: AutoShotModel):
        self.config = network.config
        self._cascade = ShotCascade(network)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._cascade.network.device

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[int, int]]:
        """
        Yields the shots of a video as half-open ranges of frames `[start, end)`, in order, each as soon as its end is
        known.

        Args:
            frames (`Iterable[np.ndarray]`): All frames of the video, uint8 RGB of shape `(27, 48, 3)`.
        """
        return iter_shots(self._probabilities(frames), self.config.threshold, self.config.min_shot_frames)

    def starts(self, frames: Iterable[np.ndarray]) -> Iterator[bool]:
        """
        Yields for every frame whether a shot starts there, as soon as it is known: the same shots, for videos that
        may not end.

        Args:
            frames: As for the shots.
        """
        return iter_shot_starts(self._probabilities(frames), self.config.threshold, self.config.min_shot_frames)

    def _probabilities(self, frames: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
        return on_one_thread_in_forks(self._cascade.iter_probabilities(frames))


@lru_cache(maxsize=1)
def load_shot_detector(
    name_or_path: str | os.PathLike | None = None, device: str | int | torch.device | None = None
) -> ShotDetector:
    """
    Loads the weights; those of the last call are kept, so a data set of videos does not load them once per video.
    (After new weights were saved under the same name: `load_shot_detector.cache_clear()`.)

    Args:
        name_or_path (`str` or `os.PathLike`, *optional*): Hub id or folder of trained AutoShot weights. By default
            those that come with this package.
        device (`str`, `int` or `torch.device`, *optional*): Where the network runs, by default on the CPU.

    Returns:
        [`ShotDetector`]

    Raises:
        `FileNotFoundError`: If there are none.
        `ValueError`: If the weights are not those of AutoShot, damaged, or not all of them: a network with random
            weights would find shots too.
    """
    name_or_path = AUTOSHOT_WEIGHTS if name_or_path is None else name_or_path
    # By its own class, and not through AutoConfig, which knows it only where `linvt` is installed.
    fields, _ = PreTrainedConfig.get_config_dict(name_or_path)
    if fields.get("model_type") != AutoShotConfig.model_type:
        raise ValueError(f"{name_or_path} holds a {fields.get('model_type')!r} model; give trained AutoShot weights.")
    folder = find_autoshot(name_or_path)
    options = {"config": AutoShotConfig.from_dict(fields), "use_safetensors": True, "output_loading_info": True}
    try:
        # In float32 whatever they are stored in: processors have no fast float16.
        network, info = AutoShotModel.from_pretrained(folder, dtype=torch.float32, **options)
    except SafetensorError as error:
        raise ValueError(
            f"The AutoShot weights {folder / 'model.safetensors'} are damaged ({error}); get them again."
        ) from error
    if info["missing_keys"]:
        raise ValueError(f"{name_or_path} lacks weights of AutoShot: {', '.join(sorted(info['missing_keys']))}.")

    return ShotDetector(network if device is None else network.to(device))


__all__ = ["AUTOSHOT_WEIGHTS", "ShotDetector", "load_shot_detector"]
