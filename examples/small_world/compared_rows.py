"""Pairs of rows, each a variant and a stage, whose difference says whether a part helps."""

from small_world.world_rows import KEPT


MERGING = ("merging, 28 tokens", "untrained")
MERGING_WITH_LORA = ("merging, LoRA alone", "tuned")
LINVT, LINVT_WITH_LORA = ("LinVT from merging", "aligned"), ("LinVT from merging", "tuned")
LINVT_SEEN_ONCE, LINVT_SEEN_ONCE_WITH_LORA = (
    ("LinVT from merging, seen once", "aligned"),
    ("LinVT from merging, seen once", "tuned"),
)
TTA, TTA_WITH_LORA = ("TTA from merging", "aligned"), ("TTA from merging", "tuned")


def merging_of_kept(world: str) -> tuple[str, str]:
    """The row in which nothing learns, and SVR's prior keeps a part of the tokens."""
    return f"merging of {KEPT[world]} kept, 28 tokens", "untrained"


def _in_a_world(world: str) -> dict[str, tuple[tuple[str, str], tuple[str, str]]]:
    kept = merging_of_kept(world)
    # Long videos are seen once: to let SVR learn on thousands of tokens takes hours.
    linvt, with_lora = (LINVT, LINVT_WITH_LORA) if world == "small" else (LINVT_SEEN_ONCE, LINVT_SEEN_ONCE_WITH_LORA)
    return {
        f"{KEPT[world]} tokens kept, or all": (kept, MERGING),
        f"{KEPT[world]} tokens kept for novelty, or by lot": (
            kept,
            (f"random scores keep {KEPT[world]}, lots 0", "untrained"),
        ),
        "merging, or density peaks": (MERGING, ("density peaks, 28 tokens", "untrained")),
        "merging, or uniform frames": (MERGING, ("uniform frames, 28 tokens", "untrained")),
        "merging, or even pieces": (MERGING, ("average tokens, 28 tokens", "untrained")),
        "W trained, or not; LLM as it was": (linvt, MERGING),
        "W trained, or not; with LoRA": (with_lora, MERGING_WITH_LORA),
        "W of TTA alone trained, or not; LLM as it was": (TTA, MERGING),
        "W of TTA alone trained, or not; with LoRA": (TTA_WITH_LORA, MERGING_WITH_LORA),
        f"{KEPT[world]} tokens kept, or TTA on all; with LoRA": (with_lora, TTA_WITH_LORA),
    }


def _from_merging(one: str, other: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (f"from merging, {one}", "tuned"), (f"from merging, {other}", "tuned")


COMPARED = {
    **_in_a_world("small"),
    "told what is asked, or merging; LLM as it was": (("told what is asked", "untrained"), MERGING),
    "what is asked learnt, or told; LLM as it was": (LINVT, ("told what is asked", "untrained")),
    "what is asked learnt, or told; with LoRA": (LINVT_WITH_LORA, ("told what is asked, LoRA alone", "tuned")),
    "the video tokenizer left alone in stage 2, or not": (
        LINVT_WITH_LORA,
        ("LinVT from merging, learning on", "tuned"),
    ),
    "SVR looks at the shot, or at all of the video; LLM as it was": (LINVT, ("LinVT from merging, video", "aligned")),
    "SVR looks at the shot, or at all of the video; with LoRA": (
        LINVT_WITH_LORA,
        ("LinVT from merging, video", "tuned"),
    ),
    "SVR learns, or videos are seen once; LLM as it was": (LINVT, LINVT_SEEN_ONCE),
    "SVR learns, or videos are seen once; with LoRA": (LINVT_WITH_LORA, LINVT_SEEN_ONCE_WITH_LORA),
    "from merging, or from random weights": (LINVT_WITH_LORA, ("LinVT", "tuned")),
    "LinVT, Table 2: SVR and TTA, or TTA alone": (("from merging, multi_c", "tuned"), TTA_WITH_LORA),
    "LinVT, Table 4: multi_c, or one scale": _from_merging("multi_c", "one scale"),
    "LinVT, Table 4: multi_c, or multi_a": _from_merging("multi_c", "multi_a"),
    "LinVT, Table 4: multi_c, or multi_b": _from_merging("multi_c", "multi_b"),
    "LinVT, Table 5: text, or none": _from_merging("one scale", "without text"),
    "LinVT, Table 12: layers": _from_merging("4 layers", "1 layer"),
    "LinVT, Table 12: queries": _from_merging("queries doubled", "queries halved"),
    "LinVT, Table 12: k": _from_merging("k doubled", "k halved"),
    "RED-VILLM, Table 4: temporal module, or none": (
        ("RED-VILLM", "aligned"),
        ("RED-VILLM, no temporal module", "aligned"),
    ),
    "RED-VILLM, Table 7: 16 spatial tokens, or 4": (
        ("RED-VILLM", "aligned"),
        ("RED-VILLM, 4 spatial tokens", "aligned"),
    ),
    **{
        f"long world: {claim}": tuple((f"long, {name}", stage) for name, stage in pair)
        for claim, pair in _in_a_world("long").items()
    },
    "long world: from merging, or from random weights": (
        ("long, LinVT from merging, seen once", "tuned"),
        ("long, LinVT from random weights", "tuned"),
    ),
}
