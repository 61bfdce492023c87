"""Image-LLMs that take the patches of each image as one row of a batch, with the place of each patch.

They build on the order and shape of patches in `patch_sequences.py`; a test compares them with the image processors.
"""

from collections.abc import Sequence

import torch

from linvt.image_llms.patch_sequences import PatchSequenceFamily


class Lfm2Family(PatchSequenceFamily):
    """LFM2-VL: SigLIP 2 with the shape of each image, and the mask of what is no padding."""

    order, patch = "RrCc", "yxkt"

    def merge_size(self) -> int:
        return self.image_llm.config.downsample_factor

    def patch_inputs(self, patches: torch.Tensor, grid: torch.Tensor) -> dict:
        mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=patches.device)
        return {"pixel_values": patches.flatten(2), "spatial_shapes": grid, "pixel_attention_mask": mask}


class Gemma4Family(PatchSequenceFamily):
    """Gemma 4: column and row of each patch beside it. The layers of its LLM have embeddings of words of their own."""

    needs_input_ids = True
    order, patch = "RrCc", "yxkt"

    def merge_size(self) -> int:
        return self.image_llm.config.vision_config.pooling_kernel_size

    def patch_inputs(self, patches: torch.Tensor, grid: torch.Tensor) -> dict:
        rows, columns = grid[0].tolist()
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        places = torch.stack([column, row], dim=-1).flatten(0, 1).to(grid.device)
        return {"pixel_values": patches.flatten(2), "image_position_ids": places.expand(len(grid), -1, -1)}


class Gemma4UnifiedFamily(Gemma4Family):
    """Gemma 4 unified: a patch is what becomes one token; there is no encoder."""

    needs_input_ids = False

    def merge_size(self) -> int:
        return 1

    def patch_size(self) -> int:
        vision = self.image_llm.config.vision_config
        return vision.patch_size * vision.pooling_kernel_size


class MiniCpmFamily(PatchSequenceFamily):
    """MiniCPM-V: the patches of all images side by side, one long picture that is a patch high."""

    order, patch = "RrCc", "kyxt"

    def merge_size(self) -> int:
        return 2 if self.image_llm.config.downsample_mode == "4x" else 4

    def frame_size(self) -> tuple[int, int]:
        return (32 * self.patch_size(),) * 2  # that of the slices which its image processor cuts larger pictures into

    def patch_inputs(self, patches: torch.Tensor, grid: torch.Tensor) -> dict:
        ribbon = patches[..., 0].flatten(0, 1).permute(1, 2, 0, 3).flatten(2)
        return {"pixel_values": ribbon[None], "target_sizes": grid.int()}

    def image_input_names(self, inputs: dict) -> set[str]:
        return set(inputs) & {"pixel_values", "target_sizes", "downsample_mode"}


class NemotronOmniFamily(PatchSequenceFamily):
    """Nemotron-H Omni: all patches in one row, with rows and columns of each image."""

    order = "RrCc"

    def merge_size(self) -> int:
        return round(1 / self.image_llm.config.downsample_ratio)

    def patch_depth(self) -> int:
        return 1

    def patch_inputs(self, patches: torch.Tensor, grid: torch.Tensor) -> dict:
        return {"pixel_values": patches.flatten(0, 1).flatten(1), "image_grid_hw": grid}


class Molmo2Family(PatchSequenceFamily):
    """
    Molmo 2: with the numbers of the patches that each token is pooled from. The image-LLM adds visual tokens to the
    embedding of their placeholder; that embedding is a part of V here, so an average of V has it once.
    """

    order, patch = "RrCc", "yxkt"
    inserts_images_itself = True
    pooled = 2  # patches per token along each side, a fixed property of its image processor

    def merge_size(self) -> int:
        return 1

    def patch_depth(self) -> int:
        return 1

    def token_pixels(self) -> None:
        return None  # one size: its position embeddings are not interpolated

    def words_in_frames(self) -> Sequence[int]:
        return (self.image_token_id(),)

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        placeholder = torch.tensor(self.image_token_id(), device=clips.device)
        tokens = super().frame_tokens(clips)
        return tokens + self.image_llm.get_input_embeddings()(placeholder).to(tokens)

    def patch_inputs(self, patches: torch.Tensor, grid: torch.Tensor) -> dict:
        num_clips, num_patches = patches.shape[:2]
        rows, columns = grid[0].tolist()
        numbers = torch.arange(num_patches, device=patches.device).view(rows, columns)
        # What is missing to whole groups is spread on both sides, as the image processor does.
        short = [-length % self.pooled for length in (columns, rows)]
        pad = [side for length in short for side in (length // 2, (length + 1) // 2)]
        numbers = torch.nn.functional.pad(numbers, pad, value=-1)
        groups = numbers.unflatten(1, (-1, self.pooled)).unflatten(0, (-1, self.pooled)).transpose(1, 2)
        height, width = groups.shape[:2]
        groups = groups.flatten(2).flatten(0, 1)
        first = torch.arange(num_clips, device=patches.device)[:, None, None] * num_patches
        pooling = torch.where(groups >= 0, groups + first, -1).flatten(0, 1)
        grids = torch.tensor([[height, width, 0, 0]], device=patches.device).expand(num_clips, -1)
        return {"pixel_values": patches.flatten(2), "image_token_pooling": pooling, "image_grids": grids}


__all__ = [
    "Gemma4Family",
    "Gemma4UnifiedFamily",
    "Lfm2Family",
    "MiniCpmFamily",
    "Molmo2Family",
    "NemotronOmniFamily",
]
