"""Accuracy by kind of question, of answers that must be right to the last word."""

from collections import defaultdict

import torch
from small_world.video_rows import RowCollator
from torch import nn

from linvt.configuration.input_values import IGNORED_LABEL


def right_answers(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Per row whether greedy decoding gives the answer and then ends. It does if and only if each token of the answer is
    the likeliest one after those before it, so one forward pass tells.
    """
    predicted, wanted = logits.argmax(-1)[:, :-1], labels[:, 1:]
    return ((predicted == wanted) | (wanted == IGNORED_LABEL)).all(1)


@torch.no_grad()
def accuracy(model: nn.Module, collator: RowCollator, batch_size: int = 256) -> dict[str, float]:
    """Share of right answers per kind of question, in percent; "mean" is their mean without captions."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    right = defaultdict(list)
    for start in range(0, len(collator.rows), batch_size):
        numbers = range(start, min(start + batch_size, len(collator.rows)))
        batch = {name: value.to(device) for name, value in collator([{"row": number} for number in numbers]).items()}
        labels = batch.pop("labels")
        for number, is_right in zip(numbers, right_answers(model(**batch).logits, labels).tolist(), strict=True):
            right[collator.rows[number].question.about].append(is_right)
    model.train(was_training)
    shares = {about: 100 * sum(answers) / len(answers) for about, answers in sorted(right.items())}
    counted = [share for about, share in shares.items() if about != "caption"]
    return {**shares, "mean": sum(counted) / len(counted)}
