import functools
import http.server
import threading
from inspect import signature
from itertools import count, islice
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, random_video, user_turn
from transformers import (
    GenerationConfig,
    GenerationMixin,
    StoppingCriteria,
    SuppressTokensLogitsProcessor,
    TextStreamer,
    pipeline,
)
from transformers.pipelines.pt_utils import KeyDataset

import linvt  # noqa: F401 - registers the pipeline


each_family = pytest.mark.parametrize("family", FAMILIES)
ANSWER = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture
def saved(make_linvt, tmp_path):
    """`saved(family)`: folder of a model and its processor."""

    def save(family: str):
        model, processor = make_linvt(family)
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        return tmp_path

    return save


def expected_answer(make_linvt, family, video, question, generate=(), **processor_kwargs):
    model, processor = make_linvt(family)
    inputs = processor.apply_chat_template(
        user_turn(video, question),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=processor_kwargs,
    )
    output = model.generate(**inputs, **ANSWER, **dict(generate))
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@each_family
def test_a_path_and_a_question(make_linvt, saved, video_file, family):
    pipe = pipeline("video-text-to-text", model=str(saved(family)))
    path = video_file(12)
    expected = expected_answer(make_linvt, family, path, "What is it?")
    assert pipe(str(path), text="What is it?", **ANSWER) == [{"input_text": "What is it?", "generated_text": expected}]
    expected = expected_answer(make_linvt, family, path, "What is it?", num_frames=2)
    assert pipe(str(path), text="What is it?", num_frames=2, **ANSWER)[0]["generated_text"] == expected


def test_forms_of_input(make_linvt, saved, video_file):
    pipe = pipeline("video-text-to-text", model=str(saved("llava")))
    frames, path = random_video(6), video_file(12)
    one = expected_answer(make_linvt, "llava", frames, "What is it?")
    other = expected_answer(make_linvt, "llava", path, "Who?")
    pictures = [Image.fromarray(frame) for frame in frames]
    assert pipe(frames, text="What is it?", **ANSWER)[0]["generated_text"] == one
    assert pipe(pictures, text="What is it?", **ANSWER)[0]["generated_text"] == one
    batch = pipe([frames, str(path)], text=["What is it?", "Who?"], **ANSWER)
    assert [answer[0]["generated_text"] for answer in batch] == [one, other]
    assert [answer[0]["input_text"] for answer in batch] == ["What is it?", "Who?"]
    same_question = pipe([frames, frames], text="What is it?", **ANSWER)
    assert [answer[0]["generated_text"] for answer in same_question] == [one, one]
    chat = user_turn(frames, "What is it?")
    for call in (lambda: pipe(chat, **ANSWER), lambda: pipe(text=chat, **ANSWER)):
        assert call()[0]["generated_text"] == [*chat, {"role": "assistant", "content": one}]
    answers = pipe(text=[chat, user_turn(path, "Who?")], return_full_text=False, **ANSWER)
    assert [answer[0]["generated_text"] for answer in answers] == [one, other]


def test_a_url(make_linvt, saved, video_file):
    path = video_file(12)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(path.parent))
    handler.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pipe = pipeline("video-text-to-text", model=str(saved("llava")))
        answer = pipe(f"http://127.0.0.1:{server.server_port}/{path.name}", text="What is it?", **ANSWER)
        server.shutdown()
    assert answer[0]["generated_text"] == expected_answer(make_linvt, "llava", path, "What is it?")


def test_generation_arguments_and_streaming(make_linvt, saved, capsys):
    pipe = pipeline("video-text-to-text", model=str(saved("llava")))
    frames = random_video(6)
    expected = expected_answer(make_linvt, "llava", frames, "What is it?")
    streamer = TextStreamer(pipe.tokenizer, skip_prompt=True, skip_special_tokens=True)
    pipe(frames, text="What is it?", streamer=streamer, **ANSWER)
    assert capsys.readouterr().out.strip() == expected.strip()
    beams = pipe(frames, text="What is it?", num_beams=2, **ANSWER)[0]["generated_text"]
    assert beams == expected_answer(make_linvt, "llava", frames, "What is it?", generate={"num_beams": 2})
    nested = pipe(frames, text="What is it?", max_new_tokens=6, generate_kwargs={"do_sample": False})
    assert nested[0]["generated_text"] == expected


class StopAtOnce(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs) -> torch.Tensor:
        return torch.ones(len(input_ids), dtype=torch.bool)


