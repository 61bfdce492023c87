"""The results in ten lines, for who knows nothing of them."""

from pathlib import Path

from small_world.compared_rows import (
    LINVT,
    LINVT_SEEN_ONCE_WITH_LORA,
    LINVT_WITH_LORA,
    MERGING,
    MERGING_WITH_LORA,
    merging_of_kept,
)
from small_world.run_results import Results
from small_world.world_rows import BUDGETS, KEPT


TEMPLATE = Path(__file__).with_suffix(".md")


def summary(results: Results) -> str:
    """Fills in the figures of the ten lines; of what was not run it says so."""
    told, untrained = results.told, "untrained"

    def long(row: tuple[str, str]) -> tuple[str, str]:
        return f"long, {row[0]}", row[1]

    figures = {
        "merging": told(*MERGING),
        "blind": told("question only", "tuned"),
        "kept": told(*merging_of_kept("small")),
        "lots": told(f"random scores keep {KEPT['small']}, lots 0", untrained),
        "peaks": told("density peaks, 28 tokens", untrained),
        "uniform": told("uniform frames, 28 tokens", untrained),
        "average": told("average tokens, 28 tokens", untrained),
        "all": told("all tokens", untrained),
        "lora": told(*MERGING_WITH_LORA),
        "trained": told(*LINVT_WITH_LORA),
        "gain": results.difference(LINVT_WITH_LORA, MERGING_WITH_LORA),
        "gain_frozen": results.difference(LINVT, MERGING),
        "tokens": tokens_needed(results, results.accuracy(*LINVT)),
        "long_merging": told(*long(MERGING)),
        "long_more": told("long, merging, 56 tokens", untrained),
        "long_uniform": told("long, uniform frames, 28 tokens", untrained),
        "long_average": told("long, average tokens, 28 tokens", untrained),
        "long_trained": told(*long(LINVT_SEEN_ONCE_WITH_LORA)),
        "long_blind": told("long, question only", "tuned"),
        "place_28": _by_place(results, *long(MERGING)),
        "place_56": _by_place(results, "long, merging, 56 tokens", untrained),
        "place_trained": _by_place(results, *long(LINVT_SEEN_ONCE_WITH_LORA)),
        "long_kept_number": KEPT["long"],
        "long_kept": told(*long(merging_of_kept("long"))),
        "long_memory": results.difference(long(LINVT_SEEN_ONCE_WITH_LORA), ("long, TTA from merging", "tuned")),
        "motion": told(*MERGING, "motion"),
        "change": told(*MERGING, "change"),
        "order": told(*MERGING, "order"),
        "pictures": told(*MERGING, "mean", "pictures"),
        "pictures_after": told(*LINVT_WITH_LORA, "mean", "pictures"),
    }
    return TEMPLATE.read_text().format(**{name: figure or "[not run]" for name, figure in figures.items()}).strip()


def tokens_needed(results: Results, accuracy: float | None) -> str:
    """Finds the least budget at which merging, untrained, reaches an accuracy in the small world."""
    tried = {number: results.accuracy(f"merging, {number} tokens", "untrained") for number in BUDGETS}
    if accuracy is None or None in tried.values():
        return ""
    enough = [number for number, reached in tried.items() if reached >= accuracy]
    return str(enough[0]) if enough else f"more than {BUDGETS[-1]}"


def _by_place(results: Results, name: str, stage: str) -> str:
    shares = [share for _, share in results.by_place(name, stage)]
    return f"{min(shares):.1f} to {max(shares):.1f} percent" if shares else ""
