"""Substitutes precomputed embeddings for a prompt that must be passed as token ids.

Assisted decoding and prompt lookup need it: they check their first candidates together with the prompt, by their ids,
and pass over `inputs_embeds` without a word (Transformers 5.17 to 5.23). So does generation without a cache, which
`inputs_embeds` would switch on without a word, and so do image-LLMs whose `generate` takes no embeddings, or whose
layers look words up by their ids once more.
"""

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import GenerationConfig
from transformers.generation import GenerationMode


def reads_prompt_again(generation_config: GenerationConfig, kwargs: dict) -> bool:
    """Tells whether `generate` with these arguments checks guessed tokens, or keeps no cache of what it has read."""
    config = copy.deepcopy(generation_config)
    config.update(**kwargs)
    if config.use_cache is False:
        return True
    return config.get_generation_mode(kwargs.get("assistant_model")) == GenerationMode.ASSISTED_GENERATION


@contextmanager
def embedded_as(
    embedding: torch.nn.Module, input_ids: torch.Tensor, embeds: torch.Tensor, is_word: torch.Tensor
) -> Iterator[None]:
    """
    Makes `embedding` give `embeds` of shape `(batch, length, channels)` for the prompt `input_ids` of shape
    `(batch, length)`, wherever a sequence starts with it, for calls of this thread; several sequences may go on from
    one prompt. Where `is_word`, of the shape of `input_ids`, is `False` stands a placeholder, for which an image-LLM
    may have put another id.
    """
    batch, length = input_ids.shape
    thread = threading.get_ident()  # the same question about another video may be answered in another thread
    words = input_ids.masked_fill(~is_word, -1)

    def replace(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        ids = args[0]
        if threading.get_ident() != thread or ids.shape[1] < length or ids.shape[0] % batch:
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


__all__ = ["embedded_as", "reads_prompt_again"]
