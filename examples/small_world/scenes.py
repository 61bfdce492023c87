"""The small world: coloured shapes that stand or move before textured backgrounds, in shots with cuts between them.

A scene is plain data, drawn by `drawing.py` and asked about by `questions.py`. Lengths and positions are fractions of
the picture, from its upper left corner.
"""

from dataclasses import dataclass, replace

import numpy as np


COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
KINDS = ("circle", "square", "triangle", "cross", "ring")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
SPLITS = ("train", "validation", "test")
SCENE_KINDS = ("image", "video", "question", "album", "long video", "long question")


@dataclass(frozen=True)
class Shape:
    colour: str
    kind: str
    start: tuple[float, float]  # centre, at the beginning of the shot
    end: tuple[float, float]
    radius: float
    direction: str | None = None  # in which it moves; None if it stands
    later_colour: str | None = None  # from the middle of the shot on; None if it keeps its colour

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @property
    def corner(self) -> str:
        """Where a shape that stands is: "top left", "top right", "bottom left" or "bottom right"."""
        x, y = self.start
        return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"


@dataclass(frozen=True)
class Shot:
    shapes: tuple[Shape, ...]
    seconds: float
    background: int  # seed of the texture
    is_short: bool = False  # one short shot in a long video, where a needle may be


@dataclass(frozen=True)
class Video:
    shots: tuple[Shot, ...]
    number: int

    @property
    def seconds(self) -> float:
        return sum(shot.seconds for shot in self.shots)

    @property
    def shapes(self) -> list[Shape]:
        return [shape for shot in self.shots for shape in shot.shapes]


def scene_rng(split: str, kind: str, number: int) -> np.random.Generator:
    """Every scene has a generator of its own, so it does not depend on which others were made, nor on their order."""
    return np.random.default_rng([SPLITS.index(split), SCENE_KINDS.index(kind), number])


def make_picture(split: str, number: int) -> Shot:
    """One still scene, with one to four shapes."""
    rng = scene_rng(split, "image", number)
    return make_shot(rng, list(_names(rng)), int(rng.integers(1, 5)), 1.0, moving=0.0)


def make_video(split: str, number: int) -> Video:
    """
    A video of 4 to 64 seconds and 1 to 4 shots of two or three shapes. No two shapes of a video have both colour and
    kind in common. To three in four videos of at least 16 seconds a shot with one shape is added, a sixteenth as long
    at most.
    """
    rng = scene_rng(split, "video", number)
    seconds = float(4 * 16 ** rng.random())
    num_shots = int(rng.integers(1 if seconds < 10 else 2, 5))
    names = list(_names(rng))
    lengths = rng.uniform(0.6, 1.4, num_shots)
    lengths = lengths / lengths.sum() * seconds
    shots = [
        make_shot(rng, names, int(rng.integers(2, 4)), float(length), moving=0.4, changing=0.25) for length in lengths
    ]
    if seconds >= 16 and rng.random() < 0.75:
        needle = make_shot(rng, names, 1, float(rng.uniform(1.0, seconds / 16)), moving=0.0)
        shots.insert(int(rng.integers(0, len(shots) + 1)), replace(needle, is_short=True))
    return Video(tuple(shots), number)


def make_album(split: str, number: int) -> list[tuple[Shot, float]]:
    """
    One to four pictures, each of them a shot and how much of it has passed: the beginnings of up to three shots of a
    video, or two to four moments of a single shot, from its beginning to its end.
    """
    rng = scene_rng(split, "album", number)
    shots = make_video(split, number).shots
    first, length = int(rng.integers(len(shots))), 1 if rng.random() < 0.5 else 3
    shots = shots[first : first + length]
    if len(shots) > 1:
        return [(shot, 0.1) for shot in shots]
    return [(shots[0], float(moment)) for moment in np.linspace(0.1, 0.9, int(rng.integers(2, 5)))]


def _names(rng: np.random.Generator):
    """All pairs of a colour and a kind in random order."""
    pairs = [(colour, kind) for colour in COLOURS for kind in KINDS]
    return (pairs[i] for i in rng.permutation(len(pairs)))


def make_shot(
    rng: np.random.Generator, names: list, num_shapes: int, seconds: float, moving: float, changing: float = 0.0
) -> Shot:
    """A shot with the next `num_shapes` of `names`, which do not come near each other; shares of what moves."""
    shapes: list[Shape] = []
    num_tries = 0
    while len(shapes) < num_shapes:
        num_tries += 1
        if num_tries % 50 == 0:
            shapes = []  # what stands there already leaves no room
        shape = _shape(rng, *names[-1 - len(shapes)], moving, changing)
        if all(_distance(shape, other) > 0.3 for other in shapes):
            shapes.append(shape)
    del names[-num_shapes:]
    return Shot(tuple(shapes), seconds, int(rng.integers(2**31)))


def _shape(rng: np.random.Generator, colour: str, kind: str, moving: float, changing: float) -> Shape:
    radius = float(rng.uniform(0.105, 0.145))
    # Away from the middle, so that the corner of what stands is beyond doubt.
    place = np.where(rng.random(2) < 0.5, rng.uniform(0.18, 0.38, 2), rng.uniform(0.62, 0.82, 2))
    if rng.random() < moving:
        direction = str(rng.choice(list(DIRECTIONS)))
        step = np.array(DIRECTIONS[direction])
        centre, half = np.where(step != 0, 0.5, place), rng.uniform(0.22, 0.3)
        return Shape(colour, kind, _pair(centre - half * step), _pair(centre + half * step), radius, direction)
    later_colour = None
    if rng.random() < changing:
        later_colour = str(rng.choice([other for other in COLOURS if other != colour]))
    return Shape(colour, kind, _pair(place), _pair(place), radius, later_colour=later_colour)


def _pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _distance(one: Shape, other: Shape) -> float:
    """The shortest distance that the centres of two shapes of a shot ever have."""
    times = np.linspace(0, 1, 9)[:, None]
    paths = [np.array(shape.start) * (1 - times) + np.array(shape.end) * times for shape in (one, other)]
    return float(np.linalg.norm(paths[0] - paths[1], axis=1).min())
