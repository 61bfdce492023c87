"""What the two training scripts share: their settings, the data, and a run that can be resumed."""

import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset, load_dataset
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoProcessor
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.configuration.known_settings import own_settings
from linvt.hub.model_records import RECORD_FILES, TrainingStage, read_records, write_records
from linvt.training.frame_token_cache import FrameTokenCache
from linvt.training.row_checks import keep_good_rows
from linvt.training.training_rows import number_rows
from linvt.training.video_chat_collator import VideoChatCollator
from linvt.training.video_sft_trainer import VideoSFTTrainer


@dataclass
class DataArguments:
    model: str = field(metadata={"help": "Folder or Hub id of a LinVT model."})
    dataset: str = field(metadata={"help": "A .json or .jsonl file of rows, or a Hub id, with :split if not train."})
    eval_dataset: str | None = field(default=None, metadata={"help": "The same for evaluation."})
    skip_bad_rows: bool = field(default=False, metadata={"help": "Leave bad rows out instead of ending."})
    num_frames: int | None = field(default=None, metadata={"help": "Frames per video; the processor's by default."})
    shot_detection: str | None = field(
        default=None, metadata={"help": "'uniform' is much faster than 'autoshot', which sees every frame."}
    )
    max_tokens: int | None = field(default=None, metadata={"help": "Rows with more tokens are bad."})
    max_video_seconds: float | None = field(default=None, metadata={"help": "Rows with longer videos are bad."})
    frame_token_cache: str | None = field(
        default=None, metadata={"help": "Folder for what the vision encoder makes of the frames, computed once."}
    )

    def __post_init__(self) -> None:
        # For the record of this training.
        self.num_rows: dict[str, int] = {}  # of each data set, bad rows included
        self.stages_before: list[TrainingStage] = []


def load_model_and_processor(
    arguments: DataArguments, video_tokenizer: dict | str | None = None, **kwargs
) -> tuple[LinVTForConditionalGeneration, LinVTProcessor]:
    """A LinVT model and its processor; an image-LLM gets a fresh video tokenizer, of this configuration."""
    name = arguments.model
    if AutoConfig.from_pretrained(name).model_type == "linvt":
        if video_tokenizer is not None:
            raise ValueError(f"{name} has a video tokenizer; video_tokenizer is for an image-LLM without one.")
        model = LinVTForConditionalGeneration.from_pretrained(name, **kwargs)
        processor = LinVTProcessor.from_pretrained(name)
    else:
        settings = json.loads(video_tokenizer) if isinstance(video_tokenizer, str) else video_tokenizer
        model = LinVTForConditionalGeneration.from_image_llm(name, settings, **kwargs)
        made = ", ".join(f"{key} {value}" for key, value in own_settings(model.config.video_tokenizer_config).items())
        num_parameters = model.video_tokenizer.num_parameters()
        PartialState().print(f"Fresh video tokenizer of {num_parameters / 1e6:.1f} M parameters: {made}.")
        processor = LinVTProcessor.from_image_llm_processor(
            AutoProcessor.from_pretrained(name), num_video_tokens=model.config.num_video_tokens
        )
    for setting in ("num_frames", "shot_detection"):
        if getattr(arguments, setting) is not None:
            setattr(processor.video_processor, setting, getattr(arguments, setting))
    return model, processor


def load_rows(name: str, processor: LinVTProcessor, arguments: DataArguments) -> Dataset:
    """Rows of TRL's conversational form, checked before anything is trained."""
    if Path(name).suffix in (".json", ".jsonl"):
        rows = load_dataset("json", data_files=name, split="train")
    else:
        hub_id, _, split = name.partition(":")
        rows = load_dataset(hub_id, split=split or "train")
    rows = number_rows(rows)
    arguments.num_rows[name] = len(rows)
    limits = (arguments.max_tokens, arguments.max_video_seconds)
    return keep_good_rows(rows, processor, arguments.skip_bad_rows, *limits)


def make_trainer(model, processor, arguments: DataArguments, config: SFTConfig, **kwargs) -> VideoSFTTrainer:
    if config.push_to_hub:
        raise ValueError(
            f"push_to_hub is set, but the trainer would push before {config.output_dir} is whole, without what the "
            f"model card tells, or of stage 2 the adapter alone. Leave it out; then `linvt push {config.output_dir}`."
        )
    folder = arguments.model
    if not Path(folder).is_dir():
        folder = snapshot_download(folder, allow_patterns=RECORD_FILES[TrainingStage])
    if AutoConfig.from_pretrained(arguments.model).model_type == "linvt":
        arguments.stages_before = read_records(folder, TrainingStage)
    rows = load_rows(arguments.dataset, processor, arguments)
    eval_rows = None if arguments.eval_dataset is None else load_rows(arguments.eval_dataset, processor, arguments)
    cache = None
    if arguments.frame_token_cache is not None:
        # Before anything is sharded: every process has the whole model while it encodes its share of the videos.
        dtype = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None
        cache = FrameTokenCache(arguments.frame_token_cache, model.to(config.device), processor, dtype)
        for part in (rows, eval_rows):
            if part is not None:
                cache.build(part, num_workers=config.dataloader_num_workers)
        PartialState().wait_for_everyone()
    return VideoSFTTrainer(
        model=model,
        args=config,
        train_dataset=rows,
        eval_dataset=eval_rows,
        data_collator=VideoChatCollator(processor, cache, arguments.max_tokens, arguments.skip_bad_rows),
        processing_class=processor,
        **kwargs,
    )


def train(trainer: VideoSFTTrainer, config: SFTConfig) -> None:
    """From the last checkpoint in the output folder where `--resume_from_checkpoint last` says so."""
    checkpoint = config.resume_from_checkpoint
    if checkpoint == "last":
        checkpoint = get_last_checkpoint(config.output_dir) if Path(config.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)


def record(trainer: VideoSFTTrainer, arguments: DataArguments, stage: str, learnt: list[str], **settings) -> None:
    """Writes into training.json, after the stages of the model that this one began with, what the card shall tell."""
    config, name = trainer.args, arguments.dataset
    hub_id, _, split = name.partition(":")
    is_local = Path(name).suffix in (".json", ".jsonl") or Path(name).exists()
    num_rows = len(trainer.train_dataset)
    done = TrainingStage(
        stage=stage,
        learnt=learnt,
        data=Path(name).name if is_local else hub_id,
        data_on_hub=not is_local,
        num_rows=num_rows,
        num_rows_left_out=arguments.num_rows[name] - num_rows,
        num_steps=trainer.state.global_step,
        batch_size=config.train_batch_size * config.gradient_accumulation_steps * config.world_size,
        learning_rate=config.learning_rate,
        settings={
            "split": split or "train",
            "skip_bad_rows": arguments.skip_bad_rows,
            "lr_scheduler_type": config.lr_scheduler_type,
            "seed": config.seed,
            "bf16": config.bf16,
            **settings,
        },
        versions={name: version(name) for name in ("linvt", "transformers", "trl", "peft", "torch")},
    )
    write_records(config.output_dir, [*arguments.stages_before, done])
