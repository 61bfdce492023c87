"""Fingerprints of what V and the scores of its tokens depend on, so that tokens on disk are never taken for those of
another model."""

import hashlib
import json
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from linvt.image_llms.family_table import image_llm_family
from linvt.video_tokenizer.modeling_linvt_video import LinVTVideoModel


# What a configuration says that V does not depend on: the language model, and where and in which dtype it was saved
# (the weights say in which they are). It may change while a model is saved and loaded.
_IRRELEVANT = {"text_config", "_name_or_path", "architectures", "dtype", "transformers_version"}

_KNOWN: WeakKeyDictionary[PreTrainedModel, tuple[list, tuple[str, str]]] = WeakKeyDictionary()


def memory_fingerprints(model: PreTrainedModel) -> tuple[str, str]:
    """
    Returns [`encoder_fingerprint`] and [`scorer_fingerprint`] of a LinVT model, by which it knows its memories.

    They are computed once, and again after weights or settings have changed: a question about a memory takes less time
    than reading all weights.
    """
    encoder = image_llm_family(model.image_llm).encoder_tensors()
    values = (*encoder.values(), *_scorer_tensors(model.video_tokenizer).values())
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if any(tensor.is_inference() for tensor in tensors):  # made in inference mode, where changes are not counted
        return encoder_fingerprint(model), scorer_fingerprint(model.video_tokenizer)
    # PyTorch counts what is done to a tensor in place; one that takes another's place has another address. The count
    # is private (as of PyTorch 2.14, and for as long as there is no public one); autograd itself lives by it.
    state: list = [(tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors]
    state.append(model.config.to_json_string())
    known, fingerprints = _KNOWN.get(model, (None, ("", "")))
    if known != state:
        fingerprints = encoder_fingerprint(model), scorer_fingerprint(model.video_tokenizer)
        _KNOWN[model] = (state, fingerprints)
    return fingerprints


def encoder_fingerprint(model: PreTrainedModel) -> str:
    """
    Hashes the weights and the settings of the vision encoder and the projector of a LinVT model, to 64 characters.

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
    return _digest(settings, image_llm_family(model.image_llm).encoder_tensors())


def scorer_fingerprint(video_tokenizer: LinVTVideoModel) -> str:
    """
    Hashes the weights and the settings that scores of SVR depend on, to 64 characters. Where nothing is learnt, scores
    are the prior, and weights do not count.

    Args:
        video_tokenizer ([`LinVTVideoModel`]): With SVR.

    Raises:
        `ValueError`: As [`encoder_fingerprint`].
    """
    config = video_tokenizer.config
    names = ("start", "top_k", "max_shot_frames", "use_tta", "temporal_attention", "num_attention_heads")
    settings = {name: getattr(config, name) for name in names}
    if video_tokenizer.merges and not bool(video_tokenizer.refiner.score_weight.any()):
        return _digest({**settings, "temporal_attention": None, "num_attention_heads": None}, {})
    return _digest(settings, _scorer_tensors(video_tokenizer))


def _scorer_tensors(video_tokenizer: LinVTVideoModel) -> dict[str, torch.Tensor]:
    """Weights that scores depend on. PEFT wraps a video tokenizer that it trains, and hands out its active parts."""
    parts = ("token_norm", "token_proj", "time_proj", "place_proj", "refiner")
    tensors = {part: getattr(video_tokenizer, part).state_dict() for part in parts}
    return {f"{part}.{name}": tensor for part in parts for name, tensor in tensors[part].items()}


def _digest(settings: dict, tensors: dict) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors.items()):
        if not isinstance(tensor, torch.Tensor):
            continue  # the settings of quantised layers, which are in the configuration
        if tensor.is_meta or tensor.numel() == 0:
            raise ValueError(
                f"The weights of {name} are not here ({tuple(tensor.shape)} on {tensor.device}), so it cannot be said "
                "which model this is; ask before weights are sharded or moved away."
            )
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _relevant(fields: Any) -> Any:
    """Settings at all depths without the irrelevant ones."""
    if isinstance(fields, dict):
        return {name: _relevant(value) for name, value in fields.items() if name not in _IRRELEVANT}
    return [_relevant(value) for value in fields] if isinstance(fields, (list, tuple)) else fields


__all__ = ["encoder_fingerprint", "memory_fingerprints", "scorer_fingerprint"]
