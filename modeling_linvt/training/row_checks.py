"""Checks all rows of a training data set before training begins, without decoding a video: only files are opened."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers.image_utils import is_valid_image
from transformers.utils import logging

from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.video.given_frames import check_given_frames
from linvt.processors.video.source_files import SourceFile, describe_source
from linvt.processors.video.video_container import VideoReadError, open_video
from linvt.processors.video.video_sources import SourceFrames
from linvt.processors.video.video_timeline import stated_seconds
from linvt.progress import Progress
from linvt.training.chat_prompts import ChatPrompt, chat_prompt, read_image, resolve_row_video
from linvt.training.row_streams import filter_stream, is_stream
from linvt.training.training_rows import ROW_NUMBER, BadRowError, number_rows


logger = logging.get_logger(__name__)

MAX_ROWS_LISTED = 20

_ROWS_AT_ONCE = 32  # that a worker checks before it reports


def keep_good_rows(
    dataset: Any,
    processor: LinVTProcessor,
    skip_bad_rows: bool = False,
    *,
    max_length: int | None = None,
    max_video_seconds: float | None = None,
    num_workers: int = 0,
) -> Any:
    """
    Returns the rows that can be trained on, as far as [`check_rows`] can tell.

    A stream, `datasets.IterableDataset` or `torch.utils.data.IterableDataset`, is checked as its rows come, by the
    process that reads it, and numbered if it is not.

    Args:
        dataset (`datasets.Dataset`, `list[dict]` or a stream): Rows; see [`check_rows`] for this and the rest.
        skip_bad_rows (`bool`, *optional*, defaults to `False`): Whether bad rows are left out instead of being an
            error: with one warning that lists them, or of a stream with one for each that counts them.

    Raises:
        [`BadRowError`]: If rows are bad and `skip_bad_rows` is `False`, or if all are. It lists them. Of a stream it
            names the first one, when that is reached.
    """
    if is_stream(dataset):
        if num_workers:
            raise ValueError(
                "num_workers is for rows that are there as a whole; a stream is checked where it is read."
            )
        check = _RowCheck(processor, max_length, max_video_seconds)
        return filter_stream(number_rows(dataset), _StreamCheck(check, skip_bad_rows))
    bad = check_rows(
        dataset, processor, max_length=max_length, max_video_seconds=max_video_seconds, num_workers=num_workers
    )
    if not bad:
        return dataset
    lines = [f"  {error}" for error in bad.values()]
    if len(lines) > MAX_ROWS_LISTED:
        lines[MAX_ROWS_LISTED:] = [f"  and {len(lines) - MAX_ROWS_LISTED} more"]
    report = f"{len(bad)} of {len(dataset)} rows are bad:\n" + "\n".join(lines)
    if not skip_bad_rows or len(bad) == len(dataset):
        raise BadRowError(f"{report}\nMend them, or leave them out with skip_bad_rows.")
    logger.warning(f"{report}\nThey are left out.")
    good = [number for number in range(len(dataset)) if number not in bad]
    return [dataset[number] for number in good] if isinstance(dataset, list) else dataset.select(good)


def check_rows(
    dataset: Any,
    processor: LinVTProcessor,
    *,
    max_length: int | None = None,
    max_video_seconds: float | None = None,
    num_workers: int = 0,
) -> dict[int, BadRowError]:
    """
    Finds the bad rows of a data set. Files of videos and of their frames are opened, but not decoded, so damage
    further inside shows only in training; files of images have to exist; URLs are not fetched.

    Of several ranks each checks its share, and all get the same result: all must call it together, not one after the
    other as in `main_process_first()`.

    Args:
        dataset (`datasets.Dataset` or `list[dict]`): Rows of TRL's conversational forms. Errors name them by the
            column `row_number` where there is one, else by their place.
        processor ([`LinVTProcessor`]): That of the model.
        max_length (`int`, *optional*): Tokens of a row above which it is bad. An image counts as one token here, since
            its number of tokens may depend on its size.
        max_video_seconds (`float`, *optional*): Length of a video file above which its row is bad, as far as the file
            states a length.
        num_workers (`int`, *optional*, defaults to 0): Processes that check rows, on each rank; 0 checks them in this
            process.

    Returns:
        `dict[int, BadRowError]`: By the place of the bad rows, ascending.

    Raises:
        `ValueError`: If the data set is a stream.
    """
    if is_stream(dataset):
        raise ValueError(
            f"The rows of a {type(dataset).__name__} cannot be checked before they are read; give it to "
            "keep_good_rows, which checks them as they come."
        )
    ranks = PartialState()
    rank, num_ranks = ranks.process_index, ranks.num_processes
    share = range(len(dataset) * rank // num_ranks, len(dataset) * (rank + 1) // num_ranks)
    loader = DataLoader(
        _CheckedRows(dataset, _RowCheck(processor, max_length, max_video_seconds)),
        batch_size=_ROWS_AT_ONCE,
        sampler=share,
        collate_fn=list,
        num_workers=num_workers,
        generator=torch.Generator(),  # or the loader would draw from the one that the training draws from
    )
    found: list[tuple[int, str, int]] = []
    with Progress("Checking rows", len(share), "row", hidden=rank > 0) as progress:
        for results in loader:
            found += [result for result in results if result is not None]
            progress.advance(len(results))
    if num_ranks > 1:
        found = gather_object(found)
    return {place: BadRowError(reason, number) for place, reason, number in sorted(found)}


@dataclass
class _RowCheck:
    """Checks single rows; raises a [`BadRowError`] for a bad one. The arguments are those of [`check_rows`]."""

    processor: LinVTProcessor
    max_length: int | None
    max_video_seconds: float | None
    good_files: set[Path] = field(default_factory=set)  # videos that were opened: several rows may be about one

    def __call__(self, row: dict) -> None:
        prompt = chat_prompt(row, self.processor)
        if self.max_length is not None:
            num_tokens = _count_tokens(prompt, self.processor)
            if num_tokens > self.max_length:
                raise BadRowError(f"it has {num_tokens} tokens, and max_length is {self.max_length}.")
        for video in prompt.chat.videos:
            source = resolve_row_video(video)
            try:
                self._check_video(source)
            except (TypeError, VideoReadError) as error:
                raise BadRowError(str(error)) from error
        for image in prompt.chat.images:
            _check_image(image, self.processor)

    def _check_video(self, source: SourceFile | SourceFrames) -> None:
        """Opens what can be opened without a download. Everything else is known from the resolved source."""
        if isinstance(source, SourceFrames):
            check_given_frames(source)
            return
        content = source.content
        if isinstance(content, str) or not source.can_be_reread:  # a URL, or a stream that reading would use up
            return
        if isinstance(content, Path) and content in self.good_files:
            return
        with open_video(content, source.name) as (container, stream):
            seconds = stated_seconds(stream) or (container.duration or 0) / av.time_base
        if self.max_video_seconds is not None and seconds > self.max_video_seconds:
            raise BadRowError(
                f"{source.name} is {seconds:.1f} s long, and max_video_seconds is {self.max_video_seconds:g}."
            )
        if isinstance(content, Path):
            self.good_files.add(content)


class _CheckedRows:
    """What is wrong with each row of a data set, for a dataloader: its place, the reason and its number, or `None`."""

    def __init__(self, dataset: Any, check: _RowCheck):
        self.dataset, self.check = dataset, check

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: int) -> tuple[int, str, int] | None:
        row = self.dataset[place]
        try:
            self.check(row)
        except BadRowError as error:
            number = row.get(ROW_NUMBER)
            return place, error.reason, place if number is None else int(number)
        return None


class _StreamCheck:
    """Tells for the numbered rows of a stream which ones are good. A bad one is warned about once, or is an error."""

    def __init__(self, check: _RowCheck, skip_bad_rows: bool):
        self.check, self.skip_bad_rows = check, skip_bad_rows
        self.bad_rows: set[int] = set()

    def __call__(self, row: dict) -> bool:
        try:
            self.check(row)
        except BadRowError as error:
            number = int(row[ROW_NUMBER])
            numbered = BadRowError(error.reason, number)
            if not self.skip_bad_rows:
                raise numbered from error
            if number not in self.bad_rows:
                self.bad_rows.add(number)
                logger.warning(f"{numbered} It is left out ({len(self.bad_rows)} so far).")
            return False
        return True


def _count_tokens(prompt: ChatPrompt, processor: LinVTProcessor) -> int:
    """Counts the tokens of a prompt with all tokens of its videos, of which only one each is tokenized."""
    presented = processor.replace_video_token({}, 0)
    once = presented.replace(processor.image_token * processor.num_video_tokens, processor.image_token)
    text = prompt.text.replace(processor.video_token, once)
    bos = processor.tokenizer.bos_token
    add_special_tokens = bos is None or not text.startswith(bos)
    num_tokens = len(processor.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
    return num_tokens + prompt.text.count(processor.video_token) * (processor.num_video_tokens - 1)


def _check_image(image: Any, processor: LinVTProcessor) -> None:
    """Looks for files of images; what is a picture itself, in base 64, is read as in training."""
    if is_valid_image(image):
        return
    if not isinstance(image, str):
        raise BadRowError(f"an image was given as {type(image).__name__}; give a picture, or its path or URL as text.")
    if not image.startswith(("http://", "https://")) and not os.path.isfile(image):
        try:
            read_image(image, processor)
        except BadRowError as error:
            raise BadRowError(f"an image, {describe_source(image)}, is neither a file nor base64.") from error


__all__ = ["check_rows", "keep_good_rows"]
