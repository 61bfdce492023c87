"""How the small world is asked about. No two splits share a phrasing, though they share all its words."""

import numpy as np
from small_world.scenes import SPLITS


# Four ways to ask for each thing; what stands in braces is filled in.
ASK = {
    "colour": (
        "what colour is the {kind}",
        "which colour does the {kind} have",
        "the {kind} has what colour",
        "the {kind} is of which colour",
    ),
    "kind": (
        "what shape is the {colour} one",
        "which shape does the {colour} one have",
        "the {colour} one has what shape",
        "the {colour} one is of which shape",
    ),
    "existence": (
        "is there a {name}",
        "is a {name} there",
        "does a {name} appear",
        "is there any {name}",
    ),
    "count": (
        "how many {kind} shapes are there",
        "how many {kind} shapes appear",
        "what number of {kind} shapes is there",
        "what number of {kind} shapes appear",
    ),
    "position": (
        "where is the {name}",
        "in which corner is the {name}",
        "the {name} is where",
        "the {name} is in which corner",
    ),
    "motion": (
        "which way does the {name} move",
        "where does the {name} move to",
        "the {name} moves which way",
        "the {name} moves to where",
    ),
    "order": (
        "which comes first , the {one} or the {other}",
        "what appears first , the {one} or the {other}",
        "the {one} or the {other} , which comes first",
        "the {one} or the {other} , what appears first",
    ),
    "sequence": (
        "which comes first , the {one} or the {other} or the {third}",
        "what appears first , the {one} or the {other} or the {third}",
        "the {one} or the {other} or the {third} , which comes first",
        "the {one} or the {other} or the {third} , what appears first",
    ),
    "change": (
        "what colour does the {name} turn",
        "which colour does the {name} turn to",
        "the {name} turns what colour",
        "the {name} turns to which colour",
    ),
    "caption": (
        "describe what is there",
        "describe what appears",
        "describe all shapes",
        "describe the shapes that are there",
    ),
}
AROUND = (
    "{} ?",
    "please answer : {} ?",
    "look closely . {} ?",
    "tell me : {} ?",
    "a question : {} ?",
    "{} ? answer please .",
)


def ask(about: str, split: str, rng: np.random.Generator, **words: str) -> str:
    """A question in one of the phrasings of a split."""
    allowed = [
        (core, around) for i, core in enumerate(ASK[about]) for j, around in enumerate(AROUND) if _split(i, j) == split
    ]
    core, around = allowed[int(rng.integers(len(allowed)))]
    return around.format(core.format(**words))


def _split(core: int, around: int) -> str:
    """Of the six ways to frame each core one is kept for validation and one for the test, not the same for each."""
    return {4: SPLITS[1], 5: SPLITS[2]}.get((core + around) % len(AROUND), SPLITS[0])
