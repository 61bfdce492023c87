"""RED-VILLM as a video tokenizer: against plain means and the projector's weights, and in the whole model."""

import copy

import pytest
import torch
from PIL import Image
from tiny_families import build_image_llm, random_video, user_turn, without_gradient
from torch.nn.functional import gelu, linear
from transformers import AutoConfig, AutoModel, AutoProcessor, BitsAndBytesConfig

from linvt import (
    LinVTConfig,
    LinVTForConditionalGeneration,
    LinVTProcessor,
    LinVTVideoConfig,
    RedVillmVideoConfig,
    RedVillmVideoModel,
)
from linvt.image_llms.family_table import image_llm_family


FRAMES = 5
TOKENS = {"llava": 16, "llava_onevision": 16, "internvl": 4}  # of a frame of 56 x 56 pixels

VARIANTS = {
    "both": {},
    "no_temporal_module": {"temporal_module": False},
    "temporal_pooling": {"temporal_module": False, "pooling": "temporal"},
    "spatial_pooling": {"temporal_module": False, "pooling": "spatial"},
    "random_temporal_module": {"temporal_module_init": "random"},
    "additional_mlp": {"additional_mlp": True},
}

each_family = pytest.mark.parametrize("family", TOKENS)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture
def make(image_llm):
    """`make(family, **settings)`: a RED-VILLM model of its own and a processor that gives it 5 frames."""

    def build(family: str = "llava", **settings):
        base, base_processor = image_llm(family)
        settings = {"num_frames": FRAMES, "num_frame_tokens": TOKENS[family], **settings}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = LinVTForConditionalGeneration.from_image_llm(base, RedVillmVideoConfig(**settings))
        model.generation_config.eos_token_id = None
        processor = LinVTProcessor.from_image_llm_processor(
            base_processor,
            num_video_tokens=model.config.num_video_tokens,
            frame_size={"height": 56, "width": 56},
            num_frames=FRAMES,
            shot_detection="uniform",
        )
        return model, processor

    return build


def move_weights(model):
    """Alignment module and temporal module apart from each other and from the projector, as after training."""
    torch.manual_seed(4)
    for parameter in model.video_tokenizer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)


def llava_features(image_llm, frames):
    """The last hidden states of the vision tower without the class token, `(frames, 16, 32)`."""
    states = image_llm.model.vision_tower(pixel_values=frames, output_hidden_states=True).hidden_states
    return states[-1][:, 1:]


def project(features, projector):
    hidden = linear(features, projector.linear_1.weight, projector.linear_1.bias)
    return linear(gelu(hidden), projector.linear_2.weight, projector.linear_2.bias)


@each_family
def test_the_projector_on_the_features_gives_the_image_llms_own_tokens(make, family):
    model, processor = make(family)
    images = image_llm_family(model.image_llm)
    frames = processor.video_processor([random_video(4)], return_tensors="pt")["pixel_values_videos"]
    for number in (1, 4):
        clips = frames[:number, None]
        features = images.encoder_features(clips)
        assert features.shape[:2] == (number, TOKENS[family])
        assert torch.equal(images.projector()(features), images.frame_tokens(clips))
    assert not images.projector()._forward_pre_hooks


@pytest.mark.parametrize("layer", [-1, -2, [-1, -2]])
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_layers_and_class_token_are_those_of_the_image_llm(image_llm, layer, strategy):
    llava, _ = image_llm("llava")
    config = copy.deepcopy(llava.config)
    config.vision_feature_layer, config.vision_feature_select_strategy = layer, strategy
    llava = type(llava)(config).eval()
    frames = torch.randn(2, 3, 56, 56)
    states = llava.model.vision_tower(pixel_values=frames, output_hidden_states=True).hidden_states
    first = 1 if strategy == "default" else 0
    expected = [states[number][:, first:] for number in (layer if isinstance(layer, list) else [layer])]
    assert torch.equal(image_llm_family(llava).encoder_features(frames[:, None]), torch.cat(expected, dim=-1))


