"""The pictures of the results: each a line chart, of the rows that were run."""

from collections.abc import Iterator
from pathlib import Path

from small_world.run_results import Results
from small_world.svg_chart import line_chart
from small_world.world_rows import BUDGETS, KEPT


# Rows that are compared by length and by place of the needle, and in which stage.
LONG_ROWS = {
    "merging, 28": ("long, merging, 28 tokens", "untrained"),
    "merging, 28, last first": ("long, merging, last first", "untrained"),
    "merging, 56": ("long, merging, 56 tokens", "untrained"),
    f"merging of {KEPT['long']}, 28": (f"long, merging of {KEPT['long']} kept, 28 tokens", "untrained"),
    "density peaks, 28": ("long, density peaks, 28 tokens", "untrained"),
    "uniform frames, 28": ("long, uniform frames, 28 tokens", "untrained"),
    "merging, LoRA": ("long, merging, LoRA alone", "tuned"),
    "LinVT, LoRA": ("long, LinVT from merging, seen once", "tuned"),
    "TTA on all, LoRA": ("long, TTA from merging", "tuned"),
}
TRAINED = ("LinVT from merging", "merging, LoRA alone")
LOSS_ROWS = ("LinVT", *TRAINED, *(f"long, {name}" for name in TRAINED))


def write_pictures(results: Results, folder: Path) -> list[str]:
    """Writes an SVG file for each picture that there are runs for, and returns Markdown that shows them."""
    folder.mkdir(exist_ok=True)
    lines = []
    for name, title, x_label, y_label, series, logarithmic in _pictures(results):
        drawn = {label: points for label, points in series.items() if points}
        if drawn:
            (folder / f"{name}.svg").write_text(line_chart(title, x_label, y_label, drawn, logarithmic))
            lines.append(f"![{title}]({folder.name}/{name}.svg)")
    return lines


def _pictures(results: Results) -> Iterator[tuple[str, str, str, str, dict, bool]]:
    right = "right answers, percent"
    for world in ("small", "long"):
        series = _by_budget(results, world)
        yield f"{world}_tokens", f"Nothing trained, {world} world", "video tokens", right, series, True
    by_place = {label: results.by_place(*row) for label, row in LONG_ROWS.items()}
    yield "needle_place", "Needles in 64 shots", "eighth of the video", right, by_place, False
    for about in ("needle", "order"):
        by_length = {label: results.by_length(*row, about) for label, row in LONG_ROWS.items()}
        yield f"{about}_length", f"Long world: {about}", "shots", right, by_length, True
    for unit, factor in (("seconds", 1), ("bytes", 2**-20)) if results.costs else ():
        series = {
            name: [(frames, value * factor) for frames, value in zip(results.costs["frames"], values, strict=True)]
            for name, values in results.costs[unit].items()
        }
        label = {"seconds": "seconds per question", "bytes": "MiB held per video"}[unit]
        yield f"{unit}_length", f"Cost by length: {unit}", "frames", label, series, True
    losses = {name: _stage_after_stage(run["losses"]) for name in LOSS_ROWS for run in results.runs.get(name, [])[:1]}
    yield "losses", "Loss, seed 0, stage after stage", "step", "loss", losses, False


def _by_budget(results: Results, world: str) -> dict[str, list[tuple[float, float]]]:
    prefix, kept = ("" if world == "small" else "long, "), KEPT[world]
    makers = ("merging", f"merging of {kept} kept", "density peaks", "uniform frames", "average tokens")
    series = {}
    for maker in makers:
        runs = [results.of(f"{prefix}{maker}, {number} tokens", "untrained") for number in BUDGETS]
        points = {run["num_video_tokens"]: run["untrained"]["videos"]["mean"] for found in runs for run in found}
        series[maker] = sorted(points.items())
    return series


def _stage_after_stage(losses: list[dict]) -> list[tuple[float, float]]:
    """Loss by step, where the steps of a second stage, which begin anew, follow those of the first."""
    points, done, before = [], 0, 0
    for log in losses:
        if log["step"] <= before:
            done += before
        before = log["step"]
        points.append((done + before, log["loss"]))
    return points
