"""Checks all rows of a training data set before training begins, without decoding a video: only files are opened."""

import os

import av
from tqdm import tqdm
from transformers.utils import logging

from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.video.video_container import VideoReadError, describe_source, open_video
from linvt.processors.video.video_timeline import stated_seconds
from linvt.processors.video_processing_linvt import is_file
from linvt.training.chat_prompts import chat_prompt
from linvt.training.training_rows import ROW_NUMBER, BadRowError


logger = logging.get_logger(__name__)

MAX_ROWS_LISTED = 20


def keep_good_rows(
    dataset,
    processor: LinVTProcessor,
    skip_bad_rows: bool = False,
    max_length: int | None = None,
    max_video_seconds: float | None = None,
):
    """
    The rows that can be trained on, as far as [`check_rows`] can tell.

    Args:
        dataset (`datasets.Dataset` or `list[dict]`): Rows; see [`check_rows`] for this and the rest.
        skip_bad_rows (`bool`, *optional*, defaults to `False`): Whether bad rows are left out, with one warning that
            lists them, instead of being an error.

    Raises:
        [`BadRowError`]: If rows are bad and `skip_bad_rows` is `False`, or if all are. It lists them.
    """
    bad = check_rows(dataset, processor, max_length, max_video_seconds)
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
    dataset,
    processor: LinVTProcessor,
    max_length: int | None = None,
    max_video_seconds: float | None = None,
) -> dict[int, BadRowError]:
    """
    What is wrong with the rows of a data set. A video file is opened, but not decoded, so damage further inside shows
    only in training; what lies behind a URL is not fetched.

    Args:
        dataset (`datasets.Dataset` or `list[dict]`): Rows of TRL's conversational forms. Errors name them by the
            column `row_number` where there is one, else by their place.
        processor ([`LinVTProcessor`]): That of the model.
        max_length (`int`, *optional*): Tokens of a row above which it is bad. An image counts as one token here, since
            its number of tokens may depend on its size.
        max_video_seconds (`float`, *optional*): Length of a video file above which its row is bad, as far as the file
            states a length.

    Returns:
        `dict[int, BadRowError]`: By the place of the bad rows, ascending.
    """
    bad = {}
    for place in tqdm(range(len(dataset)), desc="Checking rows", unit="row", disable=None):
        row = dataset[place]
        try:
            _check_row(row, processor, max_length, max_video_seconds)
        except BadRowError as error:
            number = row.get(ROW_NUMBER)
            bad[place] = BadRowError(error.reason, place if number is None else int(number))
    return bad


def _check_row(row: dict, processor: LinVTProcessor, max_length: int | None, max_video_seconds: float | None) -> None:
    prompt = chat_prompt(row, processor)
    if max_length is not None:
        filled = prompt.text.replace(processor.video_token, processor.replace_video_token({}, 0))
        bos = processor.tokenizer.bos_token
        add_special_tokens = bos is None or not filled.startswith(bos)
        num_tokens = len(processor.tokenizer(filled, add_special_tokens=add_special_tokens)["input_ids"])
        if num_tokens > max_length:
            raise BadRowError(f"it has {num_tokens} tokens, and max_length is {max_length}.")
    for video in prompt.chat.videos:
        if is_file(video):
            _check_file(video, max_video_seconds)
        elif isinstance(video, (list, tuple)):
            for frame in video:
                if _is_local_name(frame) and not os.path.isfile(frame):
                    raise BadRowError(f"a frame of a video, {os.fspath(frame)!r}, is no file.")
    for image in prompt.chat.images:
        # A string may also be a picture itself, in base 64; those are long.
        if _is_local_name(image) and len(os.fspath(image)) < 1000 and not os.path.isfile(image):
            raise BadRowError(f"an image, {os.fspath(image)!r}, is no file.")


def _check_file(video, max_video_seconds: float | None) -> None:
    if not isinstance(video, bytes) and not _is_local_name(video):
        return
    name = describe_source(video)
    try:
        with open_video(video, name) as (container, stream):
            seconds = stated_seconds(stream) or (container.duration or 0) / av.time_base
    except VideoReadError as error:
        raise BadRowError(str(error)) from error
    if max_video_seconds is not None and seconds > max_video_seconds:
        raise BadRowError(f"{name} is {seconds:.1f} s long, and max_video_seconds is {max_video_seconds:g}.")


def _is_local_name(source) -> bool:
    is_name = isinstance(source, (str, os.PathLike))
    return is_name and not str(source).lower().startswith(("http://", "https://", "data:"))


__all__ = ["check_rows", "keep_good_rows"]
