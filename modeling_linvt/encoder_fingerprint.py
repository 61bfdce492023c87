"""A name for what V of given frames depends on, so that tokens on disk are never taken for those of another model."""

import hashlib
import json

import torch
from transformers import PreTrainedModel

from linvt.image_llms.family_table import image_llm_family


# What a configuration says that V does not depend on: the language model, and where and in which dtype it was saved
# (the weights say in which they are). It may change while a model is saved and loaded.
_IRRELEVANT = {"text_config", "_name_or_path", "architectures", "dtype", "transformers_version"}


def encoder_fingerprint(model: PreTrainedModel) -> str:
    """
    A hash of the weights and the settings of the vision encoder and the projector of a LinVT model, 64 characters.

    All weights are read, which for an encoder of 1 GB takes some seconds: a sample of them would not notice a change
    of the others. Weights that are sharded over ranks have to be whole, so this comes before FSDP or ZeRO-3.

    Raises:
        `ValueError`: If weights are not loaded (on the meta device, or of no elements).
    """
    settings = {
        "image_llm": _relevant(model.config.image_llm_config.to_dict()),
        "frames_per_patch": model.config.frames_per_patch,
        # RED-VILLM reads the encoder before the projector.
        "video_tokenizer": model.config.video_tokenizer_config.model_type,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(image_llm_family(model.image_llm).encoder_tensors().items()):
        if not isinstance(tensor, torch.Tensor):
            continue  # the settings of quantised layers, which are in the configuration
        if tensor.is_meta or tensor.numel() == 0:
            raise ValueError(
                f"The weights of {name} are not here ({tuple(tensor.shape)} on {tensor.device}), so it cannot be said "
                "which model this is; make the cache before weights are sharded or moved away."
            )
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _relevant(fields):
    """Settings at all depths without the irrelevant ones."""
    if isinstance(fields, dict):
        return {name: _relevant(value) for name, value in fields.items() if name not in _IRRELEVANT}
    return [_relevant(value) for value in fields] if isinstance(fields, (list, tuple)) else fields


__all__ = ["encoder_fingerprint"]
