"""Trains one variant of the video tokenizer in the small world and evaluates it."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from small_world.accuracy import accuracy
from small_world.variants import LINVT, Variant
from small_world.video_data import VideoSet, weights_hash
from small_world.video_rows import Row, RowCollator, picture_rows, video_rows
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed
from trl import SFTConfig

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.training.training_stages import freeze_for_alignment, lora_for_instruction
from linvt.training.video_sft_trainer import VideoSFTTrainer


@dataclass
class Options:
    image_llm: str  # folder that train_small_image_llm.py wrote
    output: str  # folder for drawn and encoded videos, and for the result of each run
    steps: int = 2400  # in all
    aligned_share: float = 2 / 3  # of the steps; in the second stage the LLM is soon content with what it is given
    videos: int = 8000  # in training
    test_videos: int = 1000
    test_pictures: int = 1000
    batch_size: int = 32
    learning_rate: float = 1e-3
    contrastive_weight: float = 0.1
    picture_share: float = 0.25  # of the questions while the LLM learns, so that it does not forget pictures
    lora_r: int = 16

    def settings(self) -> dict[str, int | float | str]:
        """All that figures depend on, wherever the folders are."""
        return {**asdict(self), "image_llm": weights_hash(self.image_llm), "output": None}


class Run:
    """One variant with one seed."""

    def __init__(self, variant: Variant, seed: int, options: Options):
        set_seed(seed)
        self.variant, self.seed, self.options = variant, seed, options
        self.processor = AutoProcessor.from_pretrained(options.image_llm)
        image_llm = AutoModelForImageTextToText.from_pretrained(options.image_llm)
        if not torch.cuda.is_available():
            image_llm.set_attn_implementation("eager")  # the fastest on a CPU for sequences as short as these
        self.model = LinVTForConditionalGeneration.from_image_llm(image_llm, variant.video_tokenizer or LINVT)
        self.reads = self.model.video_tokenizer.input_stage
        if variant.fresh_projector:
            self.reads = "frames"
            for module in self._projector().modules():
                if isinstance(module, torch.nn.Linear):
                    module.reset_parameters()

    def result(self) -> dict:
        """Accuracies in percent, losses, seconds and numbers of parameters."""
        variant, started = self.variant, time.monotonic()
        result = {"seed": self.seed, "options": self.options.settings()}
        result.update(num_video_tokens=self.num_video_tokens, losses=[])
        result["video_tokenizer_parameters"] = sum(p.numel() for p in self.model.video_tokenizer.parameters())
        videos = self._videos("train", self.options.videos)
        rows = video_rows(videos)
        result["num_rows"] = result["num_rows_with_pictures"] = len(rows)
        questions = self._questions()
        result["num_questions"] = {kind: len(asked.rows) for kind, asked in questions.items()}
        share = self.options.aligned_share if variant.tunes_llm else 1.0
        num_aligning = round(self.options.steps * share) if variant.aligns else 0
        if variant.aligns:
            freeze_for_alignment(self.model)
            # RED-VILLM's one stage has the next-token loss only.
            weight = self.options.contrastive_weight if variant.tunes_llm else 0.0
            result["losses"] += self._train(rows, videos, num_aligning, weight)
            result["aligned"] = self._accuracies(questions)
        if variant.tunes_llm:
            share = self.options.picture_share
            rows = rows + picture_rows("train", round(len(rows) * share / (1 - share)))
            result["num_rows_with_pictures"] = len(rows)
            lora = lora_for_instruction(self.model, r=self.options.lora_r, lora_alpha=2 * self.options.lora_r)
            self.model = get_peft_model(self.model, lora)
            result["losses"] += self._train(rows, videos, self.options.steps - num_aligning, 0.0)
            result["tuned"] = self._accuracies(questions)
        result["seconds"] = round(time.monotonic() - started)
        return result

    def save(self, folder: str) -> None:
        """The trained model, LoRA merged into it, and its processor."""
        model = self.model.merge_and_unload() if isinstance(self.model, PeftModel) else self.model
        model.save_pretrained(folder)
        LinVTProcessor.from_image_llm_processor(
            self.processor, model=model, num_frames=self.variant.num_frames
        ).save_pretrained(folder)

    @property
    def num_video_tokens(self) -> int:
        return 0 if self.variant.video_tokenizer is None else self._linvt().config.num_video_tokens

    def _linvt(self) -> LinVTForConditionalGeneration:
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    def _videos(self, split: str, number: int) -> VideoSet:
        folder = Path(self.options.output) / "videos"
        return VideoSet.load_or_make(folder, split, number, self.variant.num_frames, self.options.image_llm)

    def _projector(self) -> torch.nn.Module:
        return self._linvt().image_llm.model.multi_modal_projector

    def _collator(self, rows: list[Row], split: str, videos: VideoSet | None) -> RowCollator:
        return RowCollator(rows, split, videos, self.processor, self.num_video_tokens, self.reads)

    def _train(self, rows: list[Row], videos: VideoSet, steps: int, contrastive_weight: float) -> list[dict]:
        if steps == 0:  # which the trainer would take for all epochs
            return []
        if self.variant.fresh_projector:
            self._projector().requires_grad_(True)
        trainer = VideoSFTTrainer(
            self.model,
            SFTConfig(
                str(Path(self.options.output) / "trainer"),
                max_steps=steps,
                per_device_train_batch_size=self.options.batch_size,
                learning_rate=self.options.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=steps // 20,
                use_cpu=not torch.cuda.is_available(),
                # On an accelerator tensors as small as these cost their launch, and casts are launches too.
                bf16=not torch.cuda.is_available(),
                gradient_checkpointing=False,
                logging_steps=50,
                # Captions are several times as long as other answers, and contrast with each other.
                train_sampling_strategy="group_by_length",
                length_column_name="length",
                save_strategy="no",
                report_to="none",
                seed=self.seed,
            ),
            contrastive_weight=contrastive_weight,
            data_collator=self._collator(rows, "train", videos),
            train_dataset=Dataset.from_dict({"row": range(len(rows)), "length": [_length(row) for row in rows]}),
            processing_class=self.processor,
        )
        trainer.train()
        return [{"step": log["step"], "loss": log["loss"]} for log in trainer.state.log_history if "loss" in log]

    def _questions(self) -> dict[str, RowCollator]:
        videos = self._videos("test", self.options.test_videos)
        return {
            "videos": self._collator(video_rows(videos), "test", videos),
            "pictures": self._collator(picture_rows("test", self.options.test_pictures), "test", None),
        }

    def _accuracies(self, questions: dict[str, RowCollator]) -> dict[str, dict[str, float]]:
        return {kind: accuracy(self.model, asked) for kind, asked in questions.items()}


def _length(row: Row) -> int:
    return len(row.question.text.split()) + len(row.question.answer.split())
