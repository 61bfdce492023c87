"""Moves the padding of prompts to the left, where a language model that goes on from the last place needs it."""

import torch
from transformers.utils import logging


logger = logging.get_logger(__name__)


def pad_left(input_ids: torch.Tensor, inputs: dict) -> tuple[torch.Tensor, dict]:
    """
    Returns the same prompts with their padding on the left, with a warning where it stood on the right.

    Transformers only warns, and of prompts that are given as embeddings it does not notice.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, length)`): The prompts.
        inputs (`dict`): All other inputs. Those of shape `(batch, length)` are moved with the prompts; without an
            `attention_mask` there is no padding.
    """
    mask = inputs.get("attention_mask")
    if mask is None or mask.shape != input_ids.shape or bool(mask[:, -1].all()):
        return input_ids, inputs
    logger.warning_once(
        "Prompts that are padded on the right were given to generate; their padding is moved to the left. Make the "
        "inputs with padding_side='left'."
    )
    # A stable sort puts the padding first and leaves the order of all tokens as it is.
    order = mask.bool().int().argsort(dim=1, stable=True)
    moved = {
        name: value.gather(1, order.to(value.device))
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor) and value.shape == input_ids.shape
    }
    return input_ids.gather(1, order), {**inputs, **moved}


__all__ = ["pad_left"]
