"""Questions about videos of the long world: about one shot, about two distant ones, about several."""

from itertools import combinations

import numpy as np
from small_world.long_scenes import make_long_video, shots_of_shapes
from small_world.phrasings import ask
from small_world.questions import NUMBERS, Question, pick
from small_world.scenes import KINDS, Shape, Video, scene_rng


LONG_QUESTIONS = ("needle", "attribute", "motion", "position", "existence", "count", "order", "sequence")
"""
One shot: the corner of the shape of an event (*needle*, of every event), the colour of the only shape of a kind
(*attribute*), where the one that moves goes (*motion*). Many shots that show the same: the corner of a shape of a
setting (*position*). Two distant shots: whether there is a shape, whose colour and kind are both seen in events
(*existence*), how many shapes of a kind there are (*count*), which of two events comes first (*order*). Several: which
of three comes first (*sequence*).
"""


def long_questions(split: str, number: int) -> list[Question]:
    """Asks about a video, always the same."""
    rng = scene_rng(split, "long question", number)
    video = make_long_video(split, number)
    places = shots_of_shapes(video)
    shapes = {shape.name: shape for shape in video.shapes}
    standing = [shape for shot in video.shots for shape in shot.shapes if shot.is_short]
    (moving,) = [shape for shape in video.shapes if shape.direction is not None]
    events = [*standing, moving]
    returning = pick([shape for name, shape in shapes.items() if shape not in events], rng)

    def asked(about: str, answer: str, named: list[Shape], phrasing: str | None = None, **words: str) -> Question:
        shots = tuple(shot for shape in named for shot in places[shape.name])
        return Question(about, ask(phrasing or about, split, rng, **words), answer, shots)

    return [
        *(asked("needle", shape.corner, [shape], "position", name=shape.name) for shape in standing),
        asked("motion", f"to the {moving.direction}", [moving], name=moving.name),
        asked("position", returning.corner, [returning], name=returning.name),
        *_kinds(video, events, asked, rng),
        _existence(list(shapes), events, asked, rng),
        _order(video, standing, asked, rng),
        _sequence(standing, asked, rng),
    ]


def _kinds(video: Video, events: list[Shape], asked, rng: np.random.Generator) -> list[Question]:
    """The colour of the only shape of its kind, and how many shapes there are of a kind."""
    of_kind = {kind: sorted({shape.name for shape in video.shapes if shape.kind == kind}) for kind in KINDS}
    single = pick([shape for shape in events if len(of_kind[shape.kind]) == 1], rng)
    wanted = int(rng.integers(len(NUMBERS)))
    names = {shape.name for shape in events}
    kind = pick([kind for kind in KINDS if len(of_kind[kind]) == wanted and names.issuperset(of_kind[kind])], rng)
    return [
        asked("attribute", single.colour, [single], "colour", kind=single.kind),
        asked("count", NUMBERS[wanted], [shape for shape in events if shape.kind == kind], kind=kind),
    ]


def _existence(names: list[str], events: list[Shape], asked, rng: np.random.Generator) -> Question:
    """Of an event, or of a shape that is not there, though its colour and its kind are seen in two events."""
    if rng.random() < 0.5:
        shape = pick(events, rng)
        return asked("existence", "yes", [shape], name=shape.name)
    crossed = [(one, other) for one in events for other in events if f"{one.colour} {other.kind}" not in names]
    one, other = pick(crossed, rng)
    return asked("existence", "no", [one, other], name=f"{one.colour} {other.kind}")


def _order(video: Video, standing: list[Shape], asked, rng: np.random.Generator) -> Question:
    """Of two events that are a quarter of the shots apart at least."""
    places = shots_of_shapes(video)
    distant = [
        pair
        for pair in combinations(standing, 2)
        if places[pair[1].name][0] - places[pair[0].name][0] >= len(video.shots) / 4
    ]
    first, second = pick(distant, rng)
    one, other = (first, second) if rng.random() < 0.5 else (second, first)
    return asked("order", f"the {first.name}", [first, second], one=one.name, other=other.name)


def _sequence(standing: list[Shape], asked, rng: np.random.Generator) -> Question:
    some = [standing[i] for i in sorted(rng.choice(len(standing), 3, replace=False))]
    one, other, third = (some[i].name for i in rng.permutation(3))
    return asked("sequence", f"the {some[0].name}", some, one=one, other=other, third=third)
