"""Resizes and normalises frames, as the settings of the video processor say."""

from collections.abc import Mapping
from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf
from transformers.image_utils import PILImageResampling
from transformers.utils import logging


logger = logging.get_logger(__name__)

PIXEL_SETTINGS = (
    "do_resize",
    "size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
"""Settings of the video processor that the pixels of a frame depend on."""


def frame_resizer(options: Mapping[str, Any]) -> v2.Resize | None:
    """
    Returns the transform that brings frames to their size; `None` if they are left as they are.

    Args:
        options (`Mapping[str, Any]`): Settings of the video processor: `do_resize`, `size`, `resample`.
    """
    if not options["do_resize"]:
        return None
    size = [options["size"]["height"], options["size"]["width"]]
    return v2.Resize(size, interpolation=_interpolation(options["resample"]), antialias=True)


def normalize_frames(frames: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
    """
    Brings frames to a device and normalises them.

    Args:
        frames (`torch.Tensor` of shape `(frames, 3, height, width)`): uint8 RGB.
        options (`Mapping[str, Any]`): Settings of the video processor: `device`, `do_rescale`, `rescale_factor`,
            `do_normalize`, `image_mean`, `image_std`.

    Returns:
        `torch.FloatTensor` of the same shape.
    """
    frames = frames.to(device=options["device"], dtype=torch.float32)
    if options["do_rescale"]:
        frames = frames * options["rescale_factor"]
    if options["do_normalize"]:
        frames = tvf.normalize(frames, options["image_mean"], options["image_std"])
    return frames


def _interpolation(resample: int) -> v2.InterpolationMode:
    if resample == PILImageResampling.LANCZOS:
        logger.warning_once(
            "Frames are resized with bicubic instead of Lanczos resampling, which tensors do not have."
        )
        return v2.InterpolationMode.BICUBIC
    return {
        PILImageResampling.NEAREST: v2.InterpolationMode.NEAREST,
        PILImageResampling.BOX: v2.InterpolationMode.BOX,
        PILImageResampling.BILINEAR: v2.InterpolationMode.BILINEAR,
        PILImageResampling.HAMMING: v2.InterpolationMode.HAMMING,
        PILImageResampling.BICUBIC: v2.InterpolationMode.BICUBIC,
    }[PILImageResampling(resample)]


__all__ = ["PIXEL_SETTINGS", "frame_resizer", "normalize_frames"]
