"""`linvt ask`, `chat` and `watch`: videos are seen once, and asked as often as one likes."""

import io
import json
import os
import signal
import types

import pytest
import torch
from tiny_families import random_video, write_video
from transformers import LlavaForConditionalGeneration

from linvt import LinVTForConditionalGeneration
from linvt.streaming_encoder import StreamingEncoder
from linvt.video_tokenizer.video_memory import VideoMemory


SUFFIX = ".memory.safetensors"
QUESTIONS = ["Who is there?", "What happens then?", "Why?"]
VIDEO_TOKENIZERS = {
    "shot": {"temporal_attention": "shot", "max_shot_frames": 4},
    "no_svr": {"use_svr": False, "multi_scale": "single"},
    "red_villm": {"model_type": "red_villm_video", "num_frames": 6, "num_frame_tokens": 16},
}


@pytest.fixture
def saved(make_linvt, image_llm, tmp_path):
    """`saved(kind)`: folder of a model, the model and its processor."""

    def save(kind: str = "shot"):
        model, processor = make_linvt("llava", **(VIDEO_TOKENIZERS[kind] if kind != "red_villm" else {}))
        if kind == "red_villm":
            torch.manual_seed(0)
            model = LinVTForConditionalGeneration.from_image_llm(image_llm("llava")[0], VIDEO_TOKENIZERS[kind])
            model.generation_config.eos_token_id = None
            processor.num_video_tokens = model.config.num_video_tokens
        # Random weights of some versions give one answer to all; words of a prompt that are not said again differ.
        model.generation_config.repetition_penalty = 1.5
        processor.video_processor.num_frames = 6
        for part in (model, processor):
            part.save_pretrained(tmp_path / kind)
        return tmp_path / kind, model.eval(), processor

    return save


def turn(role: str, *parts) -> dict:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "video", "video": p[0]} for p in parts]
    return {"role": role, "content": content}


def python_answer(model, processor, messages, max_new_tokens=8) -> str:
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(messages, **options)
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def shown(text: str) -> str:
    """A text as the command prints it, but for the places where lines end."""
    words = "".join(character if character.isprintable() else " " for character in text).split()
    return " ".join(words) or "(empty)"


def texts(output: str) -> list[str]:
    """The answers in what a command prints for a person."""
    blocks = output.split("\n\n")[1:]
    return [" ".join(block.split("text    ")[1].split()) for block in blocks if "text    " in block]


@pytest.mark.parametrize("kind", VIDEO_TOKENIZERS)
def test_many_questions_about_a_video_that_is_seen_once(run, saved, video_file, tmp_path, encoded_frames, kind):
    folder, model, processor = saved(kind)
    video = str(video_file(12))
    expected = [python_answer(model, processor, [turn("user", (video,), question)]) for question in QUESTIONS]
    assert len(set(expected)) > 1
    (tmp_path / "questions.txt").write_text("\n".join([QUESTIONS[0], "", *QUESTIONS[1:], "  "]))
    options = ("--questions", tmp_path / "questions.txt", "--model", folder, "--max-new-tokens", 8)
    encoded_frames.clear()
    code, output, errors = run("ask", video, *options, "--json")
    assert (code, errors) == (0, "") and sum(encoded_frames) == 6
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["question"] for line in lines] == QUESTIONS and [line["text"] for line in lines] == expected
    assert all(line["videos"] == [video] for line in lines)
    code, output, errors = run("ask", *options, video)
    assert (code, errors) == (0, "") and texts(output) == [shown(text) for text in expected]
    assert [line[8:] for line in output.splitlines() if line.startswith("asked")] == QUESTIONS


