"""Image-LLMs that take an image as a list of tiles; a frame is an image of one tile.

Also those that give more than the tokens of an image: separators that are no part of a frame.
"""

import torch

from linvt.image_llms.image_llm_family import ImageLLMFamily


class TiledImageFamily(ImageLLMFamily):
    """Pixels have an axis for the tiles of an image: Idefics 3, SmolVLM."""

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        frames = self._single_frames(clips).clone()
        # A tile that is zero everywhere is taken for padding and left out, so a frame must not be.
        frames[:, 0, 0, 0] += torch.finfo(frames.dtype).tiny
        return {"pixel_values": frames[:, None]}


class Idefics2Family(TiledImageFamily):
    """Idefics 2: a Perceiver makes equally many tokens of every picture, of up to 70 x 70 patches."""

    def frame_size(self) -> tuple[int, int]:
        return (32 * self.image_llm.config.vision_config.patch_size,) * 2


class PerceptionLMFamily(TiledImageFamily):
    """PerceptionLM: its encoder is one of `timm`, whose arguments say the size of a tile."""

    def image_size(self) -> tuple[int, int] | None:
        size = (self.image_llm.config.vision_config.model_args or {}).get("img_size")
        return size and (size[0], size[1])


class GraniteDoclingFamily(ImageLLMFamily):
    """
    Granite Docling: tiles with the mask of those that are there, and deep features that enter lower layers of the
    LLM. Video tokens have none, as with [`DeepStackFamily`].
    """

    inserts_images_itself = True

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        frames = self._single_frames(clips)
        there = torch.ones(len(frames), 1, dtype=torch.bool, device=frames.device)
        return {"pixel_values": frames[:, None], "pixel_attention_mask": there}


class DeepseekOcr2Family(ImageLLMFamily):
    """DeepSeek-OCR 2: after the tokens of an image stands a separator, which is no part of the frame."""

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        return super().frame_tokens(clips)[:, :-1]

    def image_size(self) -> tuple[int, int] | None:
        return (self.image_llm.config.vision_config.sam_config.image_size,) * 2


class UnlimitedOcrFamily(DeepseekOcr2Family):
    """Unlimited-OCR: also a newline after each row of a square."""

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        tokens = super().frame_tokens(clips)
        rows = int(tokens.shape[1] ** 0.5)  # rows x (rows + 1) tokens
        return tokens.unflatten(1, (rows, rows + 1))[:, :, :-1].flatten(1, 2)


__all__ = [
    "DeepseekOcr2Family",
    "GraniteDoclingFamily",
    "Idefics2Family",
    "PerceptionLMFamily",
    "TiledImageFamily",
    "UnlimitedOcrFamily",
]
