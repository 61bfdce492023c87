"""What a batch for training holds: the same inputs as in generation, and exactly the answers as labels."""

import pytest
import torch
from PIL import Image
from test_instruction_turns import NO_SYSTEM, TEMPLATES, each_template, render
from tiny_families import FAMILIES, random_video, user_turn
from tiny_models import tiny_llava

from linvt.processors.prompts.answer_turns import prompt_with_answers
from linvt.processors.prompts.instruction_turns import TurnHeaders
from linvt.training.video_chat_collator import STAND_IN, VideoChatCollator


each_family = pytest.mark.parametrize("family", FAMILIES)
PICTURE = Image.fromarray(random_video(1, seed=9, height=40, width=80)[0])


def answer(*texts: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text} for text in texts]}


def mixed_rows() -> list[dict]:
    """A video, a video and a picture in two turns, a picture, text alone."""
    two_turns = user_turn(random_video(4), "First?") + [answer("One.")] + user_turn(random_video(3, seed=1), "Next?")
    two_turns[2]["content"].insert(0, {"type": "image", "image": PICTURE})
    picture = {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "Who?"}]}
    return [
        {"messages": [*user_turn(random_video(5), "What is it?"), answer("A cat.")]},
        {"messages": [*two_turns, answer("Two ", "dogs.")]},
        {"messages": [picture, answer("Somebody.")]},
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]},
    ]


def labelled(processor, batch: dict) -> list[str]:
    return [processor.decode(ids[mask]) for ids, mask in zip(batch["input_ids"], batch["labels"] != -100, strict=True)]


@each_family
def test_labels_are_the_answers_to_the_end_of_their_turn(make_linvt, family):
    _, processor = make_linvt(family)
    batch = VideoChatCollator(processor)(mixed_rows())
    end = "<|im_end|>"
    texts = ["A cat." + end, "One." + end + "Two dogs." + end, "Somebody." + end, "Hello." + end]
    assert labelled(processor, batch) == texts
    learnt = batch["labels"] != -100
    assert torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])
    assert not batch["instruction_turns"][learnt].any() and not batch["mm_token_type_ids"][learnt].any()
    assert batch["attention_mask"][learnt].all()


@each_family
def test_labels_are_those_of_the_templates_own_mask(make_linvt, family):
    """The templates of the tests mark the text of an answer, without the end of its turn."""
    _, processor = make_linvt(family)
    for row in mixed_rows()[:2]:
        batch = VideoChatCollator(processor)([row])
        expected = processor.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, return_tensors="pt", return_assistant_tokens_mask=True
        )
        ends = batch["input_ids"] == processor.tokenizer.eos_token_id
        assert torch.equal((batch["labels"] != -100) & ~ends, expected["assistant_masks"].bool())


@each_family
def test_rows_are_the_prompts_of_generation(make_linvt, image_llm, family):
    """Token for token what the processor makes of each row alone, without videos the image-LLM's own processor."""
    _, processor = make_linvt(family)
    _, original = image_llm(family)
    rows = mixed_rows()
    batch = VideoChatCollator(processor)(rows)
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    for number, row in enumerate(rows):
        tool = processor if number < 2 else original
        alone = tool.apply_chat_template(row["messages"], **options)
        length = alone["input_ids"].shape[1]
        for name in ("input_ids", "mm_token_type_ids", "instruction_turns", "attention_mask"):
            if name in alone:
                assert torch.equal(batch[name][number, :length], alone[name][0]), name
        assert not batch["attention_mask"][number, length:].any()
    assert batch["video_num_frames"].tolist() == [5, 4, 3]
    assert batch["video_shot_ids"].tolist() == [0] * 12
    videos = [random_video(5), random_video(4), random_video(3, seed=1)]
    expected = processor.video_processor(videos, return_tensors="pt")
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


@each_family
def test_the_loss_of_a_mixed_batch_is_that_of_its_rows(make_linvt, family):
    model, processor = make_linvt(family)
    collator, rows = VideoChatCollator(processor), mixed_rows()
    batch = collator(rows)
    loss, total, num_tokens = model(**batch).loss, 0.0, 0
    for row in rows:  # a batch of a picture alone and one of text alone among them
        alone = collator([row])
        labels = (alone["labels"][:, 1:] != -100).sum()
        total, num_tokens = total + model(**alone).loss * labels, num_tokens + labels
    torch.testing.assert_close(loss, total / num_tokens, rtol=1e-4, atol=1e-4)
    assert loss.isfinite()


@each_family
def test_batches_without_videos(make_linvt, family):
    model, processor = make_linvt(family)
    batch = VideoChatCollator(processor)(mixed_rows()[3:] * 2)
    assert not {"pixel_values_videos", "pixel_values"} & set(batch)
    assert not batch["instruction_turns"].any() and not batch["mm_token_type_ids"].any()
    ids = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    assert torch.equal(model(**batch).loss, model.image_llm(**ids).loss)


