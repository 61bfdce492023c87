"""The port of Qwen-VL against a second implementation on tensors of the published names, and as an image-LLM."""

import base64
import copy
import json

import numpy as np
import pytest
import reference_qwen_vl as reference
import torch
from PIL import Image
from reference_qwen_vl import CONFIG, FACTS
from safetensors.torch import save_file
from tiny_families import SMALL, random_video, user_turn
from tiny_models import CACHE
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from linvt import LinVTForConditionalGeneration, LinVTProcessor, QwenVLConfig, QwenVLProcessor
from linvt.conversion.convert import convert_checkpoint
from linvt.conversion.tiktoken_tokenizer import qwen_tokenizer
from linvt.ports.modeling_qwen_vl import QwenVLForConditionalGeneration


SIZES = {"wide": (90, 301), "tall": (240, 77)}


def ranks() -> dict[bytes, int]:
    """A vocabulary in which words are merged of what comes before; bytes are not in the order of their values."""
    tokens = [bytes([(7 * byte) % 256]) for byte in range(256)]
    tokens += [b"he", b"in", b" t", b" the", b"er", b"ing", b"ct", b"ur", b"ure", b"icture", b"Picture", b" a"]
    # "icture" has to be merged of what comes before it too.
    tokens.insert(tokens.index(b"icture"), b"icture"[:3])
    tokens += [b"an", b"re", b"\xe3\x81", b"\xe3\x81\x82", b"  ", b"   ", b"\n\n"]
    assert len(tokens) == reference.BYTES_AND_MERGES and len(set(tokens)) == len(tokens)
    return {token: rank for rank, token in enumerate(tokens)}


def picture(shape: str, seed: int = 3) -> np.ndarray:
    return random_video(1, seed=seed, height=240, width=304)[0][: SIZES[shape][0], : SIZES[shape][1]]


@pytest.fixture(scope="module")
def tensors():
    return reference.random_tensors()


@pytest.fixture(scope="module")
def published(tensors, tmp_path_factory):
    """A folder as Qwen-VL-Chat is published, weights in a `.bin` file."""
    folder = tmp_path_factory.mktemp("qwen_vl") / "published"
    folder.mkdir()
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    lines = [base64.b64encode(token) + b" " + str(rank).encode() for token, rank in ranks().items()]
    (folder / "qwen.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    return folder


@pytest.fixture(scope="module")
def converted(published):
    output = published.parent / "converted"
    assert convert_checkpoint(published, output).kind == "qwen_vl"
    return output


@pytest.fixture(scope="module")
def loaded(converted):
    model = AutoModelForImageTextToText.from_pretrained(converted).eval()
    model.generation_config.eos_token_id = None  # random weights must not end an answer early
    return model, AutoProcessor.from_pretrained(converted)


def ask(processor, *parts, **kwargs):
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": Image.fromarray(part)}
        for part in parts
    ]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    return processor.apply_chat_template([{"role": "user", "content": content}], **options, **kwargs)


def pixels(image: np.ndarray) -> torch.Tensor:
    """The published transformation: Pillow squashes to a square, then pixels are normalised."""
    squashed = np.asarray(Image.fromarray(image).resize((56, 56), Image.Resampling.BICUBIC)) / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return torch.tensor((squashed - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]


def test_classes(loaded):
    model, processor = loaded
    assert type(model) is QwenVLForConditionalGeneration and type(processor) is QwenVLProcessor
    assert type(model.config) is QwenVLConfig and model.config.num_image_tokens == processor.num_image_tokens == 4


def test_sizes_are_those_of_the_published_model():
    """But for tables of positions, which are of 16 x 16 there and of 32 x 32 here."""
    with torch.device("meta"):
        model = QwenVLForConditionalGeneration(QwenVLConfig())
    baked = (1024 - 256) * 1664 + 1024 * 4096
    assert 2 * (sum(parameter.numel() for parameter in model.parameters()) - baked) == 19_313_870_336


@pytest.mark.parametrize("shape", SIZES)
def test_pictures_are_squashed_as_published(loaded, shape):
    _, processor = loaded
    made = processor.image_processor(Image.fromarray(picture(shape)), return_tensors="pt")["pixel_values"]
    # One step of 255: torchvision and Pillow round differently.
    torch.testing.assert_close(made, pixels(picture(shape)), rtol=0, atol=1.5 / 255 / 0.26)


def test_prompt_is_the_published_one(loaded):
    _, processor = loaded
    inputs = ask(processor, picture("wide"), "What is it?", picture("tall"))
    image = "<img>" + "<imgpad>" * 4 + "</img>"
    assert processor.tokenizer.decode(inputs["input_ids"][0]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\nPicture 1: {image}\nWhat is it?Picture 2: {image}\n<|im_end|>\n<|im_start|>assistant\n"
    )
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And this?"}]},
    ]
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nPicture 1: <imgpad>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n<|im_start|>user\nPicture 1: <imgpad>\nAnd this?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@torch.no_grad()
def test_visual_tokens(loaded, tensors):
    model, _ = loaded
    pictures = torch.cat([pixels(picture(shape)) for shape in SIZES])
    expected = reference.visual_tokens(tensors, pictures, FACTS)
    actual = model.get_image_features(pixel_values=pictures).pooler_output
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def expected_logits(tensors, inputs, facts: dict) -> torch.Tensor:
    tokens = reference.visual_tokens(tensors, inputs["pixel_values"], facts)
    image_token_id = CONFIG["visual"]["image_start_id"] + 2
    return reference.logits(tensors, inputs["input_ids"][0].tolist(), tokens, image_token_id, facts)


