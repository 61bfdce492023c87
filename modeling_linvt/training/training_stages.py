"""Chooses the weights that learn in the two stages (Sec. 3.3): the video tokenizer; then LoRA on the LLM as well.

In both the vision encoder and the projector stay as they are.
"""

import os
import re
from typing import Any

from peft import LoraConfig, PeftModel
from torch import nn

from linvt.image_llms.family_table import image_llm_family
from linvt.modeling_linvt import LinVTForConditionalGeneration


def freeze_for_alignment(model: LinVTForConditionalGeneration) -> LinVTForConditionalGeneration:
    """
    Prepares a model for stage 1, video-language alignment, and returns it: only the video tokenizer learns, and the
    temperature of the contrastive loss. Both become float32, whatever the image-LLM is in: a step may be smaller than
    bfloat16 can tell.
    """
    model.requires_grad_(False)
    for module in (model.video_tokenizer, model.contrast):
        module.float().requires_grad_()
    return model


def lora_for_instruction(
    model: LinVTForConditionalGeneration,
    r: int = 64,
    lora_alpha: int = 128,
    lora_dropout: float = 0.0,
    learn_video_tokenizer: bool = True,
) -> LoraConfig:
    """
    Returns what learns in stage 2, video instruction tuning: LoRA on the linear layers of the LLM, and the whole video
    tokenizer. The model stays as it is.

    Give it to [`VideoSFTTrainer`] as `peft_config`, which also makes the new video tokenizer float32; or to
    `peft.get_peft_model`, for which you call `model.video_tokenizer.float()` before if the model is in bfloat16. Both
    freeze the rest. The new video tokenizer is saved with the adapter; with the adapter disabled the model is the one
    that stage 1 gave.

    Args:
        r, lora_alpha, lora_dropout: Of `peft.LoraConfig`. The paper gives no values.
        learn_video_tokenizer (`bool`, *optional*, defaults to `True`): Whether the video tokenizer goes on learning,
            as in the paper. One that started from merging is better left as stage 1 gave it (docs/results.md): what
            a question is about is learnt by the contrastive loss, which stage 2 does not have.

    Raises:
        `ValueError`: If the image-LLM does not tell its language model from the rest of it, so that LoRA would reach
            the vision encoder.
    """
    decoder = image_llm_family(model.image_llm).decoder()
    name = next((name for name, module in model.named_modules() if module is decoder), None)
    if name is None or decoder in (model, model.image_llm, model.image_llm.base_model):
        raise ValueError(
            f"get_decoder() of {type(model.image_llm).__name__} gives {type(decoder).__name__}, which is no language "
            "model alone; give peft.LoraConfig the names of its linear layers yourself."
        )
    # Whole names, with any number for a layer's: a last name alone, such as that of a list's first, may be another's.
    places = {
        re.sub(r"\d+", r"\\d+", re.escape(place))
        for place, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and not _is_router(module) and module is not model.get_output_embeddings()
    }
    return LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=rf"{re.escape(name)}\.({'|'.join(sorted(places))})",
        modules_to_save=["video_tokenizer"] if learn_video_tokenizer else None,
    )


def _is_router(module: nn.Linear) -> bool:
    """A linear layer that Transformers derives for a model, such as Llama 4's router, gives more than a product."""
    return type(module).__module__.startswith("transformers.models")


def merge_adapter(
    model: str | os.PathLike, adapter: str | os.PathLike, **kwargs: Any
) -> LinVTForConditionalGeneration:
    """
    Loads the model of stage 2 as one: the LoRA weights added to those of the LLM, the new video tokenizer.

    Args:
        model (`str` or `os.PathLike`): What stage 2 began with.
        adapter (`str` or `os.PathLike`): Folder or Hub id of what it learnt.
        kwargs: Passed to [`~LinVTForConditionalGeneration.from_pretrained`].
    """
    base = LinVTForConditionalGeneration.from_pretrained(model, **kwargs)
    return PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False).merge_and_unload()


__all__ = ["freeze_for_alignment", "lora_for_instruction", "merge_adapter"]
