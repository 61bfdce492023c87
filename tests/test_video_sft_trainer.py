"""What the trainer takes, refuses, warns about and logs; that weights learn is in `test_training.py`."""

import copy
import importlib
import math
import sys

import pytest
import torch
from datasets import Dataset
from tiny_families import FAMILIES, VARIANTS, random_video, write_video
from training_runs import row, settings
from transformers import TrainingArguments
from trl import SFTTrainer

import linvt.training
from linvt.training import VideoChatCollator, VideoSFTTrainer, freeze_for_alignment, lora_for_instruction
from linvt.training.token_metrics import sum_token_metrics


@pytest.fixture
def rows(tmp_path) -> Dataset:
    videos = [write_video(tmp_path / f"{number}.mp4", random_video(4 + number, number)) for number in range(2)]
    chats = [row("What?", "A cat.", videos[0]), row("Hi?", "Yes, hello."), row("Who?", "Two.", videos[1])]
    return Dataset.from_list(chats)


@pytest.fixture
def make_trainer(make_linvt, rows, tmp_path):
    """`make_trainer(changes of the settings, arguments of the trainer...)`, of a frozen LLaVA by default."""

    def make(changes: dict | None = None, **kwargs) -> VideoSFTTrainer:
        model, processor = make_linvt("llava")
        given = {"model": freeze_for_alignment(model), "processing_class": processor, "train_dataset": rows}
        args = settings(tmp_path, 1, **{"save_strategy": "no", **(changes or {})})
        return VideoSFTTrainer(**{**given, "args": args, **kwargs})

    return make


def test_the_collator_is_made_of_the_processor(make_trainer, make_linvt):
    trainer = make_trainer()
    assert isinstance(trainer.data_collator, VideoChatCollator)
    assert trainer.data_collator.processor is trainer.processing_class
    own = VideoChatCollator(make_linvt("llava")[1], max_length=10_000)
    assert make_trainer(data_collator=own).data_collator is own


@pytest.mark.parametrize("kind", ["none", "tokenizer"])
def test_without_a_processor_there_is_no_collator(make_trainer, make_linvt, kind):
    processor = None if kind == "none" else make_linvt("llava")[1].tokenizer
    with pytest.raises(ValueError, match="processing_class is .*LinVTProcessor"):
        make_trainer(processing_class=processor)


def test_the_settings_stay_those_of_the_caller(make_trainer, tmp_path):
    args = settings(tmp_path, 1, dataset_kwargs={"some": 1}, remove_unused_columns=True)
    before = copy.deepcopy({name: value for name, value in vars(args).items() if name in args.to_dict()})
    trainer = make_trainer(args=args)
    assert {name: value for name, value in vars(args).items() if name in before} == before
    assert trainer.args is not args and trainer.args.remove_unused_columns is False


