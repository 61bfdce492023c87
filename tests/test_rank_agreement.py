"""Batches without videos in training, and two processes with sharded weights whose batches differ in kind."""

import copy
from itertools import islice

import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, random_video, user_turn
from torch.nn.utils.rnn import pad_sequence
from two_ranks import fsdp_gradients, gradients, learning, on_two_ranks

from linvt.rank_agreement import RankAgreement


ALIGNMENT = ["video_tokenizer", "contrast"]
EVERYTHING = ["image_llm", "video_tokenizer", "contrast"]


def chats(processor, *rows: tuple) -> dict:
    """Model inputs of one row per tuple: arrays are videos, pictures are images, strings are text."""
    conversations = []
    for row in rows:
        (turn,) = user_turn(*row)
        for part, given in zip(turn["content"], row, strict=True):
            if isinstance(given, Image.Image):
                part.clear()
                part.update(type="image", image=given)
        answer = {"role": "assistant", "content": [{"type": "text", "text": f"It is {len(conversations)}."}]}
        conversations.append([turn, answer])
    metadata = [
        {"fps": 2.0, "total_num_frames": len(part)}
        for row in rows
        for part in row
        if not isinstance(part, (str, Image.Image))
    ]
    inputs = processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True} | ({"video_metadata": metadata} if metadata else {}),
    )
    labels = inputs["input_ids"].clone()
    labels[:, :-6] = -100
    labels[labels == processor.image_token_id] = -100
    return {**inputs, "labels": labels}


def picture(seed: int) -> Image.Image:
    return Image.fromarray(random_video(1, seed, height=56, width=56)[0])


def text_only(processor) -> dict:
    return chats(processor, ("Hello?",), ("How are you?",))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_without_videos_gives_zeros_where_only_the_video_tokenizer_learns(make_linvt, family):
    model, processor = make_linvt(family)
    inputs = text_only(processor)
    with torch.no_grad():
        expected = model.image_llm(**inputs)
    output = learning(model, ["video_tokenizer"])(**inputs)
    assert torch.equal(output.logits, expected.logits) and torch.equal(output.loss, expected.loss)
    output.loss.backward()
    assert {name for name, _ in model.video_tokenizer.named_parameters()} == set(gradients(model.video_tokenizer))
    assert not any(gradient.any() for gradient in gradients(model).values())


def test_nothing_runs_on_blank_inputs_in_evaluation_or_without_labels(make_linvt, monkeypatch):
    model, processor = make_linvt("llava")
    inputs = text_only(processor)

    def fail(*args, **kwargs):
        raise AssertionError("a blank input")

    monkeypatch.setattr(RankAgreement, "add_blank", fail)
    with torch.no_grad():
        model.train()(**inputs)
    model.train()(**{name: value for name, value in inputs.items() if name != "labels"})
    output = model.eval()(**inputs)
    assert type(output) is type(model.image_llm(**inputs))
    model.train().video_tokenizer.requires_grad_(False)
    model(**inputs)
    model.video_tokenizer.requires_grad_()
    with pytest.raises(AssertionError, match="a blank input"):
        model(**inputs)


def pairs_of(model, batch: dict) -> tuple:
    """What is contrasted: for `start="random"` what the LLM reads, else words of each row and what they look for."""
    inputs, features = model.get_llm_inputs(**{name: value for name, value in batch.items() if name != "labels"})
    embeds, is_video, labels = inputs["inputs_embeds"], batch["mm_token_type_ids"] == 2, batch["labels"]
    if model.config.video_tokenizer_config.start == "random":
        return embeds, is_video, labels
    is_text = (labels != -100) | ((batch["instruction_turns"] > 0) & (batch["mm_token_type_ids"] == 0))
    keys, words, videos = [], [], iter(features.relevance_keys)
    texts = []
    for row in range(len(labels)):
        number = int(is_video[row].sum()) // model.config.num_video_tokens
        if number:
            keys.append(torch.cat([next(videos) for _ in range(number)]))
            text = embeds[row, is_text[row]].detach()[None]
            words.append(model.video_tokenizer.aggregator.encode_words(text, torch.ones(text.shape[:2]).bool())[0])
            texts.append(batch["input_ids"][row, is_text[row]].tolist())
    return keys, pad_sequence(words, True), torch.tensor([texts.index(text) for text in texts])


