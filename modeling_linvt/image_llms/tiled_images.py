"""Image-LLMs that take an image as a list of tiles; a frame is an image of one tile.

Also those that give more than the tokens of an image: separators that are no part of a frame.
"""

import torch

from linvt.image_llms.image_llm_family import ImageLLMFamily


class TiledImageFamily(ImageLLMFamily):
    """Pixels have an axis for the tiles of an image: Idefics 2 and 3, SmolVLM, PerceptionLM."""

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        frames = self._single_frames(clips).clone()
        # A tile that is zero everywhere is taken for padding and left out, so a frame must not be.
        frames[:, 0, 0, 0] += torch.finfo(frames.dtype).tiny
        return {"pixel_values": frames[:, None]}


class DeepTileFamily(ImageLLMFamily):
    """
    Granite Docling: tiles with the mask of those that are there, and deep features that enter lower layers of the
    LLM. Video tokens have none, as with [`DeepFeatureFamily`].
    """

    fills_images = True

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        frames = self._single_frames(clips)
        there = torch.ones(len(frames), 1, dtype=torch.bool, device=frames.device)
        return {"pixel_values": frames[:, None], "pixel_attention_mask": there}


class SeparatorFamily(ImageLLMFamily):
    """DeepSeek-OCR 2: after the tokens of an image stands a separator, which is no part of the frame."""

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        return super().frame_tokens(clips)[:, :-1]


class NewlineFamily(SeparatorFamily):
    """Unlimited-OCR: also a newline after each row of a square."""

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        tokens = super().frame_tokens(clips)
        rows = int(tokens.shape[1] ** 0.5)  # rows x (rows + 1) tokens
        return tokens.unflatten(1, (rows, rows + 1))[:, :, :-1].flatten(1, 2)


__all__ = ["DeepTileFamily", "NewlineFamily", "SeparatorFamily", "TiledImageFamily"]
