"""Arguments of a processor call: known ones hold in whatever form they come, all others are errors that name them."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, random_video, user_turn
from transformers import LlavaProcessor
from transformers.processing_utils import ProcessorMixin

from linvt.processors.call_arguments import template_variables


each_family = pytest.mark.parametrize("family", FAMILIES)
TOKENS = {"tokenize": True, "return_dict": True}


def chat_with(*parts) -> list[dict]:
    chat = user_turn(*parts)
    chat[0]["content"].insert(0, {"type": "image", "image": Image.fromarray(random_video(1)[0])})
    return chat


@pytest.fixture(params=["video", "text"])
def chat(request):
    """A chat with a video, and one without, which goes to the image-LLM's own processor."""
    return user_turn(random_video(6), "What?") if request.param == "video" else user_turn("What?")


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("fps", {"fps": 1.0, "videos_kwargs": {"fps": 1.0}}),
        ("padding", {"padding": True, "text_kwargs": {"padding": False}}),
        ("do_resize", {"do_resize": True, "images_kwargs": {"do_resize": False}}),
        ("max_length", {"max_length": 500, "common_kwargs": {"max_length": 600}}),
        ("num_frames", {"common_kwargs": {"num_frames": 2}, "videos_kwargs": {"num_frames": 3}}),
    ],
)
def test_an_argument_given_twice_is_an_error(make_linvt, chat, name, kwargs):
    _, processor = make_linvt("llava")
    with pytest.raises(ValueError, match=f"^{name} is given twice"):
        processor.apply_chat_template(chat, processor_kwargs=kwargs, **TOKENS)
    prompt = processor.apply_chat_template(chat)
    videos = [random_video(6)] if processor.video_token in prompt else None
    with pytest.raises(ValueError, match=f"^{name} is given twice"):
        processor(text=prompt, videos=videos, **kwargs)


def test_the_same_value_for_all_parts_and_by_itself_is_one(make_linvt, chat):
    _, processor = make_linvt("llava")
    prompt = processor.apply_chat_template(chat)
    videos = [random_video(6)] if processor.video_token in prompt else None
    inputs = processor(text=prompt, videos=videos, return_tensors="pt", common_kwargs={"return_tensors": "pt"})
    assert all(isinstance(value, torch.Tensor) for value in inputs.values())


def test_an_argument_given_beside_processor_kwargs_and_in_them_is_an_error(make_linvt, chat):
    _, processor = make_linvt("llava")
    with pytest.raises(ValueError, match="^padding_side is given twice"):
        processor.apply_chat_template(chat, padding_side="left", processor_kwargs={"padding_side": "right"}, **TOKENS)
    with pytest.raises(ValueError, match="^return_tensors is given twice"):
        processor.apply_chat_template(chat, return_tensors="pt", processor_kwargs={"return_tensors": "pt"}, **TOKENS)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_frame": 3},
        {"videos_kwargs": {"num_frame": 3}},
        {"text_kwargs": {"num_frame": 3}},
        {"images_kwargs": {"num_frame": 3}},
        {"common_kwargs": {"num_frame": 3}},
        {"audio_kwargs": {"num_frame": 3}},
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_misspelt_arguments_are_named(make_linvt, chat, kwargs):
    _, processor = make_linvt("llava")
    name = "audio_kwargs|num_frame"
    with pytest.raises(TypeError, match=name):
        processor.apply_chat_template(chat, processor_kwargs=kwargs, **TOKENS)
    with pytest.raises(TypeError, match=name):
        processor.apply_chat_template(chat, processor_kwargs=kwargs)  # a text alone must not be made otherwise
    prompt = processor.apply_chat_template(chat)
    videos = [random_video(6)] if processor.video_token in prompt else None
    with pytest.raises(TypeError, match=name):
        processor(text=prompt, videos=videos, **kwargs)


@pytest.mark.parametrize("name", ["content", "message", "part", "role", "user", "enable_thinking", "tool"])
def test_words_of_a_template_are_not_its_variables(make_linvt, chat, name):
    """They stand in the template, or in what it writes, but nothing that is given under these names changes it."""
    _, processor = make_linvt("llava")
    with pytest.raises(TypeError, match=f"unknown argument: {name}"):
        processor.apply_chat_template(chat, **{name: 4})


