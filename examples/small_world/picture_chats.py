"""Conversations about pictures, from which the small image-LLM learns."""

from dataclasses import dataclass

import numpy as np
import torch
from small_world.drawing import draw_shot
from small_world.encoding import encode_chat
from small_world.questions import album_questions, corner_questions, image_questions, order_questions
from small_world.scenes import SPLITS, make_album, make_picture
from small_world.small_image_llm import PIXELS
from small_world.video_rows import TOKENS_PER_PICTURE
from torch import nn
from torch.utils.data import Dataset
from transformers import LlavaProcessor

from linvt.configuration.input_values import IGNORED_LABEL


class Pictures(Dataset):
    """
    Conversations of up to three turns about a picture; with `albums`, three in five are about an album of up to four.
    Three in five ask for corners only, or only which of two comes first: these are learnt last.
    """

    turns = 3

    def __init__(self, split: str, length: int, processor: LlavaProcessor, albums: bool):
        self.split, self.length, self.processor, self.albums = split, length, processor, albums

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict:
        rng = np.random.default_rng([7, SPLITS.index(self.split), number])
        if not self.albums or number % 5 < 2:
            pictures = [(make_picture(self.split, number), 0.0)]
            questions = image_questions(pictures[0][0], self.split, rng)
            if rng.random() < 0.75:  # captions are learnt long before the rest, and are several times as long
                questions = [question for question in questions if question.about != "caption"]
        else:
            pictures = make_album(self.split, number)
            questions = album_questions(pictures, self.split, rng)
        focus = rng.random()
        if focus < 0.3:
            shapes = dict.fromkeys(shape for shot, _ in pictures for shape in shot.shapes)
            questions = corner_questions(list(shapes), self.split, rng) or questions
        elif focus < 0.6:
            questions = order_questions(pictures, self.split, rng) or questions
        questions = [questions[i] for i in rng.permutation(len(questions))[: self.turns]]
        chat = encode_chat(self.processor.tokenizer, [TOKENS_PER_PICTURE] * len(pictures), questions)
        drawn = [draw_shot(shot, moment, PIXELS) for shot, moment in pictures]
        return {"input_ids": chat.input_ids, "labels": chat.labels, "pictures": drawn}


@dataclass
class CollateChats:
    processor: LlavaProcessor

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        pictures = np.stack([picture for row in rows for picture in row["pictures"]])
        pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        length = max(len(row["input_ids"]) for row in rows)
        padding = self.processor.tokenizer.pad_token_id

        def pad(name: str, value: int) -> torch.Tensor:
            return torch.tensor([row[name] + [value] * (length - len(row[name])) for row in rows])

        input_ids = pad("input_ids", padding)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
            "labels": pad("labels", IGNORED_LABEL),
            "pixel_values": self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"],
        }


def shuffle_tokens(projector: nn.Module, inputs: tuple, tokens: torch.Tensor) -> torch.Tensor | None:
    """
    A hook that puts the tokens of every other picture, `(pictures, tokens, channels)`, in random order in training: an
    LLM that finds a corner by counting tokens is blind to where a weighted average of tokens comes from.
    """
    if not projector.training:
        return None
    order = torch.rand(tokens.shape[:2], device=tokens.device)
    order[::2] = torch.arange(tokens.shape[1], device=tokens.device, dtype=order.dtype)
    return tokens.take_along_dim(order.argsort(1)[..., None], 1)
