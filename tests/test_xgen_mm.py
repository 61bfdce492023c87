"""xGen-MM against an independent reference: tiny checkpoints in the published format, converted."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import reference_xgen_mm as published
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_families import SMALL, random_video, user_turn
from tiny_models import CACHE, byte_tokenizer
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.image_utils import SizeDict

from linvt import LinVTForConditionalGeneration, LinVTProcessor, XGenMMConfig, XGenMMForConditionalGeneration
from linvt.conversion.convert import convert_checkpoint
from linvt.conversion.key_plan import expected_shapes, plan_conversion
from linvt.conversion.xgen_mm_checkpoint import XGenMMCheckpoint
from linvt.fingerprints import encoder_fingerprint
from linvt.image_llms.family_table import image_llm_family
from linvt.processors.port_processors.image_processing_xgen_mm import XGenMMImageProcessor, best_grid


DESIGNS = ("siglip", "vit")  # interleave-r-v1.5 and r-v1
MARKS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
NORMALISATION = {
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "vit": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
WIDE, TALL = (150, 70), (40, 170)  # width, height
each_design = pytest.mark.parametrize("design", DESIGNS)
close = {"rtol": 0, "atol": 1e-4}


def write_original(folder, design: str, with_tokenizer: bool = True, **text) -> dict[str, torch.Tensor]:
    """A folder as published, and its tensors."""
    tokenizer = byte_tokenizer(*MARKS)
    folder.mkdir(parents=True)
    if with_tokenizer:
        tokenizer.save_pretrained(folder)
    state = published.checkpoint(design, len(tokenizer))
    save_file(state, folder / "model.safetensors")
    config = published.config_json(len(tokenizer), **text)
    # Published folders name code of their own, which must neither be run nor asked about.
    config["auto_map"] = {"AutoConfig": "modeling_xgenmm.XGenMMConfig"}
    (folder / "config.json").write_text(json.dumps(config))
    return state


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Per design the published tensors, the folder that was made of them, and what was loaded from it."""
    made = {}
    for design in DESIGNS:
        folder = tmp_path_factory.mktemp(design)
        state = write_original(folder / "original", design)
        assert convert_checkpoint(folder / "original", folder / "converted").kind == "xgen_mm"
        model = AutoModelForImageTextToText.from_pretrained(folder / "converted").eval()
        processor = AutoProcessor.from_pretrained(folder / "converted")
        made[design] = state, folder / "converted", model, processor
    return made


@pytest.fixture
def load(converted):
    """`load(design)`: tensors as published, model and processor."""

    def get(design: str):
        state, _, model, processor = converted[design]
        model = copy.deepcopy(model)
        model.generation_config.eos_token_id = None  # random weights must not end an answer early
        return state, model, processor

    return get


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def image_turn(*parts) -> list[dict]:
    """A conversation of one user turn of pictures and texts."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts
    ]
    return [{"role": "user", "content": content}]


def ask(processor, *chats, **kwargs):
    """Model inputs of one conversation, or of a batch."""
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    chats = chats[0] if len(chats) == 1 else list(chats)
    return processor.apply_chat_template(chats, **options, processor_kwargs={"padding": True, **kwargs})


def published_prompt(processor, text: str) -> list[int]:
    """Ids as the published tokenizer gives them, with one `<image>` for each picture."""
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def published_answer(design: str, state: dict, processor, prompt: str, pictures: list, window: int = 2047, wrong=""):
    """Visual tokens of each picture, and logits of the prompt, both by the reference."""
    num_tokens, ids = processor.image_token_id, published_prompt(processor, prompt)
    tokens = []
    for image in pictures:
        crops, grid = published.preprocess(image, published.SIZE, *NORMALISATION[design])
        tokens.append(
            published.visual_tokens(state, crops, image.size, grid, torch.tensor(ids), num_tokens, wrong=wrong)
        )
    return tokens, published.answer_logits(state, ids, tokens, num_tokens, window, wrong)


@each_design
@pytest.mark.parametrize("sizes", [[WIDE], [TALL], [(60, 60)], [(200, 13)], [(44, 300)], [WIDE, TALL], []])
def test_visual_tokens_and_logits_are_the_published_ones(load, design, sizes):
    """r-v1's published code would put only the first of several pictures in its place; here each is in its own."""
    state, model, processor = load(design)
    pictures = [picture(size, seed) for seed, size in enumerate(sizes)]
    chat = image_turn(*pictures, "What is it?")
    inputs = ask(processor, chat)
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    tokens, logits = published_answer(design, state, processor, prompt, pictures)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits[0], logits, **close)
        if pictures:
            images = {name: inputs[name] for name in ("pixel_values", "image_sizes", "crop_grids")}
            ids = torch.tensor(published_prompt(processor, prompt))
            found = model.get_image_features(**images, prompt_ids=[ids] * len(pictures)).pooler_output
            for one, expected in zip(found, tokens, strict=True):
                torch.testing.assert_close(one, expected, **close)


