"""
Makes the papers' tables in miniature, on the small world, and writes them down.

    python examples/paper_tables.py --image_llm docs/small_world_runs/image_llm --output tables --write docs/results.md

Every run, of one variant with one seed, leaves a file in OUTPUT/runs. Stop it whenever you like: the same command goes
on with the runs that are missing. Several processes may share the work: start the command several times.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from small_world.costs import COSTS_FILE, measure_costs
from small_world.results import write_results
from small_world.training import Options, Run
from small_world.world_rows import VARIANTS
from transformers import HfArgumentParser


@dataclass
class Selection:
    only: list[str] | None = None  # names of variants; all by default
    costs: bool = False  # whether to measure what longer videos cost, on a machine that does nothing else
    write: str | None = None  # Markdown file for the tables; its pictures go into a folder beside it


def main(options: Options, selection: Selection) -> None:
    folder = Path(options.output) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    names = list(VARIANTS) if selection.only is None else selection.only
    most_seeds = max((VARIANTS[name].seeds for name in names), default=0)
    for seed in range(most_seeds):  # every row once, before any row again
        for name in names:
            if seed < VARIANTS[name].seeds:
                run_once(name, seed, options, folder)
    if selection.costs:
        measure_costs(options.image_llm, folder / COSTS_FILE)
    if selection.write is not None:
        write_results(folder, Path(selection.write))


def run_once(name: str, seed: int, options: Options, folder: Path) -> None:
    """Makes a run unless its result is there or another process makes it."""
    result = folder / f"{name}, seed {seed}.json"
    try:
        with FileLock(result.with_suffix(".lock"), blocking=False):  # let go of when its process ends, however it ends
            if result.exists():
                found, wanted = json.loads(result.read_text())["options"], options.settings(VARIANTS[name].world)
                if found != wanted:
                    raise ValueError(f"{result} was made with {found}, not {wanted}; use another OUTPUT.")
                return
            print(f"{name}, seed {seed}", flush=True)
            whole = result.with_suffix(".whole")
            whole.write_text(json.dumps({"variant": name, **Run(VARIANTS[name], seed, options).result()}, indent=1))
            whole.rename(result)
    except Timeout:
        print(f"{name}, seed {seed}: made by another process", flush=True)


if __name__ == "__main__":
    main(*HfArgumentParser([Options, Selection]).parse_args_into_dataclasses())
