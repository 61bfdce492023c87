"""Converted checkpoints compute what the published models compute, which reference_published_models.py states."""

import published_checkpoints as published
import pytest
import reference_published_models as reference
import torch
from tiny_families import SMALL
from transformers import AutoModelForImageTextToText

from linvt import LinVTForConditionalGeneration, MiphaForConditionalGeneration
from linvt.conversion.convert import convert_checkpoint


def converted(tmp_path, config: dict, tensors: dict, file_format: str = "safetensors", **kwargs):
    source = published.write_checkpoint(tmp_path / "source", config, tensors, file_format)
    convert_checkpoint(source, tmp_path / "output", **kwargs)
    model, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "output", output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def prompt(vocabulary: int, image_id: int, num_tokens: int, length: int = 0) -> torch.Tensor:
    """Text, the tokens of a picture, text."""
    ids = torch.randint(
        3, vocabulary - 10, (max(length, num_tokens + 12),), generator=torch.Generator().manual_seed(1)
    )
    ids[5 : 5 + num_tokens] = image_id
    return ids


def pictures(number: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(2))


def check(model, ids, expected_tokens, expected_logits, **images):
    with torch.no_grad():
        features = model.get_image_features(**images, return_dict=True).pooler_output
        logits = model(input_ids=ids[None], **images).logits[0]
    for found, expected in zip(features, expected_tokens, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=0)
    assert expected_logits.std() > 0.1  # so that 1e-4 means something


def check_internvl2(model, config, tensors, length: int = 0):
    vocabulary, image_id = config["llm_config"]["vocab_size"], model.config.image_token_id
    assert image_id == vocabulary - 7
    pixels = pictures(2, 56, 56)
    ids = prompt(vocabulary, image_id, 8, length)
    tokens, logits = reference.internvl2(tensors, config, pixels, ids, image_id)
    check(model, ids, tokens, logits, pixel_values=pixels)


@pytest.mark.parametrize(
    ("llm", "settings"),
    [
        ("Qwen2ForCausalLM", {}),
        ("InternLM2ForCausalLM", {}),
        ("InternLM2ForCausalLM", {"num_attention_heads": 4, "num_key_value_heads": 1, "bias": True}),
        ("InternLM2ForCausalLM", {"rope_theta": 1e6}),
        ("Phi3ForCausalLM", {}),
        ("LlamaForCausalLM", {}),
    ],
)
def test_internvl2(tmp_path, llm, settings):
    config, tensors = published.internvl2(llm, **settings)
    check_internvl2(converted(tmp_path, config, tensors), config, tensors)


def test_internvl2_with_the_large_encoder(tmp_path):
    """InternViT-6B of 26B and larger: RMS norms, normed queries and keys, no biases in the attention."""
    config, tensors = published.internvl2("InternLM2ForCausalLM", big_vision=True)
    check_internvl2(converted(tmp_path, config, tensors), config, tensors)


def test_internvl2_takes_the_layer_that_is_stated(tmp_path):
    config, tensors = published.internvl2("Qwen2ForCausalLM")
    config["select_layer"] = -2
    check_internvl2(converted(tmp_path, config, tensors), config, tensors)


@pytest.mark.parametrize("length", [24, 60])
def test_internvl2_dynamic_rope(tmp_path, length):
    """It acts on prompts that are longer than the positions of the training only."""
    scaling = {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 32}
    config, tensors = published.internvl2("InternLM2ForCausalLM", **scaling)
    check_internvl2(converted(tmp_path, config, tensors), config, tensors, length)


@pytest.mark.parametrize("length", [24, 60])
def test_internvl2_long_rope(tmp_path, length):
    """`su`, with factors for prompts up to the original length and others beyond, and a scale for both."""
    factors = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 1.5, 4.0, 9.0]}
    scaling = {
        "rope_scaling": {"type": "su", **factors},
        "original_max_position_embeddings": 32,
        "max_position_embeddings": 128,
    }
    config, tensors = published.internvl2("Phi3ForCausalLM", **scaling)
    check_internvl2(converted(tmp_path, config, tensors), config, tensors, length)


def test_internvl2_sliding_window(tmp_path):
    config, tensors = published.internvl2("Phi3ForCausalLM", sliding_window=6)
    check_internvl2(converted(tmp_path, config, tensors), config, tensors, 40)


def test_internvl2_without_a_head_of_its_own_is_tied(tmp_path):
    """And only then: the other tests have a head, which the class of Transformers would replace by default."""
    config, tensors = published.internvl2("Qwen2ForCausalLM")
    del tensors["language_model.lm_head.weight"]
    model = converted(tmp_path, config, tensors)
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.get_input_embeddings().weight
    check_internvl2(model, config, tensors)


