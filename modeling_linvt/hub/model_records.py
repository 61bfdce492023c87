"""What is written down beside a model so that its card can tell: how it was trained, and how right it is.

Two JSON files, each a list, in the folder of the model: `training.json`, one entry per stage in their order, and
`evaluation.json`, one entry per set of questions that was asked.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar


@dataclasses.dataclass(frozen=True)
class TrainingStage:
    """
    Args:
        stage (`str`): What it is for, such as `"alignment"`.
        learnt (`Sequence[str]`): Parts of the model that learnt.
        data (`str`): Hub id or file name of the rows, or what they are.
        data_on_hub (`bool`): Whether `data` is a Hub id.
        num_rows (`int`): Rows it learnt from.
        num_rows_left_out (`int`): Bad rows that the check before the training left out. Rows that turn out bad when
            their batch is made are left out of it, and are not counted here.
        num_steps (`int`): Steps of the optimiser, those before a resume included.
        batch_size (`int`): Rows of a step, over all processes and micro-batches.
        learning_rate (`float`): The highest.
        settings (`Mapping[str, str | int | float | bool]`): Others that matter, by name.
        versions (`Mapping[str, str]`): Of the libraries.
    """

    stage: str
    learnt: Sequence[str]
    data: str
    data_on_hub: bool
    num_rows: int
    num_rows_left_out: int
    num_steps: int
    batch_size: int
    learning_rate: float
    settings: Mapping[str, str | int | float | bool]
    versions: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """
    Args:
        of (`str`): `"this model"`, or what was asked to compare it with, such as `"the image-LLM"`.
        data (`str`): Name of the set of questions.
        data_id (`str`): Its Hub id; for a set that is not on the Hub a name without a slash.
        split (`str`): Of the data, such as `"test"`.
        num_examples (`int`): Questions of all kinds together.
        metric (`str`): Identifier of the metric, such as `"accuracy"`.
        unit (`str`): Of the values, such as `"percent"`.
        values (`Mapping[str, float]`): The metric for each kind of question.
    """

    of: str
    data: str
    data_id: str
    split: str
    num_examples: int
    metric: str
    unit: str
    values: Mapping[str, float]


Record = TypeVar("Record", TrainingStage, Evaluation)

RECORD_FILES = {TrainingStage: "training.json", Evaluation: "evaluation.json"}


def read_records(folder: str | os.PathLike, kind: type[Record]) -> list[Record]:
    """
    The entries of `training.json` or `evaluation.json` in `folder`, none where there is no such file.

    Raises:
        `ValueError`: If the file is not such a list; the message names it, the entry and the field.
    """
    file = Path(folder) / RECORD_FILES[kind]
    if not file.is_file():
        return []
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(f"{file} holds a {type(entries).__name__}; expected a list of {kind.__name__}.")
    return [_record(file, number, entry, kind) for number, entry in enumerate(entries)]


def write_records(folder: str | os.PathLike, records: Sequence[Record]) -> Path:
    """All entries of one kind, in place of those that `folder` has."""
    file = Path(folder) / RECORD_FILES[type(records[0])]
    entries = [dataclasses.asdict(record) for record in records]
    file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return file


def _record(file: Path, number: int, entry: dict, kind: type[Record]) -> Record:
    where = f"entry {number} of {file}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is a {type(entry).__name__}; expected the fields of {kind.__name__}.")
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    wrong = [f"no {name}" for name in fields if name not in entry]
    wrong += [f"an unknown {name}" for name in entry if name not in fields]
    wrong += [
        f"{name} {entry[name]!r}, which is no {_name(expected)}"
        for name, expected in fields.items()
        if name in entry and not _fits(entry[name], expected)
    ]
    if wrong:
        raise ValueError(f"{where} has {', '.join(wrong)}.")
    return kind(**entry)


def _fits(value, expected) -> bool:
    if expected in (int, float) and isinstance(value, bool):
        return False
    if expected is float:
        return isinstance(value, (int, float))
    if expected == Mapping[str, float]:
        return isinstance(value, dict) and all(_fits(number, float) for number in value.values())
    return isinstance(value, getattr(expected, "__origin__", expected)) and not (
        isinstance(value, str) and expected is not str
    )


def _name(expected) -> str:
    return {Mapping[str, float]: "object of numbers"}.get(expected, getattr(expected, "__name__", str(expected)))


__all__ = ["RECORD_FILES", "Evaluation", "TrainingStage", "read_records", "write_records"]
