"""Rows of video chats to batches for training: TRL's `SFTTrainer` with `remove_unused_columns=False` and
`dataset_kwargs={"skip_prepare_dataset": True}`.

Videos are read when their batch is made, so with dataloader workers that happens beside the training.
"""

from dataclasses import dataclass

import jinja2
import torch
from transformers.utils import logging

from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.prompts.answer_turns import Span, prompt_with_answers
from linvt.processors.prompts.chat_visuals import ChatVisuals
from linvt.processors.prompts.prompt_marks import answer_mask, mark_videos
from linvt.processors.video.source_files import describe_source
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_sources import resolve_video
from linvt.training.training_rows import ROW_NUMBER, BadRowError, read_row


logger = logging.get_logger(__name__)

IGNORED = -100  # the label of tokens without loss, as Transformers has it

# What is trained on where every row of a batch is bad. A rank that raised would leave the others waiting, and the mean
# over a batch without labels is 0 / 0, whose gradient spoils all weights. Two words of text move an LLM that can talk
# by next to nothing, and the video tokenizer not at all.
STAND_IN = {"messages": [{"role": "user", "content": "Say OK."}, {"role": "assistant", "content": "OK"}]}


@dataclass
class ChatPrompt:
    """
    A row as a prompt, before its videos and images are read.

    Args:
        text (`str`): The prompt, with the processor's tokens for images and videos.
        answers (`list[tuple[int, int]]`): Characters of it that are to be learnt, half open.
        chat ([`ChatVisuals`]): Its videos and images.
    """

    text: str
    answers: list[Span]
    chat: ChatVisuals


def chat_prompt(row: dict, processor: LinVTProcessor) -> ChatPrompt:
    """
    The prompt of a row of TRL's conversational forms; no file is opened.

    Raises:
        [`BadRowError`]: As [`read_row`] does, or if the chat template cannot write this conversation.
    """
    chat, first_answer = read_row(row)
    template = processor.resolve_template()
    headers = processor.turn_headers(template)
    try:
        prompt, answers = prompt_with_answers(
            lambda messages: processor.render_chats(template, [messages])[0][0],
            chat.messages,
            first_answer,
            headers,
            processor.tokenizer.eos_token,
        )
        text, shift = mark_videos(prompt, chat.kinds, processor.image_token, processor.video_token)
        place = text.find(processor.video_token)
        while place >= 0:
            headers.user_turn(text, place)
            place = text.find(processor.video_token, place + 1)
    except (jinja2.TemplateError, ValueError) as error:
        raise BadRowError(str(error)) from error
    return ChatPrompt(text, [(shift(start), shift(end)) for start, end in answers], chat)


def read_video_inputs(video, processor: LinVTProcessor, video_kwargs: dict) -> dict[str, torch.Tensor]:
    """Reads one video as the model takes it; a [`BadRowError`] if it cannot be read."""
    try:
        source = resolve_video(video)
    except (TypeError, VideoReadError) as error:
        raise BadRowError(str(error)) from error
    try:
        return processor.video_processor([source], return_tensors="pt", **video_kwargs)
    except VideoReadError as error:  # other errors are those of the settings, and no row's fault
        raise BadRowError(str(error)) from error


def read_image(image, processor: LinVTProcessor):
    """Reads one image as the image-LLM's processor does; a [`BadRowError`] if it cannot be read."""
    try:
        return processor.image_processor.fetch_images(image)
    except Exception as error:  # HTTP clients and decoders raise their own, and here nothing is done but to read
        reason = f"{type(error).__name__}: {str(error)[:200]}"
    # Outside, without the error itself: Transformers' repeats a picture that is given as text, however long it is.
    raise BadRowError(f"an image, {describe_source(image)}, cannot be read: {reason}")