def test_only_the_completion_is_learnt(make_linvt):
    _, processor = make_linvt("llava")
    prompt = [*user_turn(random_video(3), "What is it?"), answer("No idea."), *user_turn("Sure?")]
    batch = VideoChatCollator(processor)([{"prompt": prompt, "completion": [answer("A cat.")]}])
    assert labelled(processor, batch) == ["A cat.<|im_end|>"]
    whole = VideoChatCollator(processor)([{"messages": [*prompt, answer("A cat.")]}])
    assert torch.equal(batch["input_ids"], whole["input_ids"])


def test_columns_fill_the_places_in_order(make_linvt, video_file):
    _, processor = make_linvt("llava")
    paths = [str(video_file(6, seed)) for seed in (1, 2)]
    places = [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "And "}, {"type": "video"}]
    named = [{"video": paths[0]}, {"image": PICTURE}, {}, {"video": paths[1]}]
    rows = [
        {"messages": [{"role": "user", "content": parts}, answer("A cat.")]}
        for parts in (places, [place | name for place, name in zip(places, named, strict=True)])
    ]
    expected = VideoChatCollator(processor)([rows[1]])
    got = VideoChatCollator(processor)([{**rows[0], "videos": paths, "images": [PICTURE]}])
    assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)


def test_keys_without_value_change_nothing(make_linvt, video_file):
    """Data sets of Arrow give every part the keys of all parts, most of them `None`."""
    _, processor = make_linvt("qwen2_vl")
    # As Qwen2-VL's own template asks, which takes a text part with the key 'image' for an image.
    processor.chat_template = processor.chat_template.replace(
        "{% if part['type'] == 'image' %}", "{% if part['type'] == 'image' or 'image' in part or 'video' in part %}"
    )
    row = {"messages": [*user_turn(str(video_file(6)), "What is it?"), answer("A cat.")]}
    everywhere = {"image": None, "video": None, "url": None}
    padded = [
        {**message, "tool_calls": None, "content": [everywhere | part for part in message["content"]]}
        for message in row["messages"]
    ]
    expected = VideoChatCollator(processor)([row])
    got = VideoChatCollator(processor)([{"messages": padded, "prompt": None, "videos": None}])
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@each_template
def test_answers_are_found_in_every_template(template):
    """Without `{% generation %}`, and with the token that the template ends an answer with."""
    ends = {"chatml": "<|im_end|>", "qwen": "<|im_end|>", "onevision": "<|im_end|>", "gemma": "<end_of_turn>"}
    end = ends.get(template, "</s>" if template in (*NO_SYSTEM, "vicuna") else "<end_of_utterance>")
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "A cat."}]},
        answer("A cat."),
        {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
        answer("A cat. Sure?"),
    ]
    headers = TurnHeaders.of_template(lambda turns, **kwargs: render(template, turns, **kwargs), "<image>")
    for first_answer, expected in ((0, ["A cat.", "A cat. Sure?"]), (2, ["A cat. Sure?"])):
        prompt, spans = prompt_with_answers(
            lambda turns: render(template, turns), messages, first_answer, headers, "</s>"
        )
        found = [prompt[start:end] for start, end in spans]
        # LLaVA 1.5 writes no end; there the end of the text stands after the last answer alone.
        ends_of_turns = [end] * len(found) if template != "vicuna" else [""] * (len(found) - 1) + [end]
        assert found == [text + last for text, last in zip(expected, ends_of_turns, strict=True)]
        before = render(template, messages[:3], add_generation_prompt=True)
        assert prompt[: spans[-1][0]].split() == before.split()


def test_a_template_that_rewrites_answers_is_an_error():
    def shouts(turns, **kwargs):
        return render("chatml", [turn | {"content": [{"type": "text", "text": "x"}]} for turn in turns])

    headers = TurnHeaders("", ("user",), "assistant", "", "<|im_end|>")
    with pytest.raises(ValueError, match="writes 0 of the 1 texts of answers"):
        prompt_with_answers(shouts, [answer("A cat.")], 0, headers, None)


def test_the_end_of_the_text_is_learnt_where_the_template_ends_no_turn(make_linvt):
    _, processor = make_linvt("llava")
    processor.chat_template = TEMPLATES["vicuna"]
    rows = [
        {"messages": [*user_turn(random_video(3), "What?"), answer(text)]} for text in ("A cat.", "Nothing at all.")
    ]
    batch = VideoChatCollator(processor)(rows)
    assert labelled(processor, batch) == ["A cat.<|im_end|>", "Nothing at all.<|im_end|>"]


def test_arguments_of_the_processor(make_linvt):
    _, processor = make_linvt("llava")
    collator = VideoChatCollator(processor, processor_kwargs={"num_frames": 2, "pad_to_multiple_of": 64})
    batch = collator(mixed_rows()[:1])
    assert batch["pixel_values_videos"].shape[0] == 2 and batch["input_ids"].shape[1] % 64 == 0
    with pytest.raises(TypeError, match="unknown argument: num_framez"):
        VideoChatCollator(processor, processor_kwargs={"num_framez": 2})


def test_the_stand_in_has_labels(make_linvt):
    _, processor = make_linvt("llava")
    assert labelled(processor, VideoChatCollator(processor)([STAND_IN])) == ["OK<|im_end|>"]
    assert tiny_llava()[1].tokenizer.padding_side == "left"  # the labels above stand in rows padded on the right
