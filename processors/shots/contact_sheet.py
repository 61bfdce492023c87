"""Draws contact sheets: one picture of many frames, each with a line of text under it."""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont


# The longer side of a thumbnail, in pixels.
THUMBNAIL_PIXELS = 240

# Thumbnails on one sheet: at this size and number, 35 MB of them.
MAX_THUMBNAILS = 200

MAX_COLUMNS = 8
MARGIN_PIXELS, GAP_PIXELS = 20, 12
HEADING_PIXELS, CAPTION_PIXELS = 22, 15
PAPER, INK, OUTLINE = (250, 250, 250), (25, 25, 25), (190, 190, 190)


def thumbnail(picture: torch.Tensor) -> torch.Tensor:
    """
    Scales a uint8 picture of shape `(3, height, width)` so that its longer side has 240 pixels, whatever its size; the
    other keeps the shape, but has at least 1.
    """
    height, width = picture.shape[1:]
    scale = THUMBNAIL_PIXELS / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    scaled = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)[0]
    return scaled.round().clamp(0, 255).to(torch.uint8)


def contact_sheet(frames: torch.Tensor, captions: Sequence[str], heading: str) -> Image.Image:
    """
    Draws frames in rows on light paper, in reading order.

    Args:
        frames (`torch.Tensor` of shape `(num_frames, 3, height, width)`):
            Pictures as uint8 RGB, at least 1, drawn at the size they have.
        captions (`Sequence[str]`):
            One line under each frame. A frame gets as much room as the longest caption needs.
        heading (`str`):
            A line above all.

    Returns:
        `PIL.Image.Image`: RGB, nearly as many rows as columns, but 8 columns at most.

    Raises:
        `ValueError`: if there is no frame, or not one caption for each.
    """
    if len(frames) == 0 or len(frames) != len(captions):
        raise ValueError(f"got {len(frames)} frames and {len(captions)} captions, expected one caption per frame.")
    heading_font, font = (ImageFont.load_default(size=size) for size in (HEADING_PIXELS, CAPTION_PIXELS))
    heading_height, caption_height = (sum(text_font.getmetrics()) for text_font in (heading_font, font))
    height, width = frames.shape[2:]
    cell_width = max(width, *(math.ceil(font.getlength(caption)) for caption in captions))
    cell_height = height + caption_height + GAP_PIXELS // 2
    num_columns = min(math.ceil(math.sqrt(len(frames))), MAX_COLUMNS)
    num_rows = math.ceil(len(frames) / num_columns)
    inner_width = max(num_columns * (cell_width + GAP_PIXELS) - GAP_PIXELS, math.ceil(heading_font.getlength(heading)))
    inner_height = heading_height + num_rows * (GAP_PIXELS + cell_height)

    sheet = Image.new("RGB", (inner_width + 2 * MARGIN_PIXELS, inner_height + 2 * MARGIN_PIXELS), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PIXELS, MARGIN_PIXELS), heading, INK, heading_font)
    for number, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        row, column = divmod(number, num_columns)
        left = MARGIN_PIXELS + column * (cell_width + GAP_PIXELS)
        top = MARGIN_PIXELS + heading_height + GAP_PIXELS + row * (cell_height + GAP_PIXELS)
        # Around the frame: without it a white one would have no edge.
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=OUTLINE)
        sheet.paste(Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()), (left, top))
        draw.text((left, top + height + GAP_PIXELS // 2), caption, INK, font)
    return sheet


def check_picture_format(path: str | os.PathLike) -> None:
    """
    Rejects a name under which Pillow cannot write a picture, before the work that makes it.

    Raises:
        `ValueError`: If its suffix names no format that Pillow writes.
    """
    path = Path(path)
    picture_format = Image.registered_extensions().get(path.suffix.lower())
    try:
        # A trial, because some formats are only read, and others do not take colours.
        Image.new("RGB", (8, 8)).save(io.BytesIO(), picture_format or path.suffix)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"Pillow writes no pictures named *{path.suffix}; give a name such as shots.png.") from error


__all__ = ["MAX_THUMBNAILS", "check_picture_format", "contact_sheet", "thumbnail"]