class VideoChatCollator:
    """
    Makes a batch of rows of TRL's conversational forms ([`read_row`] has them). Rows with videos, with images, with
    both and with text alone may stand in one batch.

    Labels are the answers, each to the end of its turn, and -100 everywhere else. Nothing is ever truncated.

    Args:
        processor ([`LinVTProcessor`]):
            That of the model.
        frame_token_cache (`FrameTokenCache`, *optional*):
            Gives V of every video from disk, so that no video is decoded and no encoder runs.
        max_length (`int`, *optional*):
            Tokens of a row above which it is bad.
        skip_bad_rows (`bool`, *optional*, defaults to `False`):
            Whether bad rows are left out, with a warning for each, instead of ending the training. Where all rows of a
            batch are bad, [`STAND_IN`] takes their place.
        processor_kwargs (`dict`, *optional*):
            Arguments of the processor, such as `num_frames`.

    Attributes:
        skipped (`dict[int, str]`): Why a row was left out, by its `row_number`, or without this column its place in
            the order of training. Every dataloader worker has its own.
    """

    def __init__(
        self,
        processor: LinVTProcessor,
        frame_token_cache=None,
        max_length: int | None = None,
        skip_bad_rows: bool = False,
        processor_kwargs: dict | None = None,
    ):
        self.processor = processor
        self.frame_token_cache = frame_token_cache
        self.max_length = max_length
        self.skip_bad_rows = skip_bad_rows
        text_kwargs, self.image_kwargs, self.video_kwargs = processor.split_kwargs(processor_kwargs or {})
        self.text_kwargs = {**text_kwargs, "padding": True, "padding_side": "right", "truncation": False}
        self.skipped: dict[int, str] = {}
        self.num_rows = 0  # that came so far

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """
        Returns:
            `dict[str, torch.Tensor]`: `input_ids`, `attention_mask`, `labels`, `mm_token_type_ids` and
            `instruction_turns`, all int64 of shape `(rows, length)` and padded on the right; what the image-LLM takes
            for images; and with videos what [`VideoInputs`] holds, with a cache V in place of the frames.

        Raises:
            [`BadRowError`]: For the first bad row, unless `skip_bad_rows`.
        """
        good = []
        for row in rows:
            number = row.get(ROW_NUMBER)
            number = self.num_rows if number is None else int(number)
            self.num_rows += 1
            try:
                prompt = chat_prompt(row, self.processor)
                images = [read_image(image, self.processor) for image in prompt.chat.images]
                good.append((number, prompt, images, self._read_videos(prompt.chat)))
            except BadRowError as error:
                self._skip(number, error.reason)
        batch = self._batch([content for _, *content in good]) if good else None
        if batch is not None and self.max_length is not None:
            lengths = batch["attention_mask"].sum(1).tolist()
            for (number, *_), length in zip(good, lengths, strict=True):
                if length > self.max_length:
                    self._skip(number, f"it has {length} tokens, and max_length is {self.max_length}.")
            kept = [row for row, length in zip(good, lengths, strict=True) if length <= self.max_length]
            if len(kept) < len(good):
                batch = self._batch([content for _, *content in kept]) if kept else None
        return self._batch([(chat_prompt(STAND_IN, self.processor), [], [])]) if batch is None else batch

    def _skip(self, number: int, reason: str) -> None:
        if not self.skip_bad_rows:
            raise BadRowError(reason, number)
        if number not in self.skipped:
            logger.warning(f"{BadRowError(reason, number)} It is left out.")
            self.skipped[number] = reason

    def _read_videos(self, chat: ChatVisuals) -> list[dict[str, torch.Tensor]]:
        """Per video what the model takes for it."""
        if self.frame_token_cache is not None:
            return [self.frame_token_cache.load(video, **self.video_kwargs) for video in chat.videos]
        return [read_video_inputs(video, self.processor, self.video_kwargs) for video in chat.videos]

    def _batch(self, rows: list[tuple[ChatPrompt, list, list]]) -> dict[str, torch.Tensor]:
        prompts = [prompt for prompt, _, _ in rows]
        template, bos = self.processor.resolve_template(), self.processor.tokenizer.bos_token
        text_kwargs = dict(self.text_kwargs)
        if bos is not None and prompts[0].text.startswith(bos):
            text_kwargs.setdefault("add_special_tokens", False)  # the template has written it
        features, moves = self.processor.fill_prompts(
            [prompt.text for prompt in prompts],
            [image for _, images, _ in rows for image in images],
            _batch_of_videos([video for _, _, videos in rows for video in videos]),
            template,
            text_kwargs,
            self.image_kwargs,
        )
        features.convert_to_tensors("pt")
        learnt = [
            answer_mask(spans, prompt.answers, replaced)
            for (spans, replaced), prompt in zip(moves, prompts, strict=True)
        ]
        labels = features["input_ids"].masked_fill(torch.tensor(learnt) == 0, IGNORED)
        return {**features, "labels": labels}


def _batch_of_videos(videos: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Joins the inputs of single videos: frames of all videos in a row, and a count per video."""
    return {name: torch.cat([video[name] for video in videos]) for name in (videos[0] if videos else ())}


__all__ = ["STAND_IN", "ChatPrompt", "VideoChatCollator", "chat_prompt", "read_image", "read_video_inputs"]
