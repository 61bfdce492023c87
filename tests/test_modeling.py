"""The contracts of the whole model, over all families and, where it matters, all variants of the video tokenizer."""

import copy

import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, SMALL, VARIANTS, random_video, user_turn, without_gradient
from tiny_models import CACHE
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    MllamaConfig,
    T5GemmaConfig,
)

from linvt import LinVTForConditionalGeneration, LinVTVideoConfig
from linvt.image_llms.family_table import FAMILIES as FAMILY_TABLE
from linvt.image_llms.family_table import ImageLLMFamily, image_llm_family


each_family = pytest.mark.parametrize("family", FAMILIES)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def greedy(model, inputs, **kwargs):
    """The new tokens only."""
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False, **kwargs)
    return output[:, inputs["input_ids"].shape[1] :]


@each_family
@each_variant
def test_video_tokens_are_averages_of_the_image_llms_own_tokens(make_linvt, ask, family, variant):
    model, processor = make_linvt(family, **VARIANTS[variant])
    inputs = ask(processor, random_video(9), "What happens?", random_video(3, seed=1))
    output = model(**inputs, output_token_weights=True)
    frames = inputs["pixel_values_videos"]
    assert inputs["video_num_frames"].tolist() == [5, 3]
    for video, own_frames in enumerate(frames.split([5, 3])):
        frame_tokens = model.get_frame_tokens(own_frames).flatten(0, 1)
        weights = output.video_token_weights[video]
        assert weights.shape == (12, len(frame_tokens)) and weights.min() >= 0
        torch.testing.assert_close(weights.sum(-1), torch.ones(12), rtol=0, atol=1e-5)
        torch.testing.assert_close(output.video_tokens[video], weights @ frame_tokens, rtol=1e-5, atol=1e-5)


@each_family
def test_frame_tokens_are_those_that_the_image_llm_makes_of_the_picture(make_linvt, image_llm, family):
    """A frame of the size that the image-LLM wants, through its own processor and its own way for images."""
    model, processor = make_linvt(family)
    original, original_processor = image_llm(family)
    frame = random_video(1, height=56, width=56)[0]
    placeholder = processor.image_token
    # Two pictures: LLaVA-OneVision cuts a single one into tiles, and takes several whole. InternVL never cuts squares.
    images = original_processor(images=[[Image.fromarray(frame)] * 2], text=[placeholder * 2], return_tensors="pt")
    features = original.get_image_features(
        **{name: value for name, value in images.items() if name not in ("input_ids", "attention_mask")}
        if family != "qwen2_vl"
        else {"pixel_values": images["pixel_values"], "image_grid_thw": images["image_grid_thw"]},
    ).pooler_output[0]
    if family == "llava_onevision":
        features = features[:-1]  # the newline
    video = processor.video_processor([frame[None]], return_tensors="pt")
    tokens = model.get_frame_tokens(video["pixel_values_videos"])[0]
    torch.testing.assert_close(tokens, features, rtol=1e-4, atol=1e-4)


@each_family
def test_frames_per_batch_changes_nothing(make_linvt, family):
    model, processor = make_linvt(family)
    frames = processor.video_processor([random_video(5)], return_tensors="pt")["pixel_values_videos"]
    expected = model.get_frame_tokens(frames)
    for frames_per_batch in (1, 2, 4):
        model.config.frames_per_batch = frames_per_batch
        torch.testing.assert_close(model.get_frame_tokens(frames), expected, rtol=1e-5, atol=1e-5)


@each_family
def test_times_and_grid_reach_the_video_tokenizer(make_linvt, ask, family, monkeypatch):
    model, processor = make_linvt(family)
    if family == "qwen2_vl":
        processor.video_processor.size = {"height": 56, "width": 84}  # 2 x 3 tokens
    seen = {}
    forward = model.video_tokenizer.forward

    def spy(frame_tokens, grid, frame_seconds, shot_ids, *args, **kwargs):
        seen.update(grid=grid, seconds=frame_seconds.tolist(), instruction=args[0])
        return forward(frame_tokens, grid, frame_seconds, shot_ids, *args, **kwargs)

    monkeypatch.setattr(model.video_tokenizer, "forward", spy)
    model.get_input_embeddings().requires_grad_()
    inputs = ask(processor, random_video(4), "Hi")  # 2 frames per second
    model(**inputs)
    assert seen["seconds"] == [[0.0, 0.5, 1.0, 1.5]]
    assert seen["grid"] == {"internvl": (2, 2), "qwen2_vl": (2, 3)}.get(family, (4, 4))
    turns, types = inputs["instruction_turns"], inputs["mm_token_type_ids"]
    expected = model.get_input_embeddings()(inputs["input_ids"][(turns == 1) & (types == 0)])
    assert torch.equal(seen["instruction"][0], expected) and not seen["instruction"].requires_grad


