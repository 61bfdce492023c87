"""Assisted decoding and prompt lookup for a prompt that is given as embeddings.

They check their first candidates together with the prompt, by their ids, and pass over `inputs_embeds` without a word
(Transformers 5.17 to 5.23). So the ids stay, and the embedding layer gives the prompt's embeddings meanwhile.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import GenerationConfig
from transformers.generation import GenerationMode


def is_assisted(generation_config: GenerationConfig, kwargs: dict) -> bool:
    """Whether `generate` with these arguments guesses candidate tokens and checks them."""
    config = copy.deepcopy(generation_config)
    config.update(**kwargs)
    return config.get_generation_mode(kwargs.get("assistant_model")) == GenerationMode.ASSISTED_GENERATION


@contextmanager
def embedded_as(embedding: torch.nn.Module, input_ids: torch.Tensor, embeds: torch.Tensor) -> Iterator[None]:
    """
    Meanwhile, `embedding` gives `embeds` of shape `(batch, length, channels)` for the prompt `input_ids` of shape
    `(batch, length)`, wherever a sequence starts with it.
    """
    length = input_ids.shape[1]

    def replace(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        if args[0].shape[1] < length or not torch.equal(args[0][:, :length], input_ids):
            return output
        return torch.cat([embeds.to(output), output[:, length:]], dim=1)

    handle = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


__all__ = ["embedded_as", "is_assisted"]