BOTH = [
    "added rows of the embedding",
    "added rows of the head",
    "no bias of the head",
    "activation of the encoder",
    "eps of the encoder",
    "no norm after the encoder",
    "media not normed",
    "latents not normed as keys",
    "latents no keys",
    "keys and values swapped",
    "no scale",
    "tanh gelu in the Perceiver",
    "no norm after the Perceiver",
    "crops instead of strips",
    "mask of the other design",
]
ONE = {"siglip": [], "vit": ["order of the thirds", "class token kept", "prompt not read", "all of the prompt"]}


@each_design
def test_each_mistake_would_be_seen(load, design):
    """The reference with a single mistake is told from the model, so that the comparison above covers it."""
    state, model, processor = load(design)
    image = picture(WIDE)
    # Added tokens stand in the text too; the prompt is longer than what the Perceiver reads.
    chat = image_turn(image, "What <|endofchunk|> is it? " * 8)
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert len(published_prompt(processor, prompt)) > model.config.max_prompt_tokens
    inputs = ask(processor, chat)
    images = {name: inputs[name] for name in ("pixel_values", "image_sizes", "crop_grids")}
    with torch.no_grad():
        found = model(**inputs).logits[0]
        ids = torch.tensor(published_prompt(processor, prompt))
        (found_tokens,) = model.get_image_features(**images, prompt_ids=[ids]).pooler_output
    differences = {}
    for wrong in ["", *BOTH, *ONE[design]]:
        (tokens,), logits = published_answer(design, state, processor, prompt, [image], wrong=wrong)
        differences[wrong] = float(max((found - logits).abs().max(), (found_tokens - tokens).abs().max()))
    assert differences.pop("") < 2e-5
    assert min(differences.values()) > 1.5e-4, differences  # the tolerance of the comparison is 1e-4


@pytest.mark.parametrize("wrong", ["", "window of the new version"])
def test_the_sliding_window_reaches_as_far_as_in_the_version_of_the_checkpoint(tmp_path, wrong):
    state = write_original(tmp_path / "original", "siglip", sliding_window=7)
    convert_checkpoint(tmp_path / "original", tmp_path / "converted")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "converted")
    ids = torch.arange(40)[None]
    expected = published.answer_logits(state, ids[0].tolist(), [], model.config.image_token_id, 7, wrong)
    with torch.no_grad():
        difference = (model(input_ids=ids).logits[0] - expected).abs().max()
        assert (difference > 1e-2) if wrong else (difference < 1e-4)
        cached = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
        plain = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, eos_token_id=None, use_cache=False)
    assert torch.equal(cached, plain)


