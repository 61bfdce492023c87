"""Conversations of the small world as token ids, the fast way: the same as `LinVTProcessor` and the collator make."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from small_world.questions import Question
from transformers import PreTrainedTokenizerBase

from linvt.configuration.input_values import IGNORED_LABEL


@dataclass
class EncodedChat:
    """Ids of a conversation; and of equal length labels, and 1 on the visual tokens and the text of the first turn."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    instruction: list[int] = field(default_factory=list)

    def add(self, ids: list[int], learn: bool = False, is_instruction: bool = False) -> None:
        self.input_ids += ids
        self.labels += ids if learn else [IGNORED_LABEL] * len(ids)
        self.instruction += [int(is_instruction)] * len(ids)


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, visual_tokens: Sequence[int], questions: Sequence[Question]
) -> EncodedChat:
    """
    A conversation about pictures or a video.

    Args:
        visual_tokens (`Sequence[int]`): Tokens of each picture, or those of the video, which stands as one picture.
        questions (`Sequence[Question]`): One turn each.
    """
    chat = EncodedChat()
    for turn, question in enumerate(questions):
        chat.add(_ids(tokenizer, "<|im_start|>user\n"))
        for number in visual_tokens if turn == 0 else ():
            chat.add(_ids(tokenizer, "<image>") * number + _ids(tokenizer, "\n"), is_instruction=True)
        chat.add(_ids(tokenizer, question.text), is_instruction=turn == 0)
        chat.add(_ids(tokenizer, "<|im_end|>\n<|im_start|>assistant\n"))
        chat.add(_ids(tokenizer, f"{question.answer}<|im_end|>"), learn=True)
    return chat


@cache
def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Each word is a token here whatever stands beside it, so pieces can be encoded one by one, and once."""
    return tokenizer(text).input_ids
