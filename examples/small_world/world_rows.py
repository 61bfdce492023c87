"""Rows that start from merging, and what merging is compared with at the same number of tokens, in both worlds."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from small_world.baselines import all_tokens, density_peaks, random_scores, uniform_frames
from small_world.fixed_tokens import asked_frames
from small_world.oracle import told_what_is_asked
from small_world.variants import LINVT, ONE_SCALE, PAPER_ROWS, Variant


NUM_TOKENS = 28
BUDGETS = (8, 14, 28, 56, 112)  # video tokens
KEPT = {"small": 64, "long": 512}  # by SVR: a quarter of the tokens of a small world's video, an eighth of 64 shots

# What a question is about is learnt soon, and is best left alone then; LoRA needs the rest of the steps.
SHORT_ALIGNMENT = {"aligned_share": 1 / 3, "tunes_tokenizer": False}

# Before something is learnt the question says nothing, and scales change nothing but the order in which clusters are
# numbered.
MERGING = {**LINVT, **ONE_SCALE, "start": "merge", "use_svr": False, "text_conditioning": False}
LINVT_FROM_MERGING = {**LINVT, **ONE_SCALE, "start": "merge"}
ALL_TOKENS_LONG = 60  # videos that the row is asked about: an answer that is read off 4,096 tokens takes a second


def budget_rows(world: str) -> dict[str, Variant]:
    """Rows of which nothing learns, at every budget."""
    rows, kept = {}, KEPT[world]
    for number in BUDGETS:
        some = partial(_untrained, world, num_queries=[number])
        rows[f"merging, {number} tokens"] = some()
        if number <= kept:
            rows[f"merging of {kept} kept, {number} tokens"] = some(use_svr=True, top_k=kept)
        rows[f"density peaks, {number} tokens"] = _baseline(world, density_peaks, number)
        rows[f"uniform frames, {number} tokens"] = _baseline(world, uniform_frames, number)
        rows[f"average tokens, {number} tokens"] = some(use_tta=False)
    for lots in range(3):
        weights = partial(random_scores, num_kept=kept, seed=lots)
        rows[f"random scores keep {kept}, lots {lots}"] = _baseline(world, weights, NUM_TOKENS)
    rows["all tokens"] = _all_tokens(world, tunes_llm=False)
    return rows


def trained_rows(world: str) -> dict[str, Variant]:
    """The main rows, of which the LLM learns or the video tokenizer, or both."""
    table, kept = f"{world}, trained", {"top_k": KEPT[world]}
    tuned = {"aligns": False, "world": world}
    start = {**LINVT_FROM_MERGING, **kept}
    over_time = {**start, "temporal_attention": "video"}
    return {
        "merging, LoRA alone": Variant((table,), MERGING, 3, **tuned),
        f"merging of {KEPT[world]} kept, LoRA alone": Variant(
            (table,), {**MERGING, "use_svr": True, **kept}, 3, **tuned
        ),
        "density peaks, LoRA alone": _baseline(world, density_peaks, NUM_TOKENS, tunes_llm=True),
        "uniform frames, LoRA alone": _baseline(world, uniform_frames, NUM_TOKENS, tunes_llm=True),
        "average tokens, LoRA alone": Variant((table,), {**MERGING, "use_tta": False}, **tuned),
        "all tokens, LoRA alone": _all_tokens(world, tunes_llm=True),
        "LinVT from merging": Variant((table,), start, 3, **SHORT_ALIGNMENT, world=world),
        "LinVT from merging, learning on": Variant((table,), start, world=world),
        "LinVT from merging, video": Variant((table,), over_time, 3, **SHORT_ALIGNMENT, world=world),
        "LinVT from merging, seen once": Variant((table,), start, 3, **SHORT_ALIGNMENT, world=world, reads="memories"),
        "TTA from merging": Variant((table,), {**start, "use_svr": False}, 3, **SHORT_ALIGNMENT, world=world),
        "SVR from merging": Variant((table,), {**start, "use_tta": False, "text_conditioning": False}, 3, world=world),
    }


def ablations() -> dict[str, Variant]:
    """The paper's ablations of LinVT, from merging."""
    rows = {
        "one scale": {},
        "multi_a": {"multi_scale": "multi_a"},
        "multi_b": {"multi_scale": "multi_b"},
        "multi_c": {"multi_scale": "multi_c"},
        "without text": {"text_conditioning": False},
        "4 layers": {"num_layers": 4},
        "1 layer": {"num_layers": 1},
        "queries doubled": {"num_queries": [56]},
        "queries halved": {"num_queries": [14]},
        "k doubled": {"top_k": 256},
        "k halved": {"top_k": 64},
    }
    scales = {name: LINVT[name] for name in ("num_queries", "pooling_windows")}
    return {
        f"from merging, {name}": Variant(
            ("ablations",),
            {**LINVT_FROM_MERGING, **(scales if "multi_scale" in changes else {}), **changes},
            **SHORT_ALIGNMENT,
        )
        for name, changes in rows.items()
    }


def from_random_weights(world: str) -> dict[str, Variant]:
    """LinVT and its parts as the papers start them."""
    start, table = {**LINVT, "top_k": KEPT[world]}, (f"{world}, trained",)
    return {
        "LinVT from random weights": Variant(table, start, 3, world=world),
        "TTA from random weights": Variant(table, {**start, **ONE_SCALE, "use_svr": False}, 3, world=world),
        "SVR from random weights": Variant(
            table, {**start, "use_tta": False, "text_conditioning": False}, 3, world=world
        ),
    }


def _untrained(world: str, **changes) -> Variant:
    table = (f"{world}, untrained",)
    return Variant(table, {**MERGING, **changes}, aligns=False, tunes_llm=False, world=world)


def _baseline(world: str, weights: Callable[..., torch.Tensor], number: int, tunes_llm: bool = False) -> Variant:
    table = (f"{world}, {'trained' if tunes_llm else 'untrained'}",)
    make = partial(weights, number=number)
    return Variant(table, MERGING, aligns=False, tunes_llm=tunes_llm, world=world, baseline=make)


def _all_tokens(world: str, tunes_llm: bool) -> Variant:
    row = _baseline(world, all_tokens, 0, tunes_llm)
    return row if world == "small" else replace(row, max_test_videos=ALL_TOKENS_LONG)


VARIANTS = {
    **PAPER_ROWS,
    **budget_rows("small"),
    **trained_rows("small"),
    **ablations(),
    "merging, LoRA alone, no captions of videos": Variant(
        ("small, trained",), MERGING, aligns=False, video_captions=False
    ),
    "told what is asked": replace(_untrained("small"), told=told_what_is_asked),
    "told what is asked, LoRA alone": Variant(("small, trained",), MERGING, aligns=False, told=told_what_is_asked),
    "long, question only": Variant(("long, trained",), None, seeds=3, aligns=False, world="long"),
    "long, frames that tell": replace(_untrained("long"), told=asked_frames),
    "long, merging, last first": replace(_untrained("long"), last_first=True),
    **{f"long, {name}": row for name, row in {**budget_rows("long"), **trained_rows("long")}.items()},
    **{f"long, {name}": row for name, row in from_random_weights("long").items()},
}
