"""`linvt encode`: a memory is what the library makes, stands for its video, and survives `kill -9`."""

import json
import os
import signal

import pytest
import torch
from tiny_families import random_video, write_video

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.video_tokenizer.video_memory import VideoMemory
from linvt_cli.cli_main import main
from linvt_cli.cli_part_file import PartFile


SUFFIX = ".memory.safetensors"


@pytest.fixture
def saved_model(make_linvt, tmp_path):
    """`saved_model(**settings)`: folder of a model that scores shot by shot, in windows of four frames."""

    def save(name="model", **settings):
        model, processor = make_linvt("llava", **{"temporal_attention": "shot", "max_shot_frames": 4, **settings})
        model.config.frames_per_batch = 3
        for part in (model, processor):
            part.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def test_a_memory_answers_as_its_video(run, video_file, tmp_path):
    video, memory = video_file(20, fps=10), tmp_path / f"clip{SUFFIX}"
    code, output, errors = run("encode", video, memory, "--num-frames", 6, "--uniform")
    assert (code, errors) == (0, "") and "coloured shapes only" in " ".join(output.split())
    assert "frames  6, from 0.10 to 1.80 s" in output and "tokens  96 kept" in output
    assert f"saved   {memory}" in output and " kB" in output
    answers = []
    for source, options in ((video, ("--num-frames", 6, "--uniform")), (memory, ())):
        code, output, errors = run("ask", source, "What colour is the circle?", *options, "--json")
        assert (code, errors) == (0, "")
        answers.append(json.loads(output))
    assert answers[0]["text"] == answers[1]["text"] != ""
    (of_video,), (of_memory,) = (answer["videos"] for answer in answers)
    for name in ("num_seen_frames", "num_kept_tokens", "span_seconds"):
        assert of_video[name] == of_memory[name]
    assert of_memory["source"] == str(memory) and of_memory["frames"] is None
    code, output, _ = run("ask", memory, "What colour is the circle?")
    assert code == 0 and "frames  6, from 0.10 to 1.80 s" in output and "96 kept -> 28 of the video" in output


@pytest.mark.parametrize("fps", [2.5, 10])
def test_a_stream_is_seen_as_the_library_sees_it(run, saved_model, video_file, tmp_path, fps):
    folder, video, path = saved_model(), video_file(23, fps=10), tmp_path / f"clip{SUFFIX}"
    code, output, errors = run("encode", video, path, "--model", folder, "--fps", fps, "--json")
    assert (code, errors) == (0, "")
    model, processor = LinVTForConditionalGeneration.from_pretrained(folder), LinVTProcessor.from_pretrained(folder)
    memory = model.see(processor.video_processor.iter_video(str(video), fps=fps))
    memory.save(tmp_path / f"expected{SUFFIX}")
    assert path.read_bytes() == (tmp_path / f"expected{SUFFIX}").read_bytes()
    assert json.loads(output) == {
        "video": str(video),
        "num_resumed_frames": 0,
        "model": str(folder),
        "num_frames": memory.num_frames,
        "span_seconds": [round(seconds, 3) for seconds in memory.span_seconds],
        "num_kept_tokens": 40,
        "num_bytes": path.stat().st_size,
        "output": str(path),
    }
    assert {file.name for file in tmp_path.iterdir()} == {video.name, path.name, f"expected{SUFFIX}", "model"}


