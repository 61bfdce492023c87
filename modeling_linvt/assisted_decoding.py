"""A prompt that is given by its ids and embedded otherwise: the embedding layer gives its embeddings meanwhile.

Assisted decoding and prompt lookup need it: they check their first candidates together with the prompt, by their ids,
and pass over `inputs_embeds` without a word (Transformers 5.17 to 5.23). So do image-LLMs whose `generate` takes no
embeddings, or whose layers look words up by their ids once more.
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
def embedded_as(
    embedding: torch.nn.Module, input_ids: torch.Tensor, embeds: torch.Tensor, is_word: torch.Tensor
) -> Iterator[None]:
    """
    Meanwhile, `embedding` gives `embeds` of shape `(batch, length, channels)` for the prompt `input_ids` of shape
    `(batch, length)`, wherever a sequence starts with it; several sequences may go on from one prompt. What is no word
    (`is_word`, of the shape of `input_ids`) is a placeholder, which an image-LLM may have put another id for.
    """
    batch, length = input_ids.shape
    words = input_ids.masked_fill(~is_word, -1)

    def replace(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        ids = args[0]
        if ids.shape[1] < length or ids.shape[0] % batch:
            return output
        copies = ids.shape[0] // batch
        is_same = ids[:, :length] == words.repeat_interleave(copies, 0).to(ids.device)
        if not (is_same | ~is_word.repeat_interleave(copies, 0).to(ids.device)).all():
            return output
        return torch.cat([embeds.repeat_interleave(copies, 0).to(output), output[:, length:]], dim=1)

    handle = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


__all__ = ["embedded_as", "is_assisted"]
