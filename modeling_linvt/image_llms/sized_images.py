"""Image-LLMs that want the size of each image beside its pixels, most of which cut images into tiles by it.

A frame goes in whole: each class here presents it so that nothing is cut.
"""

from collections.abc import Sequence

import torch

from linvt.image_llms.image_llm_family import ImageLLMFamily
from linvt.image_llms.projector_family import ProjectorFamily


class SizedImageFamily(ImageLLMFamily):
    """Pixtral's encoder, which takes images of any size and is told the size of each."""

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        frames = self._single_frames(clips)
        return {"pixel_values": frames, "image_sizes": image_sizes(frames)}

    def token_pixels(self) -> int | None:
        config = self.image_llm.config
        return config.vision_config.patch_size * config.spatial_merge_size


class Emu3Family(SizedImageFamily):
    """Emu3: pictures become words of a code book, each row of them with a word for its end, which is left out."""

    tokens_per_side = 64  # its code book was made for pictures of 512 x 512 pixels and more

    def words_in_frames(self) -> Sequence[int]:
        return self.image_llm.model.vocabulary_mapping.image_tokens

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        rows = clips.shape[-2] // self.token_pixels()
        return super().frame_tokens(clips).unflatten(1, (rows, -1))[:, :, :-1].flatten(1, 2)

    def token_pixels(self) -> int:
        return 2 ** (len(self.image_llm.config.vq_config.channel_multiplier) - 1)


class Apertus1p5Family(SizedImageFamily):
    """Apertus 1.5: pictures become words of a code book, one for each square of pixels."""

    def words_in_frames(self) -> Sequence[int]:
        config = self.image_llm.config
        return range(config.image_token_offset, config.image_token_offset + config.vision_config.codebook_size)

    def token_pixels(self) -> int | None:
        return self.image_llm.config.vision_config.spatial_scale_factor


class LlavaOnevisionFamily(ProjectorFamily):
    """LLaVA-OneVision: a frame is presented as one of several images, which are not split into tiles."""

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        # The last token is the newline, no part of the frame.
        return super().frame_tokens(clips)[: len(clips), :-1]

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        frames = self._single_frames(clips)
        # Two images at least: a single one is split at "any resolution", several are taken whole.
        padded = frames if len(frames) > 1 else frames.expand(2, -1, -1, -1)
        number = torch.tensor([len(padded)], device=frames.device)
        return {"pixel_values": padded, "image_sizes": image_sizes(padded), "batch_num_images": number}


class LlavaNextFamily(ProjectorFamily):
    """
    LLaVA-NeXT: an image is always a view of the whole and tiles, which are then arranged. Frames are presented as the
    views and tiles of as many images as they fill, and their tokens are seen as they leave the projector, before
    anything is arranged.
    """

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        seen = []
        hook = self.projector().register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            self.visual_tokens(self.frame_inputs(clips))
        finally:
            hook.remove()
        (tokens,) = seen
        return tokens[: len(clips)]

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        frames = self._single_frames(clips)
        config = self.image_llm.config
        height, width = config.image_grid_pinpoints[0]
        views = 1 + (height // config.vision_config.image_size) * (width // config.vision_config.image_size)
        missing = -len(frames) % views
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        sizes = torch.tensor([[height, width]], device=frames.device).expand(len(frames) // views, -1)
        return {"pixel_values": frames, "image_sizes": sizes}


def image_sizes(frames: torch.Tensor) -> torch.Tensor:
    """Returns height and width of each frame, `(frames, 2)`."""
    return torch.tensor([frames.shape[-2:]], device=frames.device).expand(len(frames), -1)


__all__ = ["Apertus1p5Family", "Emu3Family", "LlavaNextFamily", "LlavaOnevisionFamily", "SizedImageFamily"]