def test_variables_of_a_template_are_known(make_linvt, chat):
    _, processor = make_linvt("llava")
    addition = "{% if short is defined and short %}{{ 'Be brief.' }}{% endif %}{{ manner | default('') }}"
    template = processor.chat_template + addition
    assert template_variables(template) >= {"messages", "add_generation_prompt", "short", "manner"}
    plain = processor.apply_chat_template(chat, template)
    assert processor.apply_chat_template(chat, template, short=True, manner=" Now.") == plain + "Be brief. Now."
    with pytest.raises(TypeError, match="unknown argument: shorter"):
        processor.apply_chat_template(chat, template, shorter=True)


def test_a_similar_name_is_offered(make_linvt):
    _, processor = make_linvt("llava")
    with pytest.raises(TypeError, match="num_framez; did you mean num_frames"):
        processor(text="Who?", num_framez=3)


def test_video_arguments_are_no_mistake_where_a_chat_has_no_video(make_linvt, caplog):
    """One call serves all rows of a set, some of which have no video."""
    _, processor = make_linvt("llava")
    kwargs = {"num_frames": 4, "shot_detection": "uniform"}
    chat = user_turn("What?")
    for given in (kwargs, {"processor_kwargs": kwargs}, {"processor_kwargs": {"videos_kwargs": kwargs}}):
        assert processor.apply_chat_template(chat, **given, **TOKENS) == processor.apply_chat_template(chat, **TOKENS)
    assert processor(text="What?", **kwargs) == processor(text="What?")
    assert not caplog.text


@pytest.mark.parametrize("group", [None, "text_kwargs", "images_kwargs", "videos_kwargs", "common_kwargs"])
@pytest.mark.parametrize(("kind", "array"), [("pt", torch.Tensor), ("np", np.ndarray)])
def test_all_inputs_are_of_the_kind_that_is_asked_for(make_linvt, group, kind, array):
    _, processor = make_linvt("llava")
    kwargs = {"return_tensors": kind}
    kwargs = kwargs if group is None else {group: kwargs}
    chat = chat_with(random_video(3), "What?")
    inputs = processor.apply_chat_template(chat, processor_kwargs=kwargs, return_assistant_tokens_mask=True, **TOKENS)
    text_names = ("input_ids", "attention_mask", "mm_token_type_ids", "instruction_turns", "assistant_masks")
    assert all(isinstance(inputs[name], array) for name in text_names)
    prompt, image = processor.apply_chat_template(chat), chat[0]["content"][0]["image"]
    inputs = processor(text=prompt, images=image, videos=[random_video(3)], **kwargs)
    assert all(isinstance(inputs[name], array) for name in text_names[:-1])


def test_two_kinds_of_tensors_are_an_error(make_linvt):
    _, processor = make_linvt("llava")
    prompt = processor.apply_chat_template(user_turn(random_video(3), "What?"))
    kwargs = {"text_kwargs": {"return_tensors": "pt"}, "videos_kwargs": {"return_tensors": "np"}}
    with pytest.raises(ValueError, match="return_tensors is given as 'pt' and as 'np'"):
        processor(text=prompt, videos=[random_video(3)], **kwargs)


def test_what_the_tokenizer_was_loaded_with_holds_with_a_video_too(make_linvt, chat, tmp_path):
    _, processor = make_linvt("llava")
    settings = {"padding": "max_length", "max_length": 90, "padding_side": "right"}
    processor.save_pretrained(tmp_path)
    loaded = type(processor).from_pretrained(tmp_path, **settings)
    expected = processor.apply_chat_template(chat, processor_kwargs=settings, return_tensors="pt", **TOKENS)
    inputs = loaded.apply_chat_template(chat, return_tensors="pt", **TOKENS)
    assert expected["input_ids"].shape == (1, 90) and expected["attention_mask"][0, -1] == 0
    assert inputs.keys() == expected.keys() and all(torch.equal(inputs[name], expected[name]) for name in expected)
    other = loaded.apply_chat_template(chat, return_tensors="pt", processor_kwargs={"max_length": 80}, **TOKENS)
    assert other["input_ids"].shape == (1, 80)  # a call is above the defaults


