import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from published_checkpoints import mipha, write_byte_tokenizer, write_checkpoint
from tiny_families import write_video
from tiny_models import tiny_llava
from transformers import BertConfig, pipeline

from linvt import AutoShotConfig, AutoShotModel, LinVTForConditionalGeneration, LinVTProcessor
from linvt.conversion.convert_autoshot import published_keys
from linvt.progress import Progress
from linvt_cli.cli_main import main
from linvt_cli.cli_models import SMALL_MODEL


def small_model():
    return LinVTForConditionalGeneration.from_pretrained(SMALL_MODEL), LinVTProcessor.from_pretrained(SMALL_MODEL)


def python_answer(video, question: str, max_new_tokens: int) -> str:
    model, processor = small_model()
    content = [{"type": "video", "video": str(video)}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def check_same_text_everywhere(run, video):
    question = "What colour is the circle?"
    code, output, _ = run("ask", video, question, "--max-new-tokens", 12, "--json")
    assert code == 0
    text = json.loads(output)["text"]
    model, processor = small_model()
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    answers = pipe(str(video), text=question, max_new_tokens=12, do_sample=False)
    assert text == python_answer(video, question, 12) == answers[0]["generated_text"] != ""


def test_command_python_and_pipeline_give_the_same_text(run, video_file):
    check_same_text_everywhere(run, video_file(12))


@pytest.mark.parametrize("name", ["montage_640x360.mp4", "src/nasa_13013.mp4"])
def test_real_videos_give_the_same_text_everywhere(run, shared_videos, name):
    check_same_text_everywhere(run, shared_videos / name)
    code, output, _ = run("ask", shared_videos / name, "What happens?", "--uniform")
    assert code == 0 and "16 of " in output and "256 of the frames -> 28 of the video" in output


def test_ask_prints_frames_times_tokens_and_text(run, video_file):
    code, output, errors = run("ask", video_file(20, fps=10), "What happens?", "--num-frames", 4, "--uniform")
    assert code == 0 and errors == ""
    assert output.startswith("note ") and "coloured shapes only" in " ".join(output.split())
    assert "does not know the words happens" in " ".join(output.split())
    assert "4 of 20, at 0.20 0.70 1.20 1.70 s" in output
    assert "64 of the frames -> 28 of the video" in output
    assert max(map(len, output.splitlines())) <= 100
    assert all(character.isprintable() or character == "\n" for character in output)


def test_of_many_frames_the_first_and_the_last_are_printed(run, video_file):
    options = ("--uniform", "--max-new-tokens", 2, "--num-frames")
    code, output, _ = run("ask", video_file(90, fps=10), "What?", *options, 16)
    [times] = re.findall(r"16 of 90, at ([\d. ]+) s", " ".join(output.split()))
    assert code == 0 and len(times.split()) == 16 and times.startswith("0.20 ")
    code, output, _ = run("ask", video_file(90, fps=10), "What?", *options, 90)
    assert code == 0 and "90 of 90, from 0.00 to 8.90 s" in output and len(output.splitlines()) < 10


@pytest.mark.parametrize("frames_per_patch", [1, 2])
def test_every_frame_is_encoded_once(run, make_linvt, video_file, tmp_path, monkeypatch, frames_per_patch):
    """The number of frame tokens, too, costs no second run of the vision encoder."""
    model, processor = make_linvt("qwen2_vl")
    model.config.frames_per_patch = frames_per_patch
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    encoded = []

    def record(self, hidden_states, grid_thw, **kwargs):
        encoded.extend(grid_thw.tolist())
        return forward(self, hidden_states, grid_thw, **kwargs)

    vision = type(model.image_llm.model.visual)
    forward = vision.forward
    monkeypatch.setattr(vision, "forward", record)
    options = ("--model", tmp_path / "model", "--num-frames", 6, "--max-new-tokens", 2, "--json")
    code, output, _ = run("ask", video_file(12), "What?", *options)
    [result] = json.loads(output)["videos"]
    assert code == 0 and len(result["frames"]) == 6 and len(encoded) == 6 // frames_per_patch
    assert result["num_frame_tokens"] == sum(rows * columns // 4 for _, rows, columns in encoded)


def test_ask_for_machines(run, video_file):
    options = ("--num-frames", 2, "--json", "--uniform")
    code, output, errors = run("ask", video_file(20, fps=10), "What happens?", *options)
    result = json.loads(output)
    assert code == 0 and errors == ""
    [video] = result["videos"]
    assert video["frames"] == [{"index": index, "seconds": index / 10, "shot": 0} for index in (5, 15)]
    assert video["num_frame_tokens"] == 32 and result["num_video_tokens"] == 28
    assert result["model"] == "small-world" and result["unknown_words"] == ["happens"]
    assert video["num_frames"] == 20 and video["duration_seconds"] == 2.0


def test_ask_spreads_the_frames_over_the_shots_unless_told_not_to(run, tmp_path):
    """A long red shot and a short blue one, which without shots would get the last of the frames only."""
    frames = np.zeros((90, 48, 64, 3), np.uint8)
    frames[:75, ..., 0] = frames[75:, ..., 2] = 200
    video = write_video(tmp_path / "clip.mp4", frames, fps=25)
    shots = {}
    for options in ((), ("--uniform",)):
        code, output, _ = run("ask", video, "What happens?", "--num-frames", 2, "--json", *options)
        assert code == 0
        shots[options] = [(frame["index"] >= 75, frame["shot"]) for frame in json.loads(output)["videos"][0]["frames"]]
    assert shots == {(): [(False, 0), (True, 1)], ("--uniform",): [(False, 0), (False, 0)]}


def test_ask_says_where_it_did_not_look_for_shots(run, tmp_path, monkeypatch):
    frames = np.zeros((40, 48, 64, 3), np.uint8)
    frames[:30, ..., 0] = frames[30:, ..., 2] = 200
    video = write_video(tmp_path / "clip.mp4", frames, fps=25)
    monkeypatch.setattr("linvt.processors.shots.automatic_shots.CPU_FRAMES", 39)
    for options, looked, said in (((), False, True), (("--shots",), True, False), (("--uniform",), False, False)):
        code, output, _ = run("ask", video, "What happens?", "--num-frames", 2, "--max-new-tokens", 2, *options)
        assert code == 0 and ("--shots does" in " ".join(output.split())) == said
        assert ("at 0.60 1.40 s" in output) == looked


def test_ask_recommends_uniform_where_finding_shots_takes_long(run, video_file, monkeypatch):
    """A minute and a half passes between any two looks at the clock."""
    seconds = iter(range(0, 10**6, 90))
    monkeypatch.setattr("linvt.progress.Progress", partial(Progress, clock=lambda: next(seconds)))
    for options, hinted in (((), True), (("--uniform",), False), (("--json",), False)):
        code, _, errors = run("ask", video_file(12), "What?", "--max-new-tokens", 2, *options)
        assert code == 0 and ("hint: --uniform is much faster" in errors) == hinted, errors
        assert ("reading: " in errors) == ("--json" not in options)


def test_wrap_then_ask(run, video_file, tmp_path):
    image_llm, processor = tiny_llava()
    image_llm.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    wrap = ("wrap", tmp_path / "llava", tmp_path / "new" / "linvt", "--dtype", "bfloat16")
    code, output, _ = run(*wrap, "--frame-size", 56, 56)
    assert code == 0 and "frames of 56 x 56 pixels" in output
    assert "untrained" in output and "112 tokens per video" in output
    assert "num_layers 4" in output and "top_k 2048" in output
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["linvt"]
    model = LinVTForConditionalGeneration.from_pretrained(tmp_path / "new" / "linvt")
    assert model.config.num_video_tokens == 112 and model.dtype == torch.bfloat16
    asked = ("ask", video_file(12), "What?", "--model", tmp_path / "new" / "linvt", "--max-new-tokens", 4, "--json")
    code, output, errors = run(*asked)
    assert code == 0 and errors == "" and json.loads(output)["model"] == str(tmp_path / "new" / "linvt")
    code, _, errors = run("wrap", tmp_path / "llava", tmp_path / "other", "--frame-size", 56, 84)
    assert code == 2 and "cannot take frames of 56 x 84" in errors and not (tmp_path / "other").exists()
    code, _, errors = run("wrap", tmp_path / "llava", tmp_path / "new" / "linvt")
    assert code == 2 and "exists already; give the name of a new folder" in errors


def test_wrap_takes_settings_of_the_video_tokenizer(run, tmp_path):
    image_llm, processor = tiny_llava()
    image_llm.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    wrap = ("wrap", tmp_path / "llava", tmp_path / "linvt", "--video-tokenizer")
    code, output, errors = run(*wrap, '{"hidden_size": 32, "topk": 640}')
    assert (code, output) == (2, "") and "no setting 'topk'; did you mean top_k?" in errors
    assert not (tmp_path / "linvt").exists()
    code, output, _ = run(*wrap, '{"hidden_size": 32, "num_queries": [7, 5, 3], "top_k": 640}', "--json")
    result = json.loads(output)
    assert code == 0 and result["num_video_tokens"] == 15 and result["video_tokenizer"]["top_k"] == 640
    config = LinVTForConditionalGeneration.from_pretrained(tmp_path / "linvt").config.video_tokenizer_config
    assert {name: getattr(config, name) for name in result["video_tokenizer"]} == result["video_tokenizer"]
    assert LinVTProcessor.from_pretrained(tmp_path / "linvt").num_video_tokens == 15


def test_a_failed_wrap_leaves_nothing(run, tmp_path, monkeypatch):
    image_llm, processor = tiny_llava()
    image_llm.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")

    def fail(self, folder, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("linvt.processors.processing_linvt.LinVTProcessor.save_pretrained", fail)
    code, _, errors = run("wrap", tmp_path / "llava", tmp_path / "linvt")
    assert code == 2 and "No space left on device" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["llava"]


def test_convert(run, tmp_path):
    """The published checkpoint, made here by renaming ours back; test_autoshot.py has one of a network of its own."""
    weights = AutoShotModel(AutoShotConfig()).state_dict()
    published = {}
    for ours, theirs in published_keys().items():
        is_kernel = weights[ours].dim() == 4
        published[theirs] = weights[ours].unsqueeze(2 if "spatial" in ours else -1) if is_kernel else weights[ours]
    torch.save({"net": published}, tmp_path / "ckpt_0_200_0.pth")
    code, output, _ = run("convert", tmp_path / "ckpt_0_200_0.pth", tmp_path / "autoshot")
    assert code == 0 and "autoshot" in output
    converted = AutoShotModel.from_pretrained(tmp_path / "autoshot").state_dict()
    assert converted.keys() == weights.keys() and all(torch.equal(converted[k], weights[k]) for k in weights)
    (tmp_path / "other.pth").write_bytes(b"no checkpoint")
    for source, message in (("other.pth", "not a torch checkpoint"), ("nothing.pth", "there is no file")):
        code, _, errors = run("convert", tmp_path / source, tmp_path / "new")
        assert code == 2 and message in errors and len(errors.splitlines()) == 1 and not (tmp_path / "new").exists()


def test_convert_an_image_llm_then_wrap_it(run, tmp_path):
    source = write_checkpoint(tmp_path / "source", *mipha(True, 0.5))
    code, output, errors = run("convert", source, tmp_path / "bare")
    assert (
        code == 0 and errors == "" and "(mipha)" in output and "no processor was written" in " ".join(output.split())
    )
    write_byte_tokenizer(source, "CodeGenTokenizer", [])
    code, output, _ = run("convert", source, tmp_path / "mipha", "--kind", "mipha", "--dtype", "bfloat16", "--json")
    result = json.loads(output)
    assert code == 0 and result["has_processor"] and (result["kind"], result["model_type"]) == ("mipha", "linvt_mipha")
    code, output, errors = run("wrap", tmp_path / "mipha", tmp_path / "linvt")
    assert code == 0 and errors == ""
    assert f"{result['num_parameters'] / 1e6:.1f} M parameters, unchanged" in " ".join(output.split())
    model = LinVTForConditionalGeneration.from_pretrained(tmp_path / "linvt")
    assert model.image_llm.lm_head.bias.dtype == torch.bfloat16
    cases = [
        ((source, tmp_path / "mipha"), "exists already"),
        ((source, tmp_path / "new", "--kind", "internvl2"), "ps_version is None"),
        ((source, tmp_path / "new", "--revision", "main"), "has no revision 'main'"),
        ((tmp_path / "ckpt.pth", tmp_path / "new", "--kind", "mipha"), "takes no --kind"),
        ((tmp_path / "nothing", tmp_path / "new"), "there is no folder"),
    ]
    for arguments, message in cases:
        code, _, errors = run("convert", *arguments)
        assert code == 2 and message in errors and len(errors.splitlines()) == 1 and not (tmp_path / "new").exists()


def test_bad_input_is_one_line_and_exit_code_2(run, video_file, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is a text.")
    BertConfig().save_pretrained(tmp_path / "bert")
    shutil.copytree(SMALL_MODEL, tmp_path / "damaged")
    for weights in (tmp_path / "damaged").glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-100])
    cases = [
        (("ask", tmp_path / "nothing.mp4", "What?"), "nothing.mp4"),
        (("ask", tmp_path, "What?"), "directory"),
        (("ask", tmp_path / "empty.mp4", "What?"), "empty"),
        (("ask", tmp_path / "text.mp4", "What?"), "not a video"),
        (("ask", video_file(12), "What?", "--num-frames", "0"), "num_frames is 0"),
        (("ask", video_file(12), "What?", "--model", tmp_path / "no_model"), "there is no folder"),
        (("ask", video_file(12), "What?", "--model", tmp_path / "bert"), "holds a 'bert' model, not a LinVT one"),
        (("ask", video_file(12), "What?", "--model", tmp_path / "bert"), "use `linvt wrap`"),
        (("wrap", SMALL_MODEL, tmp_path / "out"), "give it to `linvt ask`"),
        (("wrap", tmp_path / "bert", tmp_path / "out"), "not an image-LLM"),
        (("wrap", tmp_path / "nothing", tmp_path / "out"), "there is no folder"),
        (("ask", video_file(12), "<video>?"), "text of a message holds <video>"),
        (("ask", video_file(12), "What?", "--device", "quantum"), "cannot run on 'quantum'"),
        (("ask", video_file(12), "What?", "--model", tmp_path), "holds no config.json of a model"),
        (("ask", video_file(12), "What?", "--autoshot", tmp_path / "no_weights"), "there is no folder"),
        (("ask", video_file(12), "What?", "--model", tmp_path / "damaged"), "weights cannot be read"),
        (("watch", tmp_path / "x.memory.safetensors", "What?", "--every", "1"), "give it to `linvt ask`"),
    ]
    for arguments, message in cases:
        code, output, errors = run(*arguments)
        assert code == 2 and output == "" and message in errors and len(errors.splitlines()) == 1
        assert errors.startswith(f"linvt {arguments[0]}: ")
    for arguments in (("ask",), ("wrap", "a", "b", "--dtype", "float17")):
        code, _, errors = run(*arguments)
        assert code == 2 and f"usage: linvt {arguments[0]}" in errors


def test_an_interrupt_is_no_traceback(run, video_file, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("linvt.processors.video_processing_linvt.read_video", interrupted)
    code, output, errors = run("ask", video_file(12), "What?")
    assert code == 130 and output == "" and errors == "linvt ask: interrupted\n"


def test_version(run):
    code, output, _ = run("--version")
    assert code == 0 and output.startswith("linvt 0.")


def test_as_a_program(tmp_path):
    program = [sys.executable, "-m", "linvt_cli.cli_main", "ask", str(tmp_path / "nothing.mp4"), "What?"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("shots",), ("ask", "What?", "--max-new-tokens", "2")])
def test_a_reader_that_stops_reading_is_no_error(video_file, monkeypatch, arguments):
    """As in `linvt shots VIDEO | head -1`: neither when it is printed nor when the rest is flushed at the end."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as output, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", output)
        assert main([arguments[0], str(video_file(12)), *arguments[1:]]) == 0