@each_design
@pytest.mark.parametrize("size", [WIDE, TALL, (60, 60), (43, 45), (200, 13)])
def test_pixels_are_the_published_ones(load, design, size):
    _, _, processor = load(design)
    image = picture(size)
    crops, (columns, rows) = published.preprocess(image, published.SIZE, *NORMALISATION[design])
    inputs = processor(images=image, text="<image>", return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values"], crops, rtol=0, atol=1e-5)
    assert inputs["crop_grids"].tolist() == [[rows, columns]]
    assert inputs["image_sizes"].tolist() == [[size[1], size[0]]]
    assert inputs["input_ids"].tolist() == [[processor.image_token_id] * (6 * len(crops))]
    whole = processor(images=image, text="<image>", do_tile=False, return_tensors="pt")
    torch.testing.assert_close(whole["pixel_values"], crops[:1], rtol=0, atol=1e-5)
    assert whole["crop_grids"].tolist() == [[0, 0]] and whole["input_ids"].shape == (1, 6)


def test_the_published_sizes():
    """384 pixels and SigLIP's normalisation by default; grids by hand: a wide picture, a tall one, a small square."""
    crops = XGenMMImageProcessor()(images=picture((1200, 500)), return_tensors="pt")
    expected, _ = published.preprocess(picture((1200, 500)), 384, *NORMALISATION["siglip"])
    torch.testing.assert_close(crops["pixel_values"], expected, rtol=0, atol=1e-5)
    size, grids = SizeDict(height=384, width=384), XGenMMImageProcessor().grids
    found = {image: best_grid(*image, size, grids) for image in ((400, 1300), (900, 300), (300, 300), (800, 800))}
    assert found == {(400, 1300): (3, 1), (900, 300): (1, 3), (300, 300): (1, 2), (800, 800): (2, 2)}


@each_design
def test_the_prompt_is_the_published_one(load, design):
    _, _, processor = load(design)
    between = {"siglip": " ", "vit": "\n"}[design]
    system = (
        "<|system|>\nA chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions.<|end|>\n"
    )
    chat = image_turn(picture((10, 10)), "What is it?")
    asked = f"<|user|>\n<image>{between}What is it?<|end|>\n"
    rendered = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert rendered == system + asked + "<|assistant|>\n"
    chat += [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}]
    expected = system + asked + "<|assistant|>\nA cat.<|end|>\n<|user|>\nSure?<|end|>\n"
    assert processor.apply_chat_template(chat) == expected
    own = [{"role": "system", "content": "Be brief."}, *image_turn("Hi")]
    assert processor.apply_chat_template(own) == "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n"


@each_design
def test_answers_end_at_the_end_of_the_turn(converted, design):
    folder = converted[design][1]
    model, tokenizer = (
        AutoModelForImageTextToText.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder).tokenizer,
    )
    assert model.generation_config.eos_token_id == [tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id]
    assert tokenizer.padding_side == "left"
    # The three tokens stand where their rows stand.
    added = tokenizer.convert_tokens_to_ids(["<image>", "<image placeholder>", "<|endofchunk|>"])
    assert added == list(range(model.config.image_token_id, model.config.image_token_id + 3))
    assert len(tokenizer) == model.config.text_config.vocab_size == added[-1] + 1


@each_design
def test_a_batch_gives_what_each_prompt_gives_alone(load, design):
    """Prompts of different lengths, with one picture, two, and none."""
    _, model, processor = load(design)
    chats = [
        image_turn(picture(WIDE), "Why?"),
        image_turn(picture(TALL, 1), picture((50, 50), 2), "What do these two have in common?"),
        image_turn("Hello"),
    ]
    batch = ask(processor, *chats)
    assert batch["attention_mask"][0, 0] == 0
    settings = {"max_new_tokens": 5, "do_sample": False}
    with torch.no_grad():
        together, generated = model(**batch).logits, model.generate(**batch, **settings)
        for row, chat in enumerate(chats):
            alone = ask(processor, chat)
            length = alone["input_ids"].shape[1]
            torch.testing.assert_close(together[row, -length:], model(**alone).logits[0], rtol=1e-4, atol=1e-4)
            assert torch.equal(generated[row, -5:], model.generate(**alone, **settings)[0, -5:])


