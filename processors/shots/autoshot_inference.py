"""What makes AutoShot fast on a CPU when it runs over the windows of a video: less to compute, for the same result.

`OverlappingStage`: windows overlap, and the first layer sees only 8 frames to each side. So what the spatial part
of the second one computes for a frame is the same in two windows, but near their ends.

`WinogradLayer`: where every branch has a spatial convolution of its own, nothing lies between it and the temporal one.
So a branch is one spatial 3x3 convolution for each of its three temporal taps, whose results are shifted by one
dilation to the past, to the present and to the future and added. All of them are one wide spatial convolution, which
is computed by the algorithm of Winograd (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
2016): maps are cut into tiles; at some points, two more than a tile has pixels in each direction, the convolution is a
product; and the way to these points and back is linear, here one matrix each. Shifts are linear as well: the taps are
added at the points, so that one map has to find the way back, not three.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F


ROWS_AT_ONCE = 4
"""Rows of pixels whose branches, sum and pooling stay in the cache. Even, because pooling takes two."""

FINITE_POINTS = {3: (0.0, 1.0, -1.0, 2.0), 6: (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)}
"""By pixels of a tile in one direction, where the polynomials of the algorithm are evaluated beside infinity."""


def halve(x: torch.Tensor) -> torch.Tensor:
    """Averages over 2x2 pixels: `(batch, frames, height, width, channels)` to half the height and width."""
    # Contiguous already but for what a WinogradLayer returns, which pooling would take ten times as long to read.
    pooled = F.avg_pool2d(x.contiguous().flatten(0, 1).permute(0, 3, 1, 2), 2)
    return pooled.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def relu_(x: torch.Tensor) -> torch.Tensor:
    """ReLU in place."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
        # A negative bfloat16 is a negative int16, of which PyTorch takes the maximum with 0 much faster.
        x.view(torch.int16).clamp_(min=0)
        return x
    return F.relu(x, inplace=True)


def multiplies_bfloat16_tiles() -> bool:
    """Tells whether this CPU has AMX, with which bfloat16 is more than twice as fast as float32."""
    # Not public in PyTorch 2.9 to 2.14; `torch.cpu.get_capabilities` is younger. False elsewhere than on x86.
    return torch.cpu._is_amx_tile_supported()