@pytest.mark.parametrize("frames_per_batch", [1, 2, 16])
@torch.no_grad()
def test_video_tokens_are_projected_means(make, ask, frames_per_batch):
    model, processor = make()
    move_weights(model)
    model.config.frames_per_batch = frames_per_batch
    inputs = ask(processor, random_video(9), "What happens?", random_video(7, seed=1))
    output = model(**inputs)
    assert output.video_tokens.shape == (2, FRAMES + 16, 32) and output.video_token_weights is None
    for video in range(2):
        features = llava_features(model.image_llm, inputs["pixel_values_videos"].chunk(2)[video])
        t = torch.stack([sum(features[frame, place] for place in range(16)) / 16 for frame in range(FRAMES)])
        z = torch.stack([sum(features[frame, place] for frame in range(FRAMES)) / FRAMES for place in range(16)])
        tokenizer = model.video_tokenizer
        expected = torch.cat([project(t, tokenizer.temporal_module), project(z, tokenizer.alignment_module)])
        torch.testing.assert_close(output.video_tokens[video], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_variants_are_what_their_names_say(make, ask):
    """Every variant against the modules of the model that it is made of."""
    tokens, tokenizers = {}, {}
    for variant, settings in VARIANTS.items():
        model, processor = make(**settings)
        move_weights(model)
        inputs = ask(processor, random_video(9), "What?")
        tokens[variant], tokenizers[variant] = model(**inputs).video_tokens[0], model.video_tokenizer
        features = llava_features(model.image_llm, inputs["pixel_values_videos"])
    t, z = features.mean(1), features.mean(0)  # over space, over time

    def aligned(variant, features):
        return project(features, tokenizers[variant].alignment_module)

    def temporal(variant, features):
        return project(features, tokenizers[variant].temporal_module)

    mlp = tokenizers["additional_mlp"].additional_mlp
    added = linear(gelu(linear(aligned("additional_mlp", z), mlp[0].weight, mlp[0].bias)), mlp[2].weight, mlp[2].bias)
    expected = {
        "both": [temporal("both", t), aligned("both", z)],
        "no_temporal_module": [aligned("no_temporal_module", t), aligned("no_temporal_module", z)],
        "temporal_pooling": [aligned("temporal_pooling", z)],
        "spatial_pooling": [aligned("spatial_pooling", t)],
        "random_temporal_module": [temporal("random_temporal_module", t), aligned("random_temporal_module", z)],
        "additional_mlp": [temporal("additional_mlp", t), added],
    }
    assert expected.keys() == VARIANTS.keys()
    for variant, parts in expected.items():
        torch.testing.assert_close(tokens[variant], torch.cat(parts), rtol=1e-4, atol=1e-4)
        assert len(tokens[variant]) == tokenizers[variant].config.num_video_tokens
    assert {len(tokens["temporal_pooling"]), len(tokens["spatial_pooling"])} == {16, FRAMES}


@each_family
def test_modules_start_from_the_projector(make, family):
    model, _ = make(family)
    projector = model.image_llm.model.multi_modal_projector.state_dict()
    tokenizer = model.video_tokenizer
    for module in (tokenizer.alignment_module, tokenizer.temporal_module):
        assert all(torch.equal(value, projector[name]) for name, value in module.state_dict().items())
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    assert len(set(pointers)) == len(pointers)  # copies

    random, _ = make(family, temporal_module_init="random")
    tokenizer = random.video_tokenizer
    weight = tokenizer.temporal_module.linear_1.weight
    assert torch.equal(tokenizer.alignment_module.linear_1.weight, projector["linear_1.weight"])
    assert not torch.allclose(weight, projector["linear_1.weight"]) and 0.01 < weight.std() < 0.03
    assert make(family, temporal_module=False)[0].video_tokenizer.temporal_module is None


def test_states_of_layers_are_refused_by_name(make):
    tokenizer = make()[0].video_tokenizer
    for name in ("output_hidden_states", "output_attentions"):
        with pytest.raises(ValueError, match=f"RedVillmVideoModel returns nothing for {name}: "):
            tokenizer(*tokenizer.blank_video(torch.device("cpu"), torch.float32), **{name: True})


def test_a_model_from_its_configuration_starts_from_its_projector(make):
    config = make()[0].config
    model = LinVTForConditionalGeneration(config)
    projector = model.image_llm.model.multi_modal_projector
    assert torch.equal(model.video_tokenizer.temporal_module.linear_2.weight, projector.linear_2.weight)


def test_a_frozen_image_llm_gives_modules_that_learn(image_llm):
    base, _ = image_llm("llava")
    base.requires_grad_(False)
    model = LinVTForConditionalGeneration.from_image_llm(base, RedVillmVideoConfig())
    assert all(parameter.requires_grad for parameter in model.video_tokenizer.parameters())


@each_family
@each_variant
def test_everything_learns(make, ask, family, variant):
    model, processor = make(family, **VARIANTS[variant])
    model.image_llm.requires_grad_(False)
    inputs = ask(processor, random_video(9), "What happens?")
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert without_gradient(model.video_tokenizer) == []
    assert all(parameter.grad is None for parameter in model.image_llm.parameters())


@each_family
def test_images_are_untouched_also_after_training(make, image_llm, family):
    model, processor = make(family)
    original, _ = image_llm(family)
    move_weights(model)
    content = [{"type": "image", "image": Image.fromarray(random_video(1)[0])}, {"type": "text", "text": "What?"}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **options)
    assert torch.equal(model(**inputs).logits, original(**inputs).logits)


@each_family
def test_a_batch_gives_what_each_prompt_gives_alone(make, family):
    model, processor = make(family)
    chats = [user_turn(random_video(9), "What happens?"), user_turn(random_video(5, seed=1), "Who?")]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    batch = processor.apply_chat_template(chats, processor_kwargs={"padding": True}, **options)
    together = model(**batch)
    for row, chat in enumerate(chats):
        alone = processor.apply_chat_template(chat, **options)
        output, length = model(**alone), alone["input_ids"].shape[1]
        torch.testing.assert_close(together.video_tokens[row], output.video_tokens[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together.logits[row, -length:], output.logits[0], rtol=1e-3, atol=1e-3)


@each_family
def test_greedy_generation_equals_forward_without_the_cache(make, ask, family):
    model, processor = make(family)
    inputs = dict(ask(processor, random_video(6), "What is it?"))
    placeholder = processor.image_token_id  # random weights may write it, and no image is given
    generated = model.generate(**inputs, max_new_tokens=4, do_sample=False, suppress_tokens=[placeholder])
    for _ in range(4):
        logits = model(**inputs).logits[:, -1:].detach()
        logits[..., placeholder] = float("-inf")
        token = logits.argmax(-1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token], dim=1)
        for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0), ("instruction_turns", 0)):
            inputs[name] = torch.nn.functional.pad(inputs[name], (0, 1), value=value)
    assert torch.equal(generated, inputs["input_ids"])


