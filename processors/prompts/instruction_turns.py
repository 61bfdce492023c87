"""Finds the instruction of a video in a prompt: the text of the user turn that the video stands in.

TTA reads this text and no other (Sec. 3.2.2), so that nothing of an answer can reach the video tokens. The turns are
found in the rendered prompt itself, by the headers that the chat template writes between them. That works the same for
a conversation, for a prompt that was rendered before, and for a training text that holds the answer too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import jinja2


# Private-use characters: no chat template writes or trims them, no user types them.
_SYSTEM, _FIRST, _ANSWER, _SECOND = "\ue000", "\ue001", "\ue002", "\ue003"


@dataclass(frozen=True)
class TurnHeaders:
    """
    What a chat template writes around the turns of the user.

    Args:
        opening (`str`): Before the first user turn, at the very start of a prompt.
        user (`tuple[str, ...]`): Before a user turn that comes after another turn.
        assistant (`str`): Between a user turn and the answer, without leading spaces.
        closing (`str`): After a user turn that ends the prompt.
        end_of_answer (`str`): After an answer, without the spaces at its end; empty where the template ends no answer.
    """

    opening: str
    user: tuple[str, ...]
    assistant: str
    closing: str
    end_of_answer: str

    @classmethod
    def of_template(cls, render: Callable[..., str], image_token: str) -> "TurnHeaders":
        """
        Reads the headers off a template by rendering short conversations whose texts are single marks.

        Args:
            render (`Callable`): Gets a conversation and `add_generation_prompt`, and returns the prompt.
            image_token (`str`): What the template writes for an image.
        """
        question, answer = _message("user", _FIRST), _message("assistant", _ANSWER)
        # A header may end otherwise before a text than before an image; what both begin with is the header.
        seconds = [_message("user", _SECOND), _message("user", _SECOND, with_image=True)]

        def header_after(mark: str, *before: dict) -> str:
            prompts = [render([*before, second]) for second in seconds]
            return os.path.commonprefix([_between(prompt, mark, (_SECOND, image_token)) for prompt in prompts])

        user_headers = [header_after(_ANSWER, question, answer)]
        for mark, before in ((_SYSTEM, _message("system", _SYSTEM)), (_FIRST, question)):
            try:
                user_headers.append(header_after(mark, before))
            except (jinja2.TemplateError, TypeError):
                pass  # a template that refuses system turns, or two user turns in a row, has no header after one
        with_answer = render([question, answer])
        to_come = render([question], add_generation_prompt=True)
        return cls(
            opening=os.path.commonprefix(
                [_between(render([second]), "", (_SECOND, image_token)) for second in seconds]
            ),
            user=tuple(dict.fromkeys(header for header in user_headers if header.strip())),
            # Spaces may differ before an answer that is there, before one that is to come, and after an empty turn.
            assistant=os.path.commonprefix(
                [_between(with_answer, _FIRST, (_ANSWER,)), _between(to_come, _FIRST, ())]
            ).lstrip(),
            closing=_between(render([question]), _FIRST, ()),
            end_of_answer=_between(with_answer, _ANSWER, ()).rstrip(),
        )

    def user_turn(self, prompt: str, position: int) -> tuple[int, int]:
        """
        Start and end (half open, in characters) of the text of the user turn that `position` stands in.

        Raises:
            `ValueError`: If the prompt was not made by this chat template.
        """
        starts = [len(self.opening)] if prompt.startswith(self.opening) and len(self.opening) <= position else []
        for header in self.user:
            found = prompt.rfind(header, 0, position)
            if found >= 0:
                starts.append(found + len(header))
        if not starts or not self.assistant:
            raise ValueError(
                "The user turn that holds a video was not found in the prompt, so the instruction for the video is "
                "unknown. Make the prompt with apply_chat_template; it must start like "
                f"{self.opening!r} or have {' or '.join(map(repr, self.user))} before the turn."
            )
        if prompt.find(self.assistant, max(starts), position) >= 0:
            raise ValueError(
                "An answer stands between the start of a user turn and its video, so the instruction for the video is "
                f"unknown. Before every user turn there must be {' or '.join(map(repr, self.user))}."
            )
        ends = [prompt.find(header, position) for header in (self.assistant, *self.user)]
        ends = [end for end in ends if end >= 0]
        if not ends and self.closing and prompt.endswith(self.closing):
            ends = [len(prompt) - len(self.closing)]
        return max(starts), min(ends, default=len(prompt))


def _message(role: str, text: str, with_image: bool = False) -> dict:
    parts = [{"type": "image"}] if with_image else []
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}


def _between(prompt: str, start: str, ends: tuple[str, ...]) -> str:
    """Returns the text after `start` and before the first of `ends`, or the end."""
    rest = prompt[prompt.index(start) + len(start) :]
    return rest[: min([place for place in map(rest.find, ends) if place >= 0], default=len(rest))]
