"""What the two training scripts share: their options, the data, a run that can be resumed, and what it leaves."""

import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from accelerate import PartialState
from datasets import Dataset, load_dataset
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoProcessor
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging
from trl import SFTConfig, TrlParser

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.configuration.known_settings import own_settings
from linvt.hub.model_card import write_model_card
from linvt.hub.model_records import RECORD_FILES, TrainingStage, read_records, write_records
from linvt.training import FrameTokenCache, VideoChatCollator, VideoSFTTrainer, keep_good_rows, number_rows


logger = logging.get_logger("linvt")


@dataclass
class DataArguments:
    _argument_group_name: ClassVar[str] = "options of linvt"  # for --help, apart from the 140 of SFTConfig
    contrastive_weight = 0.0  # an option of the alignment stage alone

    model: str = field(metadata={"help": "Folder or Hub id of a LinVT model."})
    dataset: str = field(metadata={"help": "A .json or .jsonl file of rows, or a Hub id, with :split if not train."})
    eval_dataset: str | None = field(default=None, metadata={"help": "The same for evaluation."})
    skip_bad_rows: bool = field(default=False, metadata={"help": "Leave bad rows out instead of ending."})
    num_frames: int | None = field(default=None, metadata={"help": "Frames per video; the processor's by default."})
    shot_detection: str | None = field(
        default=None,
        metadata={
            "choices": ["auto", "autoshot", "uniform"],
            "help": "The processor's by default. uniform is much faster than autoshot, which sees every frame.",
        },
    )
    frame_size: list[int] | None = field(
        default=None, metadata={"help": "Height and width of frames in pixels; the processor's by default."}
    )
    max_tokens: int | None = field(default=None, metadata={"help": "Rows with more tokens are bad."})
    max_video_seconds: float | None = field(default=None, metadata={"help": "Rows with longer videos are bad."})
    frame_token_cache: str | None = field(
        default=None, metadata={"help": "Folder for what the vision encoder makes of the frames, computed once."}
    )


Arguments = TypeVar("Arguments", bound=DataArguments)


@dataclass(frozen=True)
class TrainingRows:
    """
    The rows of a training.

    Args:
        train (`datasets.Dataset`): Good rows.
        evaluation (`datasets.Dataset`, *optional*): The same for evaluation.
        num_left_out (`int`): Bad rows that are not in `train`.
    """

    train: Dataset
    evaluation: Dataset | None
    num_left_out: int


def parse_arguments(kind: type[Arguments]) -> tuple[Arguments, SFTConfig]:
    """Reads the options, and ends with one line where they cannot work, before anything is loaded."""
    parser = TrlParser((kind, SFTConfig))
    try:
        arguments, config = parser.parse_args_and_config()
        check_settings(arguments, config)
    except (OSError, RuntimeError, ValueError) as error:
        hint = ""
        if "bf16" in str(error):
            hint = " bf16 is on unless you switch it off: --use_cpu trains on the CPU, --bf16 false in float32."
        raise SystemExit(f"{parser.prog}: {error}{hint}") from None
    return arguments, config


def check_settings(arguments: DataArguments, config: SFTConfig) -> None:
    """
    Finds what would end the training hours later, when all rows have been checked.

    Raises:
        `ValueError` or `RuntimeError`: If a setting cannot work, or what it needs is not installed.
    """
    if config.push_to_hub:
        raise ValueError(
            f"push_to_hub is set, but the trainer would push before {config.output_dir} is whole, without what the "
            f"model card tells, or of stage 2 the adapter alone. Leave it out; then `linvt push {config.output_dir}`."
        )
    if arguments.frame_size is not None and len(arguments.frame_size) != 2:
        raise ValueError(f"frame_size is {arguments.frame_size}; give height and width of frames in pixels.")
    VideoSFTTrainer.check_settings(config, arguments.contrastive_weight)
    for callback in get_reporting_integration_callbacks(config.report_to):
        callback()  # raises an error where its library is missing, as it would for the trainer


def load_model_and_processor(
    arguments: DataArguments, video_tokenizer: dict | str | None = None, **kwargs
) -> tuple[LinVTForConditionalGeneration, LinVTProcessor]:
    """Loads a LinVT model and its processor; an image-LLM gets a fresh video tokenizer, of this configuration."""
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
        processor = LinVTProcessor.from_image_llm_processor(AutoProcessor.from_pretrained(name), model=model)
    for setting in ("num_frames", "shot_detection"):
        if getattr(arguments, setting) is not None:
            setattr(processor.video_processor, setting, getattr(arguments, setting))
    if arguments.frame_size is not None:
        processor.video_processor.size = dict(zip(("height", "width"), arguments.frame_size, strict=True))
    processor.video_processor.frame_options()  # raises an error for settings of a --config file that cannot work
    return model, processor


