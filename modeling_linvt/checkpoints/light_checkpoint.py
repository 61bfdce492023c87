"""Light checkpoints: the video tokenizer, a LoRA adapter if there is one, and where the image-LLM is found.

The image-LLM is named by Hub id and commit, so it is the one that the video tokenizer was trained with, whatever is
pushed to its repository later. Loaded, a light checkpoint is the same model as a full one.
"""

import copy
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from linvt.checkpoints.safe_weights import HUB_ARGUMENTS, safetensors_only


ADAPTER = "adapter"
"""Subfolder of the LoRA adapter, in the format of PEFT."""

LIGHT_PARTS = ("video_tokenizer", "contrast")
"""Modules whose weights a light checkpoint holds."""

# What says where this checkpoint lies, and what the Auto classes and pipelines add about it.
_OF_THIS_REPOSITORY = ("revision", "subfolder", "adapter_kwargs", "_commit_hash", "_from_auto", "_from_pipeline")
_CONFIG_ARGUMENTS = ("frames_per_batch", "frames_per_patch")


def load_light(
    cls: type[PreTrainedModel], name_or_path: str | os.PathLike, config: PreTrainedConfig | None = None, **kwargs: Any
) -> PreTrainedModel | tuple[PreTrainedModel, dict]:
    """
    `cls.from_pretrained` for a light checkpoint.

    Args:
        cls (`type`): `LinVTForConditionalGeneration`.
        name_or_path (`str` or `os.PathLike`): Folder or Hub id.
        config (`LinVTConfig`, *optional*): That of the checkpoint, if it is known already.
        kwargs: Those of `PreTrainedModel.from_pretrained`. What says how (`dtype`, `device_map`, ...) holds for both
            parts, as do `token`, `cache_dir` and their like; `revision` and `subfolder` are the checkpoint's.

    Raises:
        `OSError`: If the image-LLM cannot be loaded at the recorded revision.
        `ValueError`: If tensors of the video tokenizer are missing, too many or of another shape, or if LoRA would
            have to be added to a quantised image-LLM.
    """
    if kwargs.pop("state_dict", None) is not None:
        raise ValueError(f"{name_or_path} is a light checkpoint, which takes no state_dict.")
    if isinstance(kwargs.get("device_map"), dict) and kwargs["device_map"].keys() != {""}:
        raise ValueError(
            f"{name_or_path} is a light checkpoint, whose device_map can be a device or 'auto'. For a map of modules "
            "export it as a full one, with `linvt export`."
        )
    place = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    if config is None:
        settings = {name: kwargs.pop(name) for name in _CONFIG_ARGUMENTS if name in kwargs}
        config = cls.config_class.from_pretrained(name_or_path, **place, **settings)
    config = copy.deepcopy(config)
    if "_adapter_model_path" in (kwargs.get("adapter_kwargs") or {}):
        raise ValueError(
            f"{kwargs['adapter_kwargs']['_adapter_model_path']} is an adapter of {name_or_path}, a light checkpoint, "
            "into which it cannot be loaded at once. Load the checkpoint, and then the adapter with "
            "peft.PeftModel.from_pretrained(model, adapter)."
        )
    output_loading_info = kwargs.pop("output_loading_info", False)
    for name in _OF_THIS_REPOSITORY:
        kwargs.pop(name, None)
    has_adapter = config.image_llm_weights == "source_and_adapter"
    if has_adapter and (
        kwargs.get("quantization_config") or config.image_llm_config.to_dict().get("quantization_config")
    ):
        raise ValueError(
            f"{name_or_path} holds LoRA weights, which cannot be added to a quantised image-LLM. Export it as a full "
            "one (`linvt export MODEL OUTPUT --format full`) and give quantization_config when you load that."
        )
    image_llm, info = _load_pinned_image_llm(name_or_path, config, kwargs)
    config.image_llm_config, config.image_llm_weights = image_llm.config, "inside"
    config.video_tokenizer_config._attn_implementation = image_llm.config._attn_implementation
    config.name_or_path = str(name_or_path)
    config.dtype = image_llm.get_input_embeddings().weight.dtype
    model = cls(config, image_llm=image_llm)
    tensors = _read_light_tensors(name_or_path, place)
    _check_light_tensors(name_or_path, tensors, light_tensors(model))
    for part in LIGHT_PARTS:
        module, prefix = model.get_submodule(part), f"{part}."
        module.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    model.place_added_parts()
    if has_adapter:
        _add_lora(model, _adapter_folder(name_or_path, place))
    model.generation_config = GenerationConfig.from_pretrained(name_or_path, **place)
    model.eval()
    return (model, info) if output_loading_info else model