@each_design
def test_generation(load, design):
    """With the cache as without, beam search, sampling several answers, and candidates that are guessed."""
    _, model, processor = load(design)
    inputs = ask(processor, image_turn(picture(WIDE), picture(TALL, 1), "What?"))
    length = inputs["input_ids"].shape[1]
    settings = {"max_new_tokens": 5, "do_sample": False}
    greedy = model.generate(**inputs, **settings)
    # The answer is written, and the pictures stay those of the prompt.
    with torch.no_grad():
        embeds = model.embed_prompt(**inputs)
        for _ in range(5):
            token = model(inputs_embeds=embeds).logits[:, -1:].argmax(-1)
            embeds = torch.cat([embeds, model.get_input_embeddings()(token)], dim=1)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], dim=1)
    assert torch.equal(greedy, inputs["input_ids"])
    inputs["input_ids"] = inputs["input_ids"][:, :length]
    assert torch.equal(model.generate(**inputs, **settings, prompt_lookup_num_tokens=2), greedy)
    assert torch.equal(model.generate(**inputs, **settings, cache_implementation="static"), greedy)
    beams = model.generate(**inputs, **settings, num_beams=3)
    embeds = {"inputs_embeds": model.embed_prompt(**inputs), "attention_mask": inputs["attention_mask"]}
    assert torch.equal(beams[:, length:], model.generate(**embeds, **settings, num_beams=3))
    assert model.generate(**inputs, max_new_tokens=2, do_sample=True, num_return_sequences=3).shape == (3, length + 2)
    # Going on from a cache.
    output = model(**inputs, use_cache=True)
    step = model(input_ids=output.logits[:, -1:].argmax(-1), **{CACHE: output[CACHE]})
    assert step.logits[:, -1].argmax(-1) == greedy[0, length + 1]


@each_design
def test_what_is_saved_loads_bit_for_bit(load, design, tmp_path):
    _, model, processor = load(design)
    inputs = ask(processor, image_turn(picture(WIDE), "What?"))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is XGenMMConfig
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is XGenMMForConditionalGeneration
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    again = ask(AutoProcessor.from_pretrained(tmp_path), image_turn(picture(WIDE), "What?"))
    assert inputs.keys() == again.keys() and all(torch.equal(inputs[name], again[name]) for name in inputs)
    assert torch.equal(loaded(**again).logits, model(**inputs).logits)


@each_design
def test_training(load, design):
    """Everything learns, and gradient checkpointing changes no gradient."""
    gradients = []
    for checkpointing in (False, True):
        _, model, processor = load(design)
        inputs = ask(processor, image_turn(picture(WIDE), "What?"))
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        expected = torch.nn.functional.cross_entropy(model(**inputs).logits[0, :-1], inputs["input_ids"][0, 1:])
        torch.testing.assert_close(loss, expected)
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    # CLIP's key biases cancel in a softmax.
    dead = [name for name, grad in gradients[0].items() if grad is None or not grad.any()]
    assert all("k_proj.bias" in name for name in dead)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@each_design
def test_attention_backends_agree(converted, design):
    folder = converted[design][1]
    inputs = ask(AutoProcessor.from_pretrained(folder), image_turn(picture(WIDE), "What?"))
    logits = [
        AutoModelForImageTextToText.from_pretrained(folder, attn_implementation=name)(**inputs).logits
        for name in ("eager", "sdpa")
    ]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_inputs_that_do_not_fit_are_named(load):
    _, model, processor = load("siglip")
    inputs = ask(processor, image_turn(picture(WIDE), "What?"))
    with pytest.raises(ValueError, match="crop_grids are of 4 crops, but pixel_values hold 3"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][1:]})
    with pytest.raises(ValueError, match="have 24 image tokens, but the images give 18"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][1:], "crop_grids": torch.tensor([[1, 2]])})
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()
    _, model, processor = load("vit")
    with pytest.raises(ValueError, match=r"Prompt 0 has 24 image tokens.*\[18\]"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][1:], "crop_grids": torch.tensor([[1, 2]])})


