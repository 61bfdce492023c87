"""Accuracy by kind of question, of answers that must be right to the last word."""

from collections import defaultdict
from collections.abc import Iterator
from statistics import mean

import torch
from small_world.video_rows import RowCollator
from torch import nn

from linvt.configuration.input_values import IGNORED_LABEL


MAX_ATTENTION = 2**24  # pairs of video tokens, of all questions of a batch


def right_answers(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Per row whether greedy decoding gives the answer and then ends. It does if and only if each token of the answer is
    the likeliest one after those before it, so one forward pass tells.
    """
    predicted, wanted = logits.argmax(-1)[:, :-1], labels[:, 1:]
    return ((predicted == wanted) | (wanted == IGNORED_LABEL)).all(1)


def accuracy(model: nn.Module, collator: RowCollator, batch_size: int = 256) -> dict[str, float]:
    """Share of right answers per kind of question, in percent; "mean" is their mean without captions."""
    return shares(right_by_kind(model, collator, batch_size))


@torch.no_grad()
def right_by_kind(model: nn.Module, collator: RowCollator, batch_size: int = 256) -> dict[str, str]:
    """Asks all questions, and returns per kind a "1" for each right answer and a "0" for each wrong one, in order."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    right: dict[int, bool] = {}
    for numbers in _batches(collator, batch_size):
        batch = collator([{"row": number} for number in numbers])
        batch = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
        labels = batch.pop("labels")
        right |= zip(numbers, right_answers(model(**batch).logits, labels).tolist(), strict=True)
    model.train(was_training)
    kinds = defaultdict(str)
    for number, row in enumerate(collator.rows):
        kinds[row.question.about] += str(int(right[number]))
    return dict(sorted(kinds.items()))


def shares(right: dict[str, str]) -> dict[str, float]:
    """Share of right answers per kind of question, in percent; "mean" is their mean without captions."""
    found = {about: 100 * answers.count("1") / len(answers) for about, answers in right.items()}
    return {**found, "mean": mean(share for about, share in found.items() if about != "caption")}


def _batches(collator: RowCollator, batch_size: int) -> Iterator[list[int]]:
    """Questions whose videos have equally many tokens, fewer at once where they are many."""
    of_size = defaultdict(list)
    for number, row in enumerate(collator.rows):
        of_size[collator.num_video_tokens_of(row)].append(number)
    for num_tokens, numbers in of_size.items():
        at_once = max(min(batch_size, MAX_ATTENTION // max(num_tokens, 1) ** 2), 1)
        yield from (numbers[start : start + at_once] for start in range(0, len(numbers), at_once))
