"""What is saved loads through every Auto class, bit for bit."""

import json

import pytest
import torch
from tiny_families import FAMILIES, SMALL, build_image_llm, random_video, user_turn
from tiny_image_llms import tiny_config
from transformers import (
    AqlmConfig,
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoVideoProcessor,
    BitsAndBytesConfig,
)

from linvt import LinVTConfig, LinVTForConditionalGeneration, LinVTProcessor, LinVTVideoProcessor
from linvt.ports.auto_classes import PORTS


each_family = pytest.mark.parametrize("family", FAMILIES)


def spreads(model) -> dict[str, float]:
    """The standard deviation of each weight with enough numbers to tell."""
    return {name: weight.std().item() for name, weight in model.named_parameters() if weight.numel() >= 500}


@pytest.mark.parametrize("model_type", ["llava", "llava_onevision", *(port[0].model_type for port in PORTS)])
def test_weights_that_are_missing_start_as_in_the_image_llm(model_type):
    """Those of its vision encoder, too, whose layers may each have a spread of their own."""
    config = tiny_config(model_type)
    image_llm = AutoModelForImageTextToText.from_config(config)
    expected = spreads(image_llm)
    assert len(expected) > 5
    for model in (
        type(image_llm).from_pretrained(None, config=config, state_dict={}),
        LinVTForConditionalGeneration.from_pretrained(
            None, config=LinVTConfig(image_llm_config=config, video_tokenizer_config=SMALL), state_dict={}
        ).image_llm,
    ):
        assert spreads(model) == pytest.approx(expected, rel=0.3)


@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
def test_models_load_through_every_auto_class(tmp_path, family, dtype, shard_size):
    image_llm, image_llm_processor = build_image_llm(family)
    image_llm.save_pretrained(tmp_path / "image_llm")
    model = LinVTForConditionalGeneration.from_image_llm(tmp_path / "image_llm", SMALL, dtype=dtype)
    assert model.dtype == dtype and model.video_tokenizer.dtype == dtype
    processor = LinVTProcessor.from_image_llm_processor(
        image_llm_processor, num_video_tokens=12, frame_size={"height": 56, "width": 56}, num_frames=4
    )
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(user_turn(random_video(6), "What is it?"), **options)
    expected = model(**inputs).logits

    model.save_pretrained(tmp_path / "linvt", max_shard_size=shard_size)
    files = {path.name for path in (tmp_path / "linvt").iterdir()}
    # Where the image-LLM was on this machine is nobody else's.
    assert str(tmp_path) not in (tmp_path / "linvt" / "config.json").read_text()
    assert ("model.safetensors.index.json" in files) == (shard_size == "40KB")
    assert not any(name.endswith((".bin", ".pt", ".py")) for name in files)
    assert type(AutoConfig.from_pretrained(tmp_path / "linvt")) is LinVTConfig
    for auto_class in (
        LinVTForConditionalGeneration,
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
    ):
        loaded, info = auto_class.from_pretrained(tmp_path / "linvt", output_loading_info=True)
        assert type(loaded) is LinVTForConditionalGeneration and loaded.dtype == dtype
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
        assert torch.equal(loaded(**inputs).logits, expected)
    loaded = AutoModel.from_pretrained(tmp_path / "linvt", dtype=torch.float16)
    assert loaded.dtype == torch.float16 and loaded.video_tokenizer.dtype == torch.float16


@each_family
def test_processors_load_through_every_auto_class(make_linvt, tmp_path, family):
    model, processor = make_linvt(family)
    model.config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    chat = user_turn(random_video(6), "What is it?")
    expected = processor.apply_chat_template(chat, **options)
    for auto_class in (LinVTProcessor, AutoProcessor):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is LinVTProcessor
        inputs = loaded.apply_chat_template(chat, **options)
        assert inputs.keys() == expected.keys() and all(torch.equal(inputs[k], expected[k]) for k in expected)
        assert loaded.to_dict() == processor.to_dict()
    video_processor = AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(video_processor) is LinVTVideoProcessor
    assert video_processor.to_dict() == processor.video_processor.to_dict()
    assert AutoProcessor.from_pretrained(tmp_path, num_frames=3).video_processor.num_frames in (3, 5)


