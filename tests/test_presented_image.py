"""A video stands in a prompt as the image-LLM's own processor writes an image, whatever that does to the prompt.

The processors of all families are tried in `test_conformance.py`.
"""

import copy

import pytest
import transformers
from PIL import Image
from tiny_families import chat_template, random_video, user_turn
from transformers import LlavaProcessor, ProcessorMixin

from linvt import LinVTProcessor


class AddsToThePrompt(LlavaProcessor):
    def __call__(self, images=None, text=None, **kwargs):
        text = [text] if isinstance(text, str) else text
        text = [f"B: {prompt.replace(self.image_token, self.image_token + '#')} E" for prompt in text]
        return super().__call__(images=images, text=text, **kwargs)


class ChangesThePrompt(LlavaProcessor):
    def __call__(self, images=None, text=None, **kwargs):
        return super().__call__(images=images, text=[prompt.replace("?", "!") for prompt in text], **kwargs)


class RefusesThePrompt(LlavaProcessor):
    def __call__(self, images=None, text=None, **kwargs):
        raise ValueError("this is no receipt")


class WithoutPlace(ProcessorMixin):
    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


@pytest.fixture
def wrapped(image_llm, monkeypatch):
    """The tiny LLaVA's processor as one of another class, and a `LinVTProcessor` around it."""

    def make(cls):
        monkeypatch.setattr(transformers, cls.__name__, cls, raising=False)  # classes are found by their names
        _, original = image_llm("llava")
        settings = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        own = cls(original.image_processor, original.tokenizer, chat_template=original.chat_template, **settings)
        return own, LinVTProcessor.from_image_llm_processor(own, 12, num_frames=2, shot_detection="uniform")

    return make


CALL = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}


def test_what_a_processor_adds_to_a_prompt_is_there_beside_a_video(wrapped):
    """As beside an image; and the instruction is the text of the user and nothing that was added around the prompt."""
    own, processor = wrapped(AddsToThePrompt)
    image = [{"type": "image", "image": Image.new("RGB", (56, 56))}, {"type": "text", "text": "What?"}]
    expected = own.apply_chat_template([{"role": "user", "content": image}], **CALL)["input_ids"][0].tolist()
    inputs = processor.apply_chat_template(user_turn(random_video(2), "What?"), **CALL)
    ids, token = inputs["input_ids"][0].tolist(), processor.image_token_id
    assert ids.count(token) == 12 and [number for number in ids if number != token] == [
        number for number in expected if number != token
    ]
    prompt = processor.tokenizer.decode(ids)
    assert prompt.startswith("B: ") and prompt.endswith(" E")
    is_instruction = (inputs["instruction_turns"][0] == 1) & (inputs["mm_token_type_ids"][0] == 0)
    assert processor.tokenizer.decode(inputs["input_ids"][0][is_instruction]) == "#\nWhat?"


def test_what_a_prompt_has_already_is_not_added(wrapped):
    _, processor = wrapped(AddsToThePrompt)
    prompt = processor.apply_chat_template(user_turn(random_video(2), "What?"), add_generation_prompt=True)
    direct = processor.apply_chat_template(user_turn(random_video(2), "What?"), **CALL)["input_ids"]
    later = processor(text="B: " + prompt, videos=[random_video(2)], return_tensors="pt")["input_ids"]
    assert later.tolist() == direct.tolist()


@pytest.mark.parametrize("cls", [ChangesThePrompt, RefusesThePrompt])
def test_a_prompt_that_is_changed_otherwise_is_an_error(wrapped, cls):
    _, processor = wrapped(cls)
    with pytest.raises(ValueError, match=f"{cls.__name__} .*how to present a video"):
        processor.apply_chat_template(user_turn(random_video(2), "What?"), **CALL)


def test_a_processor_without_a_place_for_images_is_an_error(image_llm, monkeypatch):
    """As that of PP-Chart2Table, whose chat template writes all visual tokens."""
    monkeypatch.setattr(transformers, "WithoutPlace", WithoutPlace, raising=False)
    _, original = image_llm("llava")
    with pytest.raises(ValueError, match="WithoutPlace has no image_token"):
        LinVTProcessor.from_image_llm_processor(WithoutPlace(original.image_processor, original.tokenizer))


@pytest.mark.parametrize("picture", ["", "<image><image>"])
def test_the_template_of_another_image_llm_is_an_error(image_llm, picture):
    original = copy.copy(image_llm("llava")[1])
    original.chat_template = chat_template(picture)
    processor = LinVTProcessor.from_image_llm_processor(original, num_frames=2, shot_detection="uniform")
    with pytest.raises(ValueError, match="turn with one image; expected one <image>"):
        processor.replace_video_token({}, 0)


def test_parts_that_this_transformers_lacks_are_named(image_llm):
    """Of a processor that was saved with a newer one."""
    _, original = image_llm("qwen2_vl")
    processor = LinVTProcessor.from_image_llm_processor(original, frame_size={"height": 56, "width": 56})
    settings = processor.image_llm_processor
    settings["video_processor"] = settings["video_processor"] | {"video_processor_type": "YoungerVideoProcessor"}
    with pytest.raises(ValueError, match=f"{transformers.__version__}.* has no YoungerVideoProcessor"):
        LinVTProcessor(processor.image_processor, processor.tokenizer, processor.video_processor, settings)


def test_processors_that_were_saved_without_their_other_parts_load(image_llm, tmp_path):
    """As they were before the settings of these parts were kept."""
    _, original = image_llm("qwen2_vl")
    processor = LinVTProcessor.from_image_llm_processor(original, frame_size={"height": 56, "width": 56})
    del processor.image_llm_processor["video_processor"]
    processor.save_pretrained(tmp_path)
    chat = user_turn(random_video(2), "What?")
    loaded = LinVTProcessor.from_pretrained(tmp_path).apply_chat_template(chat, **CALL)
    assert loaded["input_ids"].tolist() == processor.apply_chat_template(chat, **CALL)["input_ids"].tolist()
