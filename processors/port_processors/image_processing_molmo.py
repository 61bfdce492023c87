"""Images for Molmo, first version: a view of the whole, and up to 12 crops that overlap (its paper, Sec. 2).

A crop shows 24 x 24 patches, of which 4 at each side are there only so that those in the middle see what surrounds
them; at the borders of the image all are kept. What is kept of all crops, joined, is one large picture.
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs


class MolmoImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict, but Transformers is not followed
    """
    max_crops (`int`, *optional*, defaults to 12):
        Crops at most, the view of the whole image not counted.
    overlap_margins (`list[int]`, *optional*, defaults to `[4, 4]`):
        Patches at the left and top, and at the right and bottom, that a crop shares with its neighbours.
    patch_size (`int`, *optional*, defaults to 14):
        Side of a patch in pixels.
    pooling_size (`int`, *optional*, defaults to 2):
        Rows and columns of patches that become one visual token.
    """

    max_crops: int
    overlap_margins: list[int]
    patch_size: int
    pooling_size: int


class MolmoImageProcessor(TorchvisionBackend):
    """
    Returns, over all crops of all images, `pixel_values` (float32 of shape `(crops, 3, height, width)`),
    `image_masks` (float32 of shape `(crops, patches)`) and `image_token_order` (int64 of shape
    `(crops, tokens per crop)`), as [`MolmoForConditionalGeneration`] takes them; and per image `image_num_crops`
    (int64 of shape `(images,)`) and `image_grids`, rows and columns of the tokens of the joined crops (int64 of shape
    `(images, 2)`).
    """

    valid_kwargs = MolmoImageProcessorKwargs
    model_input_names = ["pixel_values", "image_masks", "image_token_order", "image_num_crops", "image_grids"]
    resample = PILImageResampling.BILINEAR
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"height": 336, "width": 336}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    max_crops = 12
    overlap_margins = [4, 4]
    patch_size = 14
    pooling_size = 2

    def _preprocess(
        self,
        images: list[torch.Tensor],
        size: SizeDict,
        max_crops: int,
        overlap_margins: list[int],
        patch_size: int,
        pooling_size: int,
        return_tensors: str | None,
        do_resize: bool = True,
        **options: Any,
    ) -> BatchFeature:
        side = size.height // patch_size
        if size.height != size.width or size.height % patch_size or side % pooling_size:
            raise ValueError(
                f"size is {size.height} x {size.width}; Molmo needs squares of a whole number of windows of "
                f"{pooling_size} x {pooling_size} patches of {patch_size} pixels."
            )
        if any(margin % pooling_size for margin in overlap_margins) or sum(overlap_margins) >= side:
            raise ValueError(
                f"overlap_margins is {overlap_margins}; both must be multiples of pooling_size {pooling_size}, and "
                f"together less than the {side} patches of a crop."
            )
        if not do_resize:
            raise ValueError("Crops have one size, so images have to be resized; leave out do_resize=False.")
        window, margin = (side - sum(overlap_margins)) * patch_size, sum(overlap_margins) * patch_size
        data: dict[str, list] = {name: [] for name in self.model_input_names}
        for image in images:
            rows, columns = select_tiling(image.shape[1] - margin, image.shape[2] - margin, window, max_crops)
            whole, _ = self._resize_and_pad(image, (size.height, size.width), **options)
            joined, shown = self._resize_and_pad(image, (rows * window + margin, columns * window + margin), **options)
            crops = joined.unfold(1, size.height, window).unfold(2, size.width, window)
            crops = crops.permute(1, 2, 0, 3, 4).flatten(0, 1)
            masks = shown.unfold(0, size.height, window).unfold(1, size.width, window).flatten(0, 1)
            masks = F.avg_pool2d(masks, patch_size).flatten(1)
            order, grid = token_order(
                rows, columns, side // pooling_size, [m // pooling_size for m in overlap_margins]
            )
            data["pixel_values"].append(torch.cat([whole[None], crops]))
            # The whole comes first, but its row of the mask last: so it was in training, where every crop had the
            # mask of the next one and the last crop that of padding.
            data["image_masks"].append(F.pad(masks, (0, 0, 0, 1), value=-1.0))
            data["image_token_order"].append(order)
            data["image_num_crops"].append(torch.tensor([len(order)]))
            data["image_grids"].append(torch.tensor([grid]))
        return BatchFeature({name: torch.cat(parts) for name, parts in data.items()}, tensor_type=return_tensors)

    def _resize_and_pad(
        self,
        image: torch.Tensor,
        canvas: tuple[int, int],
        resample: PILImageResampling,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: list[float],
        image_std: list[float],
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """An image in the middle of a black canvas, its aspect kept, `(3, height, width)`; and 1 where it is."""
        # In float32, as in training: it decides whether a size is rounded to one pixel less.
        height, width = (np.float32(length) for length in image.shape[1:])
        scale = min(np.float32(canvas[0]) / height, np.float32(canvas[1]) / width)
        scaled = int(height * scale), int(width * scale)
        if min(scaled) < 1:
            raise ValueError(f"An image of {image.shape[1]} x {image.shape[2]} pixels is too long to be shown whole.")
        image = image.float() * (rescale_factor if do_rescale else 1.0)
        image = self.resize(image, SizeDict(height=scaled[0], width=scaled[1]), resample=resample).clamp(0, 1)
        top, left = (canvas[0] - scaled[0]) // 2, (canvas[1] - scaled[1]) // 2
        around = (left, canvas[1] - scaled[1] - left, top, canvas[0] - scaled[0] - top)
        image = F.pad(image, around)
        if do_normalize:
            image = self.normalize(image, image_mean, image_std)
        return image, F.pad(torch.ones(scaled, device=image.device), around)


def select_tiling(height: int, width: int, window: int, max_crops: int) -> tuple[int, int]:
    """
    Rows and columns of crops for an image of `height` x `width` pixels, without the margins: those that need it
    enlarged least, or, if all are smaller than the image, shrunk least.
    """
    tilings = [
        (rows, columns)
        for rows, columns in itertools.product(range(1, max_crops + 1), repeat=2)
        if rows * columns <= max_crops
    ]
    tilings.sort(key=lambda tiling: (tiling[0] * tiling[1], tiling[0]))  # of equal ones the smallest
    with np.errstate(divide="ignore"):  # an image may be as narrow as the margins
        scales = np.array(tilings, dtype=np.float32) * window / np.array([height, width], dtype=np.float32)
    scales = scales.min(axis=1)
    if (scales < 1).all():
        return tilings[scales.argmax()]
    return tilings[np.where(scales < 1, np.inf, scales).argmin()]


def token_order(rows: int, columns: int, side: int, margins: list[int]) -> tuple[torch.Tensor, tuple[int, int]]:
    """
    Places of the tokens of an image in its prompt: the whole, row by row, then the joined crops, row by row.

    Args:
        rows (`int`), columns (`int`): Crops.
        side (`int`): Tokens along one side of a crop.
        margins (`list[int]`): Tokens at the left and top, and at the right and bottom, that neighbours share.

    Returns:
        `torch.LongTensor` of shape `(1 + rows * columns, side * side)`, -1 for a token that is dropped; and rows and
        columns of the joined crops.
    """
    step, places = side - sum(margins), torch.arange(side)
    grid = rows * step + sum(margins), columns * step + sum(margins)

    def kept(number: int, count: int) -> torch.Tensor:
        start = 0 if number == 0 else margins[0]
        end = side if number == count - 1 else side - margins[1]
        return (places >= start) & (places < end)

    crops = []
    for row, column in itertools.product(range(rows), range(columns)):
        place = side * side + (row * step + places)[:, None] * grid[1] + (column * step + places)
        crops.append(torch.where(kept(row, rows)[:, None] & kept(column, columns), place, -1).flatten())
    return torch.stack([torch.arange(side * side), *crops]), grid


__all__ = ["MolmoImageProcessor"]
