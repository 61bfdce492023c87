"""Conversations of the small world as token ids, the fast way: what `LinVTProcessor` and the collator make of them."""

from collections.abc import Sequence

from small_world.questions import Question
from transformers import PreTrainedTokenizerBase


IGNORED = -100  # label of what is not learned


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, visual_tokens: Sequence[int], questions: Sequence[Question]
) -> tuple[list[int], list[int]]:
    """
    One conversation about pictures or a video, as ids and labels of equal length.

    Args:
        visual_tokens (`Sequence[int]`): Tokens of each picture, or those of the video, which stands as one picture.
        questions (`Sequence[Question]`): One turn each.
    """
    ids, labels = [], []
    for turn, question in enumerate(questions):
        visuals = "".join("<image>" * number + "\n" for number in visual_tokens) if turn == 0 else ""
        prompt = tokenizer(f"<|im_start|>user\n{visuals}{question.text}<|im_end|>\n<|im_start|>assistant\n").input_ids
        answer = tokenizer(f"{question.answer}<|im_end|>").input_ids
        ids += prompt + answer
        labels += [IGNORED] * len(prompt) + answer
    return ids, labels
