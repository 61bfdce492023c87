"""What the README shows is what happens: its commands, its output and its Python."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from make_clip import CLIP
from tiny_families import build_image_llm
from training_runs import row

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt_cli.cli_main import main


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_first_command_prints_what_is_shown(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "120")
    command = blocks("bash")[0].split("&&")[-1].strip()
    assert main(shlex.split(command)[1:]) == 0
    output = capsys.readouterr()
    assert (output.err + output.out).splitlines() == blocks("text")[0].splitlines()


def test_a_video_that_was_seen_is_asked_as_shown(monkeypatch, tmp_path, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    commands = next(block for block in blocks("bash") if "linvt encode" in block).splitlines()
    shown = blocks("text")[1].split("\n\n")
    for command, text in zip(commands, shown, strict=True):
        assert main(shlex.split(command)[1:]) == 0
        output = capsys.readouterr()
        assert (output.err + output.out).splitlines() == text.splitlines()
    colour, direction = (text.split("text    ")[1].strip() for text in shown[1:])
    square, circle = CLIP.shots[0].shapes[0], CLIP.shots[1].shapes[0]
    assert colour == circle.colour and square.direction in direction  # which is true


def test_what_is_wrapped_answers_as_shown_without_training(monkeypatch, tmp_path, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    wrap, ask = next(block for block in blocks("bash") if "linvt wrap" in block).splitlines()
    assert main(shlex.split(wrap)[1:]) == 0
    assert "nothing was trained; frame tokens are merged" in " ".join(capsys.readouterr().out.split())
    assert main(shlex.split(ask)[1:]) == 0
    output = capsys.readouterr()
    assert (output.err + output.out).splitlines() == blocks("text")[2].splitlines()
    assert output.out.endswith(f" {CLIP.shots[1].shapes[0].colour}\n")  # which is true


def test_the_python_runs(monkeypatch, tmp_path):
    image_llm, processor = build_image_llm("qwen2_vl")
    image_llm.save_pretrained(tmp_path / "image_llm")
    processor.save_pretrained(tmp_path / "image_llm")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks("python"):
        if "VideoSFTTrainer" in block:
            continue  # it trains below, with a smaller video tokenizer
        block = block.replace('"Qwen/Qwen2-VL-2B-Instruct"', '"image_llm"').replace("num_frames=64", "num_frames=4")
        exec(block, namespace)
    assert namespace["model"].config.num_video_tokens == 112


def test_the_training_runs(monkeypatch, tmp_path, make_linvt, video_file):
    monkeypatch.chdir(tmp_path)
    rows = [row("What?", f"{number} cats.", video_file(4 + number, number)) for number in range(2)]
    Path("captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (block,) = (block for block in blocks("python") if "VideoSFTTrainer" in block)
    assert len(block.splitlines()) < 16
    here = 'SFTConfig("aligned", use_cpu=True, bf16=False, max_steps=1, report_to="none", '
    model, processor = make_linvt("qwen2_vl")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    exec(block.replace('SFTConfig("aligned", ', here), {"model": model, "processor": processor})
    saved = LinVTForConditionalGeneration.from_pretrained("aligned").state_dict()
    learnt = {name.split(".")[0] for name, weight in before.items() if not torch.equal(weight, saved[name])}
    assert learnt == {"video_tokenizer", "contrast"}
    LinVTProcessor.from_pretrained("aligned")


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()
