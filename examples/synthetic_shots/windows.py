"""What AutoShot is trained on: windows of films, and the labels of their frames."""

import numpy as np
import torch
from synthetic_shots.pictures import Footage, invented_scene
from synthetic_shots.transitions import Film, make_film
from torch.utils.data import Dataset

from linvt import AutoShotConfig


class Windows(Dataset):
    """
    Windows of films with their labels; number i is always the same one. An item holds `frames`, uint8
    `(window_frames, height, width, 3)`, and `one_hot` and `many_hot`, float32 `(window_frames,)`.

    Args:
        footage ([`Footage`]): What is filmed; the other shots are invented.
        footage_share (`float`): Share of the shots that are footage.
    """

    def __init__(self, footage: Footage, config: AutoShotConfig, num_windows: int, footage_share: float, seed: int):
        self.footage, self.config, self.num_windows = footage, config, num_windows
        self.footage_share, self.seed = footage_share, seed

    def __len__(self) -> int:
        return self.num_windows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index])
        length = self.config.window_frames
        num_shots = int(rng.integers(1, 11))
        size = self.config.frame_height, self.config.frame_width
        # In some films all shots are of one place, so that only the view tells them apart.
        one_look = int(rng.integers(2**31)) if rng.random() < 0.35 else None

        def pictures(rng: np.random.Generator, num_frames: int) -> torch.Tensor:
            look = None if one_look is None else np.random.default_rng(one_look)
            of_footage = (rng if look is None else look).random() < self.footage_share
            if of_footage:
                return self.footage.varied(rng, num_frames, *size, look)
            return invented_scene(rng, num_frames, *size, look)

        film = make_film(rng, pictures, num_shots, (max(5, 40 // num_shots), 160 // num_shots))
        one_hot, many_hot = labels(film)
        # Copies stand in for what is outside of a video, as when shots are found.
        start = rng.integers(-30, max(len(film.frames) - length, 0) + 31)
        window = np.clip(start + np.arange(length), 0, len(film.frames) - 1)
        inside = torch.from_numpy(window == start + np.arange(length))
        return {
            "frames": film.frames[window],
            "one_hot": one_hot[window] * inside,
            "many_hot": many_hot[window] * inside,
        }


def labels(film: Film) -> tuple[torch.Tensor, torch.Tensor]:
    """
    For each frame: is it the middle of a transition (the last old one of a cut), and is it in one at all.

    Nobody can tell the middle of a dissolve to the frame, so the quarter around it is positive; the published labels
    have one frame. Neighbours that are found are one change of shot either way.
    """
    one_hot, many_hot = torch.zeros(2, len(film.frames))
    for _, first, last in film.transitions:
        num_frames = last - first + 1
        middle, around = first - 1 + (num_frames + 1) // 2, num_frames // 8
        one_hot[middle - around : middle + around + 1] = 1
        many_hot[first - 1 : last + 1] = 1
    return one_hot, many_hot