@each_family
def test_grids_of_wide_and_tall_frames(make_linvt, family):
    token_grid = image_llm_family(make_linvt(family)[0].image_llm).token_grid
    assert token_grid(6, 56, 84) == (2, 3) and token_grid(6, 84, 56) == (3, 2)
    assert token_grid(256, 448, 448) == (16, 16) and token_grid(252, 336, 588) == (12, 21)
    assert token_grid(17, 56, 56) == (1, 17)  # no grid: one row


@each_family
def test_a_frozen_encoder_builds_no_graph(make_linvt, ask, family):
    """Not even where gradient checkpointing has made its inputs require gradients."""
    model, processor = make_linvt(family)
    frames = ask(processor, random_video(4), "What?")["pixel_values_videos"]
    assert model.get_frame_tokens(frames).requires_grad  # nothing is frozen yet
    model.image_llm.requires_grad_(False)
    model.enable_input_require_grads()
    assert not model.get_frame_tokens(frames).requires_grad
    decoder = model.get_decoder()
    decoder.requires_grad_()
    assert not model.get_frame_tokens(frames).requires_grad


@pytest.mark.parametrize("whole", ["itself", "its base"])
def test_an_encoder_learns_though_the_image_llm_does_not_know_its_decoder(make_linvt, monkeypatch, whole):
    """What `PreTrainedModel.get_decoder` returns where it finds none holds the encoder too."""
    model, _ = make_linvt("llava")
    found = model.image_llm if whole == "itself" else model.image_llm.base_model
    monkeypatch.setattr(model.image_llm, "get_decoder", lambda: found)
    assert model.get_frame_tokens(torch.zeros(1, 3, 56, 56)).requires_grad
    model.image_llm.requires_grad_(False)
    assert not model.get_frame_tokens(torch.zeros(1, 3, 56, 56)).requires_grad


@each_family
@each_variant
def test_everything_learns(make_linvt, ask, family, variant):
    model, processor = make_linvt(family, **VARIANTS[variant])
    model.image_llm.requires_grad_(False)
    inputs = ask(processor, random_video(9), "What happens?")
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert without_gradient(model.video_tokenizer) == []
    assert all(parameter.grad is None for parameter in model.image_llm.parameters())


@each_family
@each_variant
def test_a_batch_gives_what_each_prompt_gives_alone(make_linvt, ask, family, variant):
    """Videos and prompts of different lengths, so there is padding of frames and, at the left, of tokens."""
    model, processor = make_linvt(family, **VARIANTS[variant])
    chats = [
        user_turn(random_video(9), "What happens in this video?"),
        user_turn(random_video(2, seed=1), "Who?", random_video(4, seed=2)),
    ]
    fps = [{"fps": 2.0, "total_num_frames": n} for n in (9, 2, 4)]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    batch = processor.apply_chat_template(chats, processor_kwargs={"padding": True, "video_metadata": fps}, **options)
    assert batch["attention_mask"][1, 0] == 0 or batch["attention_mask"][0, 0] == 0
    together = model(**batch)
    generated = greedy(model, batch)
    first_video = 0
    for row, chat in enumerate(chats):
        videos = slice(first_video, first_video + (1, 2)[row])
        first_video = videos.stop
        alone = processor.apply_chat_template(chat, processor_kwargs={"video_metadata": fps[videos]}, **options)
        output = model(**alone)
        torch.testing.assert_close(together.video_tokens[videos], output.video_tokens, rtol=0, atol=1e-5)
        length = alone["input_ids"].shape[1]
        torch.testing.assert_close(together.logits[row, -length:], output.logits[0], rtol=1e-3, atol=1e-3)
        assert torch.equal(generated[row], greedy(model, alone)[0])


