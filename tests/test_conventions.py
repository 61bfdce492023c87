"""Conventions of Transformers, Accelerate and TRL that a wrapped model keeps: what they read off and call on it."""

import copy
import inspect
import pickle
import threading

import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, SMALL, VARIANTS, random_video
from tiny_models import CACHE
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, Trainer, TrainingArguments

from linvt import LinVTForConditionalGeneration
from linvt.model_outputs import LinVTCausalLMOutputWithPast
from linvt.training.training_stages import freeze_for_alignment


each_family = pytest.mark.parametrize("family", FAMILIES)
PICTURE = {"type": "image", "image": Image.fromarray(random_video(1, seed=3, height=56, width=56)[0])}


def inputs_of(processor, *parts, padding_side: str | None = None):
    """Model inputs of chats of one user turn each; a list of parts is a chat."""
    kwargs = {} if padding_side is None else {"padding": True, "padding_side": padding_side}
    chats = [[{"role": "user", "content": turn}] for turn in parts]
    return processor.apply_chat_template(
        chats,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=kwargs,
    )


def video(num_frames: int, seed: int = 0) -> dict:
    return {"type": "video", "video": random_video(num_frames, seed)}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


@each_family
def test_forward_names_the_inputs_of_the_image_llm_and_of_videos(make_linvt, image_llm, family):
    model, processor = make_linvt(family)
    names = inspect.signature(model.forward).parameters
    original, its_processor = image_llm(family)
    assert set(its_processor.model_input_names) <= {*names, "pixel_values_videos", "video_grid_thw"}
    assert set(inputs_of(processor, [PICTURE, video(4), text("What?")])) <= set(names)
    own = inspect.signature(original.forward).parameters
    assert {name for name in own if "video" not in name and name != "kwargs"} <= set(names)
    assert list(names)[-1] == "kwargs" and model.forward.__doc__.strip().startswith("Runs the image-LLM")


@each_family
def test_trainer_with_its_defaults_sees_images_and_videos(make_linvt, family, tmp_path):
    """It drops the columns that the signature does not name."""
    model, processor = make_linvt(family, **VARIANTS["tta_only"])  # SVR draws tokens in training
    row = dict(inputs_of(processor, [PICTURE, text("Which?"), video(4), text("What?")]))
    row["labels"] = row["input_ids"].clone()
    arguments = TrainingArguments(
        tmp_path, max_steps=1, learning_rate=0.0, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
    )
    # One row, whose tensors are a batch already.
    trainer = Trainer(model, arguments, lambda rows: rows[0], train_dataset=[row])
    expected = model.eval()(**row).loss.item()
    assert trainer.train().training_loss == pytest.approx(expected, rel=1e-5)


def test_a_model_is_copied_and_pickled_with_its_forward(make_linvt):
    model, processor = make_linvt("qwen2_vl")
    inputs = inputs_of(processor, [video(3), text("What?")])
    expected = model(**inputs).logits
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(**inputs).logits, expected)
        assert inspect.signature(again.forward) == inspect.signature(model.forward)


@pytest.mark.parametrize("family", ["llava", "internvl"])
@pytest.mark.parametrize("offloaded", ["video_tokenizer", "contrast", "image_llm"])
def test_offloaded_parts_give_what_they_give_elsewhere(make_linvt, family, offloaded, tmp_path):
    model, processor = make_linvt(family)
    inputs = inputs_of(processor, [video(4), text("What?"), PICTURE])
    labels = inputs["input_ids"]
    model.save_pretrained(tmp_path / "model")
    places = dict.fromkeys(("image_llm", "video_tokenizer", "contrast"), "cpu") | {offloaded: "disk"}
    loaded = LinVTForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offloaded"
    )
    assert any(parameter.is_meta for parameter in loaded.parameters())
    with torch.no_grad():
        found, expected = (each(**inputs, labels=labels, return_contrastive_loss=True) for each in (loaded, model))
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.contrastive_loss, expected.contrastive_loss)


def test_fresh_weights_are_not_lost_where_embeddings_are_offloaded(image_llm, tmp_path):
    image_llm("internvl")[0].save_pretrained(tmp_path / "image_llm")
    model = LinVTForConditionalGeneration.from_image_llm(
        tmp_path / "image_llm", SMALL, device_map={"": "disk"}, offload_folder=tmp_path / "offloaded"
    )
    fresh = model.video_tokenizer.state_dict()
    assert not any(tensor.is_meta for tensor in fresh.values())
    model.save_pretrained(tmp_path / "model")
    loaded = LinVTForConditionalGeneration.from_pretrained(tmp_path / "model")
    for name, tensor in loaded.video_tokenizer.state_dict().items():
        assert torch.equal(tensor, fresh[name])
    original, _ = image_llm("internvl")
    for name, tensor in loaded.image_llm.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name]), name


