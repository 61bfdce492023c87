"""Training runs of tiny models, in this process or as a script of its own that can be killed or launched twice.

    python tests/training_runs.py FOLDER STAGE STEPS [KILL_AFTER_STEPS]

FOLDER holds what `prepare` writes: a model, a processor, and rows. What is logged goes to FOLDER/log.jsonl. A step
takes 4 rows, shared by the processes.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.training.training_stages import freeze_for_alignment, lora_for_instruction
from linvt.training.video_chat_collator import VideoChatCollator
from linvt.training.video_sft_trainer import VideoSFTTrainer


def row(question: str, answer: str, video=None) -> dict:
    parts = [] if video is None else [{"type": "video", "video": str(video), "text": None}]
    parts.append({"type": "text", "text": question, "video": None})
    return {
        "messages": [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [{"type": "text", "text": answer, "video": None}]},
        ]
    }


def prepare(folder: Path, model, processor, rows: list[dict]) -> Path:
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def settings(folder: Path, steps: int, **changes) -> SFTConfig:
    return SFTConfig(
        **{
            "output_dir": str(folder / "run"),
            "max_steps": steps,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_steps": 2,
            "save_only_model": False,
            "bf16": False,
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            **changes,
        }
    )


def make_trainer(folder: Path, stage: str, args: SFTConfig, eval_rows: list[dict] | None = None) -> Trainer:
    """That of a stage; or with `"plain"` Transformers' own, by which all weights learn (with gradient checkpointing,
    which is on by default in `SFTConfig`)."""
    model = LinVTForConditionalGeneration.from_pretrained(folder / "model")
    processor = LinVTProcessor.from_pretrained(folder / "model")
    if stage == "plain":
        args.remove_unused_columns = False
        rows = Dataset.from_list(json.loads((folder / "rows.json").read_text()))
        return Trainer(model, args, VideoChatCollator(processor), rows, processing_class=processor)
    extra = {}
    if stage == "alignment":
        model, extra["contrastive_weight"] = freeze_for_alignment(model), 0.5
    else:
        extra["peft_config"] = lora_for_instruction(model, r=4, lora_alpha=8)
    return VideoSFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(json.loads((folder / "rows.json").read_text())),
        eval_dataset=None if eval_rows is None else Dataset.from_list(eval_rows),
        data_collator=VideoChatCollator(processor),
        processing_class=processor,
        **extra,
    )


class Killer(TrainerCallback):
    """Ends the process as a power cut would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Log(TrainerCallback):
    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def read_log(folder: Path) -> dict[int, dict]:
    """What was logged last at each step of training."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "loss" in line}


def allow_fsdp_on_cpus(args: SFTConfig) -> None:
    """accelerate shards over GPUs only. PyTorch's FSDP2 works over CPUs as well, so they pass for GPUs."""
    assert args.device.type == "cpu"  # asking sets up the process group
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def main(folder: Path, stage: str, steps: int, kill_after: int = 0) -> None:
    torch.set_num_threads(1)
    args = settings(folder, steps, per_device_train_batch_size=4 // int(os.environ.get("WORLD_SIZE", 1)))
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        allow_fsdp_on_cpus(args)
    trainer = make_trainer(folder, stage, args)
    trainer.add_callback(Log(folder / "log.jsonl"))
    if kill_after:
        trainer.add_callback(Killer(kill_after))
    checkpoint = get_last_checkpoint(folder / "run") if (folder / "run").is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(folder / "result")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