def test_defaults_of_the_image_llms_processor_hold_with_a_video_too(make_linvt, chat, monkeypatch):
    defaults = {"padding": "max_length", "max_length": 70, "return_tensors": "pt"}
    monkeypatch.setitem(LlavaProcessor.valid_processor_kwargs._defaults, "text_kwargs", defaults)
    _, processor = make_linvt("llava")
    assert processor.apply_chat_template(chat, **TOKENS)["input_ids"].shape == (1, 70)


@each_family
def test_what_was_filled_in_is_told(make_linvt, family):
    """As Transformers tells it: replacing the places in the prompt by what is told gives the filled prompt."""
    _, processor = make_linvt(family)
    chats = [
        chat_with("And", random_video(2), "?"),
        user_turn(random_video(3), "A", random_video(2), "B"),
        chat_with(),
    ]
    prompts = processor.apply_chat_template(chats)
    options = {"return_text_replacement_offsets": True, "padding": True}
    inputs = processor.apply_chat_template(chats, processor_kwargs=options, return_tensors="pt", **TOKENS)
    told = inputs["text_replacement_offsets"]
    assert [[item["type"] for item in row] for row in told] == [["image", "video"], ["video", "video"], ["image"]]
    for prompt, row, ids in zip(prompts, told, inputs["input_ids"], strict=True):
        assert [prompt[slice(*item["span"])] for item in row] == [item["text"] for item in row]
        filled = prompt
        for item in reversed(row):
            filled = filled[: item["span"][0]] + item["replacement"] + filled[item["span"][1] :]
        assert [filled[slice(*item["new_span"])] for item in row] == [item["replacement"] for item in row]
        assert (
            processor.tokenizer(filled)["input_ids"] == ids[-len(processor.tokenizer(filled)["input_ids"]) :].tolist()
        )
    assert "text_replacement_offsets" not in processor.apply_chat_template(chats[0], **TOKENS)


def test_an_audio_is_refused_and_none_is_none(make_linvt, chat):
    _, processor = make_linvt("llava")
    prompt = processor.apply_chat_template(chat)
    videos = [random_video(6)] if processor.video_token in prompt else None
    assert processor(text=prompt, videos=videos, audio=None).keys() == processor(text=prompt, videos=videos).keys()
    with pytest.raises(ValueError, match="audio"):
        processor(text=prompt, videos=videos, audio=np.zeros(16000, np.float32))
    heard = processor.apply_chat_template(chat, load_audio_from_video=True, return_tensors="pt", **TOKENS)
    silent = processor.apply_chat_template(chat, return_tensors="pt", **TOKENS)
    assert all(torch.equal(heard[name], silent[name]) for name in silent)


@pytest.mark.parametrize(
    "kwargs", [{"text_pair": "Or who?"}, {"is_split_into_words": True}, {"return_overflowing_tokens": True}], ids=str
)
def test_what_would_misplace_the_video_is_refused(make_linvt, kwargs):
    _, processor = make_linvt("llava")
    (name,) = kwargs
    with pytest.raises(ValueError, match=name):
        processor.apply_chat_template(user_turn(random_video(3), "What?"), processor_kwargs=kwargs, **TOKENS)


def test_an_answer_is_begun_or_continued(make_linvt, chat):
    _, processor = make_linvt("llava")
    begun = [*chat, {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    assert processor.apply_chat_template(begun, continue_final_message=True).endswith("It is")
    with pytest.raises(ValueError, match="continue_final_message"):
        processor.apply_chat_template(begun, continue_final_message=True, add_generation_prompt=True)
    with pytest.raises(ValueError, match="continue_final_message"):
        processor.apply_chat_template(begun, continue_final_message=True, return_assistant_tokens_mask=True, **TOKENS)


@each_family
def test_all_inputs_are_named(make_linvt, family):
    _, processor = make_linvt(family)
    inputs = processor.apply_chat_template(chat_with(random_video(3), "What?"), **TOKENS)
    assert inputs.keys() <= set(processor.model_input_names)


def test_decoding_is_the_tokenizers(make_linvt):
    _, processor = make_linvt("llava")
    ids = processor.apply_chat_template([user_turn(random_video(3), "What?"), user_turn("Who?")], **TOKENS)[
        "input_ids"
    ]
    expected = [processor.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    assert processor.batch_decode(ids, skip_special_tokens=True) == expected
    assert [processor.decode(row, skip_special_tokens=True) for row in ids] == expected
    assert processor.post_process_image_text_to_text(ids) == expected
    assert isinstance(processor, ProcessorMixin)
