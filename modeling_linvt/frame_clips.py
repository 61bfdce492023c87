"""Which frames the vision encoder takes in together. A video encoder's patch may cover several frames."""

import torch


def frame_clips(shot_ids: torch.Tensor, frames_per_patch: int) -> torch.Tensor:
    """
    Clips of `frames_per_patch` consecutive frames, none of which crosses a cut; the last clip of a shot repeats its
    last frame where frames are missing.

    Args:
        shot_ids (`torch.LongTensor` of shape `(frames,)`): Shot of each frame, frames of a shot in a row.

    Returns:
        `torch.LongTensor` of shape `(clips, frames_per_patch)`, numbers of frames.
    """
    if frames_per_patch == 1:
        return torch.arange(len(shot_ids), device=shot_ids.device)[:, None]
    clips, start = [], 0
    for length in torch.unique_consecutive(shot_ids, return_counts=True)[1].tolist():
        frames = list(range(start, start + length))
        for first in range(0, length, frames_per_patch):
            clip = frames[first : first + frames_per_patch]
            clips.append(clip + clip[-1:] * (frames_per_patch - len(clip)))
        start += length
    return torch.tensor(clips, device=shot_ids.device)


def clip_seconds(milliseconds: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    """
    Returns the mean time of the frames of each clip in seconds, float32 `(clips,)`.

    Args:
        milliseconds (`torch.LongTensor` of shape `(frames,)`): Times of the frames.
        clips (`torch.LongTensor`): As [`frame_clips`] gives them.
    """
    return milliseconds[clips].double().mean(1).float() / 1000


__all__ = ["clip_seconds", "frame_clips"]