def test_arguments_given_when_the_pipeline_is_made_hold(make_linvt):
    model, processor = make_linvt("llava")
    frames = random_video(6)
    expected = expected_answer(make_linvt, "llava", frames, "Who?", num_frames=2)[:4]  # a byte is a token
    settings = {"max_new_tokens": 4, "do_sample": False, "num_frames": 2, "stopping_criteria": [StopAtOnce()]}
    pipe = pipeline("video-text-to-text", model=model, processor=processor, return_full_text=True, **settings)
    *_, answer = pipe(frames, text="Who?")[0]["generated_text"]
    assert answer["content"] == expected[:1]
    longer = []  # of a call, in place of those before
    *_, answer = pipe(frames, text="Who?", stopping_criteria=longer)[0]["generated_text"]
    assert answer["content"] == expected
    assert pipe(frames, text="Who?", stopping_criteria=longer, return_full_text=False)[0]["generated_text"] == expected


def test_an_assistant_given_when_the_pipeline_is_made_helps(make_linvt, monkeypatch):
    model, processor = make_linvt("llava")
    given = {}
    generate = type(model).generate
    monkeypatch.setattr(
        type(model), "generate", lambda self, **kwargs: given.update(kwargs) or generate(self, **kwargs)
    )
    pipe = pipeline("video-text-to-text", model=model, processor=processor, assistant_model=model.image_llm)
    answer = pipe(random_video(6), text="Who?", **ANSWER)
    assert given["assistant_model"] is model.image_llm
    assert answer[0]["generated_text"] == expected_answer(make_linvt, "llava", random_video(6), "Who?")


def test_every_argument_of_generate_gets_there(make_linvt, monkeypatch):
    model, processor = make_linvt("llava")
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    given = {}

    def generate(self, **kwargs) -> torch.Tensor:
        given.update(kwargs)
        return torch.zeros(1, 99, dtype=torch.long)

    monkeypatch.setattr(type(model), "generate", generate)
    names = {name for name in GenerationConfig().to_dict() if name[0] != "_"} - {"transformers_version"}
    names |= signature(GenerationMixin.generate).parameters.keys() - {"self", "inputs", "kwargs", "generation_config"}
    for name in sorted(names | {"tokenizer", "assistant_tokenizer"}):
        value = object()
        for arguments in ({name: value}, {"generate_kwargs": {name: value}}):
            given.clear()
            pipe(random_video(1), text="Who?", **arguments)
            assert given[name] is value, name
        with pytest.raises(ValueError, match=f"^{name} is given twice"):
            pipe(random_video(1), text="Who?", generate_kwargs={name: value}, **{name: value})


@pytest.mark.parametrize(
    "name",
    ["generation_config", "logits_processor", "prefix_allowed_tokens_fn", "stop_strings", "stopping_criteria"],
)
def test_arguments_of_generate_that_are_objects(make_linvt, name):
    model, processor = make_linvt("llava")
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    # Of bytes that are no text nothing can be taken away.
    videos = (random_video(6, seed) for seed in range(20))
    answers = ((video, expected_answer(make_linvt, "llava", video, "What is it?")) for video in videos)
    frames, free = next((video, answer) for video, answer in answers if answer.isascii() and len(set(answer)) > 1)
    tokens = processor.tokenizer(free)["input_ids"]
    without_first = [SuppressTokensLogitsProcessor(tokens[:1])]
    value, expected = {
        "generation_config": (GenerationConfig(max_new_tokens=2, do_sample=False), free[:2]),
        "logits_processor": (
            without_first,
            expected_answer(make_linvt, "llava", frames, "What is it?", {"logits_processor": without_first}),
        ),
        "prefix_allowed_tokens_fn": (lambda batch, ids: processor.tokenizer("a")["input_ids"], "aaaaaa"),
        "stop_strings": ([free[1]], free[: free.index(free[1]) + 1]),
        "stopping_criteria": ([StopAtOnce()], free[:1]),
    }[name]
    assert expected != free
    arguments = {} if name == "generation_config" else ANSWER
    (record,) = pipe(frames, text="What is it?", **{name: value}, **arguments)
    assert record["generated_text"] == expected


def test_several_answers_to_each_question(make_linvt):
    model, processor = make_linvt("llava")
    pipe = pipeline("video-text-to-text", model=model, processor=processor, return_tensors=True)
    videos = [random_video(6), random_video(3, seed=1)]
    several = {"num_return_sequences": 3, "num_beams": 3, **ANSWER}
    expected = []
    for video in videos:
        chat = user_turn(video, "What is it?")
        inputs = processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        expected.append(model.generate(**inputs, **several)[:, -6:].tolist())
    for batch_size in (1, 2):
        answers = pipe(videos, text="What is it?", batch_size=batch_size, **several)
        assert [[record["generated_token_ids"][-6:].tolist() for record in records] for records in answers] == expected