def test_sources_that_are_no_xgen_mm_are_refused(tmp_path):
    state = write_original(tmp_path / "original", "siglip")
    broken = {
        "missing vlm.vision_tokenizer.norm.weight": {"vlm.vision_tokenizer.norm.weight": None},
        "unexpected vlm.vision_tokenizer.more": {"vlm.vision_tokenizer.more": torch.zeros(1)},
        "no vlm.vision_tokenizer.layers.0.0.to_q.weight": {"vlm.vision_tokenizer.layers.0.0.to_q.weight": None},
    }
    for message, changes in broken.items():
        changed = {key: tensor for key, tensor in {**state, **changes}.items() if tensor is not None}
        save_file(changed, tmp_path / "original" / "model.safetensors")
        with pytest.raises(ValueError, match=message):
            convert_checkpoint(tmp_path / "original", tmp_path / "converted")
        assert not (tmp_path / "converted").exists()


def test_the_true_sizes():
    """The published index of the SigLIP design states its bytes: they are counted, and every key has its place."""
    sizes = published.Sizes(
        hidden=1152,
        vision_mlp=4304,
        vision_layers=27,
        grid=27,
        latents=128,
        inner=1536,
        perceiver_layers=6,
        text=3072,
        text_mlp=8192,
        text_layers=32,
        qkv=9216,
        rows=32064,
    )
    stated = {"initial_tokenizer_len": 32012, "model_type": "phi3", "sliding_window": 2047}
    kind, shapes = XGenMMCheckpoint(), published.published_shapes("siglip", sizes)
    assert 4 * sum(map(math.prod, shapes.values())) == 17_437_028_876
    config = kind.config({"text_config": stated}, shapes)
    plan_conversion(shapes, kind.rules(config), config, expected_shapes(kind.model_class, config))
    expected = XGenMMConfig()
    for part in ("vision_config", "text_config"):
        assert getattr(config, part).to_dict() == getattr(expected, part).to_dict()
    assert config.vision_config.image_size == 384 and config.text_config.sliding_window == 2048
    assert config.to_dict() | {"vision_config": 0, "text_config": 0} == expected.to_dict() | {
        "vision_config": 0,
        "text_config": 0,
    }

    sizes = replace(sizes, hidden=1280, vision_mlp=5120, vision_layers=32, projection=1024)
    shapes = published.published_shapes("vit", sizes)
    assert round(4 * sum(map(math.prod, shapes.values())) / 1e9, 2) == 18.36  # the size that users report is 18 GB
    config = kind.config({"text_config": stated}, shapes)
    plan_conversion(shapes, kind.rules(config), config, expected_shapes(kind.model_class, config))
    assert config.reads_prompt and config.vision_config.image_size == 378


def test_a_source_without_tokenizer_makes_a_model_without_processor(tmp_path):
    write_original(tmp_path / "original", "vit", with_tokenizer=False)
    made = convert_checkpoint(tmp_path / "original", tmp_path / "converted")
    assert not made.has_processor and made.config.default_prompt_ids is None
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "converted")
    assert model.get_image_features(pixel_values=torch.zeros(2, 3, 42, 42)).pooler_output[1].shape == (6, 32)


