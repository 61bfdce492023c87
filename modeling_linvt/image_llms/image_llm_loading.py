"""Loads the image-LLM that is to be wrapped."""

import copy
import os
from pathlib import Path
from typing import Any

from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedModel,
)
from transformers.utils import cached_file
from transformers.utils.quantization_config import QuantizationConfigMixin

from linvt.checkpoints.safe_weights import HUB_ARGUMENTS, safetensors_only
from linvt.image_llms.image_llm_support import check_image_llm_config


_ARGUMENTS_SELECTING_WEIGHTS = ("config", "gguf_file", "key_mapping", "state_dict", "subfolder", "variant")


def load_image_llm(name_or_path: str | os.PathLike, **kwargs: Any) -> PreTrainedModel:
    """
    Loads an image-LLM as `AutoModelForImageTextToText.from_pretrained` does, after checking that it is one.

    Raises:
        `ValueError`: If it is a model of another kind, or one that LinVT cannot wrap.
    """
    names = (*HUB_ARGUMENTS, "trust_remote_code")
    config = AutoConfig.from_pretrained(name_or_path, **{name: kwargs[name] for name in names if name in kwargs})
    check_image_llm_config(config)
    has_remote_code = "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not has_remote_code:
        raise ValueError(
            f"{name_or_path} holds a {config.model_type!r} model, which is not an image-LLM: Transformers has no "
            "image-text-to-text class for it. Give the id or the folder of an image-LLM, such as LLaVA or Qwen2-VL."
        )
    return AutoModelForImageTextToText.from_pretrained(name_or_path, **safetensors_only(name_or_path, kwargs))


def image_llm_source(name_or_path: str | os.PathLike, **kwargs: Any) -> dict[str, str] | None:
    """
    Returns `id` and `revision` (the commit) of an image-LLM on the Hub, to reload exactly this revision; `None` for a
    local folder or if other arguments select the files.

    Args:
        kwargs: Those of [`load_image_llm`].
    """
    if os.path.isdir(name_or_path) or any(kwargs.get(name) for name in _ARGUMENTS_SELECTING_WEIGHTS):
        return None
    path = cached_file(name_or_path, "config.json", **{name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs})
    if path is None:
        return None  # loading says that there is no config.json
    return {"id": str(name_or_path), "revision": Path(path).parent.name}  # cache/models--ID/snapshots/COMMIT/FILE


def spare_video_tokenizer(quantization_config: QuantizationConfigMixin) -> QuantizationConfigMixin:
    """
    Returns the same quantisation for the image-LLM alone: the video tokenizer is small, and weights that still learn
    must not be quantised.

    Raises:
        `ValueError`: If the configuration has no list of modules to spare.
    """
    spared = copy.deepcopy(quantization_config)
    lists = {"llm_int8_skip_modules", "modules_to_not_convert", "skip_modules"} & set(vars(spared))
    if not lists:
        raise ValueError(
            f"{type(spared).__name__} has no list of modules to spare, so it would quantise the video tokenizer too; "
            "quantise the image-LLM with from_image_llm(id, quantization_config=...) instead."
        )
    for name in lists:
        setattr(spared, name, [*(getattr(spared, name) or ["lm_head"]), "video_tokenizer"])
    return spared


__all__ = ["image_llm_source", "load_image_llm", "spare_video_tokenizer"]