def killed_after(number: int, monkeypatch, *arguments) -> None:
    """Runs a command in a process of its own, which `kill -9` ends after so many parts were saved."""
    child = os.fork()
    if child == 0:
        save, saved = PartFile.save, []

        def save_and_die(self, closed):
            save(self, closed)
            if self.path.exists():
                saved.append(closed)
            if len(saved) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        PartFile.save = save_and_die
        os._exit(main([str(argument) for argument in arguments]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("frames_per_patch", [1, 2])
def test_a_killed_encoding_goes_on_and_ends_with_the_same_bytes(
    run, make_linvt, video_file, tmp_path, monkeypatch, encoded_frames, frames_per_patch
):
    model, processor = make_linvt("qwen2_vl", temporal_attention="shot", max_shot_frames=4)
    model.config.frames_per_batch, model.config.frames_per_patch = 3 * frames_per_patch, frames_per_patch
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("linvt_cli.cli_encode.SECONDS_BETWEEN_PARTS", 0)
    video, options = video_file(50, fps=10), ("--model", tmp_path / "model", "--fps", 10, "--json")
    whole, resumed = tmp_path / f"whole{SUFFIX}", tmp_path / f"resumed{SUFFIX}"
    assert run("encode", video, whole, *options)[0] == 0
    once = sum(encoded_frames)
    for number in (1, 2):
        killed_after(number, monkeypatch, "encode", video, resumed, *options)
        assert not resumed.exists() and resumed.with_name(f"{resumed.name}.part").exists()
    encoded_frames.clear()
    code, output, errors = run("encode", video, resumed, *options)
    assert (code, errors) == (0, "") and resumed.read_bytes() == whole.read_bytes()
    known = json.loads(output)["num_resumed_frames"]
    assert 0 < known < 50 and sum(encoded_frames) <= once - known
    assert not resumed.with_name(f"{resumed.name}.part").exists()


def test_a_part_of_something_else_is_refused_by_name(run, saved_model, video_file, tmp_path, monkeypatch):
    folder, video, path = saved_model(), video_file(50, fps=10), tmp_path / f"clip{SUFFIX}"
    monkeypatch.setattr("linvt_cli.cli_encode.SECONDS_BETWEEN_PARTS", 0)
    killed_after(1, monkeypatch, "encode", video, path, "--model", folder, "--fps", 10)
    part = path.with_name(f"{path.name}.part")
    content = part.read_bytes()
    other = saved_model("other", top_k=30)
    for arguments, name in (
        ((video, path, "--model", folder, "--fps", 5), "another fps (10.0, now 5.0)"),
        ((video_file(50, 1, fps=10), path, "--model", folder, "--fps", 10), "another video (clip_50_0.mp4"),
        ((video, path, "--model", other, "--fps", 10), "another SVR"),
        ((video, path, "--model", folder, "--fps", 10, "--autoshot", tmp_path), "config.json"),
    ):
        code, output, errors = run("encode", *arguments)
        assert (code, output) == (2, "") and name in errors and len(errors.splitlines()) == 1, errors
    assert part.read_bytes() == content and not path.exists()
    part.write_bytes(content[:-30])
    code, _, errors = run("encode", video, path, "--model", folder, "--fps", 10)
    assert code == 2 and f"{part} is damaged" in errors and f"remove {part}" in errors
    part.write_bytes(content)
    code, output, errors = run("encode", video, path, "--model", folder, "--fps", 10)
    assert code == 0 and f"which {part} holds" in errors and "resumed  after" in output


def test_a_pipe_is_encoded_without_a_part(run, saved_model, tmp_path, monkeypatch):
    """It can be read only once, so nobody could go on with it."""
    folder, video = saved_model(), write_video(tmp_path / "clip.ts", random_video(40))
    monkeypatch.setattr("linvt_cli.cli_encode.SECONDS_BETWEEN_PARTS", 0)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(PartFile, "save", None)
    child = os.fork()
    if child == 0:
        (tmp_path / "pipe").write_bytes(video.read_bytes())
        os._exit(0)
    options = ("--model", folder, "--fps", 10)
    code, _, errors = run("encode", tmp_path / "pipe", tmp_path / f"pipe{SUFFIX}", *options)
    os.waitpid(child, 0)
    monkeypatch.undo()
    assert code == 0, errors
    assert run("encode", video, tmp_path / f"file{SUFFIX}", *options)[0] == 0
    assert (tmp_path / f"pipe{SUFFIX}").read_bytes() == (tmp_path / f"file{SUFFIX}").read_bytes()


def test_scores_of_the_whole_video_are_said(run, video_file, tmp_path):
    code, _, errors = run("encode", video_file(12, fps=10), tmp_path / f"clip{SUFFIX}", "--fps", 5)
    assert code == 0 and "depends on all of the video" in errors
    assert VideoMemory.load(tmp_path / f"clip{SUFFIX}").num_frames == 6


def test_who_keeps_no_tokens_encodes_nothing(run, make_linvt, video_file, tmp_path):
    for part in make_linvt("llava", use_svr=False, multi_scale="single"):
        part.save_pretrained(tmp_path / "model")
    code, _, errors = run("encode", video_file(12), tmp_path / f"clip{SUFFIX}", "--model", tmp_path / "model")
    assert code == 2 and "keeps no tokens" in errors and len(errors.splitlines()) == 1
    assert torch.is_grad_enabled()