def test_files_of_questions_are_text_in_utf8(run, saved, video_file, tmp_path):
    folder, *_ = saved()
    file = tmp_path / "questions.txt"
    asked = ("ask", video_file(6), "--questions", file, "--model", folder, "--max-new-tokens", 2, "--json")
    file.write_text("Who is there?\nWhere?", encoding="utf-8-sig")  # as editors of Windows do
    code, output, _ = run(*asked)
    questions = [json.loads(line)["question"] for line in output.splitlines()]
    assert code == 0 and questions == ["Who is there?", "Where?"]
    file.write_text("O\u00f9 est-il ?", encoding="latin-1")
    code, output, errors = run(*asked)
    assert (code, output) == (2, "") and "questions.txt is no text in UTF-8" in errors


@pytest.mark.parametrize("kind", ["shot", "no_svr"])
def test_several_videos_and_memories_in_one_question(run, saved, video_file, tmp_path, monkeypatch, kind):
    folder, model, processor = saved(kind)
    sources = [str(video_file(12, seed)) for seed in (0, 1)]
    question = "Which is longer?"
    expected = python_answer(model, processor, [turn("user", (sources[0],), (sources[1],), question)])
    options = ("--model", folder, "--max-new-tokens", 8, "--json")
    cases = [sources]
    if kind == "shot":
        memory = model.see([processor.video_processor(sources[1])])
        memory.save(tmp_path / f"second{SUFFIX}")
        cases.append([sources[0], str(tmp_path / f"second{SUFFIX}")])
    for case in cases:
        code, output, errors = run("ask", *case, question, *options)
        result = json.loads(output)
        assert (code, errors) == (0, "") and result["text"] == expected
        assert [video["source"] for video in result["videos"]] == case
    code, output, _ = run("ask", *cases[-1], question, "--model", folder, "--max-new-tokens", 8)
    assert code == 0 and "12 of each video" in " ".join(output.split())
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{question}\n"))
    code, output, _ = run("ask", *sources, "--questions", "-", *options)
    assert code == 0 and json.loads(output)["text"] == expected


def test_a_stream_keeps_what_the_library_keeps(run, saved, video_file):
    folder, model, processor = saved()
    video = str(video_file(30, fps=10))
    memory = model.see(processor.video_processor.iter_video(video, fps=5))
    options = ("--model", folder, "--fps", 5, "--max-new-tokens", 8)
    code, output, _ = run("ask", video, QUESTIONS[0], *options, "--json")
    result = json.loads(output)
    assert code == 0 and result["text"] == python_answer(model, processor, [turn("user", (memory,), QUESTIONS[0])])
    [seen] = result["videos"]
    assert seen["num_seen_frames"] == len(seen["frames"]) == 15 and seen["num_frame_tokens"] == 15 * 16
    assert [frame["seconds"] for frame in seen["frames"]] == [number / 5 for number in range(15)]
    code, output, _ = run("ask", video, QUESTIONS[0], *options)
    assert code == 0 and "frames  15, at 0.00 0.20 " in output and "240 of the frames -> 12 of the video" in output


def test_text_is_printed_while_it_is_generated(run, request, monkeypatch):
    steps, forward = [], LlavaForConditionalGeneration.forward
    for module in ("cli_output", "cli_answering"):
        monkeypatch.setattr(f"linvt_cli.{module}.say", steps.append)

    def noted(self, *args, **kwargs):
        steps.append(None)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlavaForConditionalGeneration, "forward", noted)
    asked = ("ask", request.config.rootpath / "examples" / "shapes.mp4", "Describe the video.", "--num-frames", 8)
    assert run(*asked)[0] == 0
    answer = steps[steps.index("text    ") + 1 :]
    in_time = answer[: len(answer) - answer[::-1].index(None)]  # before the last token was known
    assert sum(text is not None for text in in_time) > 10 and answer[-1] == "\n"


