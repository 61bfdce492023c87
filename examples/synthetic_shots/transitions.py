"""Films with known shots: pictures joined by cuts, dissolves, fades and wipes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from synthetic_shots.disturbances import disturb


Pictures = Callable[[np.random.Generator, int], torch.Tensor]
"""Makes float32 pictures in 0..1, `(frames, 3, height, width)`, from a random generator and the most frames wanted."""

KINDS = ("cut", "dissolve", "fade", "wipe")
# A cut between pictures that differ less than this, in levels of 0..1, is not one that anybody sees.
SMALLEST_CHANGE = 0.04


class Transition(NamedTuple):
    """Frames `first..last`, both included, belong to neither shot; a cut has none, `first` starts the new shot."""

    kind: str
    first: int
    last: int


class Film(NamedTuple):
    """Frames as uint8 `(frames, height, width, 3)`, and where its shots change."""

    frames: torch.Tensor
    transitions: list[Transition]

    @property
    def scenes(self) -> list[tuple[int, int]]:
        """First and last frame of each shot, as `linvt.processors.shots.shot_evaluation` counts them."""
        starts = [0, *(transition.last + 1 for transition in self.transitions)]
        ends = [*(transition.first - 1 for transition in self.transitions), len(self.frames) - 1]
        return list(zip(starts, ends, strict=True))


def make_film(
    rng: np.random.Generator,
    pictures: Pictures,
    num_shots: int,
    shot_frames: tuple[int, int],
    shares: tuple[float, ...] = (0.55, 0.17, 0.13, 0.15),
    disturbed: bool = True,
) -> Film:
    """
    Joins shots of random lengths, counted without the transitions, by transitions of random kinds.

    Args:
        shot_frames (`tuple[int, int]`): Shortest and longest shot; short ones are more frequent.
        shares (`tuple[float, ...]`): How often each of `KINDS` is drawn.
        disturbed (`bool`): Whether there are flashes, repeated frames, noise and dark bars, which are no transitions.
    """
    low, high = np.log(shot_frames)
    before = pictures(rng, int(np.exp(rng.uniform(low, high))))
    parts, transitions, position = [], [], 0
    for _ in range(num_shots - 1):
        kind = str(rng.choice(KINDS, p=shares))
        during = 0 if kind == "cut" else int(rng.integers(3, 41))
        after = pictures(rng, int(np.exp(rng.uniform(low, high))) + during)
        for _ in range(3):  # another one if nobody would see the change
            if (before[-1] - after[0]).abs().mean() >= SMALLEST_CHANGE:
                break
            after = pictures(rng, len(after))
        during = min(during, len(after) // 2)  # there may be fewer pictures than asked for
        # The old shot goes on under the transition while the new one begins; a short one stands still.
        num_shown = len(before) - during
        if num_shown < shot_frames[0]:
            before = torch.cat([before, before[-1:].expand(during, -1, -1, -1)])
            num_shown = len(before) - during
        shown, old = before.split([num_shown, during])
        position += len(shown)
        parts += [shown, JOINS[kind](rng, old, after[:during])]
        transitions.append(Transition(kind, position, position + during - 1))
        position += during
        before = after[during:]
    frames = torch.cat([*parts, before])
    if disturbed:
        frames = disturb(rng, frames, [(transition.first, transition.last) for transition in transitions])
    return Film((frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous(), transitions)


def cut(rng: np.random.Generator, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return new


def dissolve(rng: np.random.Generator, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return torch.lerp(old, new, _ramp(len(old)))


def fade(rng: np.random.Generator, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Down to one colour, mostly black, and up again."""
    color = 0.0 if rng.random() < 0.75 else rng.choice([1.0, rng.random()])
    hold = rng.uniform(0, 0.3)
    depth = (1 - (2 * _ramp(len(old)) - 1).abs()) / (1 - hold)
    first_half = _ramp(len(old)) < 0.5
    return torch.lerp(torch.where(first_half, old, new), torch.full_like(old, color), depth.clamp(0, 1))


def wipe(rng: np.random.Generator, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """A border that crosses the picture straight, slanted, or as a circle; sharp or soft."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in old.shape[2:]), indexing="ij")
    if rng.random() < 0.25:
        place = torch.sqrt(x**2 + y**2)
    else:
        angle = rng.choice([0, 0.5, 1, 1.5, rng.uniform(0, 2)]) * np.pi
        place = x * np.cos(angle) + y * np.sin(angle)
    place = (place - place.min()) / (place.max() - place.min())
    if rng.random() < 0.3:
        place = 1 - place
    soft = rng.choice([0.01, 0.1, 0.3])
    return torch.lerp(old, new, ((_ramp(len(old)) * (1 + soft) - place) / soft).clamp(0, 1).float())


JOINS = {"cut": cut, "dissolve": dissolve, "fade": fade, "wipe": wipe}


def _ramp(num_frames: int) -> torch.Tensor:
    """How far a transition is in each of its frames, above 0 and below 1."""
    return ((torch.arange(num_frames) + 1) / (num_frames + 1))[:, None, None, None]
