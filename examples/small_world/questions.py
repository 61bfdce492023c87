"""Questions about scenes of the small world, with their answers.

Answers are balanced as far as scenes allow, so that who does not look stays near chance: docs/results.md has how near.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from small_world.phrasings import ask
from small_world.scenes import COLOURS, KINDS, Shape, Shot, Video


NUMBERS = ("zero", "one", "two")


@dataclass(frozen=True)
class Question:
    about: str  # one of IMAGE_QUESTIONS, ALBUM_QUESTIONS, VIDEO_QUESTIONS or LONG_QUESTIONS
    text: str
    answer: str
    shots: tuple[int, ...] = ()  # of a long video, those that show what is asked; of the others not kept


IMAGE_QUESTIONS = ("attribute", "existence", "count", "position", "caption")
ALBUM_QUESTIONS = ("attribute", "existence", "count", "position", "motion", "order", "change")
VIDEO_QUESTIONS = ("attribute", "existence", "count", "position", "motion", "order", "needle", "change", "caption")


def image_questions(shot: Shot, split: str, rng: np.random.Generator) -> list[Question]:
    """At most one question of each of `IMAGE_QUESTIONS` about a still picture."""
    shapes = list(shot.shapes)
    caption = " and ".join(f"a {shape.name} at the {shape.corner}" for shape in sorted(shapes, key=_reading_order))
    return [
        *_attribute(shapes, split, rng),
        *_existence(shapes, split, rng),
        *_count(shapes, split, rng),
        *_position(shapes, split, rng),
        Question("caption", ask("caption", split, rng), caption),
    ]


def album_questions(album: list[tuple[Shot, float]], split: str, rng: np.random.Generator) -> list[Question]:
    """At most one question of each of `ALBUM_QUESTIONS` about what `make_album` gave."""
    shots = list(dict.fromkeys(shot for shot, _ in album))
    if len(shots) == 1:
        shapes = list(shots[0].shapes)
        still = [shape for shape in shapes if shape.direction is None]
        return [*_motion(shapes, split, rng), *_change(shapes, split, rng), *_position(still, split, rng)]
    shapes = [shape for shot in shots for shape in shot.shapes]
    still = [shape for shape in shapes if shape.direction is None]
    one, other = sorted(rng.choice(len(shots), 2, replace=False))
    return [
        *_attribute(shapes, split, rng),
        *_existence(shapes, split, rng),
        *_count(shapes, split, rng),
        *_position(still, split, rng),
        *_order(shots[one].shapes, shots[other].shapes, split, rng),
    ]


def corner_questions(shapes: list[Shape], split: str, rng: np.random.Generator) -> list[Question]:
    """Where each of the shapes that stand is, one question each: all but the name is the same, so it counts."""
    return [question for shape in shapes if shape.direction is None for question in _position([shape], split, rng)]


def order_questions(album: list[tuple[Shot, float]], split: str, rng: np.random.Generator) -> list[Question]:
    """Which of two comes first, for every two shots of an album; none of an album of one shot."""
    shots = list(dict.fromkeys(shot for shot, _ in album))
    pairs = combinations([shot.shapes for shot in shots], 2)
    return [question for earlier, later in pairs for question in _order(earlier, later, split, rng)]


def video_questions(video: Video, split: str, rng: np.random.Generator) -> list[Question]:
    """
    At most one question of each of `VIDEO_QUESTIONS`. "needle" is what "position" is, about the shape of the short
    shot of a long video. Motion and change are asked of shots that last an eighth of the video at least.
    """
    shapes = video.shapes
    needles = [shape for shot in video.shots if shot.is_short for shape in shot.shapes]
    seen_well = [shape for shot in video.shots if shot.seconds >= video.seconds / 8 for shape in shot.shapes]
    still = [shape for shape in shapes if shape.direction is None and shape not in needles]
    questions = [
        *_attribute(shapes, split, rng),
        *_existence(shapes, split, rng),
        *_count(shapes, split, rng),
        *_position(still, split, rng),
        *_motion(seen_well, split, rng),
        *(Question("needle", question.text, question.answer) for question in _position(needles, split, rng)),
        *_change(seen_well, split, rng),
    ]
    if len(video.shots) > 1:
        one, other = sorted(rng.choice(len(video.shots), 2, replace=False))
        questions += _order(video.shots[one].shapes, video.shots[other].shapes, split, rng)
    caption = " , then ".join(" and ".join(f"a {shape.name}" for shape in shot.shapes) for shot in video.shots)
    return [*questions, Question("caption", ask("caption", split, rng), caption)]


def _reading_order(shape: Shape) -> tuple[bool, float]:
    return shape.start[1] >= 0.5, shape.start[0]


def pick(items: list, rng: np.random.Generator):
    """Draws one of a list."""
    return items[int(rng.integers(len(items)))]


def _attribute(shapes: list[Shape], split: str, rng: np.random.Generator):
    """The colour of the only shape of a kind, or the kind of the only one of a colour."""
    kinds, colours = Counter(shape.kind for shape in shapes), Counter(shape.colour for shape in shapes)
    # What changes colour has no one colour, and may take one that another shape should have alone.
    colours.update(shape.later_colour for shape in shapes)
    possible = [("colour", shape) for shape in shapes if kinds[shape.kind] == 1 and shape.later_colour is None]
    possible += [("kind", shape) for shape in shapes if colours[shape.colour] == 1]
    if not possible:
        return []
    about, shape = pick(possible, rng)
    answer = shape.colour if about == "colour" else shape.kind
    return [Question("attribute", ask(about, split, rng, kind=shape.kind, colour=shape.colour), answer)]


def _existence(shapes: list[Shape], split: str, rng: np.random.Generator):
    """Of a shape that is there, or of one that is not though its colour and its kind are."""
    names = {shape.name for shape in shapes} | {f"{shape.later_colour} {shape.kind}" for shape in shapes}
    crossed = [
        f"{colour} {kind}"
        for colour in sorted({shape.colour for shape in shapes})
        for kind in sorted({shape.kind for shape in shapes})
        if f"{colour} {kind}" not in names
    ]
    if not crossed:  # all of one colour or of one kind
        crossed = [f"{c} {k}" for c in COLOURS for k in KINDS if f"{c} {k}" not in names]
    is_there = bool(rng.random() < 0.5)
    name = pick([shape.name for shape in shapes] if is_there else crossed, rng)
    return [Question("existence", ask("existence", split, rng, name=name), "yes" if is_there else "no")]


def _count(shapes: list[Shape], split: str, rng: np.random.Generator):
    counts = Counter(shape.kind for shape in shapes)
    wanted = int(rng.integers(len(NUMBERS)))
    kinds = [kind for kind in KINDS if counts[kind] == wanted]
    if not kinds:
        return []
    return [Question("count", ask("count", split, rng, kind=pick(kinds, rng)), NUMBERS[wanted])]


def _position(shapes: list[Shape], split: str, rng: np.random.Generator):
    if not shapes:
        return []
    shape = pick(shapes, rng)
    return [Question("position", ask("position", split, rng, name=shape.name), shape.corner)]


def _motion(shapes: list[Shape], split: str, rng: np.random.Generator):
    moving = [shape for shape in shapes if shape.direction is not None]
    if not moving:
        return []
    shape = pick(moving, rng)
    return [Question("motion", ask("motion", split, rng, name=shape.name), f"to the {shape.direction}")]


def _change(shapes: list[Shape], split: str, rng: np.random.Generator):
    changing = [shape for shape in shapes if shape.later_colour is not None]
    if not changing:
        return []
    shape = pick(changing, rng)
    return [Question("change", ask("change", split, rng, name=shape.name), shape.later_colour)]


def _order(earlier: tuple[Shape, ...], later: tuple[Shape, ...], split: str, rng: np.random.Generator):
    first, second = pick(list(earlier), rng).name, pick(list(later), rng).name
    one, other = (first, second) if rng.random() < 0.5 else (second, first)
    return [Question("order", ask("order", split, rng, one=one, other=other), f"the {first}")]
