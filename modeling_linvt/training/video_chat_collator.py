"""Makes batches of rows of video chats, for `VideoSFTTrainer`.

Also for `transformers.Trainer` and TRL's `SFTTrainer` with `remove_unused_columns=False`, the latter with
`dataset_kwargs={"skip_prepare_dataset": True}` too. Videos are read when their batch is made, so with dataloader
workers that happens beside the training.
"""

import torch
from transformers.utils import logging

from linvt.configuration.input_values import IGNORED_LABEL
from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.prompts.chat_visuals import ChatVisuals
from linvt.processors.prompts.prompt_marks import answer_mask
from linvt.training.chat_prompts import ChatPrompt, chat_prompt, read_image, read_video_inputs
from linvt.training.frame_token_cache import FrameTokenCache
from linvt.training.training_rows import ROW_NUMBER, BadRowError


logger = logging.get_logger(__name__)

# Stands in for a batch whose rows are all bad. A rank that raised would leave the others waiting, and the mean over a
# batch without labels is 0 / 0, whose gradient spoils all weights. A two-word text row barely changes a trained LLM,
# and the video tokenizer not at all.
STAND_IN = {"messages": [{"role": "user", "content": "Say OK."}, {"role": "assistant", "content": "OK"}]}


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
            Arguments of the processor, such as `num_frames`. Not `num_video_tokens`: a model is trained with that of
            its configuration.

    Raises:
        `ValueError`: If `processor_kwargs` have `num_video_tokens`.

    Attributes:
        skipped (`dict[int, str]`): Why a row was left out, by its `row_number`, or without this column its place in
            the order of training. Every dataloader worker has its own.
    """

    def __init__(
        self,
        processor: LinVTProcessor,
        frame_token_cache: FrameTokenCache | None = None,
        *,
        max_length: int | None = None,
        skip_bad_rows: bool = False,
        processor_kwargs: dict | None = None,
    ):
        self.processor = processor
        self.frame_token_cache = frame_token_cache
        self.max_length = max_length
        self.skip_bad_rows = skip_bad_rows
        arguments = processor.split_kwargs(processor_kwargs or {})
        if arguments.num_video_tokens is not None:
            raise ValueError(
                f"num_video_tokens is {arguments.num_video_tokens} in processor_kwargs, but in training a video has "
                f"the {processor.num_video_tokens} tokens of its model's configuration; choose them there, with "
                "num_queries."
            )
        self.image_kwargs, self.video_kwargs = arguments.images, arguments.videos
        self.text_kwargs = {**arguments.text, "padding": True, "padding_side": "right", "truncation": False}
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
        batch = self._batch([row[1:] for row in good]) if good else None
        if batch is not None and self.max_length is not None:
            lengths = batch["attention_mask"].sum(1).tolist()
            for (number, *_), length in zip(good, lengths, strict=True):
                if length > self.max_length:
                    self._skip(number, f"it has {length} tokens, and max_length is {self.max_length}.")
            kept = [row for row, length in zip(good, lengths, strict=True) if length <= self.max_length]
            if len(kept) < len(good):
                batch = self._batch([row[1:] for row in kept]) if kept else None
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
            text_kwargs["add_special_tokens"] = False  # the template has written it
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
        labels = features["input_ids"].masked_fill(torch.tensor(learnt) == 0, IGNORED_LABEL)
        return {**features, "labels": labels}


def _batch_of_videos(videos: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Joins the inputs of single videos: frames of all videos in a row, and a count per video."""
    return {name: torch.cat([video[name] for video in videos]) for name in (videos[0] if videos else ())}


__all__ = ["STAND_IN", "VideoChatCollator"]
