"""Reads rows of a training data set, in TRL's conversational forms; errors name the row and what is wrong with it.

A row is `{"messages": [...]}`, or `{"prompt": [...], "completion": [...]}` of which only the completion is learnt.
Messages hold text as a string or as parts; a video or an image part names its file or frames itself
(`{"type": "video", "video": path}`) or is filled from the columns `videos` and `images`, in order. A column `video` or
`image` holds one.
"""

from collections.abc import Sequence
from typing import Any

from linvt.processors.prompts.chat_visuals import (
    IMAGE_KEYS,
    VIDEO_KEYS,
    ChatVisuals,
    chat_visuals,
    describe_part,
    read_messages,
)
from linvt.training.row_streams import is_stream, map_stream


_SOURCES = {"video": VIDEO_KEYS, "image": IMAGE_KEYS}
_TEXT_PART = '{"type": "text", "text": ...}'

ROW_NUMBER = "row_number"
"""The column that says which row of the data set a row is, however the data set was shuffled."""


class BadRowError(ValueError):
    """
    A row cannot be trained on.

    Args:
        reason (`str`): What was found, and what was expected.
        row_number (`int`, *optional*): Which row of the data set it is.
    """

    def __init__(self, reason: str, row_number: int | None = None):
        super().__init__(reason if row_number is None else f"Row {row_number}: {reason}")
        self.reason, self.row_number = reason, row_number


def number_rows(dataset):
    """
    Adds the column `row_number` to a data set, so that errors name rows as the data set has them, whatever the order.

    Args:
        dataset (`datasets.Dataset`, `list[dict]`, or a stream, `datasets.IterableDataset` or
            `torch.utils.data.IterableDataset`): Not yet shuffled. Rows that have the column keep their numbers. Those
            of a stream are counted as they are read; where dataloader workers share its shards, each counts its own.

    Returns:
        A data set of the same kind.
    """
    if isinstance(dataset, list):
        return [_numbered(row, number) for number, row in enumerate(dataset)]
    if is_stream(dataset):
        return map_stream(dataset, _numbered)
    if ROW_NUMBER in dataset.column_names:
        return dataset
    return dataset.add_column(ROW_NUMBER, list(range(len(dataset))))


def _numbered(row: dict, number: int) -> dict:
    return {ROW_NUMBER: number, **row}


def read_row(row: dict) -> tuple[ChatVisuals, int]:
    """
    Reads the conversation of a row, and the number of the message from which on answers are learnt.

    Raises:
        [`BadRowError`]: If the row has another form, an answer is missing or empty, or videos and images do not match
            their places in the messages.
    """
    messages, first_answer = _messages(row)
    columns = {kind: _column(row, kind) for kind in _SOURCES}
    left = {kind: list(visuals) for kind, (_, visuals) in columns.items()}
    messages = [_with_parts(message, number, left, columns) for number, message in enumerate(messages)]
    for kind, (column, visuals) in columns.items():
        if left[kind]:
            raise BadRowError(
                f"the column '{column}' has {len(visuals)}, but the messages have empty places "
                f'({{"type": "{kind}"}}) for {len(visuals) - len(left[kind])} of them.'
            )
    _check_answers(messages, first_answer)
    try:
        return chat_visuals(messages), first_answer
    except ValueError as error:
        raise BadRowError(str(error)) from error


class RowVideos(Sequence):
    """
    Lists the videos of each row of a data set when they are asked for: `videos[i]` is a list.

    Raises:
        `ValueError`: If the data set is a stream.
    """

    def __init__(self, dataset: Any):
        if is_stream(dataset):
            raise ValueError(
                f"The videos of a {type(dataset).__name__} cannot be listed before they are trained on, as its rows "
                "come one after the other. Load the data set without streaming, or do without a frame token cache."
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> list:  # type: ignore[override]  # no slices, which would read many rows
        return read_row(self.dataset[index])[0].videos


def _messages(row: dict) -> tuple[list, int]:
    if row.get("messages") is not None:
        parts = [row["messages"]]
    elif row.get("prompt") is not None and row.get("completion") is not None:
        parts = [row["prompt"], row["completion"]]
    else:
        raise BadRowError(
            f"it has the columns {sorted(set(row) - {ROW_NUMBER})}; expected 'messages', or 'prompt' and 'completion'."
        )
    try:
        parts = [read_messages(part) for part in parts]
    except ValueError as error:
        raise BadRowError(str(error)) from error
    return [message for part in parts for message in part], len(parts[0]) if len(parts) == 2 else 0


def _column(row: dict, kind: str) -> tuple[str, list]:
    """The videos or images that stand beside the messages of a row, and the name of their column."""
    one, several = row.get(kind), row.get(f"{kind}s")
    if several is not None and not isinstance(several, (list, tuple)):
        raise BadRowError(f"the column '{kind}s' holds {type(several).__name__}; expected a list.")
    if one is not None and several:
        raise BadRowError(f"it has {kind}s in both columns, '{kind}' and '{kind}s'; leave one of them empty.")
    return (f"{kind}s", list(several or [])) if one is None else (kind, [one])


def _with_parts(message: dict, number: int, left: dict[str, list], columns: dict[str, tuple[str, list]]) -> dict:
    """A message whose content is a list of parts, whose empty places are filled from what is left of the columns."""
    content = message.get("content", [])
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for part in content:
        if part.get("type") == "text" and not isinstance(part.get("text"), str):
            raise BadRowError(f"message {number} has the part {describe_part(part)}; expected {_TEXT_PART} or such.")
        if message.get("role") != "user" and part.get("type") != "text":
            raise BadRowError(
                f"message {number} of role {message.get('role')!r} holds more than text; only users may."
            )
    return {**message, "content": [_filled(part, number, left, columns) for part in content]}


def _filled(part: dict, number: int, left: dict[str, list], columns: dict[str, tuple[str, list]]) -> dict:
    kind = part.get("type")
    if kind not in _SOURCES or any(name in part for name in _SOURCES[kind]):
        return part
    if not left[kind]:
        column, visuals = columns[kind]
        raise BadRowError(
            f"message {number} has a place for a {kind} and there is none for it: the part names none, and the column "
            f"'{column}' has {len(visuals)}."
        )
    return {**part, kind: left[kind].pop(0)}


def _check_answers(messages: list[dict], first_answer: int) -> None:
    answers = [number for number in range(first_answer, len(messages)) if messages[number].get("role") == "assistant"]
    if not answers:
        raise BadRowError("it has no answer to learn: no message of role 'assistant'.")
    for number in answers:
        if not "".join(part.get("text", "") for part in messages[number]["content"]).strip():
            raise BadRowError(f"the answer in message {number} is empty.")


__all__ = ["ROW_NUMBER", "BadRowError", "RowVideos", "number_rows", "read_row"]
