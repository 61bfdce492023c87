"""What reading a video gives."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SampledVideo:
    """
    Frames picked from a video, and what the video is.

    Args:
        frames (`torch.Tensor` of shape `(num_frames, ...)`):
            The picked frames in presentation order: uint8 RGB `(num_frames, 3, height, width)` as displayed, or what
            the transform made of each.
        frame_indices (`list[int]`):
            Number of each picked frame in presentation order, from 0.
        frame_seconds (`list[float]`):
            Time of each picked frame in seconds since the first frame of the video.
        shot_ids (`list[int]`):
            Number of the shot of each picked frame, from 0.
        shots_frames (`list[tuple[int, int]]`):
            All shots of the video as half-open ranges of frame numbers.
        shots_seconds (`list[tuple[float, float]]`):
            The same, half-open `[start, end)`, in seconds since the first frame.
        total_num_frames (`int`):
            Number of frames that the video has.
        duration_seconds (`float`):
            From the first frame to the end of the last.
        fps (`float`):
            Average number of frames per second, `total_num_frames / duration_seconds`.
        width (`int`), height (`int`):
            Size in pixels of the upright picture, before pixels that are not square are stretched.
        num_lost_frames (`int`):
            Frames that a damaged file should have and that could not be decoded. Damage in parts where nothing was
            decoded is not seen.
        looked_for_shots (`bool`):
            Whether a detector looked for shots; else the video is one.
    """

    frames: torch.Tensor
    frame_indices: list[int]
    frame_seconds: list[float]
    shot_ids: list[int]
    shots_frames: list[tuple[int, int]]
    shots_seconds: list[tuple[float, float]]
    total_num_frames: int
    duration_seconds: float
    fps: float
    width: int
    height: int
    num_lost_frames: int
    looked_for_shots: bool = False


__all__ = ["SampledVideo"]
