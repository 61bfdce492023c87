"""Writes the results of runs into a Markdown file: what they say in ten lines, pictures, tables, and differences."""

from pathlib import Path
from statistics import mean

from small_world.compared_rows import COMPARED
from small_world.long_questions import LONG_QUESTIONS
from small_world.pictures import write_pictures
from small_world.questions import VIDEO_QUESTIONS
from small_world.result_summary import summary
from small_world.run_results import STAGES, Results, mean_and_deviation
from small_world.world_rows import VARIANTS


TABLES = {
    "small, untrained": "Small world: nothing trained",
    "small, trained": "Small world: trained from merging",
    "long, untrained": "Long world: nothing trained",
    "long, trained": "Long world: trained",
    "ablations": "LinVT's ablations, from merging",
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
    "R7": "RED-VILLM, Table 7: number of spatial tokens",
}
LABELS = {"untrained": "{}", "aligned": "{}, LLM as it was", "tuned": "{}"}


def write_results(runs_folder: Path, path: Path) -> None:
    """
    Puts all that is generated between its marks, `<!-- NAME -->` and `<!-- /NAME -->`, in a Markdown file, and
    pictures into the folder `pictures` beside it; a `ValueError` if runs of a world were made with different options.
    """
    results = Results.read(runs_folder)
    text = path.read_text()
    text = _fill(text, "summary", summary(results))
    text = _fill(text, "pictures", "\n".join(write_pictures(results, path.parent / "pictures")))
    text = _fill(text, "differences", differences_table(results))
    text = _fill(text, "tables", "\n\n".join(table(results, number) for number in TABLES))
    path.write_text(text)


def _fill(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin not in text:
        return text
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def table(results: Results, number: str) -> str:
    """Makes a table of the rows that it has been given in `VARIANTS`."""
    names = [name for name, variant in VARIANTS.items() if number in variant.tables]
    kinds = LONG_QUESTIONS if number.startswith("long") else VIDEO_QUESTIONS
    columns = ["", "seeds", "tokens", "parameters", "videos"]
    columns += [*kinds, "pictures", "their captions", "minutes"]
    lines = [f"### {TABLES[number]}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for name in names:
        for stage in STAGES:
            done = results.of(name, stage)
            if done:
                lines.append(f"| {LABELS[stage].format(name)} | {' | '.join(_cells(done, stage, kinds))} |")
        if not results.runs.get(name):
            lines.append(f"| {name} | not run |{' |' * (len(columns) - 2)}")
    return "\n".join(lines)


def _cells(runs: list[dict], stage: str, kinds: tuple[str, ...]) -> list[str]:
    first = runs[0]
    return [
        ", ".join(str(run["seed"]) for run in runs),
        str(first["num_video_tokens"]),
        f"{first['video_tokenizer_parameters'] / 1000:.0f} k" if first["num_video_tokens"] else "0 k",
        f"**{mean_and_deviation([run[stage]['videos']['mean'] for run in runs])}**",
        *(mean_and_deviation([run[stage]["videos"].get(about) for run in runs]) for about in kinds),
        *(mean_and_deviation([run[stage]["pictures"][about] for run in runs]) for about in ("mean", "caption")),
        f"{mean(run['seconds'] for run in runs) / 60:.0f}",
    ]


def differences_table(results: Results) -> str:
    """Compares pairs of rows over the same questions, in points of the mean, with 95 percent intervals."""
    lines = ["| | one | other | difference | |", "|---|---|---|---|---|"]
    for claim, (one, other) in COMPARED.items():
        values = [results.told(*row) or "not run" for row in (one, other)]
        found = results.difference(one, other)
        labels = [LABELS[stage].format(name) for name, stage in (one, other)]
        cells = [f"{label}: {value}" for label, value in zip(labels, values, strict=True)]
        verdict = "" if found is None else "clear" if found.is_clear else "not clear"
        lines.append(f"| {claim} | {' | '.join(cells)} | {found or 'answers not kept'} | {verdict} |")
    return "\n".join(lines)