@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_models_load_through_the_auto_classes(tmp_path, family, dtype):
    base, base_processor = build_image_llm(family)
    base.save_pretrained(tmp_path / "image_llm")
    settings = {"model_type": "red_villm_video", "num_frames": FRAMES, "num_frame_tokens": TOKENS[family]}
    model = LinVTForConditionalGeneration.from_image_llm(tmp_path / "image_llm", settings, dtype=dtype)
    assert model.video_tokenizer.dtype == dtype
    move_weights(model)
    processor = LinVTProcessor.from_image_llm_processor(
        base_processor, FRAMES + TOKENS[family], {"height": 56, "width": 56}, num_frames=FRAMES
    )
    model.save_pretrained(tmp_path / "linvt")
    processor.save_pretrained(tmp_path / "linvt")
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = AutoProcessor.from_pretrained(tmp_path / "linvt").apply_chat_template(
        user_turn(random_video(6), "What is it?"), **options
    )
    loaded, info = AutoModel.from_pretrained(tmp_path / "linvt", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert type(loaded.video_tokenizer) is RedVillmVideoModel and loaded.dtype == dtype
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    config = AutoConfig.from_pretrained(tmp_path / "linvt")
    assert type(config.video_tokenizer_config) is RedVillmVideoConfig
    assert config.num_video_tokens == processor.num_video_tokens == FRAMES + TOKENS[family]


@pytest.mark.parametrize("loader", [RedVillmVideoModel, AutoModel])
def test_saved_and_loaded_alone_with_the_image_llm(make, tmp_path, loader):
    model, _ = make()
    move_weights(model)
    model.video_tokenizer.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path, image_llm=model.image_llm)
    expected = model.video_tokenizer.state_dict()
    assert type(loaded) is RedVillmVideoModel and loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert type(AutoConfig.from_pretrained(tmp_path)) is RedVillmVideoConfig
    with pytest.raises(ValueError, match="give image_llm, or load the whole model"):
        loader.from_pretrained(tmp_path)


