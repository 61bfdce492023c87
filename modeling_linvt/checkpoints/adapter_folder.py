"""Folders of PEFT's adapters, which hold what a model learnt and name that model."""

import json
import os
from pathlib import Path

from transformers.utils import cached_file, find_adapter_config_file


def base_of_adapter(name_or_path: str | os.PathLike, place: dict) -> str | None:
    """
    Reads which model an adapter was trained on.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub id.
        place (`dict`): Arguments of `from_pretrained` that say where its files come from.

    Returns:
        Folder or Hub id of the model; `None` if this is no adapter.

    Raises:
        `OSError`: If its weights are missing, or no safetensors.
        `ValueError`: If it names no model.
    """
    file = find_adapter_config_file(name_or_path, **place)
    if file is None:
        return None
    cached_file(name_or_path, "adapter_model.safetensors", **place)
    base = json.loads(Path(file).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ValueError(
            f"{name_or_path} is an adapter that names no model it was trained on (base_model_name_or_path); load the "
            "model yourself, and the adapter with peft.PeftModel.from_pretrained(model, adapter)."
        )
    return base


__all__ = ["base_of_adapter"]
