import functools
import http.server
import threading

import pytest
from PIL import Image
from tiny_families import FAMILIES, random_video, user_turn
from transformers import TextStreamer, pipeline

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


def test_mistakes_are_named(saved):
    pipe = pipeline("video-text-to-text", model=str(saved("llava")))
    with pytest.raises(ValueError, match="Give a question with the video"):
        pipe(random_video(3))
    with pytest.raises(ValueError, match="Give a video and a question"):
        pipe(text="What is it?")
    with pytest.raises(ValueError, match="2 videos came with 1 questions"):
        pipe([random_video(3), random_video(3)], text=["What?"])


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