def test_quantisation_spares_the_copies_and_comes_after_wrapping(make, ask, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="quantisation is tested with bitsandbytes")
    quantization = BitsAndBytesConfig(load_in_4bit=True)
    model, processor = make()
    model.save_pretrained(tmp_path / "linvt")
    loaded = AutoModel.from_pretrained(tmp_path / "linvt", quantization_config=quantization)
    assert type(loaded.image_llm.model.multi_modal_projector.linear_1) is bitsandbytes.nn.Linear4bit
    weight = loaded.video_tokenizer.alignment_module.linear_1.weight
    assert torch.equal(weight, model.video_tokenizer.alignment_module.linear_1.weight)
    assert loaded(**ask(processor, random_video(6), "What?")).logits.isfinite().all()
    with pytest.raises(ValueError, match="projector cannot be copied: they are quantised"):
        LinVTForConditionalGeneration.from_image_llm(loaded.image_llm, RedVillmVideoConfig())


def test_the_command_line_answers_with_a_saved_model(make, run, video_file, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    code, output, error = run(
        "ask", video_file(12), "What?", "--model", tmp_path / "model", "--uniform", "--max-new-tokens", 2
    )
    assert code == 0, error
    assert f"{FRAMES * 16} of the frames -> {FRAMES + 16} of the video" in output
    code, _, error = run("ask", video_file(12), "What?", "--model", tmp_path / "model", "--num-frames", 6)
    assert code == 2 and "has 6 frames" in error and "set num_frames=5 in the processor" in error


@torch.no_grad()
def test_frames_of_a_short_video_are_taken_several_times(make, ask):
    model, processor = make()
    move_weights(model)
    tokenizer, features = model.video_tokenizer, torch.randn(1, 3, 16, 32)
    tokens = tokenizer(features).video_tokens
    assert torch.equal(tokens[:, :FRAMES], tokenizer(features[:, [0, 0, 1, 1, 2]]).video_tokens[:, :FRAMES])
    torch.testing.assert_close(tokens[0, FRAMES:], project(features[0].mean(0), tokenizer.alignment_module))
    assert model(**ask(processor, random_video(3), "What?")).video_tokens.shape == (1, FRAMES + 16, 32)


@pytest.mark.parametrize("pooling", ["both", "spatial"])
def test_too_many_frames_are_named(make, ask, pooling):
    model, processor = make(pooling=pooling, temporal_module=pooling == "both")
    processor.video_processor.num_frames = 6
    with pytest.raises(ValueError, match="A video has 6 frames.*num_frames is 5; set num_frames=5 in the processor"):
        model(**ask(processor, random_video(6), "What?"))


def test_another_number_of_tokens_is_named(make, ask):
    model, processor = make(num_frame_tokens=15)
    processor.num_video_tokens = FRAMES + 15
    with pytest.raises(ValueError, match="has 16 tokens, but num_frame_tokens is 15; set num_frame_tokens=16"):
        model(**ask(processor, random_video(6), "What?"))


@torch.no_grad()
def test_what_does_not_set_the_number_of_tokens_is_free(make, ask):
    model, processor = make(pooling="temporal", temporal_module=False)
    assert model(**ask(processor, random_video(3), "What?")).video_tokens.shape == (1, 16, 32)
    model, processor = make(pooling="spatial", temporal_module=False, num_frame_tokens=99)
    assert model(**ask(processor, random_video(6), "What?")).video_tokens.shape == (1, FRAMES, 32)


def test_there_are_no_token_weights(make, ask):
    model, processor = make()
    with pytest.raises(ValueError, match="output_token_weights is True.*no weighted averages"):
        model(**ask(processor, random_video(6), "What?"), output_token_weights=True)


def test_frames_are_taken_in_one_by_one(make, ask):
    model, processor = make()
    model.config.frames_per_patch = 2
    with pytest.raises(ValueError, match="frames_per_patch is 2"):
        model(**ask(processor, random_video(6), "What?"))


def test_families_without_a_projector_of_their_own_are_refused(image_llm):
    base, _ = image_llm("qwen2_vl")
    with pytest.raises(ValueError, match="from 'qwen2_vl'. Supported: internvl, linvt_mipha, llava, llava_next, "):
        LinVTForConditionalGeneration.from_image_llm(base, RedVillmVideoConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_frame_tokens": 0}, "num_frame_tokens is 0"),
        ({"pooling": "spatial"}, "set temporal_module=False"),
        ({"pooling": "temporal"}, "set temporal_module=False"),
        ({"pooling": "time"}, "pooling"),
        ({"temporal_module_init": "zeros"}, "temporal_module_init"),
    ],
)
def test_configurations_that_cannot_work_are_refused(settings, message):
    with pytest.raises(Exception, match=message):
        RedVillmVideoConfig(**settings)