@each_family
@pytest.mark.parametrize("with_image", [False, True])
def test_image_and_text_inputs_are_untouched(make_linvt, image_llm, family, with_image):
    model, processor = make_linvt(family)
    original, original_processor = image_llm(family)
    content = [{"type": "text", "text": "What is it?"}]
    if with_image:
        content.insert(0, {"type": "image", "image": Image.fromarray(random_video(1)[0])})
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    chat = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(chat, **options)
    expected = original_processor.apply_chat_template(chat, **options)
    assert inputs.keys() == expected.keys() and all(torch.equal(inputs[name], expected[name]) for name in expected)
    assert torch.equal(model(**inputs).logits, original(**expected).logits)
    for settings in ({"do_sample": False}, {"do_sample": False, "num_beams": 3}, {"do_sample": True}):
        outputs = []
        for llm in (model, original):
            torch.manual_seed(0)
            outputs.append(llm.generate(**inputs, max_new_tokens=6, **settings))
        assert torch.equal(*outputs)


@each_family
def test_wrapping_leaves_the_weights_alone(make_linvt, image_llm, family):
    model, _ = make_linvt(family)
    original, _ = image_llm(family)
    wrapped = model.image_llm.state_dict()
    assert wrapped.keys() == original.state_dict().keys()
    assert all(torch.equal(value, wrapped[name]) for name, value in original.state_dict().items())


@each_family
def test_no_answer_leaks_into_the_video_tokens(make_linvt, family):
    model, processor = make_linvt(family)

    def video_tokens(question, answer, second_question):
        chat = [
            {"role": "system", "content": [{"type": "text", "text": f"You answer {answer}."}]},
            *user_turn(random_video(6), question),
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            *user_turn(second_question),
        ]
        inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
        return model(**inputs).video_tokens

    expected = video_tokens("What is it?", "A cat.", "Sure?")
    assert torch.equal(expected, video_tokens("What is it?", "Two dogs that run over a meadow.", "And then?"))
    assert not torch.equal(expected, video_tokens("Who is it?", "A cat.", "Sure?"))
    prompt = processor.apply_chat_template(
        user_turn(random_video(6), "What is it?"),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    torch.testing.assert_close(model(**prompt).video_tokens, expected, rtol=0, atol=1e-6)


@each_family
def test_each_video_is_read_with_the_instruction_of_its_own_turn(make_linvt, family):
    model, processor = make_linvt(family)

    def video_tokens(first_question, second_question):
        chat = [
            *user_turn(random_video(4), first_question),
            {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
            *user_turn(random_video(4), second_question),
        ]
        inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
        return model(**inputs).video_tokens

    same = video_tokens("What?", "What?")
    other = video_tokens("What?", "Where is it?")
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(same[0], other[0], rtol=0, atol=1e-5)
    assert not torch.allclose(same[1], other[1], rtol=0, atol=1e-5)


def test_positions_of_videos_and_images_with_m_rope(make_linvt):
    """Written out by hand: text and video tokens count on, an image spans a grid of 2 rows and 3 columns."""
    model, processor = make_linvt("qwen2_vl")
    content = [
        {"type": "video", "video": random_video(4)},
        {"type": "image", "image": Image.fromarray(random_video(1, height=56, width=84)[0])},
        {"type": "text", "text": "Hi"},
    ]
    chat = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 6]]
    types = inputs["mm_token_type_ids"][0].tolist()
    start = types.index(1)
    assert types.index(2) < start and types.count(2) == 12 and types[start : start + 6] == [1] * 6

    llm_inputs, _ = model.get_llm_inputs(**inputs)
    before = list(range(start))
    time = [start] * 6
    row = [start, start, start, start + 1, start + 1, start + 1]
    column = [start, start + 1, start + 2] * 2
    after = list(range(start + 3, start + 3 + len(types) - start - 6))
    expected = torch.tensor([before + axis + after for axis in (time, row, column)])
    assert torch.equal(llm_inputs["position_ids"][:, 0], expected)

    alone = processor.apply_chat_template(
        user_turn(random_video(4), "Hi"), tokenize=True, return_dict=True, return_tensors="pt"
    )
    llm_inputs, _ = model.get_llm_inputs(**alone)
    assert torch.equal(llm_inputs["position_ids"][:, 0], torch.arange(alone["input_ids"].shape[1]).expand(3, -1))


