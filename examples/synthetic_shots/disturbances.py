"""What real videos have and what is no change of shot."""

import numpy as np
import torch


def disturb(rng: np.random.Generator, frames: torch.Tensor, transitions: list[tuple[int, int]]) -> torch.Tensor:
    """
    Adds flashes, changes of light, repeated frames, dark bars, captions and noise to float32 pictures of shape
    `(frames, 3, height, width)`.

    Args:
        transitions (`list[tuple[int, int]]`): First and last frame of each, the first of the new shot at a cut.
    """
    frames = frames.clone()
    near_change = np.zeros(len(frames), bool)
    for first, last in transitions:
        near_change[max(first - 4, 0) : last + 5] = True
    for start in np.flatnonzero((rng.random(len(frames)) < 0.006) & ~near_change):
        flash = slice(start, start + rng.integers(1, 4))
        if not near_change[flash].any():
            level = rng.choice([1.0, 1.0, 0.0, rng.random()])
            frames[flash] = torch.lerp(frames[flash], torch.full_like(frames[flash], level), rng.uniform(0.4, 1))
    if rng.random() < 0.35:  # the light changes, or the exposure
        change = torch.sigmoid((torch.arange(len(frames)) - int(rng.integers(len(frames)))) / rng.uniform(2, 25))
        strength = rng.uniform(-0.95, 0.8) + rng.normal(0, rng.choice([0.0, 0.15]), (3, 1, 1))
        gain = 1 + change[:, None, None, None] * torch.tensor(strength, dtype=torch.float32)
        frames = (frames * gain).clamp(0, 1)
    if rng.random() < 0.15:  # animation, or a lower frame rate: each frame several times
        frames = frames[_order_with_repeats(len(frames), transitions)]
    height, width = frames.shape[2:]
    if rng.random() < 0.15:
        bar = rng.integers(1, height // 6 + 1)
        frames[:, :, :bar], frames[:, :, -bar:] = 0, 0
    elif rng.random() < 0.15:
        bar = rng.integers(1, width // 6 + 1)
        frames[..., :bar], frames[..., -bar:] = 0, 0
    if rng.random() < 0.2:  # a caption comes and goes
        start, stop = np.sort(rng.integers(0, len(frames), 2))
        top, left = rng.integers(height // 2, height - height // 6), rng.integers(0, width // 3)
        frames[start:stop, :, top : top + height // 8, left : left + width // 2] = rng.random()
    noise = torch.from_numpy(rng.standard_normal(frames.shape, dtype=np.float32))
    return (frames + noise * rng.choice([0.0, 0.005, 0.02])).clamp(0, 1)


def _order_with_repeats(num_frames: int, transitions: list[tuple[int, int]]) -> np.ndarray:
    """Every second frame twice, but none twice over a change of shot."""
    order = np.arange(num_frames)
    starts = [0, *(last + 1 for _, last in transitions), num_frames]
    for start, stop in zip(starts, starts[1:], strict=False):
        order[start:stop] = start + (order[start:stop] - start) // 2 * 2
    return order