def joined(pairs: list[tuple]) -> tuple:
    """The pairs of two ranks as those of one."""
    first, second, third = zip(*pairs, strict=True)
    if isinstance(first[0], list):
        texts = third[0] if len(third) == 1 else torch.cat([third[0], third[1] + len(third[0])])
        return sum(first, []), pad_sequence([word for words in second for word in words], True), texts
    rows = ([row for part in parts for row in part] for parts in (first, second, third))
    return *(pad_sequence(part, True) for part in islice(rows, 2)), pad_sequence(next(rows), True, -100)


@pytest.mark.parametrize("start", ["merge", "random"])
def test_the_contrastive_loss_is_that_of_what_the_llm_reads(make_linvt, start):
    model, processor = make_linvt("llava", start=start)
    inputs = chats(processor, (random_video(5), "What?"), (random_video(3, 1), "Where?"), ("Hello?",))
    output = model(**inputs, return_contrastive_loss=True)
    assert torch.equal(output.loss, model(**inputs).loss)
    expected = model.contrast(*pairs_of(model, inputs))
    assert expected > 0 and torch.equal(output.contrastive_loss, expected)
    assert model(**text_only(processor), return_contrastive_loss=True).contrastive_loss.item() == 0
    with pytest.raises(ValueError, match="needs labels"):
        model(**{name: value for name, value in inputs.items() if name != "labels"}, return_contrastive_loss=True)


def one_process(model, batches: tuple[dict, dict]) -> tuple[list, dict]:
    """The losses of both batches, and the gradients of their mean plus the contrastive loss of the joined rows."""
    losses = [model(**batch).loss for batch in batches]
    pairs = [pairs_of(model, batch) for batch in batches if "pixel_values_videos" in batch]
    loss = (losses[0] + losses[1]) / 2
    if pairs:
        loss = loss + model.contrast(*joined(pairs))
    loss.backward()
    return [loss.detach() for loss in losses], gradients(model)


@pytest.mark.parametrize(("family", "start"), [("llava", "merge"), ("qwen2_vl", "merge"), ("llava", "random")])
def test_ranks_with_sharded_weights_and_batches_of_different_kinds(make_linvt, tmp_path, family, start):
    """The gradients are those of the same batches on one process; a rank that waits for ever fails the test."""
    model, processor = make_linvt(family, start=start)
    model.config.frames_per_batch = 2
    model.config.video_tokenizer_config.top_k = 10_000  # all, for one process would draw others than two
    long, short = random_video(9), random_video(1, 1)
    batches = [
        (chats(processor, (long, "What?"), (short, "Who?")), text_only(processor)),
        (chats(processor, (picture(2), "What?")), chats(processor, (short, "Why?"))),
        (text_only(processor), chats(processor, (picture(4), "What?"))),
        (text_only(processor), text_only(processor)),
        (chats(processor, (long, picture(3), "What?")), chats(processor, (long, short, "Which?"))),
    ]
    learning_parts = [ALIGNMENT, EVERYTHING]
    model.save_pretrained(tmp_path / "model")
    ranks = on_two_ranks(fsdp_gradients, tmp_path, (tmp_path / "model", batches, learning_parts))
    for number, parts in enumerate(learning_parts):
        whole = learning(copy.deepcopy(model), parts)
        for place, batch in enumerate(batches):
            losses, expected = one_process(whole, batch)
            for rank in range(2):
                found = dict(ranks[rank][number][place])
                torch.testing.assert_close(found.pop("loss"), losses[rank], rtol=1e-5, atol=1e-6)
                assert {name for name in found if not name.startswith("image_llm")} == {
                    name for name, _ in whole.named_parameters() if not name.startswith("image_llm")
                }
                for name, gradient in expected.items():
                    torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
            whole.zero_grad()
        with torch.no_grad():
            for rank in range(2):
                expected_loss = whole.eval()(**batches[0][rank]).loss
                torch.testing.assert_close(ranks[rank][number][-1]["loss"], expected_loss, rtol=1e-5, atol=1e-6)