def test_wrapping_an_id_gives_the_same_as_wrapping_the_model(tmp_path):
    image_llm, _ = build_image_llm("llava")
    image_llm.save_pretrained(tmp_path)
    models = []
    for source in (tmp_path, str(tmp_path), image_llm):
        torch.manual_seed(0)
        models.append(LinVTForConditionalGeneration.from_image_llm(source, SMALL).state_dict())
    for other in models[1:]:
        assert models[0].keys() == other.keys()
        assert all(torch.equal(models[0][name], other[name]) for name in other)


def test_loading_arguments_reach_the_image_llm(tmp_path):
    image_llm, _ = build_image_llm("llava")
    image_llm.save_pretrained(tmp_path)
    model = LinVTForConditionalGeneration.from_image_llm(
        tmp_path, SMALL, dtype="bfloat16", attn_implementation="eager", device_map="cpu"
    )
    assert model.dtype == torch.bfloat16
    assert model.image_llm.config._attn_implementation == "eager"
    assert model.video_tokenizer.config._attn_implementation == "eager"
    model.save_pretrained(tmp_path / "linvt")
    loaded = AutoModel.from_pretrained(tmp_path / "linvt", attn_implementation="eager", device_map="cpu")
    assert loaded.image_llm.config._attn_implementation == "eager"
    assert loaded.video_tokenizer.config._attn_implementation == "eager"


def test_the_saved_configuration_can_be_read_by_people(make_linvt, tmp_path):
    model, _ = make_linvt("llava")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "linvt" and config["architectures"] == ["LinVTForConditionalGeneration"]
    assert config["image_llm_config"]["model_type"] == "llava"
    assert config["video_tokenizer_config"]["num_queries"] == [6, 4, 2]


def test_tied_embeddings_stay_tied(make_linvt, tmp_path):
    model, _ = make_linvt("qwen2_vl")
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


def test_a_truncated_checkpoint_is_an_error(make_linvt, tmp_path):
    model, _ = make_linvt("llava")
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(Exception, match="(?i)incomplete|invalid|deserializ|header"):
        AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantisation_spares_the_video_tokenizer(make_linvt, ask, tmp_path, bits):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="quantisation is tested with bitsandbytes")
    quantised_class = {4: bitsandbytes.nn.Linear4bit, 8: bitsandbytes.nn.Linear8bitLt}[bits]
    quantization = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    model, processor = make_linvt("llava")
    inputs = ask(processor, random_video(6), "What is it?")
    model.image_llm.save_pretrained(tmp_path / "image_llm")
    model.save_pretrained(tmp_path / "linvt")

    wrapped = LinVTForConditionalGeneration.from_image_llm(
        tmp_path / "image_llm", SMALL, quantization_config=quantization
    )
    loaded = AutoModel.from_pretrained(tmp_path / "linvt", quantization_config=quantization)
    for quantised in (wrapped, loaded):
        assert type(quantised.image_llm.model.language_model.layers[0].mlp.up_proj) is quantised_class
        assert not any(isinstance(module, quantised_class) for module in quantised.video_tokenizer.modules())
        assert not isinstance(quantised.image_llm.lm_head, quantised_class)
        assert quantised(**inputs).logits.isfinite().all()
    assert torch.equal(loaded.video_tokenizer.token_proj.weight, model.video_tokenizer.token_proj.weight)

    loaded.save_pretrained(tmp_path / "quantised")
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "quantised")(**inputs).logits, loaded(**inputs).logits)
    with pytest.raises(ValueError, match="quantised before it was wrapped.*Wrap and save it unquantised"):
        wrapped.save_pretrained(tmp_path / "wrapped")


def test_quantisation_that_cannot_spare_modules_is_refused(make_linvt, tmp_path):
    model, _ = make_linvt("llava")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="AqlmConfig has no list of modules to spare"):
        LinVTForConditionalGeneration.from_pretrained(tmp_path, quantization_config=AqlmConfig())
