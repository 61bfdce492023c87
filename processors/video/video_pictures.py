"""Decoded frames as upright RGB pictures: rotated, with square pixels, at full size or as AutoShot's thumbnails."""

from fractions import Fraction

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from linvt.configuration.configuration_autoshot import AUTOSHOT_FRAME_HEIGHT, AUTOSHOT_FRAME_WIDTH
from linvt.processors.video.video_container import VideoReadError


# A wider or narrower pixel than this is a damaged header, not a picture format.
MAX_PIXEL_STRETCH = 8

# PyAV 17 scales in a pool of threads unless told not to, which is slower at our sizes; before it there was no choice.
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


class FramePictures:
    """
    Decoded frames as upright RGB pictures. All pictures of a video get the displayed size of its first one, even if
    the size changes within the stream.
    """

    def __init__(self, name: str, sample_aspect_ratio: Fraction | None):
        self.name = name
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
        rgb = self._upright_rgb(frame, turns, width, height, Interpolation.BILINEAR)  # (height, width, 3)
        # A view of rows of RGB pixels: turning them into three planes would take as long as scaling the picture.
        return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)

    def thumbnail(self, frame: VideoFrame) -> np.ndarray:
        """A frame as uint8 RGB array of shape `(27, 48, 3)`, squashed to that shape as AutoShot's training data."""
        turns = _quarter_turns(frame)
        width, height = (AUTOSHOT_FRAME_WIDTH, AUTOSHOT_FRAME_HEIGHT)[:: -1 if turns % 2 else 1]
        # What the `ffmpeg` program does by default, with which AutoShot's frames were made.
        return np.array(self._upright_rgb(frame, turns, width, height, Interpolation.BICUBIC), order="C")

    def _upright_rgb(
        self, frame: VideoFrame, turns: int, width: int, height: int, interpolation: Interpolation
    ) -> np.ndarray:
        """Scales a stored frame to `width` x `height` and turns it."""
        try:
            rgb = self.reformatter.reformat(frame, width, height, "rgb24", interpolation=interpolation, **_ONE_THREAD)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoReadError(
                f"Cannot read a video from {self.name}: a {frame.width}x{frame.height} frame of pixel format "
                f"{frame.format.name} cannot be converted to RGB ({error})."
            ) from error
        return np.rot90(rgb.to_ndarray(), turns)


def _quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns that show a frame upright."""
    return round(frame.rotation / 90) % 4
