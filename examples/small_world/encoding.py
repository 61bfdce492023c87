"""Conversations of the small world as token ids, the fast way: the same as `LinVTProcessor` and the collator make."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from small_world.questions import Question
from transformers import PreTrainedTokenizerBase

from linvt.processors.video_chat_collator import IGNORED


@dataclass
class EncodedChat:
    """Ids of a conversation; and of equal length labels, and 1 on the visual tokens and the text of the first turn."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    instruction: list[int] = field(default_factory=list)

    def add(self, ids: list[int], learn: bool = False, is_instruction: bool = False) -> None:
        self.input_ids += ids
        self.labels += ids if learn else [IGNORED] * len(ids)
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
        visuals = "".join("<image>" * number + "\n" for number in visual_tokens) if turn == 0 else ""
        chat.add(tokenizer("<|im_start|>user\n").input_ids)
        chat.add(tokenizer(visuals + question.text).input_ids, is_instruction=turn == 0)
        chat.add(tokenizer("<|im_end|>\n<|im_start|>assistant\n").input_ids)
        chat.add(tokenizer(f"{question.answer}<|im_end|>").input_ids, learn=True)
    return chat