@each_family
def test_images_beside_videos_are_what_the_image_llm_makes_of_them(make_linvt, family):
    model, processor = make_linvt(family)
    picture = Image.fromarray(random_video(1, seed=5, height=56, width=84)[0])
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "And "}]
    content.append({"type": "video", "video": random_video(4)})
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    mixed = processor.apply_chat_template([{"role": "user", "content": content}], **options)
    alone = processor.apply_chat_template([{"role": "user", "content": content[:1]}], **options)
    length = int((alone["input_ids"] == processor.image_token_id).nonzero()[-1, 1]) + 1
    assert torch.equal(mixed["input_ids"][:, :length], alone["input_ids"][:, :length])
    torch.testing.assert_close(
        model(**mixed).logits[:, :length], model(**alone).logits[:, :length], rtol=1e-4, atol=1e-4
    )


@each_family
def test_greedy_generation_with_the_cache_equals_forward_without(make_linvt, ask, family):
    model, processor = make_linvt(family)
    content = user_turn(random_video(6), "What is it?")[0]["content"]
    content.insert(0, {"type": "image", "image": Image.fromarray(random_video(1)[0])})
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    cached = greedy(model, inputs)
    grown = dict(inputs)
    for _ in range(8):
        token = model(**grown).logits[:, -1:].argmax(-1)
        for name, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            new = value if torch.is_tensor(value) else torch.full((1, 1), value, dtype=grown[name].dtype)
            grown[name] = torch.cat([grown[name], new], dim=1)
        grown["instruction_turns"] = torch.nn.functional.pad(grown["instruction_turns"], (0, 1))
    assert torch.equal(grown["input_ids"][:, -8:], cached)


@each_family
def test_forward_goes_on_from_the_cache(make_linvt, ask, family):
    model, processor = make_linvt(family)
    inputs = ask(processor, random_video(6), "What is it?")
    expected = greedy(model, inputs)
    output = model(**inputs, use_cache=True)
    tokens = []
    for _ in range(8):
        tokens.append(output.logits[:, -1:].argmax(-1))
        output = model(input_ids=tokens[-1], **{CACHE: output[CACHE]})
    assert torch.equal(torch.cat(tokens, dim=1), expected)


@each_family
def test_a_conversation_goes_on_from_the_cache(make_linvt, family):
    model, processor = make_linvt(family)
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    chat = user_turn(random_video(6), "What is it?")
    first = processor.apply_chat_template(chat, **options)
    no_picture = {"suppress_tokens": [processor.image_token_id]}  # random weights may say anything
    settings = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    output = model.generate(**first, **settings, **no_picture)
    second_turn = "<|im_end|>\n<|im_start|>user\nAnd who?<|im_end|>\n<|im_start|>assistant\n"
    new = processor.tokenizer(second_turn, return_tensors="pt")["input_ids"]
    second = dict(first)
    second["input_ids"] = torch.cat([output.sequences, new], dim=1)
    grown = second["input_ids"].shape[1] - first["input_ids"].shape[1]
    second["attention_mask"] = torch.nn.functional.pad(first["attention_mask"], (0, grown), value=1)
    for name in ("mm_token_type_ids", "instruction_turns"):
        second[name] = torch.nn.functional.pad(first[name], (0, grown))
    expected = greedy(model, second)
    assert torch.equal(greedy(model, second, **{CACHE: output[CACHE]}), expected)


def test_going_on_from_the_cache_keeps_the_positions_of_images(make_linvt):
    model, processor = make_linvt("qwen2_vl")
    content = user_turn(random_video(4), "What is it?")[0]["content"]
    content.append({"type": "image", "image": Image.fromarray(random_video(1, height=84, width=112)[0])})
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    model.image_llm.model.rope_deltas = None
    cache = model(**inputs, use_cache=True)[CACHE]
    token = torch.tensor([[5]])
    step = model(input_ids=token, **{CACHE: cache}).logits[:, -1]
    whole = dict(inputs)
    whole["input_ids"] = torch.cat([inputs["input_ids"], token], dim=1)
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0), ("instruction_turns", 0)):
        whole[name] = torch.nn.functional.pad(inputs[name], (0, 1), value=value)
    torch.testing.assert_close(step, model(**whole).logits[:, -1], rtol=1e-3, atol=1e-3)