def test_the_configuration_is_chosen_by_its_model_type(image_llm):
    llava = image_llm("llava")[0].config
    assert RedVillmVideoConfig().num_video_tokens == 356  # Tab. 6 and 7: 100 frames, 256 tokens
    given = RedVillmVideoConfig(num_frames=7)
    config = LinVTConfig(image_llm_config=llava, video_tokenizer_config=given)
    assert config.num_video_tokens == 263 and config.video_tokenizer_config.embedding_size == 32
    assert given.embedding_size is None
    assert type(LinVTConfig.from_dict(config.to_dict()).video_tokenizer_config) is RedVillmVideoConfig
    linvt = LinVTConfig(image_llm_config=llava, video_tokenizer_config={"model_type": "linvt_video", "top_k": 200})
    assert type(linvt.video_tokenizer_config) is LinVTVideoConfig and linvt.video_tokenizer_config.top_k == 200
    with pytest.raises(ValueError, match="model_type 'bert'; expected one of linvt_video, red_villm_video"):
        LinVTConfig(image_llm_config=llava, video_tokenizer_config={"model_type": "bert"})


def test_a_training_batch_without_videos_gives_zeros(make):
    """Where only the video tokenizer learns, the loss of a batch of text must have a graph."""
    model, processor = make()
    model.requires_grad_(False)
    model.video_tokenizer.requires_grad_()
    ids = processor.tokenizer("Hello", return_tensors="pt").input_ids
    model.train()(input_ids=ids, labels=ids).loss.backward()
    assert all((parameter.grad == 0).all() for parameter in model.video_tokenizer.parameters())
