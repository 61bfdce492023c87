"""Writes a LinVT model as a folder for the Hub, in one of three formats."""

import copy
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from linvt.checkpoints.atomic_folder import check_new_folder, new_folder
from linvt.checkpoints.light_checkpoint import ADAPTER, LIGHT_PARTS, light_tensors
from linvt.checkpoints.safe_weights import PICKLES
from linvt.hub.model_card import write_model_card
from linvt.hub.self_contained import save_self_contained
from linvt.modeling_linvt import LinVTForConditionalGeneration
from linvt.processors.processing_linvt import LinVTProcessor


FORMATS = ("full", "light", "self-contained")
"""`"full"`: all weights. `"light"`: without those of the image-LLM, which is named. `"self-contained"`: with code."""

_NOT_PUBLISHED = [*(f"*{ending}" for ending in PICKLES), "checkpoint-*/*"]
_ADAPTER_PREFIX = "base_model.model."  # of every name that PEFT writes


@dataclass(frozen=True)
class Exported:
    """
    Describes an exported folder.

    Args:
        format (`str`): One of `FORMATS`.
        output (`Path`): The folder.
        files (`dict[str, int]`): Its files, as paths inside it, and their sizes in bytes.
        left_out (`tuple[str, ...]`): Pickles of the source, such as the `training_args.bin` of a trainer, which are
            not published.
    """

    format: str
    output: Path
    files: dict[str, int]
    left_out: tuple[str, ...] = ()


