"""Generates the card of a model from its files, and from nothing else."""

import filecmp
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors import safe_open

from linvt.configuration.configuration_linvt import LinVTConfig
from linvt.configuration.configuration_red_villm import RedVillmVideoConfig
from linvt.hub.card_snippets import snippets
from linvt.hub.model_records import RECORD_FILES, Evaluation, TrainingStage, read_records
from linvt.hub_cards import ADAPTER_TEMPLATE, AUTOSHOT_CARD, TEMPLATE
from linvt.processors.shots.autoshot_files import AUTOSHOT_SUBFOLDER, AUTOSHOT_WEIGHTS
from linvt.video_tokenizer.modeling_linvt_video import only_merges


LINVT = """Gao, Zhong, Zeng, Tan, Li and Zhao: *LinVT: Empower Your Image-level Large Language Model to Understand \
Videos*, [arXiv:2412.05185](https://arxiv.org/abs/2412.05185)."""
RED_VILLM = """Huang et al.: *From Image to Video, what do we need in multimodal LLMs?*, \
[arXiv:2404.11865](https://arxiv.org/abs/2404.11865)."""
AUTOSHOT = "Shots: Zhu et al., *AutoShot: A Short Video Dataset and State-of-the-Art Shot Boundary Detection*."


def write_model_card(
    folder: str | os.PathLike,
    format: str,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    source: str | os.PathLike | None = None,
) -> Path:
    """
    Writes `README.md` for an exported folder, from its files and the records of `model_records.py`.

    Args:
        folder (`str` or `os.PathLike`): What was exported.
        format (`str`): `"full"`, `"light"` or `"self-contained"`.
        repo_id (`str`, *optional*): Name that it will have on the Hub; that of the folder by default.
        license (`str`, *optional*): Identifier of the licence, where the image-LLM's repository names none.
        source (`str` or `os.PathLike`, *optional*): Folder whose records are taken along.

    Raises:
        `ValueError`: If a record is malformed, if the licence of the image-LLM cannot be read, or is another.
    """
    folder = Path(folder)
    for file in RECORD_FILES.values():
        if source is not None and (Path(source) / file).is_file():
            shutil.copyfile(Path(source) / file, folder / file)
    config = LinVTConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    stages, evaluations = read_records(folder, TrainingStage), read_records(folder, Evaluation)
    settings = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))["video_processor"]
    pinned = config.image_llm_source or {}
    name = repo_id or folder.name
    licence, is_inherited = _licence(pinned, license)
    is_linear = not isinstance(config.video_tokenizer_config, RedVillmVideoConfig)
    card = ModelCard.from_template(
        ModelCardData(
            pipeline_tag="video-text-to-text",
            # What the Hub names under "Use this model": only this format loads with Transformers alone.
            library_name="transformers" if format == "self-contained" else "linvt",
            base_model=pinned.get("id"),
            base_model_relation=(("adapter" if format == "light" else "finetune") if pinned else None),
            datasets=list(dict.fromkeys(stage.data for stage in stages if stage.data_on_hub)) or None,
            tags=["linvt", "video"],
            model_name=name.split("/")[-1] if evaluations else None,
            eval_results=_results(evaluations) or None,
            **licence,
        ),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        name=name.split("/")[-1],
        format=format,
        method="LinVT" if is_linear else "RED-VILLM",
        linear=(
            "Each of them is a weighted average of tokens that the image-LLM itself makes of the frames. Prompts "
            "without videos go to the image-LLM as they are."
            if is_linear
            else "Prompts without videos go to the image-LLM as they are."
        ),
        image_llm=f"[{pinned['id']}]({_page(pinned)})" if pinned else "An image-LLM",
        image_llm_revision=pinned.get("revision"),
        image_llm_type=config.image_llm_config.model_type,
        num_video_tokens=config.num_video_tokens,
        any_number=is_linear and config.video_tokenizer_config.start == "merge",
        only_merges=_only_merges(folder, config),
        frames=_frames(settings),
        shots=_shots(settings, folder),
        num_code_files=len(list(folder.glob("*.py"))),
        snippets=snippets(format, name),
        stages=stages,
        evaluations=evaluations,
        licence=_licence_text(pinned, licence, is_inherited),
        citation="\n".join(f"- {line}" for line in ((LINVT, AUTOSHOT) if is_linear else (RED_VILLM, AUTOSHOT))),
        **_weights(folder, format),
    )
    card.save(folder / "README.md")
    if _has_our_autoshot(folder):
        shutil.copyfile(AUTOSHOT_CARD, folder / AUTOSHOT_SUBFOLDER / "README.md")  # it names the authors of the clips
    return folder / "README.md"


def _has_our_autoshot(folder: Path) -> bool:
    weights = folder / AUTOSHOT_SUBFOLDER / "model.safetensors"
    return weights.is_file() and filecmp.cmp(weights, AUTOSHOT_WEIGHTS / "model.safetensors", shallow=False)


def write_adapter_card(folder: str | os.PathLike, model: str | os.PathLike) -> Path:
    """
    Writes `README.md` for an adapter beside the model that it was merged into.

    Args:
        folder (`str` or `os.PathLike`): `adapter/` in the folder of the merged model.
        model (`str` or `os.PathLike`): Folder or Hub id of the model that it was trained on.
    """
    folder = Path(folder).resolve()
    card = ModelCard.from_template(
        ModelCardData(
            library_name="peft", base_model=None if Path(model).is_dir() else str(model), tags=["linvt", "video"]
        ),
        template_str=ADAPTER_TEMPLATE.read_text(encoding="utf-8"),
        name=folder.parent.name,
        model=str(model),
    )
    card.save(folder / "README.md")
    return folder / "README.md"