class OverlappingStage:
    """
    A stage, `halve(second(first(x)) + first(x))`, called with one window after the other of a video.

    Args:
        first (`Callable`):
            The first layer, `(batch, frames, height, width, channels)` to the same with other channels.
        spatial (`Callable`):
            Spatial part of the second layer, which sees one frame at a time; the same shapes.
        temporal (`Callable`):
            Temporal part of the second layer, which sees one pixel at a time; the same shapes.
        reach (`int`):
            Frames to each side that `first` sees.
        step (`int`):
            Frames from one window to the next.
    """

    def __init__(self, first: Callable, spatial: Callable, temporal: Callable, reach: int, step: int):
        self.first, self.spatial, self.temporal = first, spatial, temporal
        self.reach, self.step = reach, step
        self.known: torch.Tensor | None = None

    def forget(self) -> None:
        """Forgets the window before, which the next one does not follow by `step`."""
        self.known = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        parts = self._spatial_parts(x)
        pooled = []
        for row in range(0, x.shape[2] - 1, ROWS_AT_ONCE):
            rows = slice(row, row + ROWS_AT_ONCE)
            y = self.temporal(torch.cat([part[:, :, rows] for part in parts], dim=1))
            pooled.append(halve(y.add_(x[:, :, rows])))
        return torch.cat(pooled, dim=2)

    def _spatial_parts(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The spatial part of the frames before, among and after those known from the window before."""
        frames = x.shape[1]
        # What this window leaves for the next one lies in what it computes itself, for all but the first window.
        num_known = min(self.step, frames - self.step - 2 * self.reach)
        if num_known <= 0:
            return [self.spatial(x)]
        if self.known is None:
            parts = [self.spatial(x)]
        else:
            end = frames - self.step - self.reach
            parts = [self.spatial(x[:, : end - num_known]), self.known, self.spatial(x[:, end:])]
        last = parts[-1]
        self.known = last[:, last.shape[1] - self.reach - num_known : last.shape[1] - self.reach]
        return parts


def tile_size(dtype: torch.dtype) -> int:
    """Larger tiles multiply less, but rounding grows with the powers of the points: too much for 16 bits."""
    return 6 if dtype.itemsize >= 4 else 3


class WinogradLayer:
    """
    Spatial 3x3 convolutions, each followed by a temporal one over three frames, then a bias and ReLU.

    Args:
        spatial_weights (`list[torch.Tensor]`):
            Weights of shape `(spatial_channels, in_channels, 3, 3)`, one per branch, in the dtype of the layer.
        temporal_weights (`list[torch.Tensor]`):
            Weights of shape `(width of the branch, spatial_channels, 3, 1)`; branch number b has dilation `2**b`.
        bias (`torch.Tensor` of shape `(out_channels,)`):
            Added to the concatenated branches.
        height, width (`int`):
            Size of the maps.
    """

    def __init__(
        self,
        spatial_weights: list[torch.Tensor],
        temporal_weights: list[torch.Tensor],
        bias: torch.Tensor,
        height: int,
        width: int,
    ):
        dtype = spatial_weights[0].dtype
        tile = tile_size(dtype)
        ends = torch.tensor([len(weight) for weight in temporal_weights]).cumsum(0).tolist()
        self.branches = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        self.bias = bias.to(dtype)
        # (points down, points across * tiles, pixels) and (pixels, points * tiles)
        down, across = _pixels_to_points(height, tile), _pixels_to_points(width, tile)
        self.to_points = torch.einsum("piy,qjx->pqijyx", down, across).flatten(4).flatten(1, 3).to(dtype)
        down, across = _points_to_pixels(height, tile), _points_to_pixels(width, tile)
        self.to_pixels = torch.einsum("ypi,xqj->yxpqij", down, across).flatten(2).flatten(0, 1).to(dtype)
        taps = [
            torch.einsum("nsk,scyx->yxckn", temporal.squeeze(-1).double(), spatial.double())
            for spatial, temporal in zip(spatial_weights, temporal_weights, strict=True)
        ]
        # Composed in float64, which sums many; what follows sums nine.
        taps = torch.cat(taps, dim=-1).to(torch.promote_types(dtype, torch.float32))  # (3, 3, in, taps, out channels)
        line = _weights_to_points(tile)
        square = torch.einsum("py,qx->pqyx", line, line).flatten(2).to(taps.dtype)
        weights = (square @ taps.flatten(0, 1).flatten(1)).to(dtype)
        self.weights = weights.unflatten(2, (taps.shape[2], -1))  # (points down, points across, in, taps * out)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, frames, height, width, in_channels)` to the same with `out_channels`."""
        batch, frames, height, width, in_channels = x.shape
        out_channels = len(self.bias)
        points = len(self.to_points)
        # Pixels outside, frames inside: the way to the points and back is then one product with a matrix.
        maps = x.permute(2, 3, 0, 1, 4).reshape(height * width, -1)
        sums = x.new_empty(points, points, self.to_points.shape[1] // points * batch, frames, out_channels)
        taps = x.new_empty(*sums.shape[1:4], 3, out_channels)
        past, future = x.new_zeros(2, *sums.shape[1:])
        for row in range(points):  # one row of points at a time, which stays in the cache
            at_points = (self.to_points[row] @ maps).view(points, -1, in_channels)
            torch.bmm(at_points, self.weights[row], out=taps.view(points, -1, 3 * out_channels))
            for branch, channels in enumerate(self.branches):
                shift = min(2**branch, frames)
                past[:, :, shift:, channels] = taps[:, :, : frames - shift, 0, channels]
                future[:, :, : frames - shift, channels] = taps[:, :, shift:, 2, channels]
            torch.add(taps[:, :, :, 1], past, out=sums[row]).add_(future)
        bias = self.bias.repeat(batch * frames)
        y = relu_(torch.addmm(bias, self.to_pixels, sums.view(self.to_pixels.shape[1], -1)))
        return y.view(height, width, batch, frames, out_channels).permute(2, 3, 0, 1, 4)


def winograd_multiplications(weight: torch.Tensor, out_channels: int, height: int, width: int) -> int:
    """Multiplications per frame of a layer with spatial convolutions like this one."""
    in_channels, tile = weight.shape[1], tile_size(weight.dtype)
    rows = -(-height // tile) * -(-width // tile) * (tile + 2) ** 2
    pixels = height * width
    return rows * (pixels * in_channels + in_channels * 3 * out_channels + pixels * out_channels)


def _pixels_to_points(size: int, tile: int) -> torch.Tensor:
    """A line of pixels to the tiles of it at the points: `(points, tiles, size)`, float64."""
    points = tile + 2
    # By transposition, the tile's way to the points is the inverse of an evaluation at them.
    values = (torch.linalg.inv(_powers(points, tile)) * _scale(tile)).T
    matrix = values.new_zeros(points, -(-size // tile), size)
    for index in range(matrix.shape[1]):
        start = index * tile - 1  # padding is left out: it is zero
        inside = range(max(start, 0), min(start + points, size))
        matrix[:, index, inside] = values[:, [pixel - start for pixel in inside]]
    return matrix


def _points_to_pixels(size: int, tile: int) -> torch.Tensor:
    """The tiles at the points back to a line of pixels: `(size, points, tiles)`, float64."""
    values = _powers(tile, tile)
    matrix = values.new_zeros(size, tile + 2, -(-size // tile))
    for pixel in range(size):
        matrix[pixel, :, pixel // tile] = values[:, pixel % tile]
    return matrix


def _weights_to_points(tile: int) -> torch.Tensor:
    """The three weights of a line to the points: `(points, 3)`, float64."""
    return _powers(3, tile) / _scale(tile)[:, None]


def _powers(size: int, tile: int) -> torch.Tensor:
    """Powers below `size` of the points, the last of which is infinity: `(points, size)`, float64."""
    finite = torch.tensor(FINITE_POINTS[tile], dtype=torch.float64)
    powers = torch.zeros(tile + 2, size, dtype=torch.float64)
    powers[:-1] = finite[:, None] ** torch.arange(size)
    powers[-1, -1] = 1
    return powers


def _scale(tile: int) -> torch.Tensor:
    """Factors that leave no thirds on the way to the points, which 16 bits cannot hold: the weights take them."""
    finite = torch.tensor(FINITE_POINTS[tile], dtype=torch.float64)
    differences = finite[:, None] - finite + torch.eye(len(finite), dtype=torch.float64)
    return torch.cat([differences.prod(dim=1), torch.ones(1)])
