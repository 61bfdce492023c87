"""Checks all rows of a training data set before training begins, without decoding a video: only files are opened."""

import os

import av
from tqdm import tqdm
from transformers.image_utils import is_valid_image
from transformers.utils import logging

from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.video.given_frames import check_given_frames
from linvt.processors.video.source_files import describe_source
from linvt.processors.video.video_container import VideoReadError, open_video
from linvt.processors.video.video_sources import SourceFrames, resolve_video
from linvt.processors.video.video_timeline import stated_seconds
from linvt.training.training_rows import ROW_NUMBER, BadRowError
from linvt.training.video_chat_collator import chat_prompt, read_image


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
    Finds what is wrong with the rows of a data set. Files of videos and of their frames are opened, but not decoded,
    so damage further inside shows only in training; files of images are looked for; URLs are not fetched.

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
        _check_video(video, max_video_seconds)
    for image in prompt.chat.images:
        _check_image(image, processor)


def _check_video(video, max_video_seconds: float | None) -> None:
    """Asks what the reader asks, and opens what can be opened without a download."""
    try:
        source = resolve_video(video)
        if isinstance(source, SourceFrames):
            check_given_frames(source)
            return
        if not source.can_be_reread:
            return
        with open_video(source.content, source.name) as (container, stream):
            seconds = stated_seconds(stream) or (container.duration or 0) / av.time_base
    except (TypeError, VideoReadError) as error:
        raise BadRowError(str(error)) from error
    if max_video_seconds is not None and seconds > max_video_seconds:
        raise BadRowError(f"{source.name} is {seconds:.1f} s long, and max_video_seconds is {max_video_seconds:g}.")


def _check_image(image, processor: LinVTProcessor) -> None:
    """Looks for files of images; what is a picture itself, in base 64, is read as in training."""
    if is_valid_image(image):
        return
    if not isinstance(image, str):
        raise BadRowError(f"an image was given as {type(image).__name__}; give a picture, or its path or URL as text.")
    if not image.startswith(("http://", "https://")) and not os.path.isfile(image):
        try:
            read_image(image, processor)
        except BadRowError as error:
            raise BadRowError(
                f"an image, {describe_source(image)}, is no file and no base 64 of a picture."
            ) from error


__all__ = ["check_rows", "keep_good_rows"]
