"""The two scripts that a person runs, on one process and on two, from an image-LLM to the model of stage 2."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from tiny_families import random_video
from train_alignment import AlignmentArguments
from train_instruction import InstructionArguments
from training_runs import row
from transformers import AutoConfig
from trl import SFTConfig, TrlParser
from video_chat_training import (
    DataArguments,
    check_settings,
    describe_model,
    load_model_and_processor,
    parse_arguments,
)
from warm_processes import run_script

from linvt import LinVTForConditionalGeneration, LinVTProcessor, RedVillmVideoConfig
from linvt.hub.model_records import TrainingStage, read_records


EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_recipe_of_red_villm(tmp_path):
    options = ["--config", str(EXAMPLES / "red_villm.yaml"), "--dataset", "chats.jsonl", "--use_cpu"]
    parser = TrlParser((AlignmentArguments, SFTConfig))
    arguments, config = parser.parse_args_and_config([*options, "--output_dir", str(tmp_path)])
    tokenizer = AutoConfig.for_model(**arguments.video_tokenizer)
    assert isinstance(tokenizer, RedVillmVideoConfig) and tokenizer.num_frames == arguments.num_frames == 100
    assert tokenizer.temporal_module_init == "projector" and arguments.contrastive_weight == 0
    batch_size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    assert (config.num_train_epochs, config.learning_rate, batch_size) == (3, 2e-5, 32)  # its Sec. 4.1


def test_settings_reach_the_processor(make_linvt, tmp_path):
    model, processor = make_linvt("llava")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    before = processor.video_processor
    for changes in ({}, {"num_frames": 7, "shot_detection": "autoshot"}):
        _, loaded = load_model_and_processor(DataArguments(str(tmp_path), "chats.jsonl", **changes))
        found = loaded.video_processor
        expected = {"num_frames": before.num_frames, "shot_detection": before.shot_detection, **changes}
        assert expected == {name: getattr(found, name) for name in expected}


def test_frames_have_the_size_that_the_model_or_the_option_says(image_llm, tmp_path):
    """Also where images may have any size; an option of one number is an error before anything is loaded."""
    for part in image_llm("qwen2_vl"):
        part.save_pretrained(tmp_path / "image_llm")
    options = [
        "--model",
        str(tmp_path / "image_llm"),
        "--dataset",
        "chats.jsonl",
        "--output_dir",
        "aligned",
        "--use_cpu",
    ]
    parser = TrlParser((AlignmentArguments, SFTConfig))
    for given, expected in (([], (448, 448)), (["--frame_size", "56", "84"], (56, 84))):
        arguments, _ = parser.parse_args_and_config([*options, *given])
        model, processor = load_model_and_processor(arguments, '{"hidden_size": 32}')
        assert processor.video_processor.size == dict(zip(("height", "width"), expected, strict=True))
        model.save_pretrained(tmp_path / "model")
        processor.save_pretrained(tmp_path / "model")
    size = [28, 56]
    _, processor = load_model_and_processor(DataArguments(str(tmp_path / "model"), "chats.jsonl", frame_size=size))
    assert processor.video_processor.size == {"height": 28, "width": 56}
    arguments, config = parser.parse_args_and_config([*options, "--frame_size", "56"])
    with pytest.raises(ValueError, match=r"frame_size is \[56\]; give height and width"):
        check_settings(arguments, config)


def test_a_fresh_video_tokenizer_is_told_with_its_settings(image_llm, tmp_path, capsys):
    for part in image_llm("llava"):
        part.save_pretrained(tmp_path)
    arguments = DataArguments(str(tmp_path), "chats.jsonl")
    with pytest.raises(ValueError, match="no setting 'num_layer'; did you mean num_layers?"):
        load_model_and_processor(arguments, '{"hidden_size": 32, "num_layer": 3}')
    model, _ = load_model_and_processor(arguments, '{"hidden_size": 32, "num_layers": 3}')
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Fresh video tokenizer")]
    assert f"of {model.video_tokenizer.num_parameters() / 1e6:.1f} M parameters" in line
    assert "num_layers 3, " in line and "hidden_size 32, " in line and "multi_scale multi_c" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"push_to_hub": True}, "push_to_hub is set.*then `linvt push .*aligned`"),
        ({"packing": True}, "packing"),
        ({"per_device_train_batch_size": 1}, "contrastive_weight is 1.*per_device_train_batch_size"),
        ({"report_to": "no_such_service"}, "no_such_service"),
    ],
)
def test_what_cannot_work_is_known_before_anything_is_loaded(tmp_path, settings, message):
    config = SFTConfig(str(tmp_path / "aligned"), use_cpu=True, **settings)
    with pytest.raises(ValueError, match=message):
        check_settings(AlignmentArguments("model", "chats.jsonl"), config)
    check_settings(
        AlignmentArguments("model", "chats.jsonl"), SFTConfig(str(tmp_path), use_cpu=True, report_to="none")
    )


def test_a_card_that_cannot_be_written_costs_no_training(monkeypatch, tmp_path, caplog):
    def no_licence(folder, format):
        raise ValueError("The licence of org/llava cannot be read; connect to the Hub.")

    monkeypatch.setattr("video_chat_training.write_model_card", no_licence)
    stage = TrainingStage("alignment", ["the video tokenizer"], "d", False, 1, 0, 1, 1, 0.1, {}, {})
    describe_model(str(tmp_path), [stage])
    assert read_records(tmp_path, TrainingStage) == [stage] and not (tmp_path / "README.md").exists()
    assert "licence of org/llava" in caplog.text and "linvt export" in caplog.text


def test_a_service_that_is_not_installed_is_known_before_too(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: False)
    config = SFTConfig(str(tmp_path), use_cpu=True, report_to="tensorboard")
    with pytest.raises(RuntimeError, match="tensorboard"):
        check_settings(DataArguments("model", "chats.jsonl"), config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--use_cpu.*--bf16 false"),
        (["--use_cpu", "--packing"], "packing"),
        (["--use_cpu", "--shot_detection", "unifrom"], "unifrom"),
    ],
)
def test_options_that_cannot_work_end_with_one_line(monkeypatch, capsys, tmp_path, options, message):
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: False)
    command = ["train_alignment.py", "--model", "m", "--dataset", "d.jsonl", "--output_dir", str(tmp_path), *options]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        parse_arguments(AlignmentArguments)
    said = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err
    assert re.search(message, said.splitlines()[-1])


def test_options_of_linvt_are_a_group_of_the_help(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_instruction.py", "--help"])
    with pytest.raises(SystemExit):
        parse_arguments(InstructionArguments)
    group = capsys.readouterr().out.split("options of linvt")[1]
    assert all(name in group for name in ("--skip_bad_rows", "--lora_dropout", "{auto,autoshot,uniform}"))
    assert "--weight_decay" not in group


def train(script: str, config: dict, *options: str, ranks: int = 1) -> subprocess.CompletedProcess:
    file = Path(config["output_dir"]).with_name("config.yaml")
    file.write_text(yaml.safe_dump(config))
    launcher = None if ranks == 1 else "ddp_cpu.yaml"
    return run_script(EXAMPLES / script, "--config", file, *options, launcher=launcher)


@pytest.mark.parametrize("ranks", [1, 2])
def test_from_stage_to_stage(make_linvt, video_file, tmp_path, ask, ranks):
    model, processor = make_linvt("llava")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    rows = [
        row("What?", "A cat.", video_file(4, 0)),
        row("Hello?", "Hi."),
        row("Who?", "Two dogs.", video_file(9, 1)),
        row("How?", "Well."),
        row("Which?", "", video_file(4, 0)),  # bad
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = {
        "dataset": str(tmp_path / "rows.jsonl"),
        "num_frames": 4,
        "max_steps": 2,
        "save_steps": 1,
        "per_device_train_batch_size": 2 // ranks,
        "learning_rate": 0.01,
        "use_cpu": True,
        "report_to": "none",
    }
    first = {**config, "model": str(tmp_path / "model"), "output_dir": str(tmp_path / "aligned")}
    if ranks == 1:
        failed = train("train_alignment.py", first)
        assert failed.returncode != 0 and "Row 4: the answer" in failed.stderr
        first["frame_token_cache"] = str(tmp_path / "cache")
    done = train("train_alignment.py", first, "--skip_bad_rows", ranks=ranks)
    assert done.returncode == 0, done.stderr
    aligned = LinVTForConditionalGeneration.from_pretrained(tmp_path / "aligned")
    assert LinVTProcessor.from_pretrained(tmp_path / "aligned").video_processor.num_frames == 4
    if ranks == 1:
        again = train(
            "train_alignment.py", {**first, "max_steps": 3}, "--skip_bad_rows", "--resume_from_checkpoint", "last"
        )
        assert again.returncode == 0, again.stderr
        assert len(list((tmp_path / "cache").iterdir())) == 2

    second = {**config, "model": str(tmp_path / "aligned"), "output_dir": str(tmp_path / "tuned"), "lora_r": 4}
    done = train("train_instruction.py", second, "--skip_bad_rows", ranks=ranks)
    assert done.returncode == 0, done.stderr
    tuned = LinVTForConditionalGeneration.from_pretrained(tmp_path / "tuned")
    changed = {
        name
        for name, value in tuned.named_parameters()
        if not torch.equal(value, aligned.get_parameter(name).to(value.dtype))
    }
    in_llm = {name for name in changed if "language_model.layers" in name}
    assert in_llm < changed and all(name.startswith("video_tokenizer.") for name in changed - in_llm)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in in_llm} >= {"q_proj", "down_proj"}
    for folder, told in (("aligned", ["alignment"]), ("tuned", ["alignment", "instruction tuning"])):
        card = ModelCard.load(tmp_path / folder / "README.md")
        assert card.data.library_name == "linvt" and all(f"**{stage}**" in card.text for stage in told)
        num_parameters = sum(parameter.numel() for parameter in tuned.parameters())
        assert f"| {num_parameters:,} parameters" in card.text and "| LoRA |" not in card.text
    card = ModelCard.load(tmp_path / "tuned" / "adapter" / "README.md")
    assert str(tmp_path / "aligned") in card.text and "More Information Needed" not in card.text
    inputs = ask(LinVTProcessor.from_pretrained(tmp_path / "tuned"), random_video(5), "What?")
    assert tuned.generate(**inputs, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2
    assert (tmp_path / "tuned" / "adapter" / "adapter_model.safetensors").is_file()
    first_stage, second_stage = read_records(tmp_path / "tuned", TrainingStage)
    assert (first_stage.stage, second_stage.stage) == ("alignment", "instruction tuning")
    assert (first_stage.num_steps, second_stage.num_steps) == (3 if ranks == 1 else 2, 2)  # those before a resume too
    for stage in (first_stage, second_stage):
        assert (stage.data, stage.data_on_hub, stage.num_rows, stage.num_rows_left_out) == ("rows.jsonl", False, 4, 1)
        assert (stage.batch_size, stage.learning_rate) == (2, 0.01) and stage.settings["skip_bad_rows"]
    assert second_stage.settings["lora_r"] == 4
