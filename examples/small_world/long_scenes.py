"""The long world: videos of 16 to 64 shots, in which a few settings return and events happen once.

A setting is a background with one or two shapes, in which most shots take place. An event is a shot of its own, with
one shape that no other shot shows. Everything drifts a little, so no two frames are the same.
"""

from dataclasses import replace

import numpy as np
from small_world.scenes import COLOURS, KINDS, Shape, Shot, Video, make_shot, scene_rng


NUM_SHOTS = (16, 32, 64)  # of every first, second and third video
FRAMES_PER_SHOT = 4  # on average; an event, which is shorter, has one to three
SHAPES_OF_SETTINGS = (2, 2, 1)
DRIFT = 0.03  # fraction of the picture


def make_long_video(split: str, number: int) -> Video:
    """
    Makes a video of one of `NUM_SHOTS` shots.

    In each of as many equal parts as it has events that stand still, one takes place: four, or eight in 64 shots. One
    event more, a little longer, shows a shape that moves. Of one kind of shapes there is none in the whole video, of
    another there is one, and of a third there are two, in two events.
    """
    rng = scene_rng(split, "long video", number)
    num_shots = NUM_SHOTS[number % len(NUM_SHOTS)]
    num_standing = max(4, num_shots // 8)
    kinds = [str(kind) for kind in rng.permutation(KINDS)]  # of the first there is none
    colours = [str(colour) for colour in rng.permutation(COLOURS)]
    counted = [(colours[0], kinds[1]), (colours[1], kinds[2]), (colours[2], kinds[2])]
    names = [(colour, kind) for colour in COLOURS for kind in kinds[3:]]
    names = [names[i] for i in rng.permutation(len(names))]
    settings = [make_shot(rng, names, number, 1.0, moving=0.0) for number in SHAPES_OF_SETTINGS]
    standing = [*counted, *(names.pop() for _ in range(num_standing - len(counted)))]

    shots: dict[int, Shot] = {}
    for part, event in enumerate(rng.permutation(num_standing)):
        place = int(rng.integers(part * num_shots // num_standing, (part + 1) * num_shots // num_standing))
        seconds = float(rng.uniform(1.5, 2.5))
        shots[place] = _drifting(replace(make_shot(rng, [standing[event]], 1, seconds, 0.0), is_short=True), rng)
    place = int(rng.choice([place for place in range(num_shots) if place not in shots]))
    shots[place] = make_shot(rng, [names.pop()], 1, float(rng.uniform(5, 6)), moving=1.0)
    for place in range(num_shots):
        if place not in shots:
            before = shots[place - 1].background if place > 0 else None
            setting = [setting for setting in settings if setting.background != before][int(rng.integers(2))]
            shots[place] = _drifting(replace(setting, seconds=float(rng.uniform(3, 6))), rng)
    return Video(tuple(shots[place] for place in range(num_shots)), number)


def shots_of_shapes(video: Video) -> dict[str, list[int]]:
    """Finds the shots that each shape, by its name, is seen in."""
    places: dict[str, list[int]] = {}
    for place, shot in enumerate(video.shots):
        for shape in shot.shapes:
            places.setdefault(shape.name, []).append(place)
    return places


def _drifting(shot: Shot, rng: np.random.Generator) -> Shot:
    """The shot with its shapes a little elsewhere, and on their way a little further."""
    return replace(shot, shapes=tuple(_drifted(shape, rng) for shape in shot.shapes))


def _drifted(shape: Shape, rng: np.random.Generator) -> Shape:
    start = np.array(shape.start) + rng.uniform(-DRIFT, DRIFT, 2)
    end = start + rng.uniform(-DRIFT, DRIFT, 2)
    return replace(shape, start=(float(start[0]), float(start[1])), end=(float(end[0]), float(end[1])))
