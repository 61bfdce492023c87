"""Reads what runs have left, and finds which of their questions are the same."""

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from small_world.costs import COSTS_FILE
from small_world.long_questions import long_questions
from small_world.long_scenes import NUM_SHOTS
from small_world.paired_difference import Difference, paired_difference
from small_world.video_data import questions_about
from small_world.video_rows import Row, video_rows
from small_world.world_rows import VARIANTS


STAGES = ("untrained", "aligned", "tuned")


@dataclass
class Results:
    """The runs of each variant that has any, in the order of their seeds."""

    runs: dict[str, list[dict]]
    costs: dict | None = None  # what `measure_costs` wrote

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Reads a folder; a `ValueError` if runs of one world were made with different options."""
        runs, options = defaultdict(list), defaultdict(set)
        costs = folder / COSTS_FILE
        for file in sorted(set(folder.glob("*.json")) - {costs}):
            run = json.loads(file.read_text())
            runs[run["variant"]].append(run)
            options[VARIANTS[run["variant"]].world].add(json.dumps(run["options"], sort_keys=True))
        for found in options.values():
            if len(found) > 1:
                raise ValueError(f"The runs in {folder} cannot be compared, with their options {' and '.join(found)}.")
        return cls(runs, json.loads(costs.read_text()) if costs.exists() else None)

    def of(self, name: str, stage: str) -> list[dict]:
        """Runs of a variant that have this stage."""
        return [run for run in self.runs.get(name, []) if stage in run]

    def accuracy(self, name: str, stage: str, about: str = "mean", kind: str = "videos") -> float | None:
        """Mean over seeds, in percent; `None` if it was not run."""
        values = [run[stage][kind][about] for run in self.of(name, stage) if about in run[stage][kind]]
        return mean(values) if values else None

    def told(self, name: str, stage: str, about: str = "mean", kind: str = "videos") -> str:
        """Mean and standard deviation over seeds, as text; empty if it was not run."""
        return mean_and_deviation([run[stage][kind].get(about) for run in self.of(name, stage)])

    def right(self, name: str, stage: str) -> dict[str, np.ndarray]:
        """Per kind how often each question is answered right, from 0 to 1; empty for runs that did not keep it."""
        kept = [run["right"][stage]["videos"] for run in self.of(name, stage) if stage in run.get("right", {})]
        if not kept:
            return {}
        return {kind: np.mean([[int(c) for c in answers[kind]] for answers in kept], axis=0) for kind in kept[0]}

    def difference(self, one: tuple[str, str], other: tuple[str, str]) -> Difference | None:
        """
        Compares two rows, each a variant and a stage, over the questions that both were asked, captions not counted;
        `None` if one of them was not run, or its answers were not kept.
        """
        ones, others = self.right(*one), self.right(*other)
        if not ones or not others:
            return None
        rows = rows_by_kind(VARIANTS[one[0]].world)
        # A row that was asked about fewer videos was asked about the first of them.
        number = {kind: min(len(ones[kind]), len(others[kind])) for kind in ones if kind != "caption"}
        return paired_difference(
            {kind: ones[kind][:asked] for kind, asked in number.items()},
            {kind: others[kind][:asked] for kind, asked in number.items()},
            {kind: np.array([row.video for row in rows[kind][:asked]]) for kind, asked in number.items()},
        )

    def by_length(self, name: str, stage: str, about: str) -> list[tuple[float, float]]:
        """Accuracy by number of shots, of a row of the long world."""
        right, rows = self.right(name, stage), rows_by_kind("long")[about]
        if not right:
            return []
        shots = np.array([NUM_SHOTS[row.video % len(NUM_SHOTS)] for row in rows])[: len(right[about])]
        return [(number, 100 * float(right[about][shots == number].mean())) for number in NUM_SHOTS]

    def by_place(self, name: str, stage: str, num_parts: int = 8) -> list[tuple[float, float]]:
        """Accuracy of needles in videos of most shots, by the part of the video that the needle is in."""
        right, rows = self.right(name, stage), rows_by_kind("long")["needle"]
        if not right:
            return []
        rows = rows[: len(right["needle"])]
        longest = np.array([NUM_SHOTS[row.video % len(NUM_SHOTS)] == max(NUM_SHOTS) for row in rows])
        part = np.array([row.question.shots[0] * num_parts // max(NUM_SHOTS) for row in rows])
        found = [right["needle"][longest & (part == number)] for number in range(num_parts)]
        return [(number + 1, 100 * float(answers.mean())) for number, answers in enumerate(found)]


@cache
def rows_by_kind(world: str, num_videos: int = 1200) -> dict[str, list[Row]]:
    """The questions about the first test videos, in the order in which they are asked."""
    questions = long_questions if world == "long" else questions_about
    rows = defaultdict(list)
    for row in video_rows([questions("test", number) for number in range(num_videos)]):
        rows[row.question.about].append(row)
    return dict(rows)


def mean_and_deviation(values: list[float | None]) -> str:
    """Writes both with one decimal; of one value the value, of none nothing."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
