"""Configuration of AutoShot, the network that finds where a shot ends.

From "AutoShot: A Short Video Dataset and State-of-the-Art Shot Boundary Detection" (Zhu et al., CVPR 2023 workshops)
and the code its authors published, wentaozhu/AutoShot. The defaults are the published network.
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from linvt.configuration.known_settings import refuse_unknown_settings


AUTOSHOT_FRAME_HEIGHT, AUTOSHOT_FRAME_WIDTH = 27, 48
"""Size in pixels at which the published network looks at frames."""

AUTOSHOT_THRESHOLD = 0.296
"""The authors' threshold on the probability that a shot ends at a frame: that of maximum F1 on the SHOT test set."""


@strict
class AutoShotConfig(PreTrainedConfig):
    r"""
    Configuration of [`AutoShotModel`]. Which convolution stands in which layer is the result of the authors' search
    and is fixed; what can be changed here is the input, the windows and the widths.

    Args:
        frame_height (`int`, *optional*, defaults to 27):
            Height in pixels of the frames the network sees; a video is squashed to it whatever its aspect ratio.
        frame_width (`int`, *optional*, defaults to 48):
            Width in pixels of the frames the network sees.
        window_frames (`int`, *optional*, defaults to 100):
            Frames the network sees at once. Every output depends on its place in the window, because convolutions pad
            the window with zeros: trained weights want the length they were trained with.
        kept_frames (`int`, *optional*, defaults to 50):
            Frames in the middle of a window whose outputs are kept; also how far one window is from the next.
        threshold (`float`, *optional*, defaults to 0.296):
            A shot ends where the probability is greater than this.
        min_shot_frames (`int`, *optional*, defaults to 1):
            A shorter shot is joined with the next one, the last one of a video with the one before.
        stage_channels (`list[int]`, *optional*, defaults to `(64, 128, 256)`):
            Channels of the three stages, each two layers at half the resolution of the stage before.
        similarity_channels (`int`, *optional*, defaults to 128):
            Channels of the vectors whose cosine tells how alike two frames are, and of what the two similarity bands
            (network features and colour histograms) are turned into.
        lookup_frames (`int`, *optional*, defaults to 101):
            Frames that a frame is compared with: itself and as many before as after it.
        hidden_size (`int`, *optional*, defaults to 1024):
            Channels of the fully connected layer in front of the two classifiers.
        dropout (`float`, *optional*, defaults to 0.5):
            Dropout probability in front of the classifiers, in training.
        batch_norm_eps (`float`, *optional*, defaults to 0.001):
            Added to the variance in every batch normalisation.

    Example:

    ```python
    >>> from linvt import AutoShotConfig, AutoShotModel

    >>> model = AutoShotModel(AutoShotConfig()).eval()  # the published network with random weights
    ```
    """

    model_type = "autoshot"

    frame_height: int = AUTOSHOT_FRAME_HEIGHT
    frame_width: int = AUTOSHOT_FRAME_WIDTH
    window_frames: int = 100
    kept_frames: int = 50
    threshold: float = AUTOSHOT_THRESHOLD
    min_shot_frames: int = 1
    stage_channels: list[int] | tuple[int, ...] = (64, 128, 256)
    similarity_channels: int = 128
    lookup_frames: int = 101
    hidden_size: int = 1024
    dropout: float = 0.5
    batch_norm_eps: float = 1e-3

    def __post_init__(self, **kwargs):
        refuse_unknown_settings(self, kwargs)
        super().__post_init__(**kwargs)
        self.stage_channels = list(self.stage_channels)
        self._check_frames()
        self._check_windows()
        self._check_widths()

    @property
    def context_frames(self) -> int:
        """Frames on each side of a window that are seen but whose outputs are not kept."""
        return (self.window_frames - self.kept_frames) // 2

    def _check_frames(self) -> None:
        for name in ("frame_height", "frame_width"):
            if getattr(self, name) < 8:
                raise ValueError(
                    f"{name} is {getattr(self, name)} pixels, of which three halvings leave none; make it at least 8."
                )
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold}; it is compared with probabilities, give one in [0, 1).")

        if self.min_shot_frames < 1:
            raise ValueError(f"min_shot_frames is {self.min_shot_frames}; it must be at least 1.")

    def _check_windows(self) -> None:
        if self.kept_frames < 1 or self.kept_frames > self.window_frames:
            raise ValueError(
                f"kept_frames is {self.kept_frames}; of a window of {self.window_frames} frames between 1 and "
                f"{self.window_frames} can be kept. Change kept_frames or window_frames."
            )
        if (self.window_frames - self.kept_frames) % 2 != 0:
            raise ValueError(
                f"window_frames {self.window_frames} and kept_frames {self.kept_frames} leave an odd number of "
                "frames, so what is kept cannot stand in the middle; make both even or both odd."
            )
        if self.lookup_frames < 1 or self.lookup_frames % 2 == 0:
            raise ValueError(
                f"lookup_frames is {self.lookup_frames}; it must be odd and at least 1, the frame itself and as many "
                "before as after it."
            )

    def _check_widths(self) -> None:
        if len(self.stage_channels) != 3 or any(channels < 8 or channels % 4 for channels in self.stage_channels):
            raise ValueError(
                f"stage_channels is {self.stage_channels}; give three numbers, each at least 8 and a multiple of 4."
            )
        for name in ("similarity_channels", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it is a probability, give one in [0, 1).")
        if self.batch_norm_eps <= 0:
            raise ValueError(f"batch_norm_eps is {self.batch_norm_eps}; it must be greater than 0.")


__all__ = ["AUTOSHOT_FRAME_HEIGHT", "AUTOSHOT_FRAME_WIDTH", "AUTOSHOT_THRESHOLD", "AutoShotConfig"]
