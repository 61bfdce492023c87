"""The port of Molmo against a second implementation on tensors of the published names, and as an image-LLM."""

import copy
import json

import numpy as np
import pytest
import reference_molmo as reference
import torch
from PIL import Image
from reference_molmo import CONFIG, FACTS
from safetensors.torch import save_file
from tiny_families import SMALL, random_video, user_turn
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, Qwen2Tokenizer

from linvt import LinVTForConditionalGeneration, LinVTProcessor, MolmoConfig, MolmoImageProcessor, MolmoProcessor
from linvt.conversion.convert import convert_checkpoint
from linvt.fingerprints import encoder_fingerprint
from linvt.ports.modeling_molmo import MolmoForConditionalGeneration


MARKS = ["<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>"]
SIZES = {"wide": (120, 331), "tall": (390, 70), "tiny": (40, 57), "square": (112, 112)}


def picture(shape: str) -> np.ndarray:
    return random_video(1, seed=3, height=408, width=332)[0][: SIZES[shape][0], : SIZES[shape][1]]


@pytest.fixture(scope="module")
def tensors():
    return reference.random_tensors()


@pytest.fixture(scope="module")
def published(tensors, tmp_path_factory):
    """A folder as Molmo is published, with a vocabulary of bytes: ids of image tokens follow the 384 of the head."""
    folder = tmp_path_factory.mktemp("molmo") / "published"
    folder.mkdir()
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_tokens([f"|<EXTRA_TOKENS_{number}>|" for number in range(384 - len(tokenizer))], special_tokens=True)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    tokenizer.chat_template = "{{ 'that of the language model' }}"
    tokenizer.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(reference.PREPROCESSOR))
    return folder


@pytest.fixture(scope="module")
def converted(published):
    output = published.parent / "converted"
    assert convert_checkpoint(published, output).kind == "molmo"
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


def expected_logits(tensors, processor, image: np.ndarray, question: str, facts: dict) -> torch.Tensor:
    made = reference.preprocess(image, facts)
    encode = processor.tokenizer.convert_tokens_to_ids
    text = processor.tokenizer(f" User: {question} Assistant:")["input_ids"]
    ids = [encode("<|endoftext|>"), *map(encode, made.text), *text]
    tokens = reference.visual_tokens(tensors, made.patches, made.masks, facts)
    places = torch.where(made.places >= 0, made.places + 1, -100)
    return reference.logits(tensors, reference.embeddings(tensors, ids, tokens, places, facts), facts)


def test_classes(loaded):
    model, processor = loaded
    assert type(model) is MolmoForConditionalGeneration and type(processor) is MolmoProcessor
    assert type(processor.image_processor) is MolmoImageProcessor and type(model.config) is MolmoConfig


