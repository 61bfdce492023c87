"""Rows as prompts with their answers marked, and their videos as inputs of the model."""

from dataclasses import dataclass
from typing import Any

import jinja2
import torch

from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.prompts.answer_turns import Span, prompt_with_answers
from linvt.processors.prompts.chat_visuals import ChatVisuals
from linvt.processors.prompts.prompt_marks import mark_videos
from linvt.processors.video.source_files import SourceFile, describe_source
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_sources import SourceFrames, resolve_video
from linvt.training.training_rows import BadRowError, read_row
from linvt.video_tokenizer.video_memory import VideoMemory


@dataclass
class ChatPrompt:
    """
    Holds a row as a prompt, before its videos and images are read.

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
    Renders a row of TRL's conversational forms as a prompt; no file is opened.

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


def resolve_row_video(video: Any) -> SourceFile | SourceFrames:
    """Resolves a video of a row as `resolve_video` does; raises a [`BadRowError`] if it is none, or a memory."""
    try:
        source = resolve_video(video)
    except (TypeError, VideoReadError) as error:
        raise BadRowError(str(error)) from error
    if isinstance(source, VideoMemory):
        raise BadRowError(f"{source.name} is a memory of a video; training shows frames, so give the video itself.")
    return source


def read_video_inputs(video: Any, processor: LinVTProcessor, video_kwargs: dict) -> dict[str, torch.Tensor]:
    """Reads one video as inputs of the model; raises a [`BadRowError`] if it cannot be read."""
    source = resolve_row_video(video)
    try:
        return processor.video_processor([source], return_tensors="pt", **video_kwargs)
    except VideoReadError as error:  # other errors are those of the settings, and no row's fault
        raise BadRowError(str(error)) from error


def read_image(image: Any, processor: LinVTProcessor) -> Any:
    """Reads one image as the image-LLM's processor does; raises a [`BadRowError`] if it cannot be read."""
    try:
        return processor.image_processor.fetch_images(image)
    except Exception as error:  # HTTP clients and decoders raise their own, and here nothing is done but to read
        reason = f"{type(error).__name__}: {str(error)[:200]}"
    # Outside, without the error itself: Transformers' repeats a picture that is given as text, however long it is.
    raise BadRowError(f"an image, {describe_source(image)}, cannot be read: {reason}")


__all__ = ["ChatPrompt", "chat_prompt", "read_image", "read_video_inputs", "resolve_row_video"]