def _weights(folder: Path, format: str) -> dict[str, str | None]:
    """Counts parameters by part, from the headers of the files. Beside a full model, an adapter is merged in."""
    parameters: Counter[str] = Counter()
    dtypes, size = set(), 0
    adapter = folder / "adapter" / "adapter_model.safetensors"
    files = [*sorted(folder.glob("*.safetensors")), *([adapter] if format == "light" and adapter.is_file() else [])]
    for file in files:
        size += file.stat().st_size
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():
                part = "adapter" if file == adapter else key.split(".")[0]
                parameters[part] += math.prod(tensors.get_slice(key).get_shape())
                dtypes.add(tensors.get_slice(key).get_dtype())
    return {
        "video_tokenizer_parameters": f"{parameters['video_tokenizer']:,}",
        "adapter_parameters": f"{parameters['adapter']:,}" if parameters["adapter"] else None,
        "all_parameters": f"{parameters.total():,}",
        "dtypes": " and ".join(sorted(dtypes)),
        "weight_bytes": f"{size:,}",
    }


def _only_merges(folder: Path, config: LinVTConfig) -> bool:
    prefix = "video_tokenizer."

    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():
                    if key.startswith(prefix):
                        yield key.removeprefix(prefix), tensors.get_tensor(key)

    return only_merges(config.video_tokenizer_config, weights())


def _frames(settings: dict) -> str:
    height, width = settings["size"]["height"], settings["size"]["width"]
    rate = f"{settings['fps']} per second" if settings.get("num_frames") is None else settings["num_frames"]
    return f"{rate}, of {height} x {width} pixels, unless `num_frames` or `fps` says otherwise"


def _shots(settings: dict, folder: Path) -> str:
    if settings["shot_detection"] == "uniform":
        return "Frames are spread evenly over the whole video; shots are not looked for."
    where = "are in `autoshot/`" if (folder / AUTOSHOT_SUBFOLDER).is_dir() else "come with `linvt`"
    which = " that is not long" if settings["shot_detection"] == "auto" else ""
    return f"Frames are spread over the shots of a video{which}, which AutoShot finds. Its weights {where}."


def _results(evaluations: list[Evaluation]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="video-text-to-text",
            dataset_type=evaluation.data_id,
            dataset_name=evaluation.data,
            dataset_split=evaluation.split,
            metric_type=evaluation.metric,
            metric_name=f"{evaluation.metric}, {kind} ({evaluation.unit})",
            metric_value=value,
        )
        for evaluation in evaluations
        if evaluation.evaluated == "this model"
        for kind, value in evaluation.values.items()
    ]


def _licence(pinned: dict[str, str], given: str | None) -> tuple[dict[str, str], bool]:
    """Returns the metadata of the licence, and whether the card of the image-LLM, at the pinned revision, has them."""
    if not pinned:
        return {} if given is None else {"license": given}, False
    where = f"{pinned['id']} at {pinned['revision']}"
    try:
        card = hf_hub_download(pinned["id"], "README.md", revision=pinned["revision"])
        base = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except RemoteEntryNotFoundError:
        base = {}
    except yaml.YAMLError as error:
        raise ValueError(f"The card of {where} has metadata that cannot be read: {error}") from error
    except OSError as error:  # what the Hub answers, and no connection to it
        if given is None:
            raise ValueError(
                f"The licence of {where}, which this model inherits, cannot be read ({str(error).splitlines()[0]}); "
                "connect to the Hub, or give it, with --license."
            ) from error
        base = {}
    found = {key: base[key] for key in ("license", "license_name", "license_link") if base.get(key)}
    if "license_link" in found and "://" not in found["license_link"]:  # a file of its repository
        found["license_link"] = f"{_page(pinned)}/blob/{pinned['revision']}/{found['license_link']}"
    if "license" not in found:
        if given is None:
            raise ValueError(f"The card of {where} names no licence; find it and give it, with --license.")
        return {"license": given}, False
    if given not in (None, found["license"]):
        raise ValueError(
            f"The licence is given as {given!r}, but that of {where}, which this model inherits, is "
            f"{found['license']!r}; leave it out."
        )
    return found, True


def _licence_text(pinned: dict[str, str], licence: dict[str, str], is_inherited: bool) -> str:
    if not licence:
        return (
            "Not known: the image-LLM was given as a folder, which names none. Its licence holds for its weights and "
            "for what was made of them."
        )
    names = licence.get("license_name", licence["license"])
    name = names if isinstance(names, str) else ", ".join(names)
    text = f"[{name}]({licence['license_link']})" if "license_link" in licence else f"`{name}`"
    if not pinned:
        return f"{text}."
    if is_inherited:
        return f"{text}, that of [the image-LLM]({_page(pinned)})."
    return f"{text}, as given by who exported this model; no licence of [the image-LLM]({_page(pinned)}) was found."


def _page(pinned: dict[str, str]) -> str:
    return f"https://huggingface.co/{pinned['id']}"


__all__ = ["write_adapter_card", "write_model_card"]
