"""Asks a model about videos that it has seen, and tells how it came to its answers."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linvt_cli.cli_models import SMALL_MODEL_NOTE, LoadedModel
from linvt_cli.cli_output import StreamedRow, printable, say, table
from linvt_cli.cli_seeing import SeenVideo


if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedTokenizerBase

INDENT = 8  # of what is printed about videos and answers, part by part


@dataclass(frozen=True)
class Answer:
    """
    Holds an answer and how it came about.

    Args:
        question (`str`), text (`str`): What was asked and answered.
        num_prompt_tokens (`int`): Tokens that went into the LLM, those of videos among them.
        unknown_words (`list[str]`): Words of the question that the tokenizer does not know.
    """

    question: str
    text: str
    num_prompt_tokens: int
    unknown_words: list[str]


def add_answer_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="video tokens to make of a video, where the video tokenizer leaves that free, as one that merges does "
        "(default: that of the model)",
    )
    command.add_argument("--max-new-tokens", type=int, default=64, help="longest answer, in tokens (default: 64)")


class Questioner:
    """
    Asks one model about videos.

    Args:
        loaded ([`LoadedModel`]): The model.
        options (`argparse.Namespace`): With `tokens` and `max_new_tokens`.

    Raises:
        `ValueError`: If the model cannot make so many video tokens of a video.
    """

    def __init__(self, loaded: LoadedModel, options: argparse.Namespace):
        self.loaded, self.tokens, self.max_new_tokens = loaded, options.tokens, options.max_new_tokens
        if self.tokens is not None:
            loaded.model.config.video_tokenizer_config.check_num_video_tokens(self.tokens)
        self.num_video_tokens: int = loaded.processor.num_video_tokens if self.tokens is None else self.tokens

    def check(self, question: str) -> None:
        """
        Refuses a question that no prompt can hold, before time is spent on videos.

        Raises:
            `ValueError`: If it holds a mark of a video or an image, or nothing.
        """
        if not question.strip():
            raise ValueError("a question is empty; ask something.")
        content = [{"type": "video", "video": ""}, {"type": "text", "text": question}]
        self.loaded.processor.apply_chat_template([{"role": "user", "content": content}])

    def prompt(self, videos: list[SeenVideo], question: str, history: Iterable[dict] = ()) -> "BatchFeature":
        """
        Returns the model inputs of a question. The videos stand in its turn, also behind earlier ones: a video
        tokenizer that reads the instruction reads that of the turn of the video, so video tokens are made for this
        question.

        Args:
            history (`Iterable[dict]`, *optional*): Messages before it, as chat templates take them.
        """
        import numpy as np

        # A prompt is the same whatever the video shows, so one that has its tokens already is read as a blank one.
        blank = np.zeros((1, 16, 16, 3), np.uint8)
        keeps_tokens = all(video.memory is not None for video in videos)
        settings: dict[str, Any] = {} if self.tokens is None else {"num_video_tokens": self.tokens}
        if not keeps_tokens:
            settings |= {"num_frames": 1, "shot_detection": "uniform", "video_metadata": [{"fps": 1.0}] * len(videos)}
        content = [{"type": "video", "video": blank if video.memory is None else video.memory} for video in videos]
        inputs: Any = self.loaded.processor.apply_chat_template(
            [*history, {"role": "user", "content": [*content, {"type": "text", "text": question}]}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs=settings,
        )
        if not keeps_tokens:
            inputs.pop("pixel_values_videos")
            inputs.update(_joined([video.frame_tokens for video in videos]))
        return inputs.to(self.loaded.model.device)

    def answer(self, question: str, prompt: "BatchFeature", on_text: Callable[[str], None] | None = None) -> Answer:
        """
        Answers a question.

        Args:
            prompt (`BatchFeature`): That of the question.
            on_text (`Callable[[str], None]`, *optional*): Gets the answer piece by piece as it is generated.
        """
        tokenizer, num_prompt_tokens = self.loaded.processor.tokenizer, prompt["input_ids"].shape[1]
        output = self.loaded.model.generate(
            **prompt,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            streamer=None if on_text is None else _streamer(tokenizer, on_text),
        )
        text = self.loaded.processor.decode(output[0, num_prompt_tokens:], skip_special_tokens=True)
        return Answer(question, text, num_prompt_tokens, unknown_words(question, tokenizer))

    def ask(self, videos: list[SeenVideo], question: str) -> Answer:
        """Answers a question without printing anything."""
        return self.answer(question, self.prompt(videos, question))

    def merged_frame_tokens(self, videos: list[SeenVideo]) -> int | None:
        """Counts the frame tokens that are merged without anything learnt; `None` where something is."""
        if not self.loaded.model.video_tokenizer.only_merges:
            return None
        return sum(video.num_kept_tokens or 0 for video in videos)

    def notes(self, videos: list[SeenVideo]) -> list[str]:
        """Returns what a person should know of this model before reading answers about these videos."""
        notes = [SMALL_MODEL_NOTE] if self.loaded.is_small else []
        merged = self.merged_frame_tokens(videos)
        return notes if merged is None else [*notes, self._merging_note(videos, merged)]

    def tokens_row(self, videos: list[SeenVideo], num_prompt_tokens: int | None = None) -> str:
        """Says how many tokens the videos had, and have for the LLM."""
        in_all = [video.num_frame_tokens for video in videos]
        kept = sum(video.num_kept_tokens or 0 for video in videos)
        found = f"{kept} kept" if None in in_all else f"{sum(filter(None, in_all))} of the frames"
        prompt = "" if num_prompt_tokens is None else f"; {num_prompt_tokens} into the LLM with the text"
        each = "the" if len(videos) == 1 else "each"
        return f"{found} -> {self.num_video_tokens} of {each} video{prompt}"

    def _merging_note(self, videos: list[SeenVideo], merged: int) -> str:
        """Says what became of the frame tokens; of other parts, such as LoRA in the LLM, weights do not tell."""
        note, number = "nothing was trained in the video tokenizer; ", self.num_video_tokens
        if len(videos) > 1:
            return f"{note}{merged} frame tokens are merged into {number} video tokens of each video"
        if merged < number:
            return (
                f"{note}{merged} frame tokens are fewer than {number} video tokens, so they are repeated, not merged"
            )
        in_all = videos[0].num_frame_tokens
        kept = f", of {in_all}," if in_all is not None and merged < in_all else ""
        return f"{note}{merged} frame tokens{kept} are merged into {number} video tokens"


def say_about(questioner: Questioner, videos: list[SeenVideo]) -> None:
    """Prints what a person should know before answers about these videos."""
    notes = questioner.notes(videos)
    if notes:
        say(table({"note": "; ".join(notes)}, INDENT) + "\n")
    for video in videos:
        say(table(video.rows(), INDENT) + "\n")


def say_answer(
    questioner: Questioner,
    videos: list[SeenVideo],
    question: str,
    history: Iterable[dict] = (),
    *,
    with_tokens: bool = False,
) -> Answer:
    """Answers a question, and prints the answer while it is generated."""
    prompt = questioner.prompt(videos, question, history)
    words = unknown_words(question, questioner.loaded.processor.tokenizer)
    rows = {"note": f"it does not know the words {', '.join(words)}"} if words else {}
    if with_tokens:
        rows["tokens"] = questioner.tokens_row(videos, prompt["input_ids"].shape[1])
    if rows:
        say(table(rows, INDENT) + "\n")
    row = StreamedRow("text", INDENT)
    answer = questioner.answer(question, prompt, row.write)
    row.end()
    return answer


def unknown_words(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Returns the words that the tokenizer maps to its unknown token, as a terminal can show them."""
    encoding = tokenizer(text, return_offsets_mapping=True)
    spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
    unknown = [(start, end) for token, (start, end) in spans if token == tokenizer.unk_token_id and end > start]
    return [printable(text[start:end]) for start, end in unknown]


def _streamer(tokenizer: "PreTrainedTokenizerBase", on_text: Callable[[str], None]) -> Any:
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            on_text(text)

    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


def _joined(videos: list[dict]) -> dict:
    """The inputs of several videos as those of a batch."""
    import torch

    return {name: torch.cat([video[name] for video in videos]) for name in videos[0]}
