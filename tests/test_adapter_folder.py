"""The folder of an adapter loads by the model's own class, as by the Auto class and by PEFT."""

import json

import peft
import pytest
import torch
from packaging.version import Version
from peft import PeftModel, get_peft_model
from tiny_families import random_video
from transformers import AutoModelForImageTextToText

from linvt import LinVTForConditionalGeneration
from linvt.checkpoints.light_checkpoint import load_light
from linvt.training import lora_for_instruction


@pytest.fixture
def adapter(make_linvt, tmp_path):
    """`adapter(family)`: a folder with LoRA and a video tokenizer far from where they began, beside their model."""

    def make(family: str):
        model, _ = make_linvt(family)
        model.save_pretrained(tmp_path / "model")
        base = LinVTForConditionalGeneration.from_pretrained(tmp_path / "model")
        adapted = get_peft_model(base, lora_for_instruction(base, r=4))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.normal_(std=0.2)
        adapted.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return make


# Goes when peft>=0.19 is required: Transformers, which loads the adapter, asks an older one for what it does not have.
LOADS_ADAPTERS = Version(peft.__version__) >= Version("0.19")
loads_adapters = pytest.mark.skipif(not LOADS_ADAPTERS, reason="Transformers loads adapters with PEFT 0.19 or newer")


@loads_adapters
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_it_is_the_model_that_others_load(make_linvt, ask, adapter, family):
    folder = adapter(family)
    inputs = ask(make_linvt(family)[1], random_video(4), "What?")
    base = LinVTForConditionalGeneration.from_pretrained(folder.parent / "model")
    before = base(**inputs).logits
    expected = PeftModel.from_pretrained(base, folder).eval()(**inputs).logits
    assert not torch.allclose(before, expected, atol=1e-2)
    loaded = LinVTForConditionalGeneration.from_pretrained(folder)
    assert type(loaded) is LinVTForConditionalGeneration
    by_auto = AutoModelForImageTextToText.from_pretrained(folder)
    for model in (loaded, by_auto):
        torch.testing.assert_close(model(**inputs).logits, expected)
    tensors = by_auto.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in loaded.state_dict().items())


@loads_adapters
def test_arguments_reach_both_parts(adapter):
    folder = adapter("llava")
    loaded, info = LinVTForConditionalGeneration.from_pretrained(folder, dtype="bfloat16", output_loading_info=True)
    assert not info["missing_keys"] and loaded.get_input_embeddings().weight.dtype == torch.bfloat16
    (folder.parent / "repository").mkdir()
    folder.rename(folder.parent / "repository" / "tuned")
    inside = LinVTForConditionalGeneration.from_pretrained(folder.parent / "repository", subfolder="tuned")
    assert any("lora_A" in name for name in inside.state_dict())


def test_a_peft_that_is_too_old_is_named(adapter, monkeypatch):
    def old(*args, **kwargs):
        raise ImportError("cannot import name '_maybe_shard_state_dict_for_tp'")

    folder = adapter("llava")
    monkeypatch.setattr(LinVTForConditionalGeneration, "load_adapter", old)
    with pytest.raises(ImportError, match=r"pip install -U peft.*PeftModel"):
        LinVTForConditionalGeneration.from_pretrained(folder)


def test_what_is_no_whole_adapter_is_refused(adapter, tmp_path):
    folder = adapter("llava")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no config\.json"):
        LinVTForConditionalGeneration.from_pretrained(tmp_path / "empty")
    weights = folder / "adapter_model.safetensors"
    weights.rename(folder / "adapter_model.bin")  # a pickle, as far as its name says
    with pytest.raises(OSError, match=r"adapter_model\.safetensors"):
        LinVTForConditionalGeneration.from_pretrained(folder)
    (folder / "adapter_model.bin").rename(weights)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match=r"names no model.*PeftModel"):
        LinVTForConditionalGeneration.from_pretrained(folder)


def test_an_adapter_is_not_dropped_beside_a_light_checkpoint(adapter):
    """Which the Auto class gives together with the adapter."""
    folder = adapter("llava")
    with pytest.raises(ValueError, match=r"adapter is an adapter of .*PeftModel"):
        load_light(
            LinVTForConditionalGeneration,
            folder.parent / "model",
            adapter_kwargs={"revision": None, "_adapter_model_path": str(folder)},
        )
