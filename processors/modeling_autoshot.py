"""AutoShot, the network that gives for every frame of a video the probability that a shot ends there.

The network is the published one of wentaozhu/AutoShot (`supernet_flattransf_3_8_8_8_13_12_0_16_60`, paper: Zhu et al.,
CVPR 2023 workshops) without its dead layer. What differs is how it is computed: activations stay in one buffer
`(batch, frames, height, width, channels)`, over which a spatial convolution is a 2-D convolution of every frame and a
temporal one a 2-D convolution over (frames, pixels), both without a copy; batch normalisation is folded into the
temporal convolutions; colour histograms are one `bincount`; only frames whose outputs are kept go through the head.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from linvt.configuration.configuration_autoshot import AutoShotConfig


class LayerSpec(NamedTuple):
    """What the search of the authors chose for one layer."""

    published_name: str
    stage: int
    spatial_multiplier: int  # channels of the spatial convolution, in quarters of the channels of the stage
    num_dilations: int  # temporal branches, with dilations 1, 2, 4, ...
    shares_spatial: bool  # one spatial convolution for all branches, or one for each


LAYER_SPECS = (
    LayerSpec("Layer_0_3", stage=0, spatial_multiplier=1, num_dilations=4, shares_spatial=False),
    LayerSpec("Layer_1_8", stage=0, spatial_multiplier=4, num_dilations=5, shares_spatial=True),
    LayerSpec("Layer_2_8", stage=1, spatial_multiplier=4, num_dilations=5, shares_spatial=True),
    LayerSpec("Layer_3_8", stage=1, spatial_multiplier=4, num_dilations=5, shares_spatial=True),
    LayerSpec("Layer_4_13", stage=2, spatial_multiplier=3, num_dilations=5, shares_spatial=False),
    LayerSpec("Layer_5_12", stage=2, spatial_multiplier=2, num_dilations=5, shares_spatial=False),
)


@dataclass
class AutoShotOutput(ModelOutput):
    r"""
    Output of [`AutoShotModel`].

    Args:
        one_hot_logits (`torch.FloatTensor` of shape `(batch_size, num_frames)`):
            Logit that a shot ends at the frame, trained on one frame per transition. The one that finds shots.
        many_hot_logits (`torch.FloatTensor` of shape `(batch_size, num_frames)`):
            Logit that the frame is part of a transition, trained on all frames of gradual ones.
    """

    one_hot_logits: torch.FloatTensor | None = None
    many_hot_logits: torch.FloatTensor | None = None


class AutoShotLayer(nn.Module):
    """Spatial 3x3 convolutions, each followed by temporal ones of growing dilation, then normalisation and ReLU."""

    def __init__(self, spec: LayerSpec, in_channels: int, out_channels: int, batch_norm_eps: float):
        super().__init__()
        spatial_channels = spec.spatial_multiplier * out_channels // 4
        num_spatial = 1 if spec.shares_spatial else spec.num_dilations
        self.spatial_convs = nn.ModuleList(
            nn.Conv2d(in_channels, spatial_channels, kernel_size=3, padding=1, bias=False) for _ in range(num_spatial)
        )
        # Equal shares of the channels, the last branch takes the remainder.
        widths = [out_channels // spec.num_dilations] * (spec.num_dilations - 1)
        widths.append(out_channels - sum(widths))
        self.temporal_convs = nn.ModuleList(
            nn.Conv2d(
                spatial_channels,
                width,
                kernel_size=(3, 1),
                padding=(2**branch, 0),
                dilation=(2**branch, 1),
                bias=False,
            )
            for branch, width in enumerate(widths)
        )
        self.batch_norm = nn.BatchNorm2d(out_channels, eps=batch_norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, frames, height, width, in_channels)` to the same with `out_channels`."""
        batch, frames, height, width, _ = x.shape
        pixels = x.flatten(0, 1).permute(0, 3, 1, 2)  # (B*T, C, H, W), channels last in memory
        spatial = []
        for conv in self.spatial_convs:
            y = conv(pixels).permute(0, 2, 3, 1)  # (B*T, H, W, C)
            spatial.append(y.reshape(batch, frames, height * width, -1).permute(0, 3, 1, 2))  # (B, C, T, H*W)
        if len(spatial) == 1:
            spatial = spatial * len(self.temporal_convs)
        weights, biases = self._temporal_weights()
        branches = [
            F.conv2d(y, weight, bias, padding=conv.padding, dilation=conv.dilation)
            for y, weight, bias, conv in zip(spatial, weights, biases, self.temporal_convs, strict=True)
        ]
        x = torch.cat(branches, dim=1)  # (B, C, T, H*W)
        if self.training:
            x = self.batch_norm(x)
        return F.relu(x, inplace=True).permute(0, 2, 3, 1).reshape(batch, frames, height, width, -1)

    def _temporal_weights(self) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
        """Weights and biases of the temporal convolutions, with the batch normalisation folded in outside training."""
        weights = [conv.weight for conv in self.temporal_convs]
        if self.training:
            return weights, [None] * len(weights)
        # Folded in float32 and at every call: it costs little beside the convolutions and is never out of date.
        norm, dtype = self.batch_norm, weights[0].dtype
        widths = [weight.shape[0] for weight in weights]
        scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)
        bias = (norm.bias.float() - norm.running_mean.float() * scale).to(dtype)
        scales = scale[:, None, None, None].split(widths)
        weights = [(weight.float() * s).to(dtype) for weight, s in zip(weights, scales, strict=True)]
        return weights, list(bias.split(widths))


