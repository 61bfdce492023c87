"""Outputs of the model: those of the image-LLM, with what LinVT adds for videos."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput


@dataclass
class LinVTVideoFeatures(ModelOutput):
    """
    Holds the video tokens of a batch of videos.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(clips, tokens per clip, channels)`, *optional*): V of all videos,
            one after the other; returned by [`~LinVTForConditionalGeneration.get_video_features`] alone, since V of a
            long video takes gigabytes.
        pooler_output (`torch.Tensor` of shape `(videos, num_video_tokens, channels)`): The video tokens.
        token_weights (`tuple[torch.FloatTensor]`, *optional*): Per video W, `(num_video_tokens, frames * tokens)`
            (or clips, with `config.frames_per_patch` above 1); of a memory `(num_video_tokens, tokens of the memory)`.
        token_scores (`tuple[torch.FloatTensor]`, *optional*): Per video the significance of every frame token;
            `None` in the place of a memory.
        relevance_keys (`tuple[torch.Tensor]`, *optional*): Per video `(kept tokens, size)`; see [`LinVTVideoOutput`].
        token_grid (`tuple[int, int]`): Rows and columns of the tokens of a frame.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    token_weights: tuple[torch.Tensor, ...] | None = None
    token_scores: tuple[torch.Tensor | None, ...] | None = None
    relevance_keys: tuple[torch.Tensor, ...] | None = None
    token_grid: tuple[int, int] | None = None


@dataclass
class LinVTCausalLMOutputWithPast(ModelOutput):
    """
    Adds to the output of the image-LLM, whose fields all stay (`loss`, `logits`, the cache, `aux_loss`, ...). The
    class of an output is a subclass of both.

    Args:
        contrastive_loss (`torch.FloatTensor`, *optional*, returned with `return_contrastive_loss=True`): A scalar, no
            part of `loss`; see [`VideoTextContrast`].
        video_tokens (`torch.Tensor` of shape `(videos, num_video_tokens, channels)`).
        video_token_weights (`tuple[torch.FloatTensor]`, *optional*, returned with `output_token_weights=True`):
            Per video W, as in [`LinVTVideoFeatures`].
    """

    contrastive_loss: torch.Tensor | None = None
    video_tokens: torch.Tensor | None = None
    video_token_weights: tuple[torch.Tensor, ...] | None = None


_OUTPUT_CLASSES: dict[type[ModelOutput], type[LinVTCausalLMOutputWithPast]] = {}


def add_video_outputs(outputs: ModelOutput, **added: Any) -> LinVTCausalLMOutputWithPast:
    """
    Returns an output of the image-LLM with fields of [`LinVTCausalLMOutputWithPast`] beside its own.

    Args:
        outputs (`ModelOutput`): Any subclass of it.
        added: Values of these fields, or new ones for fields of the output, such as `loss`.
    """
    of_image_llm = type(outputs)
    if of_image_llm not in _OUTPUT_CLASSES:
        name = f"LinVT{of_image_llm.__name__}"
        bases = (LinVTCausalLMOutputWithPast, of_image_llm)
        _OUTPUT_CLASSES[of_image_llm] = dataclass(type(name, bases, {"__module__": __name__}))
    return _OUTPUT_CLASSES[of_image_llm](**{**outputs, **added})


__all__ = ["LinVTCausalLMOutputWithPast", "LinVTVideoFeatures", "add_video_outputs"]