def test_a_memory_of_another_model_is_refused_before_it_is_asked(run, saved, make_linvt, video_file, tmp_path):
    folder, model, processor = saved()
    model.see([processor.video_processor(str(video_file(12)))]).save(tmp_path / f"clip{SUFFIX}")
    (tmp_path / f"damaged{SUFFIX}").write_bytes(b"no memory")
    for command in (("ask", "What?"), ("chat",)):
        for source, reason in (("clip", "was made by another encoder"), ("damaged", "is damaged")):
            code, output, errors = run(command[0], tmp_path / f"{source}{SUFFIX}", *command[1:])
            assert (code, output) == (2, "") and reason in errors and len(errors.splitlines()) == 1, errors
    code, _, errors = run("ask", tmp_path / f"clip{SUFFIX}", "What?", "--model", saved("no_svr")[0])
    assert code == 2 and "keeps no tokens" in errors


def test_questions_that_cannot_be_asked_are_found_before_the_video_is_seen(run, saved, video_file, tmp_path):
    folder, *_ = saved()
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "odd.txt").write_text("Who?\nWhere is <video>?\n")
    (tmp_path / "broken.mp4").write_text("no video")
    for name, reason in (("empty", "holds no question"), ("odd", "holds <video>")):
        code, output, errors = run(
            "ask", tmp_path / "broken.mp4", "--questions", tmp_path / f"{name}.txt", "--model", folder
        )
        assert (code, output) == (2, "") and reason in errors, errors


@pytest.mark.parametrize("kind", ["shot", "no_svr"])
def test_a_conversation_keeps_its_turns(run, saved, video_file, monkeypatch, encoded_frames, kind):
    folder, model, processor = saved(kind)
    video = str(video_file(12))
    history, expected = [], []
    for question in QUESTIONS:
        expected.append(python_answer(model, processor, [*history, turn("user", (video,), question)]))
        history += [turn("user", question), turn("assistant", expected[-1])]
    encoded_frames.clear()
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([QUESTIONS[0], "", "<video>", *QUESTIONS[1:]])))
    code, output, errors = run("chat", video, "--model", folder, "--max-new-tokens", 8)
    assert (code, errors) == (0, "") and sum(encoded_frames) == 6
    answers = [shown(text) for text in expected]
    assert " ".join(output.split()).count("text") == len(answers) + 1  # and of the error
    place = 0
    for answer in answers:
        place = " ".join(output.split()).index(f"text {answer}", place) + 1
    assert "error   The text of a message holds <video>" in output
    assert run("ask", video, QUESTIONS[0], "--model", folder, "--max-new-tokens", 8)[1].endswith(
        "text    " + output.split("text    ")[1].split("error")[0]
    )


def written_to_pipe(pipe, content: bytes) -> int:
    """A process that writes to a named pipe; its id."""
    os.mkfifo(pipe)
    child = os.fork()
    if child == 0:
        pipe.write_bytes(content)
        os._exit(0)
    return child


def test_watching_asks_about_what_was_seen_so_far(run, saved, tmp_path):
    folder, model, processor = saved()
    video = write_video(tmp_path / "clip.ts", random_video(50))  # of 5 s
    pieces = [*processor.video_processor.iter_video(str(video), fps=4, frames_per_piece=1)]
    child = written_to_pipe(tmp_path / "pipe", video.read_bytes())
    options = ("--model", folder, "--every", 2, "--fps", 4, "--max-new-tokens", 8)
    memory = ("--memory", tmp_path / f"seen{SUFFIX}")
    code, output, errors = run("watch", tmp_path / "pipe", "Who?", *options, *memory, "--json")
    os.waitpid(child, 0)
    *answers, saved_as = [json.loads(line) for line in output.splitlines()]
    assert code == 0 and [answer["num_frames"] for answer in answers] == [9, 17, 20]
    for answer in answers:
        seen = model.see(pieces[: answer["num_frames"]])
        assert answer["seconds"] == round(seen.span_seconds[1], 3)
        assert answer["text"] == python_answer(model, processor, [turn("user", (seen,), "Who?")])
    assert run("encode", video, tmp_path / f"file{SUFFIX}", "--model", folder, "--fps", 4)[0] == 0
    assert (tmp_path / f"seen{SUFFIX}").read_bytes() == (tmp_path / f"file{SUFFIX}").read_bytes()
    assert saved_as["output"] == str(tmp_path / f"seen{SUFFIX}") and saved_as["num_frames"] == 20
    (tmp_path / "pipe").unlink()
    child = written_to_pipe(tmp_path / "pipe", video.read_bytes())
    code, output, _ = run("watch", tmp_path / "pipe", "Who?", *options)
    os.waitpid(child, 0)
    assert code == 0 and texts("\n" + output) == [shown(answer["text"]) for answer in answers]
    assert [line for line in output.splitlines() if line.startswith("seen")] == [
        "seen    2.00 s, 9 frames",
        "seen    4.00 s, 17 frames",
        "seen    4.70 s, 20 frames",
    ]