def export_model(
    source: str | os.PathLike,
    output: str | os.PathLike,
    format: str = "full",
    *,
    revision: str | None = None,
    repo_id: str | None = None,
    license: str | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Exported:
    """
    Writes a model as a folder, with its AutoShot weights and a card.

    Args:
        source (`str` or `os.PathLike`): Folder or Hub id of a LinVT model of any format, or the output folder of
            `examples/train_instruction.py`, whose `adapter/` makes it possible to write it light.
        output (`str` or `os.PathLike`): New folder, see `checkpoints.atomic_folder.new_folder`.
        format (`str`, *optional*, defaults to `"full"`): One of `FORMATS`.
        revision (`str`, *optional*): Branch, tag or commit of a source on the Hub.
        repo_id (`str`, *optional*): Name that it will have on the Hub, for the snippets of its card.
        license (`str`, *optional*): For the card; by default that of the image-LLM.
        on_progress (`Callable[[float], None]`, *optional*): Called with the fraction that is done.

    Raises:
        `FileExistsError`: If `output` holds something already.
        `ValueError`: If the format is unknown, the source is no LinVT model, or a light checkpoint
            of it would not be the same model.
        `OSError`: If a file cannot be read or written.
    """
    if format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; give one of {', '.join(FORMATS)}.")
    output = Path(output).resolve()
    check_new_folder(output)
    report = on_progress or (lambda fraction: None)
    report(0.0)
    folder, left_out = _source_folder(source, revision)
    report(0.1)
    model = load_whole(folder)
    processor = LinVTProcessor.from_pretrained(folder)
    processor.video_processor.bundle_autoshot()
    report(0.4)
    expected = {name: _digest(tensor) for name, tensor in model.state_dict().items()} if format == "light" else {}
    _keep_stored_dtypes(model, folder)
    with new_folder(output) as complete:
        if format == "self-contained":
            save_self_contained(model, processor, complete)
        else:
            processor.save_pretrained(complete)
            if format == "full":
                model.save_pretrained(complete)
            else:
                _save_light(model, folder, complete)
                report(0.6)
                del model  # two image-LLMs need not fit into memory
                _check_same_model(expected, complete, folder)
        write_model_card(complete, format, repo_id=repo_id, license=license, source=folder)
        report(0.9)
        files = {str(path.relative_to(complete)): path for path in sorted(complete.rglob("*")) if path.is_file()}
        pickles = [name for name in files if name.lower().endswith(PICKLES)]
        if pickles:
            raise ValueError(f"{', '.join(pickles)} would be published, which may run code when it is loaded.")
        sizes = {name: path.stat().st_size for name, path in files.items()}
    report(1.0)
    return Exported(format, output, sizes, tuple(left_out))


def _source_folder(source: str | os.PathLike, revision: str | None) -> tuple[Path, list[str]]:
    """Returns the source as a local folder, and its pickles, which are not even downloaded."""
    if Path(source).is_dir():
        if revision is not None:
            raise ValueError(f"{source} is a folder, which has no revision {revision!r}; leave it out.")
        folder, files = Path(source), [path.name for path in Path(source).iterdir()]
    else:
        folder = Path(snapshot_download(str(source), revision=revision, ignore_patterns=_NOT_PUBLISHED))
        files = HfApi().list_repo_files(str(source), revision=folder.name)  # a snapshot is named by its commit
    return folder, sorted(file for file in files if file.lower().endswith(PICKLES) and "/" not in file)


def load_whole(name_or_path: str | os.PathLike, **kwargs: Any) -> LinVTForConditionalGeneration:
    """
    Loads a model, and raises for what `LinVTForConditionalGeneration.from_pretrained` only warns of.

    Raises:
        `ValueError`: If weights are missing, which would be fresh ones then, or there are others.
    """
    model, info = LinVTForConditionalGeneration.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"], *info["unexpected_keys"]]))
    if wrong:
        raise ValueError(
            f"the weights of {name_or_path} do not fit its config.json: {len(wrong)} are missing, unknown or of "
            f"another shape, such as {wrong[0]}; get the whole checkpoint again."
        )
    return model


def _keep_stored_dtypes(model: LinVTForConditionalGeneration, source: Path) -> None:
    """
    Restores the stored dtypes of the trained parts: loading casts all weights to the image-LLM's dtype, and a
    trainer stores the video tokenizer in float32.
    """
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():
                if name.startswith(tuple(f"{part}." for part in LIGHT_PARTS)):
                    parameter, stored = model.get_parameter(name), tensors.get_tensor(name)
                    if stored.dtype != parameter.dtype:
                        parameter.data = stored


def _save_light(model: LinVTForConditionalGeneration, source: Path, folder: Path) -> None:
    """Saves the video tokenizer, the adapter of the source if there is one, and where the image-LLM is."""
    config = copy.deepcopy(model.config)
    if config.image_llm_source is None:
        raise ValueError(
            f"{source} does not say from which repository its image-LLM came, so it cannot be written light. It says "
            "so if the image-LLM was wrapped by its Hub id, and not as a folder or as a converted checkpoint; push "
            "that folder to the Hub and wrap its id, or export as full or self-contained."
        )
    has_adapter = (source / ADAPTER / "adapter_config.json").is_file()
    config.image_llm_weights = "source_and_adapter" if has_adapter else "source"
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tensors = {name: tensor.contiguous() for name, tensor in light_tensors(model).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if has_adapter:
        _save_lora(source / ADAPTER, folder / ADAPTER)


def _save_lora(source: Path, folder: Path) -> None:
    """Saves the LoRA weights of an adapter, without the video tokenizer, which is in `model.safetensors`."""
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"modules_to_save": None, "base_model_name_or_path": None}
    if not (source / "adapter_model.safetensors").is_file():
        raise ValueError(f"{source} holds no adapter_model.safetensors; save the adapter again, as safetensors.")
    tensors = load_file(source / "adapter_model.safetensors")
    of_the_tokenizer = {name for name in tensors if name.startswith(f"{_ADAPTER_PREFIX}video_tokenizer.")}
    lora = {name: tensor for name, tensor in tensors.items() if name not in of_the_tokenizer}
    others = sorted(name for name in lora if ".lora_" not in name)
    if config["peft_type"] != "LORA" or others:
        found = others[0] if others else config["peft_type"]
        raise ValueError(f"{source} holds more than LoRA and the video tokenizer ({found}); export as full.")
    folder.mkdir()
    save_file(lora, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_same_model(expected: dict[str, str], light: Path, source: Path) -> None:
    """Raises unless the light checkpoint, with the image-LLM from its repository, is the model of the source."""
    model: PreTrainedModel = LinVTForConditionalGeneration.from_pretrained(light)
    found = {name: _digest(tensor) for name, tensor in model.state_dict().items()}
    names = sorted(expected.keys() | found.keys())
    different = [name for name in names if expected.get(name) != found.get(name)]
    if different:
        pinned = model.config.image_llm_source
        raise ValueError(
            f"{len(different)} of {len(expected)} tensors of {source}, such as {different[0]}, are not those that a "
            f"light checkpoint of it would have, with the image-LLM {pinned['id']} at {pinned['revision']}. If LoRA "
            f"was merged into them, give the folder that also has {ADAPTER}/; if they were trained or changed "
            "otherwise, export as full or self-contained."
        )


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{content.dtype} {tuple(content.shape)}".encode())
    digest.update(content.view(-1).view(torch.uint8).numpy() if content.numel() else b"")
    return digest.hexdigest()


__all__ = ["FORMATS", "Exported", "export_model", "load_whole"]