class AutoShotColorHistogram(nn.Module):
    """How alike the colours of a frame are to those of the frames around it."""

    def __init__(self, config: AutoShotConfig):
        super().__init__()
        self.band_projection = nn.Linear(config.lookup_frames, config.similarity_channels)

    def forward(self, frames: torch.Tensor, outputs: slice) -> torch.Tensor:
        """`(batch, frames, height, width, 3)`, uint8, to float32 `(batch, kept frames, similarity_channels)`."""
        batch, num_frames = frames.shape[:2]
        levels = frames.flatten(0, 1).flatten(1, 2).long() >> 5  # (B*T, H*W, 3), 8 levels per colour
        bins = (levels[..., 0] << 6) + (levels[..., 1] << 3) + levels[..., 2]
        # All frames in one count: frame number n owns the bins from 512 n on.
        bins = bins + 512 * torch.arange(len(bins), device=bins.device)[:, None]
        histograms = torch.bincount(bins.flatten(), minlength=512 * len(bins)).view(batch, num_frames, 512)
        bands = _similarity_bands(F.normalize(histograms.float(), dim=-1), self.band_projection.in_features)
        return F.relu(_linear_float32(self.band_projection, bands[:, outputs]))


class AutoShotFrameSimilarity(nn.Module):
    """How alike the network's features of a frame are to those of the frames around it."""

    def __init__(self, config: AutoShotConfig):
        super().__init__()
        self.feature_projection = nn.Linear(sum(config.stage_channels), config.similarity_channels)
        self.band_projection = nn.Linear(config.lookup_frames, config.similarity_channels)

    def forward(self, stage_means: list[torch.Tensor], outputs: slice) -> torch.Tensor:
        """Float32 `(batch, frames, channels)` of each stage to `(batch, kept frames, similarity_channels)`."""
        features = _linear_float32(self.feature_projection, torch.cat(stage_means, dim=-1))
        bands = _similarity_bands(F.normalize(features, dim=-1), self.band_projection.in_features)
        return F.relu(_linear_float32(self.band_projection, bands[:, outputs]))