def test_aquila_vl_with_several_pictures(tmp_path):
    """Each is taken whole, with a newline behind it, as LinVT takes frames."""
    config, tensors = published.aquila_vl()
    model = converted(tmp_path, config, tensors)
    model.config.image_token_id = 270  # the tiny vocabulary ends before the published one
    pixels = pictures(2, 28, 28)
    ids = prompt(270, 270, 2 * 5)
    sizes = [(28, 28), (50, 30)]
    tokens, logits = reference.aquila_vl(tensors, config, list(pixels[:, None]), sizes, ids, 270)
    images = {
        "pixel_values": pixels[:, None],
        "image_sizes": torch.tensor(sizes),
        "batch_num_images": torch.tensor([2]),
    }
    check(model, ids, tokens, logits, **images)


@pytest.mark.parametrize(
    ("size", "num_crops", "num_tokens"),
    [
        ((30, 60), 2, 4 + 2 * 5),
        ((30, 70), 3, 4 + 2 * 5),  # without a margin of one column on each side
        ((90, 28), 3, 4 + 4 * 2),  # 6 x 2 tokens are more than two crops have, and shrink to 4 x 1
        ((50, 50), 4, 4 + 2 * 3),
        ((24, 28), 1, 4 + 2 * 3),
    ],
)
def test_aquila_vl_at_any_resolution(tmp_path, size, num_crops, num_tokens):
    """The whole picture, then its crops as one grid with a newline behind every row."""
    config, tensors = published.aquila_vl()
    model = converted(tmp_path, config, tensors)
    model.config.image_token_id = 270
    pixels = pictures(1 + num_crops, 28, 28)
    ids = prompt(270, 270, num_tokens)
    tokens, logits = reference.aquila_vl(tensors, config, [pixels], [size], ids, 270)
    images = {
        "pixel_values": pixels[None],
        "image_sizes": torch.tensor([size]),
        "batch_num_images": torch.tensor([1]),
    }
    check(model, ids, tokens, logits, **images)


def test_aquila_vl_keeps_its_own_head(tmp_path):
    """`config.json` may call it tied; what is stored decides."""
    config, tensors = published.aquila_vl()
    model = converted(tmp_path, config, tensors)
    assert torch.equal(model.lm_head.weight, tensors["lm_head.weight"])
    assert not model.config.tie_word_embeddings


@pytest.mark.parametrize(("fused", "partial_rotary_factor"), [(False, 0.4), (True, 0.5)])
def test_mipha(tmp_path, fused, partial_rotary_factor):
    config, tensors = published.mipha(fused, partial_rotary_factor)
    model = converted(tmp_path, config, tensors)
    assert isinstance(model, MiphaForConditionalGeneration)
    model.config.image_token_id = 270
    pixels = pictures(2, 28, 28)
    ids = prompt(270, 270, 8)
    tokens, logits = reference.mipha(tensors, config, pixels, ids, 270)
    check(model, ids, tokens, logits, pixel_values=pixels)


def test_mipha_is_saved_with_its_bias(tmp_path):
    config, tensors = published.mipha(False, 0.4)
    model = converted(tmp_path, config, tensors)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.lm_head.bias, tensors["lm_head.bias"])
    assert all(torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("file_format", ["bin", "old bin", "bin sharded", "safetensors sharded"])
def test_every_file_format_gives_the_same(tmp_path, file_format):
    config, tensors = published.internvl2("InternLM2ForCausalLM")
    check_internvl2(converted(tmp_path, config, tensors, file_format), config, tensors)


def test_dtype(tmp_path):
    config, tensors = published.internvl2("Qwen2ForCausalLM")
    model = converted(tmp_path, config, tensors, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    stored = model.lm_head.weight
    assert torch.equal(stored, tensors["language_model.lm_head.weight"].bfloat16())


def test_stored_dtype_is_kept(tmp_path):
    config, tensors = published.internvl2("Qwen2ForCausalLM")
    half = {key: tensor.half() for key, tensor in tensors.items()}
    assert converted(tmp_path, config, half).dtype == torch.float16


def test_mipha_can_be_wrapped(tmp_path):
    config, tensors = published.mipha(True, 0.5)
    converted(tmp_path, config, tensors)
    model = LinVTForConditionalGeneration.from_image_llm(tmp_path / "output", SMALL)
    tokens = model.get_frame_tokens(pictures(2, 28, 28))
    expected = reference.mipha(tensors, config, pictures(2, 28, 28), torch.full((8,), 270), 270)[0]
    torch.testing.assert_close(tokens.reshape(2, 4, -1), expected, atol=1e-4, rtol=0)
    model.save_pretrained(tmp_path / "linvt")
    again = LinVTForConditionalGeneration.from_pretrained(tmp_path / "linvt")
    assert torch.equal(again.image_llm.lm_head.bias, tensors["lm_head.bias"])
