"""Both stages of training on tiny models: what moves, what does not, what is saved, and that a killed run goes on."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from datasets import Dataset
from packaging.version import Version
from peft import get_peft_model
from PIL import Image
from safetensors.torch import load_file
from tiny_families import FAMILIES, random_video
from training_runs import Log, make_trainer, prepare, read_log, row, settings
from transformers import BitsAndBytesConfig
from warm_processes import run_script

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.training.training_stages import lora_for_instruction, merge_adapter
from linvt.training.video_chat_collator import VideoChatCollator
from linvt.training.video_sft_trainer import VideoSFTTrainer


TRAINING_RUN = Path(__file__).with_name("training_runs.py")

# Goes when transformers>=5.18 is required.
RESUMES_ON_CPUS = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"),
    reason="Transformers 5.17 cannot resume training on several CPUs: it asks PyTorch for a device 'cpu:0'",
)


# Goes when such a version is required. With 2.9 gradients are clipped by the norm of the whole, but what is logged
# under FSDP2 is that of the part of one process: `item()` of a DTensor does not sum. With 2.15 it does.
LOGS_THE_WHOLE_NORM = Version(torch.__version__) >= Version("2.15")


@pytest.fixture
def rows(video_file) -> list[dict]:
    """Videos of different length, the same answer twice, and text alone."""
    videos = [video_file(4 + 3 * number, number) for number in range(3)]
    return [
        row("What?", "A cat.", videos[0]),
        row("Hello?", "Hi."),
        row("Who?", "Two dogs.", videos[1]),
        row("Where?", "A cat.", videos[2]),
        row("How are you?", "Well."),
        row("Good day?", "Yes."),
    ]


@pytest.fixture
def run_of(make_linvt, rows, tmp_path):
    """
    `run_of(family)`: a folder that `training_runs` can train in. In training SVR draws the tokens that it keeps, and
    draws come out otherwise where rows are shared out otherwise; with `draws=False` it keeps all.
    """

    def of(family: str = "llava", name: str = "training", draws: bool = True) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        model, processor = make_linvt(family)
        if not draws:
            model.config.video_tokenizer_config.top_k = 10_000
        return prepare(folder, model, processor, rows)

    return of


def moved(model, before: dict[str, torch.Tensor]) -> set[str]:
    after = model.state_dict()
    assert set(after) == set(before)
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("family", FAMILIES)
def test_alignment_moves_the_video_tokenizer_and_the_temperature_only(run_of, family):
    folder = run_of(family)
    args = settings(folder, 2, per_device_train_batch_size=6, save_strategy="no")
    trainer = make_trainer(folder, "alignment", args)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    learnt = {name for name in before if name.startswith(("video_tokenizer.", "contrast."))}
    assert moved(trainer.model, before) == learnt
    trainer.save_model(folder / "result")
    loaded = LinVTForConditionalGeneration.from_pretrained(folder / "result")
    assert moved(loaded, {name: value.cpu() for name, value in trainer.model.state_dict().items()}) == set()
    LinVTProcessor.from_pretrained(folder / "result")


@pytest.mark.parametrize("family", FAMILIES)
def test_instruction_tuning_moves_lora_in_the_llm_and_the_video_tokenizer_only(run_of, make_linvt, ask, family):
    folder = run_of(family)
    trainer = make_trainer(folder, "instruction", settings(folder, 3, save_strategy="no"))
    original = LinVTForConditionalGeneration.from_pretrained(folder / "model")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = moved(trainer.model, before)
    tokenizer = {name for name in before if ".video_tokenizer.modules_to_save." in name}
    assert len(tokenizer) == len(original.video_tokenizer.state_dict()) and tokenizer <= changed
    lora = changed - tokenizer
    assert lora == {name for name in before if "lora_" in name}
    layers = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in lora}
    decoder = original.get_decoder()
    linear = {id(module) for module in decoder.modules() if isinstance(module, torch.nn.Linear)}
    assert {id(original.get_submodule(name)) for name in layers} == linear

    # Saved as an adapter, loaded on the model of stage 1, merged.
    trainer.save_model(folder / "adapter")
    merged = merge_adapter(folder / "model", folder / "adapter").eval()
    merged.save_pretrained(folder / "result")
    loaded = LinVTForConditionalGeneration.from_pretrained(folder / "result").eval()
    assert {name for name, _ in loaded.named_parameters()} == {name for name, _ in original.named_parameters()}
    _, processor = make_linvt(family)
    inputs = ask(processor, random_video(5), "What?")
    trained = trainer.model.eval()
    with torch.no_grad():
        expected = trained(**inputs).logits
        torch.testing.assert_close(loaded(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(original.eval()(**inputs).logits, expected, atol=1e-3)
        picture = Image.fromarray(random_video(1, height=56, width=56)[0])
        content = [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]
        image = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
        )
        with trained.disable_adapter():
            assert torch.equal(trained(**image).logits, original.image_llm(**image).logits)


def test_lora_alone_leaves_the_video_tokenizer_as_it_is(run_of):
    model = LinVTForConditionalGeneration.from_pretrained(run_of("llava") / "model")
    tuned = get_peft_model(model, lora_for_instruction(model, r=2, learn_video_tokenizer=False))
    learning = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert learning and learning == {name for name, _ in tuned.named_parameters() if "lora_" in name}
    assert not any("video_tokenizer" in name for name in learning)


def test_beside_a_quantised_llm_the_video_tokenizer_learns_in_float32(run_of):
    """TRL makes all that learns bfloat16 there, in which a step of 1e-5 is lost on a weight of 0.01."""
    pytest.importorskip("bitsandbytes", reason="quantisation is tested with bitsandbytes")
    folder = run_of()
    quantization = BitsAndBytesConfig(load_in_4bit=True)
    model = LinVTForConditionalGeneration.from_pretrained(folder / "model", quantization_config=quantization)
    collator = VideoChatCollator(LinVTProcessor.from_pretrained(folder / "model"))
    trainer = VideoSFTTrainer(
        model,
        settings(folder, 1, per_device_train_batch_size=6, save_strategy="no"),
        train_dataset=Dataset.from_list(json.loads((folder / "rows.json").read_text())),
        data_collator=collator,
        processing_class=collator.processor,
        peft_config=lora_for_instruction(model, r=4),
    )
    learning = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    tokenizer = {name: weight.detach().clone() for name, weight in learning.items() if ".video_tokenizer." in name}
    assert len(tokenizer) == len(model.video_tokenizer.original_module.state_dict())
    trainer.train()
    assert {name for name, before in tokenizer.items() if torch.equal(learning[name], before)} == set()
    assert {weight.dtype for name, weight in learning.items() if ".video_tokenizer." in name} == {torch.float32}


@pytest.mark.parametrize("stage", ["alignment", "instruction"])
def test_bf16_accumulation_checkpointing_and_evaluation(run_of, rows, stage):
    folder = run_of()
    args = settings(
        folder,
        2,
        bf16=True,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="no",
    )
    trainer = make_trainer(folder, stage, args, eval_rows=rows)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(logged) == 2 and all(entry["eval_language_loss"] > 0 for entry in logged)
    assert ("eval_contrastive_loss" in logged[0]) == (stage == "alignment")
    learnt = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in learnt)


def test_the_loss_is_per_token_whatever_the_accumulation(run_of):
    """Two steps of accumulation against the same rows at once, both against cross-entropy of the logits."""
    folder = run_of(draws=False)
    losses = []
    for name, per_step, accumulation in (("one", 4, 1), ("two", 2, 2)):
        args = settings(
            folder,
            1,
            output_dir=str(folder / name),
            per_device_train_batch_size=per_step,
            gradient_accumulation_steps=accumulation,
            train_sampling_strategy="sequential",
            save_strategy="no",
        )
        trainer = make_trainer(folder, "alignment", args)
        trainer.contrastive_weight = 0.0
        trainer.model.contrast.requires_grad_(False)
        model, batch = trainer.model, trainer.data_collator(trainer.train_dataset.select(range(4)).to_list())
        with torch.no_grad():
            logits = model(**batch).logits
        expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
        trainer.train()
        first = trainer.state.log_history[0]
        assert first["loss"] == pytest.approx(expected.item(), rel=1e-4)
        assert first["language_loss"] == pytest.approx(expected.item(), rel=1e-4)
        losses.append(first["grad_norm"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_transformers_own_trainer_over_ranks_with_gradient_checkpointing(run_of, video_file):
    """DDP then waits for a gradient of every weight that learns, so the temperature must not where no loss has it."""
    folder = run_of("qwen2_vl")
    # With a video in every row: the encoder learns too, and has no gradient on a rank that has none.
    chats = [row("What?", f"{number} cats.", video_file(4 + number, number)) for number in range(4)]
    (folder / "rows.json").write_text(json.dumps(chats))
    done = run_script(TRAINING_RUN, folder, "plain", 2, launcher="ddp_cpu.yaml")
    assert done.returncode == 0, done.stderr
    assert sorted(read_log(folder)) == [1, 2]
    before, after = (load_file(folder / name / "model.safetensors") for name in ("model", "result"))
    learnt = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert set(before) - learnt == {"contrast.logit_scale"}


def resumed(folder: Path, stage: str, config: str | None) -> None:
    """Four steps, killed after the third and taken up again after the second, of which there is a checkpoint."""
    for kill in ([3], []):
        done = run_script(TRAINING_RUN, folder, stage, 4, *kill, launcher=config)
        if kill:
            assert done.returncode != 0 and max(read_log(folder)) in (2, 3), done.stderr
            assert not (folder / "result").exists() and (folder / "run" / "checkpoint-2").is_dir()
        else:
            assert done.returncode == 0, done.stderr
            logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
            assert [line["step"] for line in logged].count(1) == 1  # it went on, and did not begin again


@pytest.mark.parametrize(
    ("stage", "config"),
    [
        ("alignment", None),
        ("instruction", None),
        pytest.param("alignment", "ddp_cpu.yaml", marks=RESUMES_ON_CPUS),
        ("alignment", "fsdp2.yaml"),
        ("instruction", "fsdp2.yaml"),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(run_of, rows, video_file, stage, config):
    """On one process, or on two, which share the rows of a step: mixed ones here, text alone there."""
    rows += [row("Odd?", "Nope.", video_file(7, 5)), row("Fine?", "So so.")]  # two steps per epoch
    whole, killed = (run_of(name=name, draws=config is None) for name in ("whole", "killed"))
    trainer = make_trainer(whole, stage, settings(whole, 4, per_device_train_batch_size=4))
    trainer.add_callback(Log(whole / "log.jsonl"))
    trainer.train()
    resumed(killed, stage, config)
    expected, found = read_log(whole), read_log(killed)
    assert sorted(found) == sorted(expected) == list(range(1, 5))
    logged = {"loss", "grad_norm", "language_loss", "contrastive_loss"}
    if config == "fsdp2.yaml" and not LOGS_THE_WHOLE_NORM:
        logged.remove("grad_norm")
    for step in expected:
        for name in logged & set(expected[step]):
            assert found[step][name] == pytest.approx(expected[step][name], rel=1e-3, abs=1e-6), (step, name)
    # What two processes save is the whole model.
    trainer.save_model(whole / "result")
    name = "model.safetensors" if stage == "alignment" else "adapter_model.safetensors"
    weights, found = (load_file(folder / "result" / name) for folder in (whole, killed))
    assert set(found) == set(weights)
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-3, msg=name)
