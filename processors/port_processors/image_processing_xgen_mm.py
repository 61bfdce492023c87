"""Still images as xGen-MM was trained on them: all of the picture, and crops of it at the grid that fits it best."""

import math
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs


# As the published code names them: columns and rows. Of grids that fit equally well the first is taken.
GRIDS = [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]]


class XGenMMImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict, but Transformers is not followed
    """
    do_tile (`bool`, *optional*, defaults to `True`):
        Whether crops follow the view of the whole picture. Every still image was tiled in training, also small ones.
    grids (`list[list[int]]`, *optional*, defaults to `[[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]]`):
        Columns and rows of crops to choose from.
    """

    do_tile: bool
    grids: list[list[int]]


class XGenMMImageProcessor(PilBackend):
    r"""
    Makes crops of pictures. All of a picture is squashed to `size`; for its crops the picture keeps its proportions,
    is centred on black, and cut. Pillow resizes, as in the published code: other bicubic filters round otherwise.

    The defaults are those of interleave-r-v1.5; r-v1 has 378 pixels and the mean and standard deviation of CLIP.
    """

    model_input_names = ["pixel_values", "image_sizes", "crop_grids"]
    valid_kwargs = XGenMMImageProcessorKwargs

    resample = PILImageResampling.BICUBIC
    size = {"height": 384, "width": 384}
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_tile = True
    grids = GRIDS

    def _preprocess(
        self,
        images: list[np.ndarray],
        size: SizeDict,
        resample: PILImageResampling,
        do_tile: bool,
        grids: list[list[int]],
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: list[float],
        image_std: list[float],
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            images (`list[np.ndarray]`): Each of shape `(3, height, width)`.

        Returns:
            `BatchFeature`: `pixel_values` `(crops of all images, 3, height, width)`, per image all of it and then its
            crops row by row; `image_sizes` `(images, 2)`, height and width before; `crop_grids` `(images, 2)`, rows
            and columns of crops, 0 without tiling.
        """
        crops, image_sizes, crop_grids = [], [], []
        for image in images:
            height, width = image.shape[-2:]
            views, grid = [self.resize(image, size, resample)], (0, 0)
            if do_tile:
                columns, rows = best_grid(height, width, size, grids)
                views += self._tiles(image, rows, columns, size, resample)
                grid = rows, columns
            image_sizes.append((height, width))
            crop_grids.append(grid)
            for view in views:
                if do_rescale:
                    view = self.rescale(view, rescale_factor)
                if do_normalize:
                    view = self.normalize(view, image_mean, image_std)
                crops.append(view)
        data = {"pixel_values": np.stack(crops), "image_sizes": image_sizes, "crop_grids": crop_grids}
        return BatchFeature(data, tensor_type=return_tensors)

    def _tiles(
        self, image: np.ndarray, rows: int, columns: int, size: SizeDict, resample: PILImageResampling
    ) -> list[np.ndarray]:
        height, width = image.shape[-2:]
        full_height, full_width = rows * size.height, columns * size.width
        if full_width / width < full_height / height:
            inner = SizeDict(height=min(math.ceil(height * (full_width / width)), full_height), width=full_width)
        else:
            inner = SizeDict(height=full_height, width=min(math.ceil(width * (full_height / height)), full_width))
        canvas = np.zeros((image.shape[0], full_height, full_width), dtype=image.dtype)
        top, left = (full_height - inner.height) // 2, (full_width - inner.width) // 2
        canvas[:, top : top + inner.height, left : left + inner.width] = self.resize(image, inner, resample)
        return [
            canvas[:, row : row + size.height, column : column + size.width]
            for row in range(0, full_height, size.height)
            for column in range(0, full_width, size.width)
        ]


def best_grid(height: int, width: int, size: SizeDict, grids: list[list[int]]) -> tuple[int, int]:
    """Columns and rows of the grid that keeps most pixels of a picture, and of several the one with least padding."""

    def fit(grid: list[int]) -> tuple[int, int]:
        full_width, full_height = grid[0] * size.width, grid[1] * size.height
        scale = min(full_width / width, full_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - full_width * full_height

    columns, rows = max(grids, key=fit)
    return columns, rows


__all__ = ["XGenMMImageProcessor"]
