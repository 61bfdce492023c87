"""Prompts for the pipeline from all forms in which videos, questions and conversations come to it.

No video is read here, and a stream of inputs becomes a stream of prompts.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain, zip_longest
from typing import Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset
from transformers.pipelines.any_to_any import Chat
from transformers.video_utils import is_valid_video_frame


class VideoPrompt(Chat):
    """
    Holds a conversation for the model.

    Args:
        messages (`list[dict]`): Its messages.
        question (`str`, *optional*): The question, if the conversation was made of a video and a question.
    """

    def __init__(self, messages: list[dict], question: str | None = None):
        super().__init__(messages)
        self.question = question


class VideoPrompts(Dataset):
    """
    Makes prompts of inputs that are found by number, which dataloader workers can share.

    Args:
        inputs: Videos; or, without questions, conversations and pairs of a video and a question.
        questions (*optional*): One `str` for all videos, or one for each.
    """

    def __init__(self, inputs: Sequence | Dataset, questions: str | Sequence | Dataset | None = None):
        self.inputs, self.questions = inputs, questions

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> VideoPrompt:
        questions = self.questions
        question = questions if questions is None or isinstance(questions, str) else questions[index]
        return video_prompt(self.inputs[index], question)


def video_prompts(inputs: Any, questions: Any = None) -> VideoPrompt | VideoPrompts | Iterator[VideoPrompt]:
    """
    Returns the prompt of one input, or the prompts of several.

    Args:
        inputs: A video or several; or, without questions, one or several of what [`video_prompt`] takes.
        questions (*optional*): A question for all videos, or one for each.

    Raises:
        `ValueError`: As [`video_prompt`] does, or if there is not one question for each video.
    """
    if questions is None and isinstance(inputs, Iterator):
        first = next(inputs, None)
        inputs = () if first is None else chain([first], inputs)
        if _is_message(first):
            inputs = list(inputs)
    if is_one_video(inputs) or _is_conversation(inputs):
        return video_prompt(inputs, questions)
    if questions is None or isinstance(questions, str):
        if _is_numbered(inputs):
            return VideoPrompts(inputs, questions)
        return (video_prompt(item, questions) for item in inputs)
    if isinstance(inputs, Sized) and isinstance(questions, Sized) and len(inputs) != len(questions):
        raise ValueError(f"{len(inputs)} videos came with {len(questions)} questions; give one, or one for each.")
    if _is_numbered(inputs) and _is_numbered(questions):
        return VideoPrompts(inputs, questions)
    return _in_step(inputs, questions)


def video_prompt(item: Any, question: str | None = None) -> VideoPrompt:
    """
    Returns the prompt of one input.

    Args:
        item: A video; or, without a question, a conversation or `{"videos": ..., "text": ...}`.
        question (`str`, *optional*): The question about the video.

    Raises:
        `ValueError`: If this is no video with a question.
    """
    if question is None and _is_conversation(item):
        return VideoPrompt(list(item))
    if question is None and isinstance(item, Mapping):
        pair = {name: value for name, value in item.items() if value is not None}
        if pair.keys() != {"videos", "text"}:
            raise ValueError(
                f"An input has {' and '.join(pair)}; give videos and text, or a conversation, which may hold images."
            )
        item, question = pair["videos"], pair["text"]
    if not isinstance(question, str):
        raise ValueError(
            "Give a question with the video, as text='...', or a conversation, which holds its own videos; the "
            f"question was given as {type(question).__name__}."
        )
    parts = [{"type": "video", "video": item}, {"type": "text", "text": question}]
    return VideoPrompt([{"role": "user", "content": parts}], question)


def is_streamed(*sources: Any) -> bool:
    """Tells whether a source is read while its answers are asked for: without length, or of PyTorch."""
    return any(
        isinstance(source, Dataset) or not isinstance(source, Sized) for source in sources if source is not None
    )


def is_one_video(videos: Any) -> bool:
    """Tells one video from several; a list of names is several."""
    if isinstance(videos, (str, bytes, os.PathLike, io.IOBase, Mapping)):
        return True
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        return videos.ndim != 5 and not (isinstance(videos, np.ndarray) and videos.dtype.kind in "OSU")
    if isinstance(videos, (list, tuple)):
        return bool(videos) and all(is_valid_video_frame(frame) for frame in videos)
    return not isinstance(videos, (Iterable, Dataset))


def _in_step(videos: Iterable | Dataset, questions: Iterable | Dataset) -> Iterator[VideoPrompt]:
    missing: Any = object()
    for video, question in zip_longest(_items(videos), _items(questions), fillvalue=missing):
        if video is missing or question is missing:
            raise ValueError(
                f"There are more {'questions' if video is missing else 'videos'} than "
                f"{'videos' if video is missing else 'questions'}; give one question, or one for each video."
            )
        yield video_prompt(video, question)


def _items(source: Iterable | Dataset) -> Iterable:
    return (source[number] for number in range(len(source))) if _is_numbered(source) else source


def _is_numbered(source: Any) -> TypeGuard[Sequence]:
    is_dataset = isinstance(source, Dataset) and not isinstance(source, IterableDataset)
    return isinstance(source, Sequence) or (is_dataset and isinstance(source, Sized))


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "role" in value


def _is_conversation(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and _is_message(value[0])


__all__ = ["VideoPrompt", "VideoPrompts", "is_streamed", "video_prompt", "video_prompts"]