@pytest.mark.parametrize(
    ("changes", "kwargs", "names"),
    [
        ({"packing": True}, {}, "packing"),
        ({"eval_packing": True}, {}, "eval_packing"),
        ({"padding_free": True}, {}, "padding_free"),
        ({"pad_to_multiple_of": 64, "completion_only_loss": False}, {}, "pad_to_multiple_of, completion_only_loss"),
        ({"pad_token": "<|im_end|>"}, {}, "pad_token"),
        ({"shuffle_dataset": True}, {}, "shuffle_dataset"),
        ({"train_sampling_strategy": "group_by_length"}, {}, "group_by_length.*'length'.*messages"),
        ({"label_smoothing_factor": 0.1}, {}, "label_smoothing_factor"),
        ({"loss_type": "dft"}, {}, "loss_type"),
        ({"router_aux_loss_coef": 0.01}, {}, "router_aux_loss_coef"),
        ({"use_liger_kernel": True}, {}, "use_liger_kernel"),
        ({"max_length": 64}, {}, "max_length is 64"),
        ({}, {"formatting_func": str}, "formatting_func"),
        ({}, {"compute_loss_func": print}, "compute_loss_func"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's own, of what it gives up
def test_what_would_be_passed_over_is_refused(make_trainer, changes, kwargs, names):
    with pytest.raises(ValueError, match=names):
        make_trainer(changes, **kwargs)


def test_rows_are_grouped_by_lengths_that_are_given(make_trainer, rows):
    grouped = {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 1}
    make_trainer(grouped, train_dataset=rows.add_column("length", [30, 4, 30])).train()


def test_settings_of_another_trainer_are_refused(make_trainer, tmp_path):
    with pytest.raises(TypeError, match="TrainingArguments.*SFTConfig"):
        make_trainer(args=TrainingArguments(str(tmp_path), use_cpu=True))


def test_that_answers_alone_are_learnt_may_be_asked_for(make_trainer):
    make_trainer({"assistant_only_loss": True}).train()


def test_weights_that_would_not_be_found_again(make_trainer, make_linvt, tmp_path):
    trainer = make_trainer(model=make_linvt("llava")[0])
    with pytest.raises(ValueError, match="Weights of the image-LLM itself learn"):
        trainer.train(resume_from_checkpoint=str(tmp_path))
    trainer.args.load_best_model_at_end = True
    with pytest.raises(ValueError, match="Weights of the image-LLM itself learn"):
        trainer.train()


@pytest.mark.parametrize("frozen", [True, False])
def test_that_the_image_llm_learns_is_said(make_trainer, make_linvt, caplog, frozen):
    model, _ = make_linvt("llava")
    if frozen:
        freeze_for_alignment(model)
    else:
        model.image_llm.get_output_embeddings().weight.requires_grad_(False)
    make_trainer(model=model)
    num_learning, num_all = (
        sum(parameter.numel() for parameter in model.image_llm.parameters() if parameter.requires_grad or every)
        for every in (False, True)
    )
    said = "" if frozen else f"image_llm {num_learning:,} of {num_all:,}"
    assert said in caplog.text and ("freeze_for_alignment" in caplog.text) is not frozen


def test_lora_is_no_learning_of_the_image_llm(make_trainer, make_linvt, caplog):
    model, _ = make_linvt("llava")
    make_trainer(model=model, peft_config=lora_for_instruction(model, r=2))
    assert "itself learn" not in caplog.text


def test_a_contrastive_loss_of_single_rows_is_an_error(make_trainer):
    alone = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    with pytest.raises(ValueError, match="contrastive_weight is 0.5.*per_device_train_batch_size"):
        make_trainer(alone, contrastive_weight=0.5)
    make_trainer(alone)
    make_trainer({"per_device_train_batch_size": 2}, contrastive_weight=0.5)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_temperature_learns_where_it_is_asked_for(make_trainer, make_linvt, weight):
    trainer = make_trainer(model=make_linvt("llava")[0], contrastive_weight=weight)
    assert trainer.model.contrast.logit_scale.requires_grad is (weight > 0)


def test_the_configuration_of_lora_leaves_the_model_as_it_is(make_linvt):
    model, _ = make_linvt("llava")
    model.to(torch.bfloat16)
    before = {name: (weight, weight.dtype, weight.requires_grad) for name, weight in model.named_parameters()}
    lora_for_instruction(model)
    assert {name: (weight, weight.dtype, weight.requires_grad) for name, weight in model.named_parameters()} == before


def test_the_video_tokenizer_learns_in_float32_beside_a_bfloat16_llm(make_trainer, make_linvt):
    model, _ = make_linvt("llava")
    model.to(torch.bfloat16)
    trainer = make_trainer({"bf16": True}, model=model, peft_config=lora_for_instruction(model, r=2))
    learning = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in learning.values()} == {torch.float32}
    assert trainer.model.get_input_embeddings().weight.dtype == torch.bfloat16
    before = {name: weight.detach().clone() for name, weight in learning.items() if ".video_tokenizer." in name}
    trainer.train()
    assert not any(torch.equal(learning[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_over_learnt_tokens(dtype):
    """Against torch's own entropy, with more tokens than are taken at once and words that are ruled out."""
    torch.manual_seed(0)
    logits = (torch.randn(3, 200, 11) * 3).to(dtype)
    logits[:, :, 7] = float("-inf")
    labels = torch.randint(0, 7, (3, 200))
    labels[torch.rand(3, 200) < 0.2] = -100
    num_correct, entropy = sum_token_metrics(logits, labels)
    expected_correct, expected_entropy = 0, 0.0
    for row_logits, row_labels in zip(logits[:, :-1].double(), labels[:, 1:], strict=True):
        for scores, label in zip(row_logits, row_labels, strict=True):
            if label != -100:
                expected_correct += int(scores.argmax() == label)
                possible = torch.distributions.Categorical(logits=scores[scores > float("-inf")])
                expected_entropy += possible.entropy().item()
    assert num_correct.item() == expected_correct > 0
    assert entropy.item() == pytest.approx(expected_entropy, rel=1e-5)
    assert [figure.item() for figure in sum_token_metrics(logits, torch.full_like(labels, -100))] == [0, 0]


def test_what_trl_logs_is_logged(make_trainer, rows):
    """The figures of a training step at a learning rate of 0 are those of the same rows at once."""
    changes = {"per_device_train_batch_size": 3, "learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1}
    trainer = make_trainer(changes, eval_dataset=rows)
    trainer.model.config.video_tokenizer_config.top_k = 10_000  # all, so that nothing is drawn
    batch = trainer.data_collator(rows.to_list())
    trainer.train()
    train, evaluated = (
        next(entry for entry in trainer.state.log_history if name in entry) for name in ("loss", "eval_loss")
    )
    with torch.no_grad():
        logits = trainer.model.eval()(**batch).logits
    num_correct, entropy = sum_token_metrics(logits, batch["labels"])
    num_learnt = (batch["labels"] != -100).sum().item()
    for entry, prefix in ((train, ""), (evaluated, "eval_")):
        assert entry[f"{prefix}mean_token_accuracy"] == pytest.approx(num_correct.item() / num_learnt)
        assert entry[f"{prefix}entropy"] == pytest.approx(entropy.item() / num_learnt, rel=1e-4)
        assert entry[f"{prefix}num_tokens"] == batch["attention_mask"].sum().item()
    assert 0 < train["entropy"] < math.log(logits.shape[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_trls_own_trainer_logs_the_same(make_linvt, rows, tmp_path, family):
    """It computes loss and figures from the last hidden states, a tile at a time."""
    logged = []
    for trainer_class, changes in (
        (VideoSFTTrainer, {}),
        (SFTTrainer, {"remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}),
    ):
        model, processor = make_linvt(family, **VARIANTS["tta_only"])  # SVR draws tokens in training
        trainer = trainer_class(
            model=freeze_for_alignment(model),
            args=settings(tmp_path, 2, learning_rate=0.0, save_strategy="no", max_length=None, **changes),
            train_dataset=rows,
            data_collator=VideoChatCollator(processor),
            processing_class=processor,
        )
        trainer.train()
        names = ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens")
        logged.append([entry[name] for entry in trainer.state.log_history if "loss" in entry for name in names])
    assert len(logged[0]) == 10 and logged[0] == pytest.approx(logged[1], rel=1e-3)


def test_trls_own_trainer_does_not_leave_videos_out_in_silence(make_linvt, rows, tmp_path):
    """Without our collator it prepares the rows itself."""
    model, processor = make_linvt("llava")
    args = settings(tmp_path, 1, save_strategy="no")
    trainer = SFTTrainer(
        model=freeze_for_alignment(model), args=args, train_dataset=rows.select([0]), processing_class=processor
    )
    with pytest.raises(ValueError, match=r"places of videos.*VideoChatCollator\(processor\)"):
        trainer.train()


def test_no_card_of_trl_is_written(make_trainer, tmp_path):
    trainer = make_trainer({"save_strategy": "steps", "save_steps": 1})
    trainer.train()
    trainer.save_model()
    assert (tmp_path / "run" / "model.safetensors").is_file() and not list(tmp_path.rglob("README.md"))


def test_everything_is_imported_from_one_place():
    for name in linvt.training.__all__:
        assert getattr(linvt.training, name).__name__ == name
    with pytest.raises(AttributeError, match="VideoSftTrainer"):
        linvt.training.VideoSftTrainer  # noqa: B018


def test_without_trl_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "linvt.training.video_sft_trainer")
    with pytest.raises(ImportError, match=r"pip install 'linvt\[train\]'"):
        linvt.training.VideoSFTTrainer  # noqa: B018
    with pytest.raises(ImportError, match=r"pip install 'linvt\[train\]'"):
        importlib.import_module("linvt.training.video_sft_trainer")
    assert linvt.training.VideoChatCollator is VideoChatCollator
