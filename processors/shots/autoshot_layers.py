"""The layers of AutoShot: spatial and temporal convolutions over frames that lie in one buffer."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from linvt.processors.shots.autoshot_inference import (
    WinogradLayer,
    halve,
    multiplies_bfloat16_tiles,
    relu_,
    winograd_multiplications,
)


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
        self.batch_norm = nn.BatchNorm2d(out_channels, eps=batch_norm_eps, dtype=torch.float32)

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
        return relu_(x).permute(0, 2, 3, 1).unflatten(2, size)

    def for_inference(self, height: int, width: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Returns `forward` in evaluation mode for maps of this size, with the weights prepared once."""
        weights, biases = self.temporal_weights()
        weight = self.spatial_convs[0].weight
        plain_cost = height * width * sum(w.numel() for w in [*self.spatial_convs.parameters(), *weights])
        if (
            len(self.spatial_convs) == len(weights)
            and winograd_multiplications(weight, self.batch_norm.num_features, height, width) < plain_cost
            # Not measured on CUDA; float16 is too narrow; autocast would choose another dtype for every step.
            and weight.device.type == "cpu"
            and weight.dtype != torch.float16
            # Tiles of AMX multiply so fast that the way to the points and back costs more than it saves.
            and not (weight.dtype == torch.bfloat16 and multiplies_bfloat16_tiles())
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


def run_stage(first: Callable, second: Callable, x: torch.Tensor) -> torch.Tensor:
    """Two layers, the second with a shortcut, then half the height and width."""
    x = first(x)
    return halve(second(x) + x)


__all__ = ["LAYER_SPECS", "AutoShotLayer", "LayerSpec", "run_stage"]
