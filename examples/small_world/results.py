"""Writes the results of runs as tables."""

import json
from pathlib import Path
from statistics import mean, stdev

from small_world.questions import VIDEO_QUESTIONS
from small_world.world_rows import VARIANTS


TABLES = {
    "0": "What can be known without looking",
    "2": "LinVT, Table 2: roles of SVR and TTA",
    "3": "LinVT, Table 3: the image-LLM's alignment kept, or not",
    "4": "LinVT, Table 4: multi-scale processing",
    "5": "LinVT, Table 5: text conditions",
    "6": "In place of LinVT, Table 6: what the LLM makes of all frame tokens",
    "12": "LinVT, Table 12: layers, queries and k",
    "R3": "RED-VILLM, Table 3: spatial and temporal pooling",
    "R4": "RED-VILLM, Table 4: temporal module",
    "R5": "RED-VILLM, Table 5: additional weights that start at random",
    "R6": "RED-VILLM, Table 6: number of frames",
}
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"


def write_results(runs_folder: Path, path: Path) -> None:
    """Puts the tables between the marks of a Markdown file; a `ValueError` if runs were made with other options."""
    results: dict[str, list[dict]] = {}
    for file in sorted(runs_folder.glob("*.json")):
        result = json.loads(file.read_text())
        results.setdefault(result["variant"], []).append(result)
    options = {json.dumps(run["options"], sort_keys=True) for runs in results.values() for run in runs}
    if len(options) > 1:
        raise ValueError(f"The runs in {runs_folder} cannot be compared, with their options {' and '.join(options)}.")
    text = path.read_text()
    before, rest = text.split(BEGIN)
    tables = "\n\n".join(_table(number, title, results) for number, title in TABLES.items())
    path.write_text(f"{before}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}")


def _table(number: str, title: str, results: dict[str, list[dict]]) -> str:
    names = [name for name, variant in VARIANTS.items() if number in variant.tables]
    columns = ["", "seeds", "tokens", "parameters", "videos"]
    columns += [*VIDEO_QUESTIONS, "pictures", "their captions", "minutes"]
    lines = [f"### {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for name in names:
        runs = results.get(name, [])
        for stage in ("aligned", "tuned"):
            done = [run for run in runs if stage in run]
            if done:
                label = name if stage == "tuned" else f"{name}, LLM as it was"
                lines.append(f"| {label} | {' | '.join(_cells(done, stage))} |")
        if not runs:
            lines.append(f"| {name} | not run |{' |' * (len(columns) - 2)}")
    return "\n".join(lines)


def _cells(runs: list[dict], stage: str) -> list[str]:
    first = runs[0]
    kinds = [_mean_and_deviation(run[stage]["videos"].get(about) for run in runs) for about in VIDEO_QUESTIONS]
    return [
        ", ".join(str(run["seed"]) for run in runs),
        str(first["num_video_tokens"]),
        f"{first['video_tokenizer_parameters'] / 1000:.0f} k" if first["num_video_tokens"] else "0 k",
        f"**{_mean_and_deviation(run[stage]['videos']['mean'] for run in runs)}**",
        *kinds,
        *(_mean_and_deviation(run[stage]["pictures"][about] for run in runs) for about in ("mean", "caption")),
        f"{mean(run['seconds'] for run in runs) / 60:.0f}",
    ]


def _mean_and_deviation(values) -> str:
    values = [value for value in values if value is not None]
    if not values:
        return ""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