@each_family
def test_a_cache_is_kept_only_if_asked_for(make_linvt, ask, family):
    """`generate` of Transformers keeps one in any case where it is given embeddings."""
    model, processor = make_linvt(family)
    inputs = ask(processor, random_video(6), "What is it?")
    settings = {"max_new_tokens": 4, "do_sample": False, "num_beams": 2, "num_return_sequences": 2}
    settings |= {"return_dict_in_generate": True, "output_hidden_states": True, "output_scores": True}
    length = inputs["input_ids"].shape[1]
    found = {cache: model.generate(**inputs, **settings, use_cache=cache) for cache in (True, False)}
    assert torch.equal(found[True].sequences, found[False].sequences)
    torch.testing.assert_close(found[True].sequences_scores, found[False].sequences_scores, rtol=1e-4, atol=1e-4)
    steps = {cache: [states[-1].shape[1] for states in output.hidden_states] for cache, output in found.items()}
    assert steps == {True: [length, 1, 1, 1], False: [length, length + 1, length + 2, length + 3]}


@each_family
def test_decoding_modes(make_linvt, ask, family):
    model, processor = make_linvt(family)
    inputs = ask(processor, random_video(6), "What is it?")
    length = inputs["input_ids"].shape[1]
    plain = greedy(model, inputs)
    assert torch.equal(greedy(model, inputs, prompt_lookup_num_tokens=3), plain)
    assistant = copy.deepcopy(model.image_llm)
    assert torch.equal(greedy(model, inputs, assistant_model=assistant), plain)
    beams = model.generate(**inputs, max_new_tokens=5, num_beams=3, num_return_sequences=2, do_sample=False)
    assert beams.shape[0] == 2 and torch.equal(beams[:, :length], inputs["input_ids"].expand(2, -1))
    samples = model.generate(**inputs, max_new_tokens=5, do_sample=True, num_return_sequences=3)
    assert samples.shape[0] == 3
    details = model.generate(**inputs, max_new_tokens=5, return_dict_in_generate=True, output_scores=True)
    assert len(details.scores) == details.sequences.shape[1] - length
    static = greedy(model, inputs, cache_implementation="static")
    assert torch.equal(static, plain)


@each_family
def test_beam_search_is_the_image_llms_own(make_linvt, ask, family):
    """Beams of a prompt with video and image equal those of the image-LLM on the same embeddings and positions."""
    model, processor = make_linvt(family)
    content = user_turn(random_video(4), "What is it?")[0]["content"]
    content.append({"type": "image", "image": Image.fromarray(random_video(1)[0])})
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    beams = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 5, "do_sample": False}
    llm_inputs, _ = model.get_llm_inputs(**inputs)
    expected = model.image_llm.generate(**llm_inputs, **beams)
    assert torch.equal(model.generate(**inputs, **beams)[:, inputs["input_ids"].shape[1] :], expected)


@each_family
def test_the_models_generation_config_is_used(make_linvt, ask, family):
    model, processor = make_linvt(family)
    inputs = ask(processor, random_video(4), "What is it?")
    model.generation_config.max_new_tokens = 3
    assert model.generate(**inputs).shape[1] == inputs["input_ids"].shape[1] + 3


@each_family
def test_labels_give_the_loss_of_the_marked_tokens(make_linvt, ask, family):
    model, processor = make_linvt(family)
    inputs = ask(processor, random_video(4), "What is it?")
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -4:] = inputs["input_ids"][:, -4:]
    output = model(**inputs, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits[0, -5:-1], labels[0, -4:])
    torch.testing.assert_close(output.loss, expected)


def test_gradient_checkpointing_of_the_whole_model(make_linvt, ask):
    gradients = []
    for checkpointing in (False, True):
        model, processor = make_linvt("qwen2_vl")
        inputs = ask(processor, random_video(5), "What is it?")
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_tuples_on_request(make_linvt, ask):
    model, processor = make_linvt("llava")
    inputs = ask(processor, random_video(4), "What?")
    logits, *_, video_tokens = model(**inputs, return_dict=False)
    output = model(**inputs)
    assert torch.equal(logits, output.logits) and torch.equal(video_tokens, output.video_tokens)