def stages_of(name: str) -> list[TrainingStage]:
    """Reads the records of the stages that a model has been through; an image-LLM has none."""
    if AutoConfig.from_pretrained(name).model_type != "linvt":
        return []
    folder = name if Path(name).is_dir() else snapshot_download(name, allow_patterns=RECORD_FILES[TrainingStage])
    return read_records(folder, TrainingStage)


def load_training_rows(arguments: DataArguments, config: SFTConfig, processor: LinVTProcessor) -> TrainingRows:
    """Loads rows of TRL's conversational form and checks them all, with `--dataset_num_proc` processes."""
    loaded = {name: _load_rows(name) for name in (arguments.dataset, arguments.eval_dataset) if name is not None}
    good = {
        name: keep_good_rows(
            rows,
            processor,
            skip_bad_rows=arguments.skip_bad_rows,
            max_length=arguments.max_tokens,
            max_video_seconds=arguments.max_video_seconds,
            num_workers=config.dataset_num_proc or 0,
        )
        for name, rows in loaded.items()
    }
    train = good[arguments.dataset]
    return TrainingRows(train, good.get(arguments.eval_dataset), len(loaded[arguments.dataset]) - len(train))


def _load_rows(name: str) -> Dataset:
    if Path(name).suffix in (".json", ".jsonl"):
        return number_rows(load_dataset("json", data_files=name, split="train"))
    hub_id, _, split = name.partition(":")
    return number_rows(load_dataset(hub_id, split=split or "train"))


def make_trainer(
    model, processor: LinVTProcessor, rows: TrainingRows, arguments: DataArguments, config: SFTConfig, **kwargs
) -> VideoSFTTrainer:
    """Makes the trainer, and before it the frame token cache if one is asked for."""
    cache = None
    if arguments.frame_token_cache is not None:
        # Before anything is sharded: every process has the whole model while it encodes its share of the videos.
        dtype = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None
        cache = FrameTokenCache(arguments.frame_token_cache, model.to(config.device), processor, dtype)
        for part in (rows.train, rows.evaluation):
            if part is not None:
                cache.build(part, num_workers=config.dataloader_num_workers)
        PartialState().wait_for_everyone()
    return VideoSFTTrainer(
        model=model,
        args=config,
        contrastive_weight=arguments.contrastive_weight,
        train_dataset=rows.train,
        eval_dataset=rows.evaluation,
        data_collator=VideoChatCollator(
            processor, cache, max_length=arguments.max_tokens, skip_bad_rows=arguments.skip_bad_rows
        ),
        processing_class=processor,
        **kwargs,
    )


def train(trainer: VideoSFTTrainer, config: SFTConfig) -> None:
    """Trains, from the last checkpoint in the output folder where `--resume_from_checkpoint last` says so."""
    checkpoint = config.resume_from_checkpoint
    if checkpoint == "last":
        checkpoint = get_last_checkpoint(config.output_dir) if Path(config.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)


def end(trainer: VideoSFTTrainer) -> None:
    """Ends all ranks together: one that leaves its process group open may be aborted by the group's threads."""
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


def record(
    trainer: VideoSFTTrainer, rows: TrainingRows, arguments: DataArguments, stage: str, learnt: list[str], **settings
) -> TrainingStage:
    """Describes this training for the model card."""
    config, name = trainer.args, arguments.dataset
    hub_id, _, split = name.partition(":")
    is_local = Path(name).suffix in (".json", ".jsonl") or Path(name).exists()
    return TrainingStage(
        stage=stage,
        learnt=learnt,
        data=Path(name).name if is_local else hub_id,
        data_on_hub=not is_local,
        num_rows=len(rows.train),
        num_rows_left_out=rows.num_left_out,
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


def describe_model(folder: str, stages: list[TrainingStage]) -> None:
    """Writes `training.json` and the model card, `README.md`, into the folder of a trained model."""
    write_records(folder, stages)
    try:
        write_model_card(folder, "full")
    except ValueError as error:  # such as a licence that nobody can look up now; the model itself is saved
        logger.warning(f"{folder} has no README.md yet: {error} `linvt export` and `linvt push` write one.")
