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
    """

    opening: str
    user: tuple[str, ...]
    assistant: str
    closing: str

    @classmethod
    def of_template(cls, render: Callable[..., str]) -> "TurnHeaders":
        """Reads the headers off a template by rendering short conversations whose texts are single marks."""
        turns = [_message("user", _FIRST), _message("assistant", _ANSWER), _message("user", _SECOND)]
        opening, rest = render(turns).split(_FIRST)
        answer_header, rest = rest.split(_ANSWER)
        user_header, closing = rest.split(_SECOND)
        generation_header = render(turns[:1], add_generation_prompt=True).split(_FIRST)[1]
        user_headers = [user_header]
        try:
            with_system = render([_message("system", _SYSTEM), *turns[:1]])
            user_headers.append(with_system.split(_SYSTEM)[-1].split(_FIRST)[0])
        except jinja2.TemplateError:
            pass  # a template that refuses system turns has no header after one
        return cls(
            opening=opening,
            user=tuple(header for header in user_headers if header.strip()),
            # Spaces may differ before an answer that is there, before one that is to come, and after an empty turn.
            assistant=os.path.commonprefix([answer_header, generation_header]).lstrip(),
            closing=closing,
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
                f"{self.opening!r} or have {' or '.join(repr(header) for header in self.user)} before the turn."
            )
        ends = [prompt.find(header, position) for header in (self.assistant, *self.user)]
        ends = [end for end in ends if end >= 0]
        if not ends and self.closing and prompt.endswith(self.closing):
            ends = [len(prompt) - len(self.closing)]
        return max(starts), min(ends, default=len(prompt))


def _message(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}