def _similarity_bands(features: torch.Tensor, lookup_frames: int) -> torch.Tensor:
    """Cosines of each frame with the `lookup_frames` frames around it, 0 outside the window: (B, T, lookup_frames)."""
    similarity = features @ features.transpose(1, 2)  # (B, T, T)
    padded = F.pad(similarity, (lookup_frames // 2, lookup_frames // 2)).contiguous()
    batch, num_frames, width = padded.shape
    # The diagonals as a view: with a row stride of one more than the width, row t starts at column t.
    return padded.as_strided((batch, num_frames, lookup_frames), (num_frames * width, width + 1, 1))


def _linear_float32(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    # Whatever the dtype of the model is: `model.to(dtype)` casts the head too.
    return F.linear(x.float(), linear.weight.float(), linear.bias.float())


class AutoShotPreTrainedModel(PreTrainedModel):
    config_class = AutoShotConfig
    base_model_prefix = "autoshot"
    main_input_name = "frames"
    input_modalities = ("video",)
    _no_split_modules = ["AutoShotLayer"]
    _keep_in_fp32_modules_strict = [
        "batch_norm",
        "color_histogram",
        "frame_similarity",
        "hidden_layer",
        "one_hot_classifier",
        "many_hot_classifier",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class AutoShotModel(AutoShotPreTrainedModel):
    r"""
    The AutoShot network.

    Args:
        config ([`AutoShotConfig`]):
            Configuration of the network; the default is the published one, 8,268,866 parameters.

    Example:

    ```python
    >>> from linvt import AutoShotModel

    >>> model = AutoShotModel.from_pretrained("path/to/autoshot")  # doctest: +SKIP
    >>> probabilities = model.shot_probabilities(frames)  # doctest: +SKIP
    >>> shot_ends_here = probabilities > model.config.threshold  # doctest: +SKIP
    ```
    """

    def __init__(self, config: AutoShotConfig):
        super().__init__(config)
        channels = [3, *config.stage_channels]
        self.layers = nn.ModuleList()
        for index, spec in enumerate(LAYER_SPECS):
            out_channels = config.stage_channels[spec.stage]
            in_channels = channels[spec.stage] if index % 2 == 0 else out_channels
            self.layers.append(AutoShotLayer(spec, in_channels, out_channels, config.batch_norm_eps))
        self.color_histogram = AutoShotColorHistogram(config)
        self.frame_similarity = AutoShotFrameSimilarity(config)
        trunk_channels = (config.frame_height // 8) * (config.frame_width // 8) * config.stage_channels[-1]
        self.hidden_layer = nn.Linear(2 * config.similarity_channels + trunk_channels, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.one_hot_classifier = nn.Linear(config.hidden_size, 1)
        self.many_hot_classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(self, frames: torch.Tensor, outputs: slice = slice(None)) -> AutoShotOutput:
        r"""
        Logits of windows of frames, in training as in inference.

        Args:
            frames (`torch.Tensor` of shape `(batch_size, num_frames, frame_height, frame_width, 3)`):
                Windows of consecutive frames, uint8 RGB in 0..255.
            outputs (`slice`, *optional*, defaults to all frames):
                The frames of the window whose logits are wanted; all frames are seen.

        Returns:
            [`AutoShotOutput`]: float32 logits of shape `(batch_size, number of wanted frames)`.

        Raises:
            `ValueError`: If `frames` has another shape or dtype.
        """
        size = (self.config.frame_height, self.config.frame_width, 3)
        if frames.ndim != 5 or frames.shape[2:] != size or frames.dtype != torch.uint8:
            raise ValueError(_frames_error(f"(batch, frames, {size[0]}, {size[1]}, 3)", frames.shape, frames.dtype))
        x = (frames.float() / 255).to(self.layers[0].spatial_convs[0].weight.dtype)
        stage_means = []
        for first, second in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = first(x)
            x = second(x) + x
            x = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
            stage_means.append(x.mean(dim=(2, 3), dtype=torch.float32))
        # Histograms, similarities and classifiers decide: they stay in float32, under autocast too.
        with torch.autocast(frames.device.type, enabled=False):
            features = [
                self.color_histogram(frames, outputs),
                self.frame_similarity(stage_means, outputs),
                x[:, outputs].flatten(2).float(),  # in the order height, width, channels
            ]
            hidden = self.dropout(F.relu(_linear_float32(self.hidden_layer, torch.cat(features, dim=-1))))
            return AutoShotOutput(
                one_hot_logits=_linear_float32(self.one_hot_classifier, hidden).squeeze(-1),
                many_hot_logits=_linear_float32(self.many_hot_classifier, hidden).squeeze(-1),
            )

    @torch.no_grad()
    def shot_probabilities(
        self,
        frames: torch.Tensor | np.ndarray | Iterable[torch.Tensor | np.ndarray],
        progress: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        r"""
        Probability for every frame of a video that a shot ends there, computed as published: in windows of
        `window_frames`, of which the middle `kept_frames` are kept, where copies of the first and of the last frame
        stand in for what lies outside the video.

        Args:
            frames (`torch.Tensor`, `np.ndarray` or an iterable of either):
                All frames of the video in order, uint8 RGB in 0..255: one array of shape
                `(num_frames, frame_height, frame_width, 3)`, or an iterable of frames of shape
                `(frame_height, frame_width, 3)`, of which no more than one window is held at a time.
            progress (`Callable[[int], None]`, *optional*):
                Called after every window with the number of frames whose probability is known.

        Returns:
            `torch.Tensor` of shape `(num_frames,)`: float32 probabilities on the device of the model. At a hard cut
            the high one is that of the last frame of the old shot.

        Raises:
            `ValueError`: If there is no frame, a frame has another shape or dtype, or the model is in training mode.
        """
        if self.training:
            raise ValueError("shot_probabilities needs the model in evaluation mode; call model.eval() first.")
        context, kept = self.config.context_frames, self.config.kept_frames
        probabilities = []
        num_frames = 0
        for window, num_frames in self._windows(frames):
            output = self(window[None].to(self.device), outputs=slice(context, context + kept))
            probabilities.append(output.one_hot_logits[0].sigmoid())
            if progress is not None:
                progress(min(num_frames, kept * len(probabilities)))
        return torch.cat(probabilities)[:num_frames]

    def _windows(self, frames: Iterable) -> Iterator[tuple[torch.Tensor, int]]:
        """Every window of a video, and how many frames of the video have been read so far."""
        size, kept, context = self.config.window_frames, self.config.kept_frames, self.config.context_frames
        window = []
        num_frames = 0
        for frame in self._checked_frames(frames):
            if num_frames == 0:
                window = [frame] * context
            window.append(frame)
            num_frames += 1
            if len(window) == size:
                yield torch.stack(window), num_frames
                del window[:kept]
        if num_frames == 0:
            raise ValueError("The video has no frames; at least one is needed to find shots.")
        for _ in range(-num_frames % kept + context):
            window.append(window[-1])
            if len(window) == size:
                yield torch.stack(window), num_frames
                del window[:kept]

    def _checked_frames(self, frames: Iterable) -> Iterator[torch.Tensor]:
        size = (self.config.frame_height, self.config.frame_width, 3)
        if isinstance(frames, (torch.Tensor, np.ndarray)) and (frames.shape[1:] != size or not _is_uint8(frames)):
            raise ValueError(_frames_error(f"(frames, {size[0]}, {size[1]}, 3)", frames.shape, frames.dtype))
        for frame in frames:
            if not isinstance(frame, (torch.Tensor, np.ndarray)):
                raise ValueError(f"A frame must be a torch.Tensor or a np.ndarray, got {type(frame).__name__}.")
            if frame.shape != size or not _is_uint8(frame):
                raise ValueError(_frames_error(f"({size[0]}, {size[1]}, 3)", frame.shape, frame.dtype))
            # A copy, because whoever yields frames may use the same memory for the next one.
            yield frame.clone() if isinstance(frame, torch.Tensor) else torch.from_numpy(frame.copy())


def _is_uint8(array: torch.Tensor | np.ndarray) -> bool:
    return array.dtype == (torch.uint8 if isinstance(array, torch.Tensor) else np.uint8)


def _frames_error(expected_shape: str, shape: tuple[int, ...], dtype: object) -> str:
    return (
        f"Expected uint8 RGB frames in 0..255 of shape {expected_shape}, height before width, "
        f"but got shape {tuple(shape)} and dtype {dtype}."
    )


__all__ = ["AutoShotModel", "AutoShotOutput", "AutoShotPreTrainedModel"]
