"""AutoShot, the network that gives for every frame of a video the probability that a shot ends there.

The network is the published one of wentaozhu/AutoShot (`supernet_flattransf_3_8_8_8_13_12_0_16_60`, paper: Zhu et al.,
CVPR 2023 workshops) without its dead layer. What differs is how it is computed: activations stay in one buffer
`(batch, frames, height, width, channels)`, over which a spatial convolution is a 2-D convolution of every frame and a
temporal one a 2-D convolution over (frames, pixels), both without a copy; batch normalisation is folded into the
temporal convolutions; colour histograms are one `bincount`; only frames whose outputs are kept go through the head.
Over the windows of a video, `shot_probabilities` computes the same with less work (`autoshot_inference.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from linvt.configuration.configuration_autoshot import AutoShotConfig
from linvt.processors.shots.autoshot_inference import OverlappingStage
from linvt.processors.shots.autoshot_layers import LAYER_SPECS, AutoShotLayer, run_stage
from linvt.processors.shots.autoshot_windows import Frames, check_frames, iter_windows


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


class AutoShotColorHistogram(nn.Module):
    """How alike the colours of a frame are to those of the frames around it."""

    def __init__(self, config: AutoShotConfig):
        super().__init__()
        self.band_projection = nn.Linear(config.lookup_frames, config.similarity_channels, dtype=torch.float32)

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
        self.feature_projection = nn.Linear(
            sum(config.stage_channels), config.similarity_channels, dtype=torch.float32
        )
        self.band_projection = nn.Linear(config.lookup_frames, config.similarity_channels, dtype=torch.float32)

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
        self.hidden_layer = nn.Linear(
            2 * config.similarity_channels + trunk_channels, config.hidden_size, dtype=torch.float32
        )
        self.dropout = nn.Dropout(config.dropout)
        self.one_hot_classifier = nn.Linear(config.hidden_size, 1, dtype=torch.float32)
        self.many_hot_classifier = nn.Linear(config.hidden_size, 1, dtype=torch.float32)
        self.post_init()

    @can_return_tuple
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
        stages = [partial(run_stage, *pair) for pair in zip(self.layers[::2], self.layers[1::2], strict=True)]
        return self._logits(frames, outputs, stages)

    def _logits(self, frames: torch.Tensor, outputs: slice, stages: Sequence[Callable]) -> AutoShotOutput:
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
        probabilities = self.window_probabilities()
        for number, (window, num_counted) in enumerate(iter_windows(frames, self.config)):
            yield probabilities(number, window)[:num_counted]

    def window_probabilities(self) -> Callable[[int, torch.Tensor], torch.Tensor]:
        r"""
        Prepares the network for the windows of one video, in which weights do not change.

        Returns:
            `Callable[[int, torch.Tensor], torch.Tensor]`: From the number of a window, counted from 0, and its frames,
            as [`iter_windows`] yields them, to the float32 probabilities of its `kept_frames`. Windows are given in
            order; any may be left out.

        Raises:
            `ValueError`: If the model is in training mode.
        """
        if self.training:
            raise ValueError("shot_probabilities needs the model in evaluation mode; call model.eval() first.")
        kept = slice(self.config.context_frames, self.config.context_frames + self.config.kept_frames)
        with torch.no_grad():
            stages = self._stages_for_inference()
        expected = 0  # the window that overlaps with what the stages know

        @torch.no_grad()
        def probabilities(number: int, window: torch.Tensor) -> torch.Tensor:
            nonlocal expected
            if number != expected and isinstance(stages[0], OverlappingStage):
                stages[0].forget()
            expected = number + 1
            logits = self._logits(window[None].to(self.device), kept, stages).one_hot_logits
            return logits[0].sigmoid()  # type: ignore[index]  # always given

        return probabilities

    def _stages_for_inference(self) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        """The stages as `forward` runs them, prepared for the windows of one video, in which weights do not change."""
        height, width = self.config.frame_height, self.config.frame_width
        layers = [
            layer.for_inference(height >> spec.stage, width >> spec.stage)
            for layer, spec in zip(self.layers, LAYER_SPECS, strict=True)
        ]
        stages: list[Callable] = [partial(run_stage, *pair) for pair in zip(layers[::2], layers[1::2], strict=True)]
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