def test_an_interrupt_leaves_the_memory_of_what_was_seen(run, saved, tmp_path, monkeypatch):
    """Even one that comes while a frame is encoded."""
    folder, model, processor = saved()
    video = write_video(tmp_path / "clip.ts", random_video(50))
    encode, pieces, sent = StreamingEncoder._encode, [*processor.video_processor.iter_video(str(video), fps=4)], []

    def interrupted(self):
        if self._num_frames == 6 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
        encode(self)

    model.config.frames_per_batch = 3
    model.save_pretrained(folder)
    monkeypatch.setattr(StreamingEncoder, "_encode", interrupted)
    child = written_to_pipe(tmp_path / "pipe", video.read_bytes())
    path = tmp_path / f"seen{SUFFIX}"
    options = ("--model", folder, "--every", 60, "--fps", 4, "--memory", path)
    code, output, errors = run("watch", tmp_path / "pipe", "Who?", *options)
    os.waitpid(child, 0)
    assert code == 0 and f"saved   {path}" in output and "text" not in output, errors
    monkeypatch.undo()
    expected = model.see([{name: value[:7] for name, value in pieces[0].items() if name != "video_num_frames"}])
    found = VideoMemory.load(path)
    assert found.num_frames == 7 and torch.equal(found.seconds, expected.seconds)
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0, 0.0005, 0.5, 1])
def test_an_interrupt_while_it_waits_leaves_all_that_came(run, saved, tmp_path, monkeypatch, share):
    """FFmpeg, inside of which it comes, passes it on to nobody."""
    folder, model, processor = saved()
    video = write_video(tmp_path / "clip.ts", random_video(200, height=144, width=256))
    content = video.read_bytes()

    class Interrupted(io.BytesIO):
        def read1(self, size=-1):
            piece = super().read1(size)
            if not piece:
                raise KeyboardInterrupt
            return piece

        def fileno(self):
            raise OSError

    stdin = types.SimpleNamespace(buffer=Interrupted(content[: int(share * len(content))]))
    monkeypatch.setattr("sys.stdin", stdin)
    path = tmp_path / f"seen{SUFFIX}"
    code, output, errors = run("watch", "-", "Who?", "--model", folder, "--every", 60, "--memory", path)
    if share < 0.5:  # too little for a frame
        assert (code, output, path.exists()) == (130, "", False) and errors.endswith("linvt watch: interrupted\n")
        return
    assert code == 0 and f"saved   {path}" in output and "Traceback" not in errors, errors
    assert VideoMemory.load(path).num_frames == (20 if share == 1 else pytest.approx(10, abs=2))


def test_an_interrupt_before_the_first_frame_is_one(run, saved, video_file, monkeypatch):
    def interrupted(self, source, **settings):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("linvt.processors.video_processing_linvt.LinVTVideoProcessor.iter_video", interrupted)
    code, output, errors = run("watch", video_file(12), "Who?", "--every", 1, "--model", saved()[0])
    assert code == 130 and errors == "linvt watch: interrupted\n"
