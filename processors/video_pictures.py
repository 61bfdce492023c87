"""Decoded frames as upright RGB pictures: rotated, with square pixels, at full size or as AutoShot's thumbnails."""

from fractions import Fraction

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter


# The size at which AutoShot looks at frames, in pixels.
THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT = 48, 27

# A wider or narrower pixel than this is a damaged header, not a picture format.
MAX_PIXEL_STRETCH = 8

# PyAV 17 scales in a pool of threads unless told not to, which is slower at our sizes; before it there was no choice.
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


class FramePictures:
    """
    Decoded frames as upright RGB pictures. All pictures of a video get the displayed size of its first one, even if
    the size changes within the stream.
    """

    def __init__(self, sample_aspect_ratio: Fraction | None):
        self.pixel_stretch = Fraction(1)
        if sample_aspect_ratio and 1 / MAX_PIXEL_STRETCH <= sample_aspect_ratio <= MAX_PIXEL_STRETCH:
            self.pixel_stretch = sample_aspect_ratio
        # Reused for all frames: a new one for each would set up the scaling each time.
        self.reformatter = VideoReformatter()
        self.stored_size: tuple[int, int] | None = None
        self.width = self.height = 0

    def displayed(self, frame: VideoFrame) -> torch.Tensor:
        """A frame as uint8 RGB tensor of shape `(3, height, width)`."""
        turns = _quarter_turns(frame)
        if self.stored_size is None:
            self.stored_size = (max(1, round(frame.width * self.pixel_stretch)), frame.height)
            self.width, self.height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        width, height = self.stored_size
        rgb = self.reformatter.reformat(frame, width=width, height=height, format="rgb24", **_ONE_THREAD)
        upright = np.rot90(rgb.to_ndarray(), turns)  # (height, width, 3)
        return torch.from_numpy(np.ascontiguousarray(upright.transpose(2, 0, 1)))

    def thumbnail(self, frame: VideoFrame) -> np.ndarray:
        """A frame as uint8 RGB array of shape `(27, 48, 3)`, squashed to that shape as AutoShot's training data."""
        turns = _quarter_turns(frame)
        width, height = (THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT)[:: -1 if turns % 2 else 1]
        rgb = self.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BICUBIC, **_ONE_THREAD
        )
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), turns))


def _quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns that show a frame upright."""
    return round(frame.rotation / 90) % 4
