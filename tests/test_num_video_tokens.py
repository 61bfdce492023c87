"""The number of video tokens of a call: it means what the configuration's number means, and changes nothing else."""

import copy
from pathlib import Path

import pytest
import torch
from tiny_families import FAMILIES, SMALL, random_video, user_turn, write_video
from transformers import pipeline

import linvt
from linvt import LinVTVideoConfig, RedVillmVideoConfig
from linvt.training.video_chat_collator import VideoChatCollator


each_family = pytest.mark.parametrize("family", FAMILIES)
TOKENS = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
METADATA = {"fps": 2.0, "total_num_frames": 5}
DOUBLED = {"num_queries": [2 * number for number in SMALL["num_queries"]]}
NUMBER = sum(DOUBLED["num_queries"])
ANSWER = {"max_new_tokens": 5, "do_sample": False}
WRONG = (0, -3, 8.0, 2.5, True, "8")


def chats() -> list[list[dict]]:
    """A chat of two turns with two videos and one, and a chat about one video."""
    between = [{"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]
    first = user_turn("Compare", random_video(5), "and", random_video(5, 1)) + between
    return [first + user_turn(random_video(5, 2), "And now?"), user_turn(random_video(5, 3), "What?")]


def chat_inputs(processor, chat, num_videos, **kwargs):
    kwargs = {"video_metadata": [METADATA] * num_videos, **kwargs}
    return processor.apply_chat_template(chat, add_generation_prompt=True, processor_kwargs=kwargs, **TOKENS)


@each_family
def test_it_gets_there_in_every_form_and_stays_with_its_call(make_linvt, family):
    _, processor = make_linvt(family)
    before = processor.to_json_string()
    chat, video = user_turn(random_video(5), "What?"), {"videos": [random_video(5)], "video_metadata": [METADATA]}
    usual = chat_inputs(processor, chat, 1)
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    found = [
        chat_inputs(processor, chat, 1, num_video_tokens=7),
        processor.apply_chat_template(
            chat,
            add_generation_prompt=True,
            num_video_tokens=7,
            processor_kwargs={"video_metadata": [METADATA]},
            **TOKENS,
        ),
        processor(text=prompt, return_tensors="pt", num_video_tokens=7, **video),
        processor(text=prompt, return_tensors="pt", videos_kwargs={"num_video_tokens": 7}, **video),
        processor(text=prompt, return_tensors="pt", common_kwargs={"num_video_tokens": 7}, **video),
    ]
    for inputs in found:
        assert (inputs["mm_token_type_ids"] == 2).sum() == 7
        assert inputs.keys() == usual.keys() and all(torch.equal(inputs[name], found[0][name]) for name in inputs)
    # Without video tokens, the prompt is what it always is.
    texts = [inputs["input_ids"][inputs["mm_token_type_ids"] != 2] for inputs in (usual, found[0])]
    assert torch.equal(*texts)
    assert processor.to_json_string() == before
    again = chat_inputs(processor, chat, 1, num_video_tokens=None)
    assert all(torch.equal(again[name], usual[name]) for name in usual)


@each_family
@pytest.mark.parametrize("variant", [{}, {"multi_scale": "single"}, {"use_tta": False, "text_conditioning": False}])
def test_it_is_what_the_configurations_number_is(make_linvt, family, variant):
    """For a trained video tokenizer too, with several videos in a chat, and in a batch."""
    model, processor = make_linvt(family, **variant)
    doubled, doubled_processor = make_linvt(family, **DOUBLED, **variant)
    with torch.no_grad():
        for parameter in model.video_tokenizer.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    doubled.load_state_dict(model.state_dict())
    inputs = chat_inputs(processor, chats(), 4, num_video_tokens=NUMBER, padding=True)
    expected = chat_inputs(doubled_processor, chats(), 4, padding=True)
    assert inputs.keys() == expected.keys() and all(torch.equal(inputs[name], expected[name]) for name in inputs)
    assert (inputs["mm_token_type_ids"] == 2).sum(1).tolist() == [3 * NUMBER, NUMBER]
    output = model.generate(**inputs, **ANSWER)
    assert torch.equal(output, doubled.generate(**expected, **ANSWER))
    alone = [
        model.generate(**chat_inputs(processor, chat, number, num_video_tokens=NUMBER), **ANSWER)[0, -5:]
        for chat, number in zip(chats(), (3, 1), strict=True)
    ]
    assert torch.equal(output[:, -5:], torch.stack(alone))


@each_family
def test_pipelines_take_it(make_linvt, tmp_path, family):
    model, processor = make_linvt(family)
    videos = [str(write_video(tmp_path / f"{seed}.mp4", random_video(9, seed))) for seed in range(3)]
    expected = []
    for video in videos:
        inputs = chat_inputs(processor, user_turn(Path(video), "What?"), 1, video_metadata=None, num_video_tokens=7)
        output = model.generate(**inputs, **ANSWER)
        expected.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    parts = {"model": model, "processor": processor}
    pipe = pipeline("video-text-to-text", **parts)
    made = pipeline("video-text-to-text", num_video_tokens=7, **parts)
    for answers in (
        pipe(videos, text="What?", num_video_tokens=7, **ANSWER),
        pipe(videos, text="What?", processor_kwargs={"num_video_tokens": 7}, batch_size=2, **ANSWER),
        made(videos, text="What?", **ANSWER),
    ):
        assert [answer["generated_text"] for (answer,) in answers] == expected
    chat = [{"role": "user", "content": [{"type": "video", "path": videos[0]}, {"type": "text", "text": "What?"}]}]
    parent = pipeline("any-to-any", **parts)
    answers = parent(text=chat, num_video_tokens=7, return_full_text=False, generate_kwargs=ANSWER)
    assert answers[0]["generated_text"].strip() == expected[0].strip()


@pytest.mark.parametrize("number", WRONG, ids=repr)
def test_what_is_no_count_is_named_before_a_video_is_read(make_linvt, number):
    model, processor = make_linvt("llava")
    with pytest.raises(ValueError, match="num_video_tokens"):
        chat_inputs(processor, user_turn(Path("missing.mp4"), "What?"), 1, num_video_tokens=number)
    with pytest.raises(ValueError, match="num_video_tokens"):
        processor(text="<video>?", videos=["missing.mp4"], num_video_tokens=number)
    with pytest.raises(ValueError, match="num_video_tokens"):
        type(processor).from_image_llm_processor(processor._processor, number)
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    for given in ({"num_video_tokens": number}, {"processor_kwargs": {"num_video_tokens": number}}):
        with pytest.raises(ValueError, match="num_video_tokens"):
            pipe("missing.mp4", text="What?", **given)
    for config in (LinVTVideoConfig(), LinVTVideoConfig(use_svr=False, multi_scale="single"), RedVillmVideoConfig()):
        with pytest.raises(ValueError, match="num_video_tokens"):
            config.check_num_video_tokens(number)


@pytest.mark.parametrize(
    ("settings", "number", "allowed"),
    [
        ({}, SMALL["top_k"] + 1, f"from 1 to {SMALL['top_k']}, its top_k"),
        ({"start": "random"}, NUMBER, "makes 12, since it has learnt"),
    ],
)
def test_what_the_model_does_not_allow_is_named_with_what_it_does(make_linvt, settings, number, allowed):
    model, processor = make_linvt("llava", **settings)
    inputs = chat_inputs(processor, user_turn(random_video(5), "What?"), 1, num_video_tokens=number)
    with pytest.raises(ValueError, match=rf"{number} tokens \(num_video_tokens\).*{allowed}"):
        model.generate(**inputs, **ANSWER)
    with pytest.raises(ValueError, match=allowed):
        pipeline("video-text-to-text", model=model, processor=processor, num_video_tokens=number)
    usual = chat_inputs(processor, user_turn(random_video(5), "What?"), 1, num_video_tokens=12)
    model.generate(**usual, **ANSWER)


@pytest.mark.parametrize(
    ("settings", "number"),
    [({"start": "random"}, NUMBER), ({}, 0), ({}, SMALL["top_k"] + 1), ({"model_type": "red_villm_video"}, 30)],
)
def test_the_command_refuses_before_it_reads(make_linvt, image_llm, run, tmp_path, settings, number):
    if "model_type" in settings:
        model = linvt.LinVTForConditionalGeneration.from_image_llm(image_llm("llava")[0], settings)
        processor = make_linvt("llava")[1]
    else:
        model, processor = make_linvt("llava", **settings)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "clip.mp4").write_text("no video")
    code, output, errors = run("ask", tmp_path / "clip.mp4", "?", "--model", tmp_path / "model", "--tokens", number)
    assert code == 2 and output == "" and len(errors.splitlines()) == 1
    assert f"{number} tokens (num_video_tokens)" in errors


def test_a_text_alone_needs_no_number(make_linvt):
    """As other arguments of videos: one call serves all rows of a set, some of which have no video."""
    _, processor = make_linvt("llava")
    chat = user_turn("Who?")
    with_number = processor.apply_chat_template(chat, num_video_tokens=7, **TOKENS)
    assert torch.equal(with_number["input_ids"], processor.apply_chat_template(chat, **TOKENS)["input_ids"])


def test_too_short_a_prompt_tells_the_number_of_the_call(make_linvt):
    _, processor = make_linvt("llava")
    cut = {"truncation": True, "max_length": 20, "num_video_tokens": 15}
    with pytest.raises(ValueError, match="1 videos need 15 video tokens"):
        chat_inputs(processor, user_turn("Long before", random_video(5), "What?"), 1, **cut)


def test_tokens_are_counted_with_the_number_of_the_call(make_linvt):
    _, processor = make_linvt("llava")
    counted = processor._get_num_multimodal_tokens(video_sizes=[(9, 56, 56), (3, 28, 56)], num_video_tokens=7)
    assert counted["num_video_tokens"] == [7, 7]


def test_training_is_with_the_configurations_number(make_linvt):
    _, processor = make_linvt("llava")
    given = {"num_video_tokens": 7}
    before = copy.deepcopy(given)
    with pytest.raises(ValueError, match="num_video_tokens is 7 in processor_kwargs.*12 tokens.*num_queries"):
        VideoChatCollator(processor, processor_kwargs=given)
    assert given == before
