"""Moving pictures without a cut, to train a shot detector on: invented scenes, and footage that a person has.

Everything here is a function of a NumPy random generator, so a seed repeats it. Pictures are float32 in 0..1 of shape
`(frames, 3, height, width)`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from linvt.processors.video.video_reading import read_video


def invented_scene(
    rng: np.random.Generator, num_frames: int, height: int, width: int, look: np.random.Generator | None = None
) -> torch.Tensor:
    """
    A textured background under a moving camera, with up to six textured things that move in front of it. Scenes with
    the same state of `look` have the same background, seen from elsewhere and with other things in it.
    """
    background = texture(rng if look is None else look)[None].expand(num_frames, -1, -1, -1)
    camera = camera_path(rng, num_frames, fastest=0.05 if rng.random() < 0.15 else 0.01)
    frames = F.grid_sample(
        background,
        F.affine_grid(camera, (num_frames, 3, height, width), align_corners=False),
        padding_mode="reflection",
        align_corners=False,
    )
    rows, columns = (torch.linspace(-1, 1, size) for size in (height, width))
    for _ in range(rng.integers(0, 7)):
        size = torch.tensor(rng.uniform(0.08, 0.7, 2), dtype=torch.float32)
        center = path(rng, num_frames, rng.uniform(-1.2, 1.2, 2), speed=rng.choice([0.0, 0.01, 0.03]))
        x = (columns[None, None, :] - center[:, 0, None, None]) / size[0]
        y = (rows[None, :, None] - center[:, 1, None, None]) / size[1]
        distance = torch.maximum(x.abs(), y.abs()) if rng.random() < 0.4 else torch.sqrt(x**2 + y**2)
        mask = torch.sigmoid((1 - distance) * rng.uniform(5, 40))[:, None]
        # The thing carries its texture along.
        inside = torch.stack(torch.broadcast_tensors(x, y), dim=-1) * 0.5
        skin = F.grid_sample(texture(rng)[None].expand(num_frames, -1, -1, -1), inside, align_corners=False)
        frames = torch.lerp(frames, skin, mask)
    light = 1 + path(rng, num_frames, np.zeros(1), speed=rng.choice([0.0, 0.002, 0.01]))[:, :, None, None]
    return (frames * light.clamp(0.3, 1.7)).clamp(0, 1)


def texture(rng: np.random.Generator) -> torch.Tensor:
    """A picture of shape `(3, 72, 128)`: clouds of several sizes, sometimes in few colours, stripes or checks."""
    luma, chroma = torch.zeros(2, 3, 72, 128)
    roughness = rng.uniform(0.35, 1.0)
    for octave, cells in enumerate((2, 4, 9, 18, 36, 72)):
        grid = torch.tensor(rng.normal(size=(1, 4, cells, 2 * cells)), dtype=torch.float32)
        clouds = F.interpolate(grid, size=(72, 128), mode="bicubic", align_corners=False)[0] * roughness**octave
        luma, chroma = luma + clouds[:1], chroma + clouds[1:]
    picture = luma * rng.uniform(0.05, 0.35) + chroma * rng.choice([0.0, 0.05, 0.15])
    kind = rng.random()
    if kind < 0.2:  # flat areas with hard edges, as in drawings
        levels = rng.integers(2, 5)
        picture = (picture * levels * 2).round() / (levels * 2)
    elif kind < 0.35:
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 40)
        ramp = torch.arange(128) * np.cos(angle) + torch.arange(72)[:, None] * np.sin(angle)
        picture = picture * 0.3 + torch.sin(ramp * 2 * np.pi / period).sign() * rng.uniform(0.05, 0.3)
    base = rng.uniform(0.05, 0.95) + rng.normal(0, rng.choice([0.02, 0.2]), size=(3, 1, 1))
    return (picture + torch.tensor(base, dtype=torch.float32)).clamp(0, 1)


def path(rng: np.random.Generator, num_frames: int, start: np.ndarray, speed: float) -> torch.Tensor:
    """A smooth walk of shape `(num_frames, len(start))`: a drift, a swing and some tremble."""
    t = np.arange(num_frames)[:, None]
    dims = len(start)
    swing = np.sin(t * rng.uniform(0.02, 0.3, dims) + rng.uniform(0, 6.3, dims)) * rng.normal(0, 8, dims)
    tremble = rng.normal(0, rng.choice([0.0, 0.3]), (num_frames, dims))
    return torch.tensor(start + speed * (rng.normal(0, 1, dims) * t + swing + tremble), dtype=torch.float32)


def camera_path(rng: np.random.Generator, num_frames: int, fastest: float, widest: float = 0.75) -> torch.Tensor:
    """Affine maps `(num_frames, 2, 3)` of a camera that pans, zooms and rolls, for `affine_grid`."""
    speed = 0.0 if rng.random() < 0.3 else rng.uniform(0, fastest)
    zoom = path(rng, num_frames, np.log(rng.uniform(0.35, widest, 1)), speed / 2).exp().clamp(0.2, 1.0)[:, 0]
    roll = path(rng, num_frames, np.zeros(1), speed * rng.choice([0.0, 0.3]))[:, 0]
    # The view stays inside the picture as far as a swing or a drift allows; beyond it the picture is mirrored.
    shift = path(rng, num_frames, rng.uniform(-0.3, 0.3, 2), speed)
    cos, sin = zoom * roll.cos(), zoom * roll.sin()
    rows = [torch.stack([cos, -sin, shift[:, 0]], dim=1), torch.stack([sin, cos, shift[:, 1]], dim=1)]
    return torch.stack(rows, dim=1)


class Footage:
    """
    Videos split where neighbours differ so much that there may be a cut. A dissolve is not seen: give videos without.

    Args:
        files (`Sequence[Path]`): Videos that `linvt.processors.video.video_reading.read_video` reads.
        height (`int`), width (`int`): Pixels that are kept of each frame, three bytes for each: 1.4 GB for an hour of
            25 frames per second at 54 x 96.
    """

    def __init__(self, files: Sequence[Path], height: int, width: int):
        self.runs = []
        for file in files:
            frames = read_video(file, transform=lambda frame: _resize(frame, height, width)).frames
            self.runs += [run for run in split_at_jumps(frames) if len(run) >= 20]
        if not self.runs:
            raise ValueError(f"There is no run of 20 frames without a cut in {len(files)} files; give more videos.")
        self.shares = np.sqrt([len(run) for run in self.runs])
        self.shares /= self.shares.sum()

    def as_filmed(self, rng: np.random.Generator, num_frames: int) -> torch.Tensor:
        """
        Frames of one run as they follow each other, of `(frames, 3, height, width)`; fewer if there is none so long.
        """
        lengths = np.array([len(run) for run in self.runs])
        num_frames = min(num_frames, lengths.max())
        shares = np.where(lengths >= num_frames, self.shares, 0)
        run = self.runs[rng.choice(len(self.runs), p=shares / shares.sum())]
        start = rng.integers(len(run) - num_frames + 1)
        return run[start : start + num_frames].float() / 255

    def varied(
        self,
        rng: np.random.Generator,
        num_frames: int,
        height: int,
        width: int,
        look: np.random.Generator | None = None,
    ) -> torch.Tensor:
        """
        Frames of one run at another speed, direction, crop and colour, back and forth if the run is too short, seen by
        a camera that may move. Those with the same state of `look` are of the same run and have the same colours.
        """
        look = rng if look is None else look
        run = self.runs[look.choice(len(self.runs), p=self.shares)]
        mix = np.eye(3) + look.normal(0, look.choice([0.0, 0.15]), (3, 3))
        if look.random() < 0.15:
            mix = np.full((3, 3), 1 / 3)
        gamma, gain = (
            look.uniform(0.6, 1.6),
            look.choice([look.uniform(0.6, 1.2), look.uniform(0.1, 0.6)], p=[0.8, 0.2]),
        )
        speed = rng.choice([0.25, 0.5, 1, 1, 1, 1, 2, 3]) * rng.choice([-1, 1])
        order = np.floor(rng.integers(len(run)) + speed * np.arange(num_frames)).astype(int)
        frames = run[_back_and_forth(len(run), order)].float() / 255
        camera = camera_path(rng, num_frames, fastest=0.01 if rng.random() < 0.3 else 0.0, widest=0.95)
        camera[:, 0] *= rng.choice([-1.0, 1.0])  # mirrored
        frames = F.grid_sample(
            frames,
            F.affine_grid(camera, (num_frames, 3, height, width), align_corners=False),
            padding_mode="reflection",
            align_corners=False,
        )
        frames = torch.einsum("tchw,dc->tdhw", frames, torch.tensor(mix, dtype=torch.float32)).clamp(0, 1)
        return (frames**gamma * gain).clamp(0, 1)


def split_at_jumps(frames: torch.Tensor) -> list[torch.Tensor]:
    """Runs of uint8 frames in which no step is large beside the steps around it."""
    if len(frames) < 2:
        return [frames]
    steps = (frames[1:].float() - frames[:-1].float()).abs().mean(dim=(1, 2, 3))
    around = F.pad(steps[None, None], (8, 8), mode="replicate")[0, 0].unfold(0, 17, 1).median(dim=1).values
    jumps = torch.nonzero(steps > 10 + 3 * around).flatten() + 1
    return list(frames.tensor_split(jumps))


def _back_and_forth(length: int, order: np.ndarray) -> np.ndarray:
    return length - 1 - np.abs(order % (2 * length) - length + 0.5).astype(int)


def _resize(frame: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.interpolate(frame[None].float(), (height, width), mode="area")[0].round().to(torch.uint8)
