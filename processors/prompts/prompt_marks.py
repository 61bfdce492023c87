"""Marks in a prompt: where videos stand, which tokens are theirs, which are the instruction, which are answers."""

import bisect
from collections.abc import Callable

from linvt.processors.prompts.instruction_turns import TurnHeaders


TEXT, IMAGE, VIDEO = 0, 1, 2  # values of Transformers' `mm_token_type_ids`

Span = tuple[int, int]
"""Half-open range of characters."""


def mark_videos(prompt: str, kinds: list[str], image_token: str, video_token: str) -> tuple[str, Callable[[int], int]]:
    """
    Puts `video_token` where the chat template wrote an image for a video.

    Args:
        prompt (`str`): The rendered prompt, with `image_token` for every image and video.
        kinds (`list[str]`): `"image"` or `"video"` for each of them.

    Returns:
        The marked prompt, and a function from a place in `prompt` to that place in the marked one.

    Raises:
        `ValueError`: If a text of the conversation holds one of the tokens.
    """
    if video_token in prompt:
        raise ValueError(
            f"The text of a message holds {video_token}, which marks the place of a video; leave it out. The prompt "
            f"is {prompt!r}."
        )
    pieces = prompt.split(image_token)
    if len(pieces) - 1 != len(kinds):
        raise ValueError(
            f"The conversation has {len(kinds)} images and videos, but its prompt has {len(pieces) - 1} places for "
            f"them ({image_token}). Is one in the text of a message? The prompt is {prompt!r}."
        )
    marked, place, video_ends = pieces[0], len(pieces[0]), []
    for kind, piece in zip(kinds, pieces[1:], strict=True):
        marked += (video_token if kind == "video" else image_token) + piece
        place += len(image_token)
        if kind == "video":
            video_ends.append(place)
        place += len(piece)
    gain = len(video_token) - len(image_token)
    return marked, lambda position: position + gain * bisect.bisect_right(video_ends, position)


def mark_tokens(
    prompt: str,
    ids: list[int],
    spans: list[Span],
    replaced: list[dict],
    headers: TurnHeaders,
    image_token_id: int,
    special_ids: set[int],
) -> tuple[list[int], list[int]]:
    """
    `mm_token_type_ids` and `instruction_turns` of one prompt.

    Args:
        prompt (`str`): The prompt with all placeholders filled in.
        ids (`list[int]`), spans (`list[Span]`): Its tokens and where they stand in it.
        replaced (`list[dict]`): What was filled in, as `ProcessorMixin.get_text_with_replacements` tells it.
    """
    types = [IMAGE if token == image_token_id else TEXT for token in ids]
    turns = [0] * len(ids)
    turn_numbers: dict[Span, int] = {}
    for video_start, video_end in (item["new_span"] for item in replaced if item["type"] == "video"):
        turn = headers.user_turn(prompt, video_start)
        number = turn_numbers.setdefault(turn, len(turn_numbers) + 1)
        for place, (start, end) in enumerate(spans):
            if video_start <= start < end <= video_end and ids[place] == image_token_id:
                types[place], turns[place] = VIDEO, number
            elif turn[0] < end and start < turn[1] and start < end and ids[place] not in special_ids:
                turns[place] = number
    # Images of the same turn are no text.
    return types, [0 if kind == IMAGE else turn for kind, turn in zip(types, turns, strict=True)]


def answer_mask(spans: list[Span], answers: list[Span], replaced: list[dict]) -> list[int]:
    """1 on the tokens of the answers, whose characters are counted before the placeholders were filled in."""
    ends = [item["span"][1] for item in replaced]
    gains = [0, *(item["new_span"][1] - item["span"][1] for item in replaced)]
    moved = [tuple(place + gains[bisect.bisect_right(ends, place)] for place in answer) for answer in answers]
    return [int(any(start < last and first < end for first, last in moved)) for start, end in spans]


__all__ = ["IMAGE", "TEXT", "VIDEO", "answer_mask", "mark_tokens", "mark_videos"]