def test_sizes_are_those_of_the_published_model():
    with torch.device("meta"):
        model = MolmoForConditionalGeneration(MolmoConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_021_025_280


@pytest.mark.parametrize("shape", SIZES)
@torch.no_grad()
def test_pictures_and_prompt_are_the_published_ones(loaded, shape):
    model, processor = loaded
    made = reference.preprocess(picture(shape), FACTS)
    assert {"wide": made.grid[1] > made.grid[0], "tall": made.grid[0] > made.grid[1]}.get(shape, True)
    inputs = ask(processor, picture(shape), "What is it?")
    side, patch = reference.VIT.side, reference.VIT.patch
    patches = inputs["pixel_values"].unflatten(3, (side, patch)).unflatten(2, (side, patch))
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # pixels of a patch, channels last
    torch.testing.assert_close(patches, made.patches, rtol=0, atol=1e-4)
    torch.testing.assert_close(inputs["image_masks"], made.masks, rtol=0, atol=1e-6)
    prompt = processor.tokenizer.decode(inputs["input_ids"][0])
    assert prompt == "<|endoftext|>" + "".join(made.text) + " User: What is it? Assistant:"
    in_prompt = torch.tensor([place for place, token in enumerate(made.text) if token == "<im_patch>"])
    order = inputs["image_token_order"]
    assert torch.equal(torch.where(order < 0, -100, in_prompt[order.clamp(min=0)]), made.places)


@pytest.mark.parametrize("height", [30, 56, 57, 112, 300, 336, 391, 784, 1200])
@pytest.mark.parametrize("width", [40, 56, 225, 337, 672, 2000])
def test_grid_of_crops(height, width):
    """Sizes as they are published, 336 pixels with margins of 112, where many pictures lie between two grids."""
    from linvt.processors.port_processors.image_processing_molmo import select_tiling

    with np.errstate(divide="ignore"):
        expected = reference.tiling(height, width, 224, 112)
    assert select_tiling(height - 112, width - 112, 224, 12) == expected


@pytest.mark.parametrize("shape", ["wide", "tall"])
@torch.no_grad()
def test_visual_tokens(loaded, tensors, shape):
    model, processor = loaded
    made = reference.preprocess(picture(shape), FACTS)
    assert {0.0, 1.0, -1.0} < set(made.masks.unique().tolist())  # nothing, all, partly, and the quirk
    expected = reference.visual_tokens(tensors, made.patches, made.masks, FACTS)
    inputs = processor.image_processor(Image.fromarray(picture(shape)), return_tensors="pt")
    inputs.pop("image_grids")
    features = model.get_image_features(**inputs)
    torch.testing.assert_close(features.last_hidden_state, expected, rtol=0, atol=1e-4)
    patch = tensors["model.transformer.wte.new_embedding"][2]
    places, order = made.places.flatten().sort()
    expected = expected.flatten(0, 1)[order[places >= 0]] + patch
    torch.testing.assert_close(features.pooler_output[0], expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_frame_is_the_view_of_a_whole_picture_without_padding(loaded, tensors):
    """Its mask is 1: what the view of a square picture has, which is the first crop's."""
    model, processor = loaded
    made = reference.preprocess(picture("square"), FACTS)
    assert torch.equal(made.masks[0], torch.ones(64))
    pixels = processor.image_processor(Image.fromarray(picture("square")), return_tensors="pt")["pixel_values"][:1]
    tokens = model.get_image_features(pixel_values=pixels).pooler_output
    expected = reference.visual_tokens(tensors, made.patches[:1], made.masks[:1], FACTS)
    torch.testing.assert_close(tokens, expected + tensors["model.transformer.wte.new_embedding"][2], rtol=0, atol=1e-4)
    padded = reference.visual_tokens(tensors, made.patches[:1], -torch.ones(1, 64), FACTS)
    assert (padded - expected).abs().max() > 1e-2


@pytest.mark.parametrize("shape", ["wide", "tall", "tiny"])
@torch.no_grad()
def test_logits(loaded, tensors, shape):
    model, processor = loaded
    actual = model(**ask(processor, picture(shape), "What is it?")).logits
    assert actual.shape[-1] == CONFIG["vocab_size"]
    expected = expected_logits(tensors, processor, picture(shape), "What is it?", FACTS)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


WRONG = {
    "activation": "gelu",
    "vision_eps": 1e-2,
    "vision_layers": (-1, -8),
    "class_token_dropped": False,
    "pixels_channels_last": False,
    "pad_rows": (1, 0),
    "query_of_window": "first",
    "projector_gate": "w3",
    "gate_half": 0,
    "theta": 1e4,
    "rms_eps": 1e-2,
    "added": False,
    "head": "tied",
    "mask_shift": False,
}


@pytest.fixture(scope="module")
def right(loaded, tensors):
    return expected_logits(tensors, loaded[1], picture("tiny"), "Hi", FACTS)


@pytest.mark.parametrize("name", WRONG)
@torch.no_grad()
def test_each_fact_shows_in_the_logits(loaded, tensors, right, name):
    """So `test_logits` fails if the port gets one of them wrong."""
    wrong = expected_logits(tensors, loaded[1], picture("tiny"), "Hi", FACTS | {name: WRONG[name]})
    assert WRONG.keys() == FACTS.keys() and (right - wrong).abs().max() > 1e-3


def test_turns(loaded):
    _, processor = loaded
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Where?"},
    ]
    expected = "<|endoftext|><im_patch> User: What? Assistant: A cat.<|endoftext|> User: Where? Assistant:"
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == expected
    with pytest.raises(Exception, match="user and assistant only"):
        processor.apply_chat_template([{"role": "system", "content": "Be kind."}, *chat])


@torch.no_grad()
def test_a_batch_gives_what_each_prompt_gives_alone(loaded):
    """Prompts of two pictures, of one and of none, of different lengths."""
    model, processor = loaded
    content = [(picture("square"), picture("tiny"), "Both?"), (picture("tall"), "Tall, is it not?"), ("Hi",)]
    alone = [ask(processor, *parts) for parts in content]
    texts = [
        processor.apply_chat_template(user_turn(parts[-1]), add_generation_prompt=True).replace(
            " User:", "<im_patch>" * (len(parts) - 1) + " User:"
        )
        for parts in content
    ]
    images = [Image.fromarray(part) for parts in content for part in parts[:-1]]
    batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
    logits, generated = model(**batch).logits, model.generate(**batch, max_new_tokens=6, do_sample=False)
    for row, inputs in enumerate(alone):
        length = inputs["input_ids"].shape[1]
        torch.testing.assert_close(logits[row, -length:], model(**inputs).logits[0], rtol=0, atol=1e-3)
        answer = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, length:]
        assert torch.equal(generated[row, -6:], answer)


