"""Light checkpoints: by Hub id, with a small Hub on loopback, they are the full model, bit for bit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hub_server import LICENSED, HubServer
from light_models import DTYPES, IMAGE_LLMS, learn
from safetensors.torch import load_file, save_file
from tiny_families import SMALL, build_image_llm

from linvt import LinVTConfig, LinVTForConditionalGeneration
from linvt.checkpoints.light_checkpoint import load_light
from linvt.hub.export import export_model


EXAMPLES = Path(__file__).parents[1] / "examples"
PATHS = {"PYTHONPATH": f"{Path(__file__).parent}:{EXAMPLES}"}

EXPORT = """
import sys
from light_models import *

for family in IMAGE_LLMS:
    for dtype in DTYPES:
        train_and_export(Path(sys.argv[1]) / family / dtype, family, dtype)
"""

LOAD = """
import sys
from light_models import *
from transformers import AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor
from transformers import BitsAndBytesConfig, pipeline
from transformers.utils import is_bitsandbytes_available
from linvt_cli.cli_main import main

classes = [LinVTForConditionalGeneration, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM]
for family in IMAGE_LLMS:
    inputs = model_inputs(family)
    for dtype in DTYPES:
        for full, light in (("full", "light"), ("tuned", "tuned_light")):
            name = f"org/{family}-{dtype}-{light}".replace("_", "-")
            expected = LinVTForConditionalGeneration.from_pretrained(Path(sys.argv[1]) / family / dtype / full)
            for auto_class in classes if (family, dtype) == ("llava", "float32") else classes[:1]:
                model, info = auto_class.from_pretrained(name, output_loading_info=True)
                assert type(model) is LinVTForConditionalGeneration and model.dtype == getattr(torch, dtype)
                assert same_model(model, expected, inputs), (name, auto_class)
                assert not info["missing_keys"] and not info["unexpected_keys"] and not model.training
                assert model.generation_config.max_new_tokens == 7
                grads = {n: p.requires_grad for n, p in expected.named_parameters()}
                assert {n: p.requires_grad for n, p in model.named_parameters()} == grads
                known, found = expected.config.to_dict(), model.config.to_dict()
                assert {n for n in known if known[n] != found[n]} <= {"_name_or_path"}, (known, found)
            processor = AutoProcessor.from_pretrained(name)
            assert type(processor) is LinVTProcessor

name = "org/llava-float32-tuned-light"
options = {"dtype": "bfloat16", "device_map": "cpu", "attn_implementation": "eager", "frames_per_batch": 3}
for auto_class in classes[:2]:
    model = auto_class.from_pretrained(name, **options)
    assert model.dtype == model.video_tokenizer.dtype == torch.bfloat16 and model.config.frames_per_batch == 3
    assert model.image_llm.config._attn_implementation == model.video_tokenizer.config._attn_implementation == "eager"

