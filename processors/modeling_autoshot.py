"""AutoShot, the network that gives for every frame of a video the probability that a shot ends there.

The network is the published one of wentaozhu/AutoShot (`supernet_flattransf_3_8_8_8_13_12_0_16_60`, paper: Zhu et al.,
CVPR 2023 workshops) without its dead layer. What differs is how it is computed: activations stay in one buffer
`(batch, frames, height, width, channels)`, over which a spatial convolution is a 2-D convolution of every frame and a
temporal one a 2-D convolution over (frames, pixels), both without a copy; batch normalisation is folded into the
temporal convolutions; colour histograms are one `bincount`; only frames whose outputs are kept go through the head.
Over the windows of a video, `shot_probabilities` computes the same with less work (`autoshot_inference.py`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from linvt.configuration.configuration_autoshot import AutoShotConfig
from linvt.processors.autoshot_inference import OverlappingStage, WinogradLayer, halve, winograd_multiplications
from linvt.processors.frame_windows import Frames, check_frames, iter_windows


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
        return self.temporal(self.spatial(x), *self.temporal_weights())

    def spatial(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps of the spatial convolutions, each `(batch, frames, height, width, spatial_channels)`."""
        pixels = x.flatten(0, 1).permute(0, 3, 1, 2)  # (B*T, C, H, W), channels last in memory
        return [conv(pixels).permute(0, 2, 3, 1).unflatten(0, x.shape[:2]) for conv in self.spatial_convs]

    def temporal(
        self, maps: list[torch.Tensor], weights: list[torch.Tensor], biases: list[torch.Tensor | None]
    ) -> torch.Tensor:
        """Maps of the spatial convolutions to the output of the layer."""
        size = maps[0].shape[2:4]
        maps = [y.flatten(2, 3).permute(0, 3, 1, 2) for y in maps]  # (B, C, T, H*W), channels last in memory
        if len(maps) == 1:
            maps = maps * len(self.temporal_convs)
        branches = [
            F.conv2d(y, weight, bias, padding=conv.padding, dilation=conv.dilation)
            for y, weight, bias, conv in zip(maps, weights, biases, self.temporal_convs, strict=True)
        ]
        x = torch.cat(branches, dim=1)  # (B, C, T, H*W)
        if self.training:
            x = self.batch_norm(x)
        return F.relu(x, inplace=True).permute(0, 2, 3, 1).unflatten(2, size)

    def for_inference(self, height: int, width: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """What `forward` does in evaluation mode to maps of this size, with the weights prepared once."""
        weights, biases = self.temporal_weights()
        weight = self.spatial_convs[0].weight
        plain_cost = height * width * sum(w.numel() for w in [*self.spatial_convs.parameters(), *weights])
        if (
            len(self.spatial_convs) == len(weights)
            and winograd_multiplications(weight, self.batch_norm.num_features, height, width) < plain_cost
            # Not measured on CUDA; float16 is too narrow; autocast would choose another dtype for every step.
            and weight.device.type == "cpu"
            and weight.dtype != torch.float16
            and not torch.is_autocast_enabled("cpu")
        ):
            temporal, bias = self._folded(torch.float64)
            return WinogradLayer([conv.weight for conv in self.spatial_convs], temporal, bias, height, width)
        return lambda x: self.temporal(self.spatial(x), weights, biases)

    def temporal_weights(self) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
        """Weights and biases of the temporal convolutions, with the batch normalisation folded in outside training."""
        weights = [conv.weight for conv in self.temporal_convs]
        if self.training:
            return weights, [None] * len(weights)
        # Folded at every call: it costs little beside the convolutions and is never out of date.
        weights, bias = self._folded(torch.float32)
        dtype = self.temporal_convs[0].weight.dtype
        biases = bias.to(dtype).split([len(weight) for weight in weights])
        return [weight.to(dtype) for weight in weights], list(biases)

    def _folded(self, dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Temporal weights times the scale of the batch normalisation, and its bias, computed in `dtype`."""
        norm = self.batch_norm
        scale = norm.weight.to(dtype) * torch.rsqrt(norm.running_var.to(dtype) + norm.eps)
        bias = norm.bias.to(dtype) - norm.running_mean.to(dtype) * scale
        scales = scale[:, None, None, None].split([len(conv.weight) for conv in self.temporal_convs])
        return [conv.weight.to(dtype) * s for conv, s in zip(self.temporal_convs, scales, strict=True)], bias


def _stage(first: Callable, second: Callable, x: torch.Tensor) -> torch.Tensor:
    """Two layers, the second with a shortcut, then half the height and width."""
    x = first(x)
    return halve(second(x) + x)


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
        check_frames(frames, ("batch", "frames", self.config.frame_height, self.config.frame_width, 3))
        stages = [partial(_stage, *pair) for pair in zip(self.layers[::2], self.layers[1::2], strict=True)]
        return self._logits(frames, outputs, stages)

    def _logits(self, frames: torch.Tensor, outputs: slice, stages: list[Callable]) -> AutoShotOutput:
        x = (frames.float() / 255).to(self.layers[0].spatial_convs[0].weight.dtype)
        stage_means = []
        for stage in stages:
            x = stage(x)
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

    def shot_probabilities(self, frames: Frames) -> torch.Tensor:
        r"""
        Probability for every frame of a video that a shot ends there, computed as published: in windows of
        `window_frames`, of which the middle `kept_frames` are kept, where copies of the first and of the last frame
        stand in for what lies outside the video.

        Args:
            frames (`torch.Tensor`, `np.ndarray` or an iterable of either):
                All frames of the video in order, uint8 RGB in 0..255: one array of shape
                `(num_frames, frame_height, frame_width, 3)`, or an iterable of frames of shape
                `(frame_height, frame_width, 3)`, of which no more than one window is held at a time.

        Returns:
            `torch.Tensor` of shape `(num_frames,)`: float32 probabilities on the device of the model. At a hard cut
            the high one is that of the last frame of the old shot.

        Raises:
            `ValueError`: If there is no frame, a frame has another shape or dtype, or the model is in training mode.
        """
        return torch.cat(list(self.iter_shot_probabilities(frames)))

    @torch.no_grad()
    def iter_shot_probabilities(self, frames: Frames) -> Iterator[torch.Tensor]:
        r"""
        The same, window by window as the frames come: yields float32 tensors of `kept_frames` probabilities, the last
        one perhaps shorter.
        """
        if self.training:
            raise ValueError("shot_probabilities needs the model in evaluation mode; call model.eval() first.")
        context, kept = self.config.context_frames, self.config.kept_frames
        stages = self._stages_for_inference()
        for window, num_counted in iter_windows(frames, self.config):
            output = self._logits(window[None].to(self.device), slice(context, context + kept), stages)
            yield output.one_hot_logits[0, :num_counted].sigmoid()

    def _stages_for_inference(self) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        """The stages as `forward` runs them, prepared for the windows of one video, in which weights do not change."""
        height, width = self.config.frame_height, self.config.frame_width
        layers = [
            layer.for_inference(height >> spec.stage, width >> spec.stage)
            for layer, spec in zip(self.layers, LAYER_SPECS, strict=True)
        ]
        stages = [partial(_stage, *pair) for pair in zip(layers[::2], layers[1::2], strict=True)]
        if self.device.type == "cpu":  # what pays on CUDA is not measured
            second = self.layers[1]
            weights, biases = second.temporal_weights()
            stages[0] = OverlappingStage(
                layers[0],
                spatial=lambda x: second.spatial(x)[0],
                temporal=lambda maps: second.temporal([maps], weights, biases),
                reach=2 ** (LAYER_SPECS[0].num_dilations - 1),
                step=self.config.kept_frames,
            )
        return stages


__all__ = ["AutoShotModel", "AutoShotOutput", "AutoShotPreTrainedModel"]
