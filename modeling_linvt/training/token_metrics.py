"""How well learnt tokens are predicted, from the logits that the loss is made of."""

import torch

from linvt.configuration.input_values import IGNORED_LABEL


_TOKENS_AT_ONCE = 256  # so that a vocabulary of 150,000 words takes 150 MB in float32, whatever the batch is


@torch.no_grad()
def sum_token_metrics(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Sums two figures over the learnt tokens of a batch.

    Args:
        logits (`torch.Tensor` of shape `(batch, length, vocabulary)`): Those at a place predict the next token.
        labels (`torch.LongTensor` of shape `(batch, length)`): -100 outside the answers.

    Returns:
        Two scalar tensors: the number of learnt tokens that are the likeliest ones (int64), and the sum of the
        entropies of their predictions, in nats (float32).
    """
    labels = labels[:, 1:].to(logits.device)
    is_learnt = labels != IGNORED_LABEL
    num_correct = torch.zeros((), dtype=torch.long, device=logits.device)
    entropy = torch.zeros((), device=logits.device)
    for rows, columns in (places.T for places in is_learnt.nonzero().split(_TOKENS_AT_ONCE)):
        predicted = logits[rows, columns].float()
        num_correct += (predicted.argmax(-1) == labels[rows, columns]).sum()
        entropy += torch.special.entr(predicted.softmax(-1)).sum()
    return num_correct, entropy


__all__ = ["sum_token_metrics"]