def light_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Returns the tensors that a light checkpoint holds, by the names of a full one."""
    return {
        f"{part}.{name}": tensor
        for part in LIGHT_PARTS
        for name, tensor in model.get_submodule(part).state_dict().items()
    }


def _load_pinned_image_llm(
    name_or_path: str | os.PathLike, config: PreTrainedConfig, kwargs: dict
) -> tuple[PreTrainedModel, dict]:
    source_id, revision = config.image_llm_source["id"], config.image_llm_source["revision"]
    what = f"{name_or_path} is a light checkpoint without the weights of its image-LLM, {source_id} at {revision}"
    if os.path.exists(source_id):
        raise ValueError(f"{what}; the folder {source_id} here would be taken for it. Load it from another place.")
    dtype = kwargs.pop("torch_dtype", None) if kwargs.get("dtype") is None else kwargs["dtype"]
    if dtype in (None, "auto"):
        dtype = config.dtype or "auto"
    options = {**kwargs, "dtype": dtype, "revision": revision, "config": config.image_llm_config}
    options |= {"output_loading_info": True}
    try:
        image_llm, info = AutoModelForImageTextToText.from_pretrained(
            source_id, **safetensors_only(source_id, options)
        )
    except OSError as error:
        raise OSError(
            f"{what}, which cannot be loaded: {error} If it is gone, the full or self-contained format of this model "
            "is needed; if it is private or gated, a token that may read it."
        ) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        names = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise ValueError(f"{what}, which lacks {len(names)} of its weights, such as {names[0]}.")
    return image_llm, info


def _read_light_tensors(name_or_path: str | os.PathLike, place: dict) -> dict[str, torch.Tensor]:
    path = cached_file(name_or_path, "model.safetensors", **place)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}; get it again.") from error


def _check_light_tensors(
    name_or_path: str | os.PathLike, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> None:
    """Fresh weights must not stand in for missing ones."""
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    wrong += [f"{name} is none of the model's" for name in sorted(found.keys() - expected.keys())]
    wrong += [
        f"{name} has shape {tuple(found[name].shape)} and not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    if wrong:
        raise ValueError(
            f"The weights of the light checkpoint {name_or_path} do not fit its config.json: {'; '.join(wrong[:3])}"
            f"{f'; and {len(wrong) - 3} more' if len(wrong) > 3 else ''}. Get the whole checkpoint again."
        )


def _adapter_folder(name_or_path: str | os.PathLike, place: dict) -> Path:
    place = {**place, "subfolder": os.path.join(place.get("subfolder") or "", ADAPTER)}
    try:
        paths = [
            cached_file(name_or_path, file, **place) for file in ("adapter_config.json", "adapter_model.safetensors")
        ]
    except OSError as error:
        raise OSError(
            f"{name_or_path} should hold LoRA weights in {ADAPTER}/, but: {error} Get the whole checkpoint again."
        ) from error
    return Path(paths[-1]).parent


def _add_lora(model: PreTrainedModel, folder: Path) -> None:
    """Adds LoRA to the weights as `linvt.training.training_stages.merge_adapter` does, on whatever device they are."""
    try:
        from peft import PeftModel, get_peft_model_state_dict
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise ImportError(f"{folder} holds LoRA weights, which need PEFT: pip install peft.") from error
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    adapted = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    # PEFT only warns where weights are missing, and goes on as if nothing had been learnt there.
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        wrong = sorted(expected ^ set(tensors.keys()))
    if wrong:
        raise ValueError(
            f"The LoRA weights in {folder} do not fit the model: {len(wrong)} of them are missing or unknown, such as "
            f"{wrong[0]}. Get the whole checkpoint again."
        )
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            device = module.get_base_layer().weight.device
            if device.type == "meta":
                raise ValueError("LoRA cannot be added to weights that are offloaded; give a device_map that fits.")
            module.to("cpu")  # where PEFT adds in float32; elsewhere the sum would have other bits
            module.merge()
            module.to(device)
    adapted.unload()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learns[name])


__all__ = ["ADAPTER", "LIGHT_PARTS", "light_tensors", "load_light"]