if is_bitsandbytes_available():
    options = {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    models = [
        LinVTForConditionalGeneration.from_pretrained(source, **options)
        for source in (Path(sys.argv[1]) / "llava" / "float32" / "full", "org/llava-float32-light")
    ]
    assert models[1].image_llm.is_quantized and type(models[1].video_tokenizer.token_proj) is torch.nn.Linear
    assert same_model(*models, model_inputs("llava"))

clip = Path(sys.argv[2])
answers = [
    pipeline("video-text-to-text", model=str(source))(clip, text="What?", max_new_tokens=5, shot_detection="uniform")
    for source in (name, Path(sys.argv[1]) / "llava" / "float32" / "tuned")
]
assert answers[0][0]["generated_text"] == answers[1][0]["generated_text"], answers
assert main(["ask", str(clip), "What?", "--model", name, "--uniform", "--max-new-tokens", "5"]) == 0

# Loaded it is a whole model: what it saves needs nobody's repository, and can be written light again.
model = LinVTForConditionalGeneration.from_pretrained(name)
model.save_pretrained(Path(sys.argv[1]) / "whole")
export_model(name, Path(sys.argv[1]) / "full_of_light")
export_model(name, Path(sys.argv[1]) / "light_of_light", "light")
for folder in ("whole", "full_of_light", "light_of_light"):
    again = LinVTForConditionalGeneration.from_pretrained(Path(sys.argv[1]) / folder)
    assert same_model(again, model, model_inputs("llava"))
try:
    export_model(Path(sys.argv[1]) / "full_of_light", Path(sys.argv[1]) / "not_light", "light")
except ValueError as error:
    print(error)
"""

REFUSED = """
from linvt import LinVTForConditionalGeneration
from transformers import BitsAndBytesConfig

for name, options in (
    ("org/gone", {}),
    ("org/moved", {}),
    ("org/llava-float32-tuned-light", {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}),
    ("org/no-adapter", {}),
    ("org/llava-float32-light", {"device_map": {"image_llm": "cpu", "video_tokenizer": "cpu"}}),
    ("org/llava-float32-light", {"state_dict": {"a": 1}}),
    ("org/llava-float32-light", {"nonsense": 1}),
):
    try:
        LinVTForConditionalGeneration.from_pretrained(name, **options)
        print("loaded")
    except (OSError, ValueError, TypeError) as error:
        print(type(error).__name__, " ".join(str(error).split()))
"""


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def exported(hub, tmp_path_factory) -> Path:
    """Both families in both dtypes, full and light, with and without LoRA; the light ones are on the Hub too."""
    folder = tmp_path_factory.mktemp("light")
    for family in IMAGE_LLMS:
        image_llm, _ = build_image_llm(family)
        image_llm.save_pretrained(folder / "image_llms" / family)
        (folder / "image_llms" / family / "README.md").write_text(LICENSED)
        hub.add_model(f"org/{family}", folder / "image_llms" / family)
    done = hub.run(EXPORT, folder / "home", folder, env=PATHS)
    assert done.returncode == 0, done.stderr[-3000:]
    for family in IMAGE_LLMS:
        for dtype in DTYPES:
            for name in ("light", "tuned_light"):
                hub.add_model(f"org/{family}-{dtype}-{name}".replace("_", "-"), folder / family / dtype / name)
    return folder


@pytest.mark.parametrize("family", IMAGE_LLMS)
@pytest.mark.parametrize("name", ["light", "tuned_light"])
def test_it_holds_nothing_of_the_image_llm(exported, family, name):
    folder = exported / family / "float32"
    tensors, full = load_file(folder / name / "model.safetensors"), load_file(folder / "full" / "model.safetensors")
    assert all(key.split(".")[0] in ("video_tokenizer", "contrast") for key in tensors)
    assert tensors.keys() == {key for key in full if not key.startswith("image_llm.")}
    files = {path.name for path in (folder / name).rglob("*.safetensors")}
    assert files == {"model.safetensors"} | ({"adapter_model.safetensors"} if name == "tuned_light" else set())
    config = json.loads((folder / name / "config.json").read_text())
    assert config["image_llm_source"]["id"] == f"org/{family}" and len(config["image_llm_source"]["revision"]) == 40
    assert config["image_llm_config"]["text_config"]["vocab_size"] > 0
    if name == "tuned_light":
        lora = load_file(folder / name / "adapter" / "adapter_model.safetensors")
        assert lora and all(".lora_" in key for key in lora)
        settings = json.loads((folder / name / "adapter" / "adapter_config.json").read_text())
        assert not settings["modules_to_save"] and not settings["base_model_name_or_path"]


def test_by_hub_id_it_is_the_full_model_whatever_is_pushed_later(exported, hub, tmp_path):
    """The image-LLMs have moved on since: only at the recorded revisions are they what was wrapped."""
    for family in IMAGE_LLMS:
        image_llm, _ = build_image_llm(family)
        learn(image_llm, "")
        image_llm.save_pretrained(tmp_path / family)
        hub.add_model(f"org/{family}", tmp_path / family)
    done = hub.run(LOAD, tmp_path / "home", exported, EXAMPLES / "shapes.mp4", env=PATHS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "give the folder that also has adapter/" in done.stdout
    assert not (exported / "not_light").exists() and not list(exported.glob(".*"))


def test_what_cannot_be_loaded_is_one_clear_error(exported, hub, tmp_path):
    for name, source in (("gone", {"id": "org/nowhere"}), ("moved", {"revision": "0" * 40})):
        shutil.copytree(exported / "llava/float32/light", tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        config["image_llm_source"] |= source
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        hub.add_model(f"org/{name}", tmp_path / name)
    shutil.copytree(exported / "llava/float32/tuned_light", tmp_path / "no_adapter")
    (tmp_path / "no_adapter/adapter/adapter_model.safetensors").unlink()
    hub.add_model("org/no-adapter", tmp_path / "no_adapter")
    done = hub.run(REFUSED, tmp_path / "home", env=PATHS)
    assert done.returncode == 0, done.stderr[-3000:]
    gone, moved, quantised, no_adapter, placed, state, unknown = done.stdout.splitlines()
    assert gone.startswith("OSError org/gone is a light checkpoint without the weights of its image-LLM")
    assert "org/nowhere at" in gone and "the full or self-contained format" in gone
    assert moved.startswith("OSError org/moved is a light") and f"org/llava at {'0' * 40}" in moved
    assert quantised.startswith("ValueError") and "--format full" in quantised
    assert no_adapter.startswith("OSError org/no-adapter should hold LoRA weights in adapter/")
    assert placed.startswith("ValueError") and "device_map can be a device or 'auto'" in placed
    assert state.startswith("ValueError") and "takes no state_dict" in state
    assert unknown.startswith("TypeError") and "nonsense" in unknown


@pytest.fixture
def load(exported, monkeypatch):
    """Loads a light folder whose image-LLM comes from a folder instead of the Hub."""

    def from_folder(folder, **kwargs):
        config = LinVTConfig.from_pretrained(folder)
        family = config.image_llm_config.model_type
        monkeypatch.setattr(
            "linvt.checkpoints.light_checkpoint._load_pinned_image_llm",
            lambda *_: (build_image_llm(family)[0], {"missing_keys": set()}),
        )
        return load_light(LinVTForConditionalGeneration, folder, **kwargs)

    return from_folder


@pytest.mark.parametrize("damage", ["missing", "shape", "foreign", "cut"])
def test_weights_that_do_not_fit_are_an_error_and_never_random(exported, load, tmp_path, damage):
    folder = tmp_path / "light"
    shutil.copytree(exported / "llava/float32/light", folder)
    assert load(folder).config.image_llm_weights == "inside"
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "video_tokenizer.token_proj.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "shape":
        tensors[name] = tensors[name][:-1].contiguous()
    elif damage == "foreign":
        tensors["image_llm.lm_head.weight"] = torch.zeros(3)
    save_file(tensors, path, metadata={"format": "pt"})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    expected = {
        "missing": f"{name} is missing",
        "shape": f"{name} has shape .* and not",
        "foreign": "image_llm.lm_head.weight is none of the model's",
        "cut": "model.safetensors is damaged",
    }[damage]
    with pytest.raises(ValueError, match=expected):
        load(folder)


@pytest.mark.parametrize("damage", ["missing", "renamed"])
def test_lora_that_does_not_fit_is_an_error_and_never_left_out(exported, load, tmp_path, damage):
    folder = tmp_path / "light"
    shutil.copytree(exported / "llava/float32/tuned_light", folder)
    load(folder)
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    if damage == "missing":
        tensors.pop(next(iter(tensors)))
    else:
        tensors = {name.replace("layers", "blocks"): tensor for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="LoRA weights in .* do not fit the model"):
        load(folder)


def test_one_from_before_there_was_a_choice_starts_at_random(exported, load, tmp_path):
    folder = tmp_path / "light"
    shutil.copytree(exported / "llava/float32/light", folder)
    former = LinVTForConditionalGeneration.from_image_llm(build_image_llm("llava")[0], {**SMALL, "start": "random"})
    kept = {name: value for name, value in former.state_dict().items() if not name.startswith("image_llm.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    assert config["video_tokenizer_config"].pop("start") == "merge"
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load(folder)
    assert loaded.config.video_tokenizer_config.start == loaded.video_tokenizer.config.start == "random"
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in kept.items())


def test_a_folder_of_the_same_name_is_not_taken_for_the_image_llm(exported, tmp_path, monkeypatch):
    """Transformers would load it, at no revision at all."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported / "image_llms" / "llava", tmp_path / "org" / "llava")
    with pytest.raises(ValueError, match="the folder org/llava here would be taken for it"):
        LinVTForConditionalGeneration.from_pretrained(exported / "llava/float32/light")


def test_an_image_llm_without_hub_id_cannot_be_written_light(exported, tmp_path):
    folder = exported / "image_llms" / "llava"
    LinVTForConditionalGeneration.from_image_llm(folder, SMALL).save_pretrained(tmp_path / "full")
    for path in (exported / "llava/float32/full").glob("*"):
        if "processor" in path.name or "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, tmp_path / "full")
    with pytest.raises(ValueError, match="does not say from which repository.*converted.*export as full"):
        export_model(tmp_path / "full", tmp_path / "light", "light")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_configuration_says_where_the_image_llm_is():
    image_llm, _ = build_image_llm("llava")
    with pytest.raises(ValueError, match="there is no image_llm_source"):
        LinVTConfig(image_llm_config=image_llm.config, image_llm_weights="source")
    with pytest.raises(ValueError, match="give {'id'"):
        LinVTConfig(image_llm_config=image_llm.config, image_llm_source={"id": "org/llava"})