@torch.no_grad()
def test_generation(loaded, monkeypatch):
    model, processor = loaded
    inputs = ask(processor, picture("square"), picture("tiny"), "What is it?")
    length, seen = inputs["input_ids"].shape[1], []
    encode = model.get_image_features
    monkeypatch.setattr(model, "get_image_features", lambda **images: seen.append(1) or encode(**images))
    with_cache = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert seen == [1]  # with the prompt and never again
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=False), with_cache)
    looked_up = model.generate(**inputs, max_new_tokens=6, do_sample=False, prompt_lookup_num_tokens=2)
    assert torch.equal(looked_up, with_cache)
    # Repeated prompts keep their pictures and crops together.
    answers = model.generate(**inputs, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=3)
    assert torch.equal(answers, with_cache.expand(3, -1))
    beams = model.generate(**inputs, max_new_tokens=6, do_sample=False, num_beams=4)

    def likelihood(sequence):
        images = {name: inputs[name] for name in model.image_inputs}
        chances = model(input_ids=sequence, **images).logits[:, length - 1 : -1].log_softmax(-1)
        return chances.gather(2, sequence[:, length:, None]).sum()

    assert likelihood(beams) >= likelihood(with_cache) - 1e-4
    with pytest.raises(ValueError, match="need the cache"):
        model.generate(**inputs, num_beams=2, use_cache=False)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_of_every_layer_is_the_one_that_was_asked_for(converted, implementation):
    model = AutoModelForImageTextToText.from_pretrained(converted, attn_implementation=implementation)
    layers = {type(module).__name__: module.config for module in model.modules() if hasattr(module, "is_causal")}
    assert layers.keys() == {"CLIPAttention", "Qwen2Attention"}
    assert {config._attn_implementation for config in layers.values()} == {implementation}
    fresh = MolmoForConditionalGeneration(type(model.config).from_pretrained(converted))
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
    inputs = ask(processor, picture("tiny"), "What?")
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train().zero_grad()
        model(**inputs, labels=inputs["input_ids"].where(inputs["input_ids"] < 384, -100)).loss.backward()
        gradients.append(
            {
                name: parameter.grad.clone()
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
        )
    unused = {name for name, _ in model.named_parameters()} - gradients[0].keys()
    assert all(name.startswith("vision_tower.encoder.layers.9.") for name in unused)  # behind the layer -2
    assert gradients[0]["pad_embed"].any() and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_wrapped_by_linvt(loaded, tensors):
    model, processor = loaded
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        linvt = LinVTForConditionalGeneration.from_image_llm(copy.deepcopy(model), SMALL).eval()
    linvt_processor = LinVTProcessor.from_image_llm_processor(
        processor, num_video_tokens=12, num_frames=5, shot_detection="uniform"
    )
    images, expected = ask(linvt_processor, picture("tiny"), "What?"), ask(processor, picture("tiny"), "What?")
    assert all(torch.equal(images[name], expected[name]) for name in expected)
    assert torch.equal(linvt(**images).logits, model(**expected).logits)
    for settings in ({"do_sample": False}, {"do_sample": False, "num_beams": 3}):
        outputs = [llm.generate(**images, max_new_tokens=6, **settings) for llm in (linvt, model)]
        assert torch.equal(*outputs)

    frames = random_video(9)
    content = [
        {"type": "video", "video": frames},
        {"type": "image", "image": Image.fromarray(picture("tiny"))},
        {"type": "text", "text": "What happens?"},
    ]
    inputs = linvt_processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"video_metadata": [{"fps": 2.0, "total_num_frames": 9}]},
    )
    prompt = linvt_processor.tokenizer.decode(inputs["input_ids"][0])
    assert prompt.startswith("<|endoftext|><im_start>" + "<im_patch>" * 12 + "<im_col><im_end><im_start>")
    output = linvt(**inputs, output_token_weights=True)
    # A video token is the mean of visual tokens of frames, added to the embedding of <im_patch>, as Molmo does it.
    features = linvt.image_llm.get_image_features(pixel_values=inputs["pixel_values_videos"]).last_hidden_state
    means = output.video_token_weights[0] @ features.flatten(0, 1)
    patch = tensors["model.transformer.wte.new_embedding"][2]
    torch.testing.assert_close(output.video_tokens[0], means + patch, rtol=0, atol=1e-4)
    embeds = linvt.get_llm_inputs(**inputs)[0]["inputs_embeds"][
        0, inputs["input_ids"][0] == model.config.image_token_id
    ]
    made = processor.image_processor(Image.fromarray(picture("tiny")), return_tensors="pt")
    made.pop("image_grids")
    torch.testing.assert_close(embeds[:12], means + patch, rtol=0, atol=1e-4)
    torch.testing.assert_close(embeds[12:], model.get_image_features(**made).pooler_output[0], rtol=0, atol=1e-5)
    assert linvt.generate(**inputs, max_new_tokens=4).shape[1] == inputs["input_ids"].shape[1] + 4