def test_forms_of_the_answer(make_linvt):
    model, processor = make_linvt("llava")
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    frames = random_video(6)
    answer = expected_answer(make_linvt, "llava", frames, "What is it?")
    (full,) = pipe(frames, text="What is it?", return_full_text=True, **ANSWER)
    assert full["input_text"] == "What is it?"
    asked, answered = full["generated_text"]
    assert asked == user_turn(frames, "What is it?")[0] and answered == {"role": "assistant", "content": answer}
    for records in (
        pipe(frames, text="What is it?", return_tensors=True, **ANSWER),
        pipe([frames], text="What is it?", return_tensors=True, **ANSWER)[0],
    ):
        (record,) = records
        assert record.keys() == {"input_text", "generated_token_ids"} and record["input_text"] == "What is it?"
        assert processor.decode(record["generated_token_ids"][-6:]) == answer
    with pytest.raises(ValueError, match="return_full_text.*return_tensors"):
        pipe(frames, text="What is it?", return_full_text=False, return_tensors=True)
    with pytest.raises(ValueError, match="return_dict_in_generate"):
        pipe(frames, text="What is it?", return_dict_in_generate=True, **ANSWER)


def test_an_answer_that_was_begun_is_continued(make_linvt):
    model, processor = make_linvt("llava")
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    begun = [
        *user_turn(random_video(4), "Who?"),
        {"role": "assistant", "content": [{"type": "text", "text": "It is"}]},
    ]
    inputs = processor.apply_chat_template(
        begun, continue_final_message=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    expected = processor.decode(model.generate(**inputs, **ANSWER)[0, inputs["input_ids"].shape[1] :])
    (record,) = pipe(begun, **ANSWER)
    assert record["generated_text"][-1]["content"][-1]["text"] == "It is" + expected
    assert begun[-1]["content"][0]["text"] == "It is"


QUESTIONS = ["What is it?", "Who?", "Where was the dog before?"]


@pytest.fixture
def asked(make_linvt, video_file):
    """A pipeline, three clips and what it answers to one question about each."""
    model, processor = make_linvt("llava")
    clips = [str(video_file(number, seed=number)) for number in (12, 3, 7)]
    answers = [
        expected_answer(make_linvt, "llava", Path(clip), text) for clip, text in zip(clips, QUESTIONS, strict=True)
    ]
    return pipeline("video-text-to-text", model=model, processor=processor, **ANSWER), clips, answers


def rows_of(clips) -> list[dict]:
    chats = [user_turn(Path(clip), question) for clip, question in zip(clips, QUESTIONS, strict=True)]
    for chat in chats:
        chat[0]["content"][0]["video"] = str(chat[0]["content"][0]["video"])
    return [
        {"clip": clip, "question": question, "chat": chat}
        for clip, question, chat in zip(clips, QUESTIONS, chats, strict=True)
    ]


LISTED = {
    "lists": lambda rows, name: [row[name] for row in rows],
    "tuples": lambda rows, name: tuple(row[name] for row in rows),
    "columns": lambda rows, name: datasets.Dataset.from_list(rows)[name],
    "series": lambda rows, name: pandas.Series([row[name] for row in rows], index=["a", "b", "c"]),
    "shuffled_series": lambda rows, name: pandas.Series([row[name] for row in rows], index=[2, 0, 1]),
    "arrays": lambda rows, name: object_array([row[name] for row in rows]),
}
STREAMED = {
    "generators": lambda rows, name: (row[name] for row in rows),
    "iterators": lambda rows, name: iter([row[name] for row in rows]),
    "key_datasets": lambda rows, name: KeyDataset(datasets.Dataset.from_list(rows), name),
    "key_datasets_of_lists": lambda rows, name: KeyDataset(rows, name),
    "iterable_columns": lambda rows, name: datasets.Dataset.from_list(rows).to_iterable_dataset()[name],
    "iterable_datasets": lambda rows, name: Streamed([row[name] for row in rows]),
}
each_form = pytest.mark.parametrize("form", [*LISTED, *STREAMED])


class Streamed(torch.utils.data.IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def object_array(items) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


@each_form
def test_videos_and_questions_from_containers(asked, form):
    pipe, clips, answers = asked
    make = {**LISTED, **STREAMED}[form]
    rows = rows_of(clips)
    for result in (
        pipe(make(rows, "clip"), text=make(rows, "question")),
        pipe(clips, text=make(rows, "question"), batch_size=2),
    ):
        assert isinstance(result, list) == (form in LISTED)
        result = list(result)
        assert [records[0]["generated_text"] for records in result] == answers
        assert [records[0]["input_text"] for records in result] == QUESTIONS
    same_question = list(pipe(make(rows, "clip"), text="What is it?"))
    assert same_question[0] == result[0] and len(same_question) == 3


@each_form
def test_conversations_from_containers(asked, form):
    pipe, clips, answers = asked
    make = {**LISTED, **STREAMED}[form]
    rows = rows_of(clips)
    for result in (pipe(make(rows, "chat")), pipe(text=make(rows, "chat"), batch_size=3)):
        assert isinstance(result, list) == (form in LISTED)
        assert [records[0]["generated_text"][-1]["content"] for records in result] == answers


def test_pairs_of_a_video_and_a_question(asked):
    pipe, clips, answers = asked
    pairs = [{"videos": clip, "text": question} for clip, question in zip(clips, QUESTIONS, strict=True)]
    assert pipe(pairs[0])[0]["generated_text"] == answers[0]
    assert [records[0]["generated_text"] for records in pipe(pairs)] == answers
    assert [records[0]["generated_text"] for records in pipe(iter(pairs))] == answers
    assert [records[0]["generated_text"] for records in pipe(datasets.Dataset.from_list(pairs))] == answers
    with pytest.raises(ValueError, match="videos and sound"):
        pipe({"videos": clips[0], "sound": "loud"})


def test_a_stream_is_read_as_its_answers_are_asked_for(asked):
    pipe, clips, answers = asked
    chats = [row["chat"] for row in rows_of(clips)]
    for make in (
        lambda endless: pipe(endless(clips), text=endless(QUESTIONS)),
        lambda endless: pipe(endless(chats), return_full_text=False),
    ):
        taken = []

        def endless(items, taken=taken):
            for number in count():
                taken.append(number)
                yield items[number % 3]

        stream = make(endless)
        assert max(taken, default=0) == 0  # a look at the first says what is in the stream
        first = list(islice(stream, 4))
        assert [records[0]["generated_text"] for records in first] == [*answers, answers[0]]
        assert max(taken) <= 4


def test_a_stream_of_messages_is_one_conversation(asked):
    pipe, clips, answers = asked
    chat = rows_of(clips)[0]["chat"]
    assert pipe(message for message in chat)[0]["generated_text"][-1]["content"] == answers[0]


def test_workers_read_the_videos(asked):
    pipe, clips, answers = asked
    records = pipe(KeyDataset(rows_of(clips), "clip"), text=QUESTIONS, num_workers=2)
    assert [record[0]["generated_text"] for record in records] == answers


def test_nothing_is_asked_and_nothing_answered(asked):
    pipe, *_ = asked
    assert pipe([], text="What is it?") == pipe([], text=[]) == pipe(text=[]) == []
    assert list(pipe(iter([]), text="What is it?")) == list(pipe(iter([]))) == []


@each_family
def test_answers_do_not_depend_on_the_batch(make_linvt, family, monkeypatch):
    """Chats with a video, an image, both and neither, of many lengths; the tokenizer pads on the right."""
    model, processor = make_linvt(family)
    monkeypatch.setattr(processor.tokenizer, "padding_side", "right")
    pipe = pipeline("video-text-to-text", model=model, processor=processor, return_tensors=True, **ANSWER)
    picture = {"type": "image", "image": Image.fromarray(random_video(1, height=56, width=56)[0])}
    chats = [
        user_turn(random_video(5), "What is it, and where was it before all that happened?"),
        user_turn("Just say anything at all, at some length if you like."),
        user_turn(random_video(2, seed=1), "Who?"),
        user_turn("And here?"),
        user_turn(random_video(3, seed=2), "Which?", random_video(4, seed=3)),
    ]
    chats[3][0]["content"].insert(0, picture)
    chats[4][0]["content"].insert(1, picture)
    alone = [pipe(chat)[0]["generated_token_ids"][-6:].tolist() for chat in chats]
    for batch_size in (2, 3, 5):
        together = pipe(chats, batch_size=batch_size)
        assert [records[0]["generated_token_ids"][-6:].tolist() for records in together] == alone


def test_padding_that_is_asked_for_is_on_the_left_too(make_linvt, monkeypatch):
    model, processor = make_linvt("internvl")
    monkeypatch.setattr(processor.tokenizer, "padding_side", "right")
    pipe = pipeline("video-text-to-text", model=model, processor=processor, **ANSWER)
    expected = pipe(random_video(4), text="Who?")
    padding = {"padding": "max_length", "max_length": 120}
    assert pipe(random_video(4), text="Who?", processor_kwargs=padding) == expected


def test_images_that_do_not_fit_in_one_batch_are_an_error(make_linvt):
    model, processor = make_linvt("llava_onevision")
    pipe = pipeline("video-text-to-text", model=model, processor=processor, **ANSWER)
    chats = [user_turn("Who?"), user_turn("Who?")]
    for chat, width in zip(chats, (56, 112), strict=True):
        frame = random_video(1, height=56, width=width)[0]
        chat[0]["content"].insert(0, {"type": "image", "image": Image.fromarray(frame)})
    assert len(pipe(chats)) == 2
    with pytest.raises(ValueError, match="pixel_values.*batch_size=1"):
        pipe(chats, batch_size=2)


def test_mistakes_are_named(saved):
    pipe = pipeline("video-text-to-text", model=str(saved("llava")))
    for call in (lambda: pipe(random_video(3)), lambda: pipe([random_video(3)]), lambda: pipe("clip.mp4")):
        with pytest.raises(ValueError, match="Give a question with the video"):
            call()
    for call in (lambda: pipe(text="What is it?"), lambda: pipe()):
        with pytest.raises(ValueError, match="Give a video and a question"):
            call()
    with pytest.raises(ValueError, match="Give a question.*holds its own videos"):
        pipe(random_video(3), text=user_turn(random_video(3), "What?"))
    with pytest.raises(ValueError, match="2 videos came with 1 questions"):
        pipe([random_video(3), random_video(3)], text=["What?"])
    for videos, questions, missing in ((3, 2, "more videos than questions"), (1, 2, "more questions than videos")):
        with pytest.raises(ValueError, match=missing):
            list(pipe((random_video(3) for _ in range(videos)), text=["What?"] * questions))


@pytest.mark.parametrize("name", ["max_new_tokenz", "nmu_frames", "logits_procesor"])
def test_misspelt_arguments_are_named(make_linvt, name):
    model, processor = make_linvt("llava")
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    chat = user_turn(random_video(3), "What?")
    for call in (
        lambda: pipe(random_video(3), text="What?", **{name: 3}),
        lambda: pipe(chat, **{name: 3}),
        lambda: pipe(user_turn("What?"), **{name: 3}),
        lambda: list(pipe(iter([chat]), **{name: 3})),
        lambda: pipe(chat, processor_kwargs={name: 3}),
    ):
        with pytest.raises(TypeError, match=name):
            call()


@each_family
def test_the_other_pipelines_keep_working(image_llm, saved, family):
    folder = str(saved(family))
    original, original_processor = image_llm(family)
    original.generation_config.eos_token_id = None
    content = [
        {"type": "image", "image": Image.fromarray(random_video(1)[0])},
        {"type": "text", "text": "What is it?"},
    ]
    chat = [{"role": "user", "content": content}]
    for task in ("image-text-to-text", "any-to-any"):
        expected = pipeline(task, model=original, processor=original_processor)(
            text=chat, max_new_tokens=6, generate_kwargs={"do_sample": False}
        )
        answer = pipeline(task, model=folder)(text=chat, max_new_tokens=6, generate_kwargs={"do_sample": False})
        assert answer[0]["generated_text"][-1] == expected[0]["generated_text"][-1]
    videos = pipeline("any-to-any", model=folder)(
        text=user_turn(random_video(4), "What is it?"), max_new_tokens=6, generate_kwargs={"do_sample": False}
    )
    assert videos[0]["generated_text"][-1]["role"] == "assistant"


@each_family
def test_any_to_any_takes_a_rendered_prompt_and_its_videos(make_linvt, family):
    """It also passes images and audio, which are `None`."""
    model, processor = make_linvt(family)
    frames = random_video(6)
    prompt = processor.apply_chat_template(user_turn(frames, "What is it?"), add_generation_prompt=True)
    pipe = pipeline("any-to-any", model=model, processor=processor, **ANSWER)
    (record,) = pipe(text=prompt, videos=frames, return_full_text=False)
    assert record["generated_text"] == expected_answer(make_linvt, family, frames, "What is it?")