def test_without_videos_the_image_llms_own_output_comes_back(make_linvt):
    model, processor = make_linvt("llava")
    picture = {"type": "image", "image": Image.fromarray(random_video(1)[0])}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [picture]}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = model(**inputs)
    assert output.image_hidden_states is not None and type(output) is type(model.image_llm(**inputs))
    assert torch.equal(model(**inputs, return_dict=False)[0], output.logits)


def test_what_the_caller_gave_stays_as_it_was(image_llm):
    original, _ = image_llm("llava")
    given, config = original.generation_config, LinVTVideoConfig(**SMALL)
    for mode in (True, False):
        original.train(mode)
        model = LinVTForConditionalGeneration.from_image_llm(original, config)
        assert model.training == mode
    assert config.embedding_size is None and model.config.video_tokenizer_config.embedding_size == 32
    model.generation_config.max_new_tokens = 3
    model.generate(input_ids=torch.tensor([[5, 6]]))
    assert given.max_new_tokens is None


def test_a_video_without_frames_is_named(make_linvt, ask):
    model, processor = make_linvt("llava")
    inputs = ask(processor, random_video(4), "What?", random_video(3))
    for counts in ([4, 0], [0, 4], [4, -1]):
        with pytest.raises(ValueError, match=rf"video_num_frames is \[{counts[0]}, {counts[1]}\]"):
            model(**{**inputs, "video_num_frames": torch.tensor(counts)})


def test_frames_times_and_shots_of_different_numbers_are_refused(make_linvt, ask):
    """Frames of one video can never be taken for those of another."""
    model, processor = make_linvt("llava")
    inputs = ask(processor, random_video(4), "What?", random_video(3))
    for name in ("pixel_values_videos", "video_milliseconds", "video_shot_ids"):
        for wrong in (inputs[name][:-1], torch.cat([inputs[name], inputs[name][:1]]), inputs[name][None]):
            with pytest.raises(ValueError, match=f"{name} has shape .*the videos have 7 frames"):
                model(**{**inputs, name: wrong})
    with pytest.raises(ValueError, match=r"video_num_frames \[4, 2\] says that the videos have 6 frames"):
        model(**{**inputs, "video_num_frames": torch.tensor([4, 2])})
    with pytest.raises(ValueError, match="video_num_frames is"):
        model(**{**inputs, "video_num_frames": torch.tensor([[4, 3]])})


def test_a_prompt_with_more_or_fewer_videos_than_given(make_linvt, ask):
    model, processor = make_linvt("llava")
    inputs = ask(processor, random_video(4), "What?", random_video(3))
    for kept, message in (([4], "24 video tokens for 1 videos, in runs of .12, 12."), ([4, 3, 4], "3 videos")):
        changed = dict(inputs) | {"video_num_frames": torch.tensor(kept)}
        for name in ("pixel_values_videos", "video_milliseconds", "video_shot_ids"):
            changed[name] = torch.cat([inputs[name], inputs[name]])[: sum(kept)]
        with pytest.raises(ValueError, match=message):
            model(**changed)


def test_videos_that_are_not_given_are_not_taken_for_more_tokens_of_others(make_linvt, ask):
    """The prompts say how many tokens a video is, and one of 24 is none of 12 and another 12 elsewhere."""
    model, processor = make_linvt("llava")
    inputs = dict(ask(processor, random_video(4), "What?", random_video(3), "And who?"))
    inputs["video_num_frames"] = torch.tensor([4])
    for name in ("pixel_values_videos", "video_milliseconds", "video_shot_ids"):
        inputs[name] = inputs[name][:4]
    with pytest.raises(ValueError, match="24 video tokens for 1 videos, in runs of .12, 12."):
        model(**inputs)
    processor.num_video_tokens = 24
    inputs = ask(processor, random_video(4), "What?")
    assert model(**inputs).video_tokens.shape[:2] == (1, 24)


@pytest.mark.parametrize(
    "name", ["mm_token_type_ids", "video_milliseconds", "video_num_frames", "instruction_turns", "input_ids"]
)
def test_a_missing_input_is_named(make_linvt, ask, name):
    model, processor = make_linvt("llava")
    inputs = dict(ask(processor, random_video(4), "What?"))
    inputs.pop(name)
    with pytest.raises(ValueError, match=f"without {name}; make the inputs with LinVTProcessor"):
        model(**inputs)