@each_design
def test_frames_of_a_video_are_pictures_taken_whole(load, design):
    """r-v1 has no question for them; its Perceiver reads the chat with an empty one."""
    state, model, processor = load(design)
    frames = torch.randn(3, 3, published.SIZE, published.SIZE)
    found = model.get_image_features(pixel_values=frames).pooler_output
    num_tokens = processor.image_token_id
    empty = processor.apply_chat_template(image_turn(picture((9, 9)), ""), add_generation_prompt=True)
    prompt = torch.tensor(published_prompt(processor, empty))
    for frame, tokens in zip(frames, found, strict=True):
        expected = published.visual_tokens(state, frame[None], prompt=prompt, num_tokens=num_tokens)
        torch.testing.assert_close(tokens, expected, **close)


@each_design
def test_wrapped_with_linvt(load, design, tmp_path):
    greedy = {"max_new_tokens": 4, "do_sample": False}
    _, image_llm, image_llm_processor = load(design)
    model = LinVTForConditionalGeneration.from_image_llm(image_llm, SMALL).eval()
    model.generation_config.eos_token_id = None
    processor = LinVTProcessor.from_image_llm_processor(
        image_llm_processor, num_video_tokens=12, num_frames=4, shot_detection="uniform"
    )
    size = published.SIZE
    assert processor.video_processor.size == {"height": size, "width": size}
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(user_turn(random_video(6), "What is it?"), **options)
    output = model(**inputs, output_token_weights=True)
    tokens = model.get_frame_tokens(inputs["pixel_values_videos"])
    assert tokens.shape == (4, 6, 32)
    torch.testing.assert_close(tokens, torch.stack(image_llm.get_image_features(inputs["pixel_values_videos"])[1]))
    torch.testing.assert_close(output.video_tokens[0], output.video_token_weights[0] @ tokens.flatten(0, 1))
    assert image_llm_family(image_llm).token_grid(6, size, size) == (1, 6)  # latents form no grid
    generated = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert generated.shape[1] == inputs["input_ids"].shape[1] + 4
    assert torch.equal(
        model.generate(**inputs, max_new_tokens=4, do_sample=False, prompt_lookup_num_tokens=2), generated
    )
    # Only the text of the question conditions the video tokens.
    asked = inputs["input_ids"][(inputs["instruction_turns"] == 1) & (inputs["mm_token_type_ids"] == 0)]
    assert processor.tokenizer.decode(asked).strip() == "What is it?"

    chat = image_turn(picture(WIDE), "What is it?")
    given, expected = (one.apply_chat_template(chat, **options) for one in (processor, image_llm_processor))
    assert given.keys() == expected.keys() and all(torch.equal(given[name], expected[name]) for name in expected)
    assert torch.equal(model(**given).logits, image_llm(**expected).logits)
    for settings in ({}, {"num_beams": 3}):
        answers = [one.generate(**given, **greedy, **settings) for one in (model, image_llm)]
        assert torch.equal(*answers)

    content = [*image_turn(picture(WIDE))[0]["content"], *user_turn(random_video(4), "Both?")[0]["content"]]
    mixed = processor.apply_chat_template([{"role": "user", "content": content}], **options)
    assert model(**mixed).logits.isfinite().all()

    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, loaded_processor = (
        AutoModelForImageTextToText.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
    )
    again = loaded_processor.apply_chat_template(user_turn(random_video(6), "What is it?"), **options)
    assert torch.equal(loaded(**again).logits, output.logits)


def test_a_perceiver_that_reads_prompts_gives_frames_that_depend_on_its_default_prompt(load):
    _, image_llm, _ = load("vit")
    model = LinVTForConditionalGeneration.from_image_llm(image_llm, SMALL).eval()
    frames = torch.randn(1, 3, 42, 42)
    before, name = model.get_frame_tokens(frames), encoder_fingerprint(model)
    used = image_llm.config.default_prompt_ids[0]
    with torch.no_grad():
        image_llm.get_input_embeddings().weight[used] += 1
    assert not torch.allclose(model.get_frame_tokens(frames), before) and encoder_fingerprint(model) != name
    image_llm.config.default_prompt_ids = None
    assert model.get_frame_tokens(frames).isfinite().all()
