"""V that was made before and is given in place of frames: checked, and without its padding."""

import torch
from transformers import PreTrainedModel

from linvt.image_llms.family_table import image_llm_family


def given_frame_tokens(
    image_llm: PreTrainedModel, frame_tokens: torch.Tensor, token_grid: torch.Tensor, num_clips: list[int]
) -> tuple[list[torch.Tensor], tuple[int, int]]:
    """
    Args:
        image_llm (`PreTrainedModel`): The image-LLM whose encoder made the tokens.
        frame_tokens (`torch.Tensor` of shape `(videos, clips, tokens per clip, channels)`): V of each video, padded at
            the end.
        token_grid (`torch.LongTensor` of shape `(videos, 2)`): Rows and columns of the tokens of a clip.
        num_clips (`list[int]`): Clips of each video.

    Returns:
        `list[torch.Tensor]`: V of each video; and its grid, which is the same for all.

    Raises:
        `ValueError`: If shapes do not match, or if the encoder learns, which given tokens know nothing of.
    """
    if torch.is_grad_enabled() and image_llm_family(image_llm).has_trainable_encoder():
        raise ValueError(
            "video_frame_tokens are given, but the vision encoder or the projector learns, so they would not "
            "stay what it gives; freeze both (model.image_llm.requires_grad_(False)), or give pixel_values_videos."
        )
    grids = set(map(tuple, token_grid.tolist()))
    if len(grids) != 1:
        raise ValueError(f"The video_token_grid of one batch are {sorted(grids)}; expected the same for every video.")
    ((rows, columns),) = grids
    expected = (len(num_clips), max(num_clips), rows * columns)
    if frame_tokens.dim() != 4 or frame_tokens.shape[:3] != expected:
        raise ValueError(
            f"video_frame_tokens have shape {tuple(frame_tokens.shape)}; expected ({', '.join(map(str, expected))}, "
            f"channels) for videos of {num_clips} clips with {rows} x {columns} tokens. Were they made with another "
            "frames_per_patch?"
        )
    return [tokens[:length] for tokens, length in zip(frame_tokens, num_clips, strict=True)], (rows, columns)


__all__ = ["given_frame_tokens"]