def test_models_that_cannot_be_wrapped_are_refused_with_the_reason(tmp_path):
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    llama = LlamaForCausalLM(LlamaConfig(**tiny, vocab_size=50))
    with pytest.raises(ValueError, match="cannot wrap 'llama'.*no get_image_features.*Supported: .*aria, aya_vision"):
        LinVTForConditionalGeneration.from_image_llm(llama)
    llama.save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="holds a 'llama' model, which is not an image-LLM"):
        LinVTForConditionalGeneration.from_image_llm(tmp_path / "llama")
    BertForMaskedLM(BertConfig(**tiny, vocab_size=50)).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="holds a 'bert' model, not a LinVT one"):
        LinVTForConditionalGeneration.from_pretrained(tmp_path / "bert")
    MllamaConfig().save_pretrained(tmp_path / "mllama")
    with pytest.raises(ValueError, match="cannot wrap 'mllama'.*cross-attention"):
        LinVTForConditionalGeneration.from_image_llm(tmp_path / "mllama")
    T5GemmaConfig().save_pretrained(tmp_path / "t5gemma")
    with pytest.raises(ValueError, match="cannot wrap 't5gemma'.*encoder-decoder"):
        LinVTForConditionalGeneration.from_image_llm(tmp_path / "t5gemma")


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("llava_next", "needs more than pixel_values"),
        ("qwen2_5_vl", "needs more than pixel_values"),
        ("gemma3", "attention mask depends on token types"),
    ],
)
def test_models_that_break_the_contract_of_the_default_family_are_refused(model_type, reason, monkeypatch):
    monkeypatch.delitem(FAMILY_TABLE, model_type)  # as one that is newer than this table
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(model_type))
    with pytest.raises(ValueError, match=f"cannot wrap '{model_type}'.*{reason}"):
        LinVTForConditionalGeneration.from_image_llm(model)


@pytest.mark.parametrize("family", ["llava", "internvl"])
def test_the_default_family_takes_what_keeps_its_contract(make_linvt, ask, family, monkeypatch):
    model, processor = make_linvt(family)
    inputs = ask(processor, random_video(4), "What?")
    monkeypatch.delitem(FAMILY_TABLE, family)
    unlisted, _ = make_linvt(family)
    assert type(image_llm_family(unlisted.image_llm)) is ImageLLMFamily
    assert torch.equal(unlisted(**inputs).logits, model(**inputs).logits)


def test_a_model_that_fails_on_a_blank_frame_is_refused(image_llm, monkeypatch):
    monkeypatch.delitem(FAMILY_TABLE, "llava")
    broken, _ = image_llm("llava")
    del broken.model.multi_modal_projector.linear_1
    with pytest.raises(ValueError, match="cannot wrap 'llava'.*it fails on a blank frame.*linear_1"):
        LinVTForConditionalGeneration.from_image_llm(broken)


def test_wrapping_twice_is_refused(make_linvt):
    model, _ = make_linvt("llava")
    with pytest.raises(ValueError, match="it is a LinVT model already"):
        LinVTForConditionalGeneration.from_image_llm(model)


def test_arguments_for_loading_need_an_id(image_llm):
    with pytest.raises(ValueError, match="dtype can be given with the id of an image-LLM, not with a model"):
        LinVTForConditionalGeneration.from_image_llm(image_llm("llava")[0], dtype="bfloat16")


def test_an_image_llm_folder_is_no_linvt_model(image_llm, tmp_path):
    image_llm("llava")[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'llava' model, not a LinVT one.*from_image_llm"):
        LinVTForConditionalGeneration.from_pretrained(tmp_path)


def test_visual_tokens_of_a_wrong_shape_are_named(make_linvt, ask, monkeypatch):
    model, processor = make_linvt("llava")
    inputs = ask(processor, random_video(4), "What?")
    features = copy.copy(model.image_llm.get_image_features)

    def cut(**kwargs):
        output = features(**kwargs)
        output.pooler_output = [tokens[:, :-1] for tokens in output.pooler_output]
        return output

    monkeypatch.setattr(model.image_llm, "get_image_features", cut)
    with pytest.raises(ValueError, match=r"gave visual tokens of shape \(4, 16, 31\) for 4 frames"):
        model(**inputs)