def test_what_the_image_llm_returns_is_returned_with_a_video_too():
    """A mixture of experts returns how it chose among them, and a loss of its own."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "intermediate_size": 32}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = AutoConfig.for_model(
        "qwen3_vl_moe",
        text_config={**sizes, **experts, **rope, "vocab_size": 300, "head_dim": 8},
        vision_config={**vision, "deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        image_token_id=290,
        vision_start_token_id=291,
        vision_end_token_id=292,
    )
    image_llm = AutoModelForImageTextToText.from_config(config).eval()
    model = LinVTForConditionalGeneration.from_image_llm(image_llm, SMALL).eval()
    marked = [291, *[290] * 12, 292]
    inputs = {
        "input_ids": torch.tensor([[5, *marked, 6, 7]]),
        "attention_mask": torch.ones(1, 17, dtype=torch.long),
        "mm_token_type_ids": torch.tensor([[0, 0, *[2] * 12, 0, 0, 0]]),
        "instruction_turns": torch.ones(1, 17, dtype=torch.long),
        "pixel_values_videos": torch.rand(3, 3, 64, 64),
        "video_num_frames": torch.tensor([3]),
        "video_milliseconds": torch.arange(3) * 500,
    }
    output = model(**inputs, labels=inputs["input_ids"], output_router_logits=True)
    plain = image_llm(input_ids=torch.tensor([[5, 6, 7]]), output_router_logits=True)
    assert isinstance(output, type(plain)) and isinstance(output, LinVTCausalLMOutputWithPast)
    assert output.aux_loss > 0 and len(output.router_logits) == len(plain.router_logits) == 2
    assert output.router_logits[0].shape == (17, 4) and output.video_tokens.shape == (1, 12, 32)
    assert {"logits", CACHE, "aux_loss", "video_tokens"} <= set(output)


def test_threads_that_generate_leave_each_other_alone(make_linvt):
    """Each gets the answer about its own video, also where embeddings are looked up by the ids of the prompt."""
    model, processor = make_linvt("llava")
    prompts = [inputs_of(processor, [video(4, seed), text("What?")]) for seed in range(4)]
    assert torch.equal(prompts[0]["input_ids"], prompts[3]["input_ids"])
    config = model.image_llm.generation_config
    settings = {"max_new_tokens": 6, "do_sample": False, "prompt_lookup_num_tokens": 2}
    alone = [model.generate(**inputs, **settings) for inputs in prompts]
    assert len({tuple(ids[0].tolist()) for ids in alone}) > 1
    found: dict[int, torch.Tensor] = {}
    threads = [
        threading.Thread(
            target=lambda place=place: found.update({place: model.generate(**prompts[place], **settings)})
        )
        for place in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.image_llm.generation_config is config is model.generation_config
    assert all(torch.equal(found[place], alone[place]) for place in range(4))


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "internvl"])
def test_padding_on_the_right_is_moved_before_generating(make_linvt, family):
    model, processor = make_linvt(family)
    turns = [[video(4), text("Why?")], [video(3, 1), text("How many things are moving to the right of it?")]]
    answers = {}
    for side in ("left", "right"):
        inputs = inputs_of(processor, *turns, padding_side=side)
        assert bool(inputs["attention_mask"][0, 0]) == (side == "right")
        output = model.generate(**inputs, max_new_tokens=5, do_sample=False)
        answers[side] = output[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(answers["left"], answers["right"])


def test_padding_on_the_right_is_warned_of(make_linvt, monkeypatch):
    from linvt import prompt_padding

    warnings: list[str] = []
    monkeypatch.setattr(prompt_padding.logger, "warning_once", warnings.append)
    model, processor = make_linvt("llava")
    turns = [[video(4), text("Why?")], [text("How many things are moving?")]]
    for side in ("left", "right"):
        model.generate(**inputs_of(processor, *turns, padding_side=side), max_new_tokens=1)
    assert len(warnings) == 1 and "padding_side='left'" in warnings[0]


def test_arguments_of_generate_that_cannot_work_with_a_video_are_named(make_linvt):
    model, processor = make_linvt("llava")
    inputs = inputs_of(processor, [video(4), text("What?")])
    with pytest.raises(ValueError, match="prefill_chunk_size"):
        model.generate(**inputs, max_new_tokens=2, prefill_chunk_size=8)
    with pytest.raises(ValueError, match="prefill_chunk_size"):
        model.generate(**inputs, generation_config=GenerationConfig(max_new_tokens=2, prefill_chunk_size=8))
    with pytest.raises(ValueError, match="inputs_embeds"):
        model(**inputs, inputs_embeds=torch.zeros(1, 4, 32))
    plain = inputs_of(processor, [text("What?")])
    assert model.generate(**plain, max_new_tokens=2, prefill_chunk_size=8).shape[1] > 2


@each_family
def test_token_types_without_a_video_reach_only_who_takes_them(make_linvt, family):
    """A conversation that goes on from the cache of one with a video has types of its first prompt."""
    model, processor = make_linvt(family)
    inputs = inputs_of(processor, [text("What is it?")])
    settings = {"max_new_tokens": 3, "do_sample": False}
    expected = model.generate(**inputs, **settings)
    inputs["mm_token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    assert torch.equal(model.generate(**inputs, **settings), expected)


def test_a_compiled_training_step_has_gradients_and_leaves_them_on(make_linvt):
    model, processor = make_linvt("internvl")
    freeze_for_alignment(model).train()
    inputs = inputs_of(processor, [video(4), text("What?")])
    compiled = torch.compile(model, backend="eager")
    loss = compiled(**inputs, labels=inputs["input_ids"]).loss
    assert torch.is_grad_enabled()
    loss.backward()
    assert all(p.grad is not None for p in model.video_tokenizer.parameters())
    torch.testing.assert_close(loss, model(**inputs, labels=inputs["input_ids"]).loss)


@each_family
def test_the_base_model_gives_the_hidden_states_before_the_head(make_linvt, family):
    model, processor = make_linvt(family)
    for turn in ([video(4), text("What?"), PICTURE], [PICTURE, text("Which?")], [text("Hello")]):
        inputs = inputs_of(processor, turn)
        hidden = model.base_model(**inputs).last_hidden_state
        torch.testing.assert_close(model.get_output_embeddings()(hidden), model(**inputs).logits)


def test_the_base_model_of_a_text_alone_has_gradients_for_the_video_tokenizer(make_linvt):
    """As the whole model has: else data parallel training would wait for them."""
    model, processor = make_linvt("llava")
    freeze_for_alignment(model).train()
    model.base_model(**inputs_of(processor, [text("Hello")])).last_hidden_state.sum().backward()
    assert all(not p.grad.any() for p in model.video_tokenizer.parameters())


def test_a_video_without_shots_is_one_shot(make_linvt):
    model, processor = make_linvt("llava", temporal_attention="shot")
    inputs = inputs_of(processor, [video(4), text("What?")])
    several = model(**{**inputs, "video_shot_ids": torch.tensor([0, 0, 1, 1])}).logits
    one = model(**{**inputs, "video_shot_ids": torch.tensor([3, 3, 3, 3])}).logits
    inputs.pop("video_shot_ids")
    assert torch.equal(model(**inputs).logits, one) and not torch.equal(one, several)


@each_family
def test_encoder_and_decoder_are_the_image_llms(make_linvt, family):
    model, _ = make_linvt(family)
    for part in (model.get_decoder(), model.get_encoder("image"), model.get_output_embeddings()):
        assert any(module is part for module in model.image_llm.modules()) and part is not model.image_llm


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_parts_that_return_tuples_return_them_to_users_alone(make_linvt, family):
    model, processor = make_linvt(family)
    inputs = inputs_of(processor, [video(4), text("What?")])
    expected = model(**inputs).logits
    frames = dict.fromkeys(("video_num_frames", "video_milliseconds", "pixel_values_videos"))
    features = model.get_video_features(**{name: inputs[name] for name in frames})
    model.video_tokenizer.config.return_dict = False
    assert torch.equal(model(**inputs).logits, expected)
    again = model.get_video_features(**{name: inputs[name] for name in frames})
    assert torch.equal(again.pooler_output, features.pooler_output)
    blank = model.video_tokenizer.blank_video(torch.device("cpu"), torch.float32)
    output = model.video_tokenizer(*blank, return_dict=True)
    for value, expected in zip(
        model.video_tokenizer(*blank), (output.video_tokens, output.token_scores, output.relevance_keys), strict=True
    ):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("family", ["internvl", "qwen2_vl"])  # the CLIP of LLaVA has weights that it does not use
@pytest.mark.parametrize("checkpointing", [False, True])
def test_whatever_asks_for_a_gradient_gets_one(make_linvt, family, checkpointing):
    """Else data parallel training with gradient checkpointing would wait for it, whichever trainer it is."""
    model, processor = make_linvt(family)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    inputs = inputs_of(processor, [video(4), text("What?"), PICTURE])
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