def test_known_frame_tokens_are_of_one_placeholder_embedding(loaded):
    """V holds the embedding of `<im_patch>`, so a cache of it must not outlive a change of that row."""
    linvt = LinVTForConditionalGeneration.from_image_llm(copy.deepcopy(loaded[0]), SMALL)
    before = encoder_fingerprint(linvt)
    with torch.no_grad():
        linvt.get_input_embeddings().weight[0] += 1
    assert encoder_fingerprint(linvt) == before
    with torch.no_grad():
        linvt.get_input_embeddings().weight[linvt.image_llm.config.image_token_id] += 1
    assert encoder_fingerprint(linvt) != before


def test_what_cannot_work_says_why(loaded, published, tensors, tmp_path):
    model, processor = loaded
    inputs = ask(processor, picture("tiny"), "What?")
    with pytest.raises(ValueError, match="image tokens"):
        model(**(inputs | {"input_ids": inputs["input_ids"][:, :20]}))
    with pytest.raises(ValueError, match="belong together"):
        model.get_image_features(inputs["pixel_values"], image_num_crops=inputs["image_num_crops"])
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="overlap_margins"):
        MolmoImageProcessor(overlap_margins=[3, 4])(Image.fromarray(picture("tiny")))
    with pytest.raises(ValueError, match="too long"):
        MolmoImageProcessor()(Image.new("RGB", (4000, 2)))

    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"norm_after": True}))
    with pytest.raises(ValueError, match=r"norm_after.*Molmo-7B-O"):
        convert_checkpoint(tmp_path, tmp_path / "converted")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    result = convert_checkpoint(tmp_path, tmp_path / "converted")
    assert not result.has_processor and type(AutoConfig.from_pretrained(tmp_path / "converted")) is MolmoConfig


def test_the_converted_tokenizer(converted, published):
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert [tokenizer.convert_tokens_to_ids(mark) for mark in MARKS] == list(range(384, 389))
    generation = json.loads((converted / "generation_config.json").read_text())
    assert generation["eos_token_id"] == generation["pad_token_id"] == 151643  # that of every Qwen2 vocabulary
