"""Training and evaluation records stored beside a model; its card is generated from them.

Two JSON files, each a list, in the folder of the model: `training.json`, one entry per stage in their order, and
`evaluation.json`, one entry per set of questions that was asked.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassFieldValidationError


@strict
@dataclass
class TrainingStage:
    """
    Records one stage of a training.

    Args:
        stage (`str`): What it is for, such as `"alignment"`.
        learnt (`list[str]`): Parts of the model that learnt.
        data (`str`): Hub id or file name of the rows, or what they are.
        data_on_hub (`bool`): Whether `data` is a Hub id.
        num_rows (`int`): Rows it learnt from.
        num_rows_left_out (`int`): Bad rows that the check before the training left out. Rows that turn out bad when
            their batch is made are left out of it, and are not counted here.
        num_steps (`int`): Steps of the optimiser, those before a resume included.
        batch_size (`int`): Rows of a step, over all processes and micro-batches.
        learning_rate (`float`): The highest.
        settings (`dict[str, str | int | float | bool]`): Others that matter, by name.
        versions (`dict[str, str]`): Of the libraries.
    """

    stage: str
    learnt: list[str]
    data: str
    data_on_hub: bool
    num_rows: int
    num_rows_left_out: int
    num_steps: int
    batch_size: int
    learning_rate: int | float
    settings: dict[str, str | int | float | bool]
    versions: dict[str, str]


@strict
@dataclass
class Evaluation:
    """
    Records the results on one set of questions.

    Args:
        evaluated (`str`): `"this model"`, or what was asked to compare it with, such as `"the image-LLM"`.
        data (`str`): Name of the set of questions.
        data_id (`str`): Its Hub id; for a set that is not on the Hub a name without a slash.
        split (`str`): Of the data, such as `"test"`.
        num_examples (`int`): Questions of all kinds together.
        metric (`str`): Identifier of the metric, such as `"accuracy"`.
        unit (`str`): Of the values, such as `"percent"`.
        values (`dict[str, int | float]`): The metric for each kind of question.
    """

    evaluated: str
    data: str
    data_id: str
    split: str
    num_examples: int
    metric: str
    unit: str
    values: dict[str, int | float]


Record = TypeVar("Record", TrainingStage, Evaluation)

RECORD_FILES = {TrainingStage: "training.json", Evaluation: "evaluation.json"}


def read_records(folder: str | os.PathLike, kind: type[Record]) -> list[Record]:
    """
    Reads the entries of `training.json` or `evaluation.json` in `folder`, none where there is no such file.

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
    """Writes all entries of one kind, in place of those that `folder` has."""
    file = Path(folder) / RECORD_FILES[type(records[0])]
    entries = [asdict(record) for record in records]
    file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return file


def _record(file: Path, number: int, entry: object, kind: type[Record]) -> Record:
    if not isinstance(entry, dict):
        raise ValueError(f"entry {number} of {file} is a {type(entry).__name__}; expected an object.")
    try:
        return kind(**entry)
    except (TypeError, StrictDataclassFieldValidationError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the innermost names the value inside a list or an object
            cause = cause.__cause__
        raise ValueError(f"entry {number} of {file} is no {kind.__name__}: {cause}") from error


__all__ = ["RECORD_FILES", "Evaluation", "TrainingStage", "read_records", "write_records"]