@torch.no_grad()
def test_logits(loaded, tensors):
    model, processor = loaded
    inputs = ask(processor, picture("wide"), picture("tall"), "What is it?")
    torch.testing.assert_close(model(**inputs).logits, expected_logits(tensors, inputs, FACTS), rtol=0, atol=1e-4)


WRONG = {
    "heads_interleaved": False,
    "activation": "quick_gelu",
    "vision_eps": 1e-3,
    "positions": "bilinear",
    "key_positions": False,
    "positions_in_values": True,
    "query_positions": False,
    "resampler_heads": 4,
    "projection_from_the_right": False,
    "gate": "w1",
    "theta": 1e6,
    "rms_eps": 1e-3,
    "head": "tied",
    "replaced": False,
}


@pytest.mark.parametrize("name", WRONG)
@torch.no_grad()
def test_each_fact_shows_in_the_logits(loaded, tensors, name):
    """So `test_logits` fails if the port gets one of them wrong."""
    inputs = ask(loaded[1], picture("wide"), "Hi")
    right, wrong = (expected_logits(tensors, inputs, facts) for facts in (FACTS, FACTS | {name: WRONG[name]}))
    assert WRONG.keys() == FACTS.keys() and (right - wrong).abs().max() > 1e-3


def test_the_vocabulary_splits_words_as_it_did(published, converted):
    """One word at a time, which neither tokenizer splits before it merges."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = qwen_tokenizer(published / "qwen.tiktoken", specials)
    saved = AutoTokenizer.from_pretrained(converted)
    for word in ("Picture", " the", " Pictured", "inherent", "あい", " a", "antithesis", "\n\n", "     ", "ureureure"):
        expected = reference.byte_pairs(word.encode(), ranks())
        assert made(word)["input_ids"] == saved(word)["input_ids"] == expected
        assert made.decode(expected) == word
    assert made("<|im_start|>a<|im_end|>")["input_ids"] == [277, ranks()[b"a"], 278]
    ids = dict(zip(("<|endoftext|>", "<img>", "</img>", "<imgpad>"), (276, 490, 491, 492), strict=True))
    assert {token: saved.convert_tokens_to_ids(token) for token in ids} == ids
    assert saved.eos_token == "<|im_end|>" and saved.pad_token == "<|endoftext|>" and saved.padding_side == "left"
    generation = json.loads((converted / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [278, 277, 276] and generation["pad_token_id"] == 276


@torch.no_grad()
def test_a_batch_gives_what_each_prompt_gives_alone(loaded):
    """Prompts of two pictures, of one and of none, of different lengths."""
    model, processor = loaded
    content = [(picture("wide"), picture("tall"), "Both?"), (picture("tall", 4), "Tall, is it not?"), ("Hi",)]
    alone = [ask(processor, *parts) for parts in content]
    prefixes = ["Picture 1: <imgpad>\nPicture 2: <imgpad>\n", "Picture 1: <imgpad>\n", ""]
    chats = [user_turn(prefix + parts[-1]) for prefix, parts in zip(prefixes, content, strict=True)]
    texts = processor.apply_chat_template(chats, add_generation_prompt=True)
    images = [Image.fromarray(part) for parts in content for part in parts[:-1]]
    batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
    logits, generated = model(**batch).logits, model.generate(**batch, max_new_tokens=6, do_sample=False)
    for row, inputs in enumerate(alone):
        length = inputs["input_ids"].shape[1]
        torch.testing.assert_close(logits[row, -length:], model(**inputs).logits[0], rtol=0, atol=1e-3)
        answer = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, length:]
        assert torch.equal(generated[row, -6:], answer)


@torch.no_grad()
def test_generation(loaded):
    model, processor = loaded
    inputs, seen = ask(processor, picture("wide"), picture("tall"), "What is it?"), []
    handle = model.resampler.register_forward_hook(lambda *_: seen.append(1))
    with_cache = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    handle.remove()
    assert seen == [1]  # with the prompt and never again
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=False), with_cache)
    # Repeated prompts keep their pictures in order.
    answers = model.generate(**inputs, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=3)
    assert torch.equal(answers, with_cache.expand(3, -1))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_of_every_layer_is_the_one_that_was_asked_for(converted, implementation):
    model = AutoModelForImageTextToText.from_pretrained(converted, attn_implementation=implementation)
    layers = {type(module).__name__: module.config for module in model.modules() if hasattr(module, "is_causal")}
    assert layers.keys() == {"CLIPAttention", "Qwen2Attention"}
    assert {config._attn_implementation for config in layers.values()} == {implementation}
    fresh = QwenVLForConditionalGeneration(type(model.config).from_pretrained(converted))
    assert fresh.vision_tower.config._attn_implementation == "sdpa"


def test_saved_and_loaded(loaded, tmp_path):
    model, processor = loaded
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, again_processor = (kind.from_pretrained(tmp_path) for kind in (AutoModelForImageTextToText, AutoProcessor))
    inputs, same = (ask(made, picture("wide"), "What?") for made in (processor, again_processor))
    assert all(torch.equal(inputs[name], same[name]) for name in inputs)
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_gradient_checkpointing_and_training(loaded):
    model, processor = copy.deepcopy(loaded[0]), loaded[1]
    inputs, gradients = ask(processor, picture("wide"), "What?"), []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train().zero_grad()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.any()
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_wrapped_by_linvt(loaded):
    model, processor = loaded
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        linvt = LinVTForConditionalGeneration.from_image_llm(copy.deepcopy(model), SMALL).eval()
    linvt_processor = LinVTProcessor.from_image_llm_processor(
        processor, num_video_tokens=12, num_frames=5, shot_detection="uniform"
    )
    images, expected = (ask(made, picture("wide"), "What?") for made in (linvt_processor, processor))
    assert all(torch.equal(images[name], expected[name]) for name in expected)
    assert torch.equal(linvt(**images).logits, model(**expected).logits)
    for settings in ({"do_sample": False}, {"do_sample": False, "num_beams": 3}):
        outputs = [llm.generate(**images, max_new_tokens=6, **settings) for llm in (linvt, model)]
        assert torch.equal(*outputs)
    inputs = linvt_processor.apply_chat_template(
        user_turn(random_video(9), "What happens?"),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"video_metadata": [{"fps": 2.0, "total_num_frames": 9}]},
    )
    assert "Picture 1: <img>" + "<imgpad>" * 12 + "</img>\nWhat happens?<|im_end|>" in (
        linvt_processor.tokenizer.decode(inputs["input_ids"][0])
    )
    output = linvt(**inputs, output_token_weights=True)
    tokens = model.get_image_features(pixel_values=inputs["pixel_values_videos"]).pooler_output.flatten(0, 1)
    torch.testing.assert_close(output.video_tokens[0], output.video_token_weights[0] @ tokens, rtol=0, atol=1e-4)
    assert linvt.generate(**inputs, max_new_tokens=4).shape[1] == inputs["input_ids"].shape[1] + 4


def test_a_sequence_longer_than_it_was_trained_with_is_warned_of(loaded, caplog):
    """There the published code changes its rotary base and its queries, which this class does not."""
    from transformers.utils import logging

    logging.get_logger("linvt.ports.modeling_qwen_vl").warning_once.cache_clear()
    model, _ = loaded
    model(input_ids=torch.zeros(1, 20, dtype=torch.long))
    assert "longer than the" not in caplog.text
    model = copy.deepcopy(model)
    model.config.text_config.max_position_embeddings = 19
    output = model(input_ids=torch.zeros(1, 19, dtype=torch.long), use_cache=True)
    assert "longer than the" not in caplog.text
    model(input_ids=torch.zeros(1, 1, dtype=torch.long), **{CACHE: output[CACHE]})
    assert "longer than the 19 tokens that Qwen-VL was trained with" in caplog.text


def test_what_cannot_work_says_why(loaded, tensors, published, tmp_path):
    model, processor = loaded
    inputs = ask(processor, picture("tall"), "What?")
    with pytest.raises(ValueError, match="4 image tokens"):
        model(**(inputs | {"pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}))
    with pytest.raises(ValueError, match="inputs_embeds have them already"):
        model(inputs_embeds=torch.zeros(1, 4, 256), pixel_values=inputs["pixel_values"])

    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"rotary_pct": 0.5}))
    with pytest.raises(ValueError, match="rotary_pct"):
        convert_checkpoint(tmp_path, tmp_path / "converted")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert not convert_checkpoint(tmp_path, tmp_path / "converted").has_processor
    (tmp_path / "qwen.tiktoken").write_bytes((published / "qwen.tiktoken").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"492|vocabulary"):
        convert_checkpoint(tmp_path, tmp_path / "again")
    (tmp_path / "qwen.tiktoken").write_text("no vocabulary at all")
    with pytest.raises(ValueError, match="no tiktoken vocabulary"):
        convert_checkpoint(tmp_path, tmp_path / "again")
