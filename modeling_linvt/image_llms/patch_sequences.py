"""Image-LLMs that take an image as a sequence of its patches with the size of its grid, as Qwen2-VL does.

Which patch comes first, and which number within a patch, is a convention between an image processor and its model.
Each class here is one convention; tests compare it with what the image processor of Transformers makes.
"""

import torch

from linvt.image_llms.image_llm_family import ImageLLMFamily


class PatchSequenceFamily(ImageLLMFamily):
    """
    Patches in blocks of merge x merge, the blocks row by row, and channels first in a patch: Qwen2-VL and most others.

    Letters name axes: `R` and `C` rows and columns of blocks, `r` and `c` those within a block, `k` colour channels,
    `t` the frames that a patch is deep, `y` and `x` pixels.
    """

    order = "RCrc"  # of the patches
    patch = "ktyx"  # of the numbers within a patch

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        patch, merge, depth = self.patch_size(), self.merge_size(), self.patch_depth()
        num_clips, frames_per_clip, _, height, width = clips.shape
        if height % (patch * merge) or width % (patch * merge):
            raise ValueError(
                f"Frames are {height} x {width} pixels; {self._name()} needs multiples of {patch * merge}. Change "
                "`size` of the video processor."
            )
        if frames_per_clip not in (1, depth):
            raise ValueError(
                f"frames_per_patch is {frames_per_clip}; this {self._name()} encodes "
                f"{f'1 or {depth} frames' if depth > 1 else '1 frame'} as one clip."
            )
        rows, columns = height // patch, width // patch
        # A still picture fills the whole temporal depth of a patch.
        patches = clips.expand(-1, depth, -1, -1, -1)
        patches = patches.unflatten(4, (columns // merge, merge, patch)).unflatten(3, (rows // merge, merge, patch))
        axes = "btkRryCcx"
        patches = patches.permute([axes.index(letter) for letter in "b" + self.order + self.patch])
        grid = torch.tensor([rows, columns], device=clips.device).expand(num_clips, -1)
        return self.patch_inputs(patches.flatten(1, 4), grid)

    def patch_inputs(self, patches: torch.Tensor, grid: torch.Tensor) -> dict:
        """
        Makes the arguments of `get_image_features`.

        Args:
            patches (`torch.Tensor` of shape `(clips, patches, ...)`): A patch has the axes of `self.patch`.
            grid (`torch.LongTensor` of shape `(clips, 2)`): Rows and columns of patches.
        """
        return {"pixel_values": self._shape_patches(patches.flatten(0, 1)), "image_grid_thw": _with_time(grid)}

    def _shape_patches(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.flatten(1)

    def patch_size(self) -> int:
        return self.image_llm.config.vision_config.patch_size

    def merge_size(self) -> int:
        """Returns the number of patches that become one token, along each side."""
        return self.image_llm.config.vision_config.spatial_merge_size

    def patch_depth(self) -> int:
        """Returns the number of frames that a patch is deep."""
        return getattr(self.image_llm.config.vision_config, "temporal_patch_size", 1)

    def token_pixels(self) -> int | None:
        return self.patch_size() * self.merge_size()

    def _name(self) -> str:
        return type(self.image_llm).__name__.removesuffix("ForConditionalGeneration")


class DeepStackFamily(PatchSequenceFamily):
    """
    Image-LLMs of the kind of Qwen3-VL, which also adds features of lower layers of the encoder to lower layers of the
    LLM where an image stands. Video tokens are averages of what enters at the embeddings, and have no deep features:
    the LLM reads them like text in those layers. Images in the same prompt keep theirs.
    """

    inserts_images_itself = True


class QwenOmniFamily(PatchSequenceFamily):
    """The thinkers of Qwen-Omni: positions are counted by the ids, and an image is found by the marker before it."""

    def count_positions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, is_image: torch.Tensor, images: dict
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # A video counts like text, so neither its placeholders nor its marker may look like those of an image.
        is_video = (input_ids == self.image_token_id()) & ~is_image
        before = torch.nn.functional.pad(is_video, (0, 1))[:, 1:]
        text = input_ids.masked_fill(is_video | before, 0)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        positions, deltas = self.rope_owner().get_rope_index(text, attention_mask=attention_mask, **images)
        return positions.long(), deltas.long()


class Qwen3OmniFamily(QwenOmniFamily):
    """As [`QwenOmniFamily`], with deep features as in [`DeepStackFamily`]."""

    inserts_images_itself = True


class ErnieFamily(PatchSequenceFamily):
    """Ernie 4.5 VL: some experts of the LLM are for vision. Video tokens are made of what those read."""

    def llm_inputs(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        is_image: torch.Tensor,
        is_video: torch.Tensor,
        inputs: dict,
    ) -> dict:
        config = self.image_llm.config
        markers = [config.image_start_token_id, config.image_end_token_id]
        is_vision = is_image | is_video | torch.isin(input_ids, input_ids.new_tensor(markers)).to(is_image.device)
        extra = super().llm_inputs(input_ids, attention_mask, is_image, is_video, inputs)
        return extra | {"moe_mm_token_type_ids": is_vision.int()}


class VideoLlama3Family(PatchSequenceFamily):
    """VideoLLaMA 3: how many patches become a token is said per image; a picture's are taken as they are."""

    def merge_size(self) -> int:
        return 1

    def patch_inputs(self, patches: torch.Tensor, grid: torch.Tensor) -> dict:
        return super().patch_inputs(patches, grid) | {"image_merge_sizes": torch.ones_like(grid[:, 0])}

    def image_input_names(self, inputs: dict) -> set[str]:
        return set(inputs) & {"pixel_values", "image_grid_thw", "image_merge_sizes"}


class Cosmos3EdgeFamily(PatchSequenceFamily):
    """Cosmos3-Edge: in a patch, the channels of a pixel stand together."""

    patch = "yxkt"


class HunYuanFamily(PatchSequenceFamily):
    """HunYuan-VL: patches row by row, whatever is merged. Around the tokens of a frame stand markers and newlines."""

    order = "RrCc"
    num_markers = 1
    """Tokens before the first row of an image, and as many behind the last one."""

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        side = self.patch_size() * self.merge_size()
        rows, columns = clips.shape[-2] // side, clips.shape[-1] // side
        tokens = super().frame_tokens(clips)
        tokens = tokens[:, self.num_markers : tokens.shape[1] - self.num_markers]
        return tokens.unflatten(1, (rows, columns + 1))[:, :, :-1].flatten(1, 2)


class HyV4Family(HunYuanFamily):
    """Hy 4: as [`HunYuanFamily`], with newlines and no markers."""

    num_markers = 0


class PaddleOcrFamily(PatchSequenceFamily):
    """PaddleOCR-VL: patches row by row, each a small picture."""

    order = "RrCc"

    def _shape_patches(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.flatten(1, 2)


class KimiFamily(PaddleOcrFamily):
    """Kimi K2.5: as [`PaddleOcrFamily`]; patches are merged by a kernel."""

    def merge_size(self) -> int:
        return self.image_llm.config.vision_config.merge_kernel_size[0]


class MuseFamily(PatchSequenceFamily):
    """Muse: patches row by row, and in a patch the frames come before the channels."""

    order, patch = "RrCc", "tkyx"

    def merge_size(self) -> int:
        return self.image_llm.config.vision_config.merge_size

    def patch_depth(self) -> int:
        return self.image_llm.config.vision_config.patch_temporal


class Inkling2Family(PatchSequenceFamily):
    """Inkling 2, looped or not: a patch is what becomes one token, a small picture whose channels come last."""

    order, patch = "RrCc", "yxkt"

    def patch_size(self) -> int:
        vision = self.image_llm.config.vision_config
        return vision.patch_size * vision.spatial_merge_size

    def merge_size(self) -> int:
        return 1

    def patch_depth(self) -> int:
        return 1

    def _shape_patches(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.flatten(3)


class InklingFamily(Inkling2Family):
    """Inkling: as [`Inkling2Family`], with two frames in a patch, and nothing said of rows and columns."""

    patch = "tyxk"

    def patch_size(self) -> int:
        return self.image_llm.config.vision_config.patch_size

    def patch_depth(self) -> int:
        return self.image_llm.config.vision_config.temporal_patch_size

    def patch_inputs(self, patches: torch.Tensor, grid: torch.Tensor) -> dict:
        return {"pixel_values": patches.flatten(0, 1)}

    def visual_tokens(self, image_inputs: dict) -> torch.Tensor:
        return super().visual_tokens(image_inputs).flatten(0, 1)


def _with_time(grid: torch.Tensor) -> torch.Tensor:
    """Adds the length in time, which is 1, to grids."""
    return torch.cat([torch.ones_like(grid[:, :1]), grid], dim=1)


__all__ = [
    "Cosmos3EdgeFamily",
    "DeepStackFamily",
    "ErnieFamily",
    "HunYuanFamily",
    "HyV4Family",
    "Inkling2Family",
    "InklingFamily",
    "KimiFamily",
    "MuseFamily",
    "PaddleOcrFamily",
    "PatchSequenceFamily",
    "Qwen3OmniFamily",
    "QwenOmniFamily",
    "VideoLlama3Family",
]
