"""Trains one variant of the video tokenizer in the small world and evaluates it."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from small_world.accuracy import right_by_kind, shares
from small_world.fixed_tokens import PASSES_ON, fixed_tokens
from small_world.flat_videos import FlatVideos
from small_world.long_data import load_or_make_long_videos
from small_world.seen_videos import SeenVideos
from small_world.variants import LINVT, Variant
from small_world.video_data import VideoSet, weights_hash
from small_world.video_rows import Row, RowCollator, picture_rows, video_rows
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed
from trl import SFTConfig

from linvt import LinVTForConditionalGeneration, LinVTProcessor, LinVTVideoConfig, LinVTVideoModel
from linvt.training.training_stages import freeze_for_alignment, lora_for_instruction
from linvt.training.video_sft_trainer import VideoSFTTrainer


@dataclass
class Options:
    image_llm: str  # folder that train_small_image_llm.py wrote
    output: str  # folder for drawn and encoded videos, and for the result of each run
    steps: int = 2400  # in all
    aligned_share: float = 2 / 3  # of the steps; in the second stage the LLM is soon content with what it is given
    videos: int = 8000  # of the small world, in training
    test_videos: int = 1000
    long_videos: int = 1500  # of the long world, 32 shots each on average
    long_test_videos: int = 1200
    test_pictures: int = 1000
    batch_size: int = 32
    learning_rate: float = 1e-3
    contrastive_weight: float = 0.1
    picture_share: float = 0.25  # of the questions while the LLM learns, so that it does not forget pictures
    lora_r: int = 16

    def settings(self, world: str) -> dict[str, int | float | str]:
        """All that figures of a world depend on, wherever the folders are."""
        others = ("videos", "test_videos") if world == "long" else ("long_videos", "long_test_videos")
        settings = {name: value for name, value in asdict(self).items() if name not in others}
        return {**settings, "image_llm": weights_hash(self.image_llm), "output": None}


class Run:
    """One variant with one seed."""

    def __init__(self, variant: Variant, seed: int, options: Options):
        set_seed(seed)
        self.variant, self.seed, self.options = variant, seed, options
        self.processor = AutoProcessor.from_pretrained(options.image_llm)
        image_llm = AutoModelForImageTextToText.from_pretrained(options.image_llm)
        if not torch.cuda.is_available():
            image_llm.set_attn_implementation("eager")  # the fastest on a CPU for sequences as short as these
        # Video tokens that never change are made once, so the model has to pass them on.
        self.is_fixed = variant.video_tokenizer is not None and not variant.aligns
        config = PASSES_ON if self.is_fixed else variant.video_tokenizer or LINVT
        self.model = LinVTForConditionalGeneration.from_image_llm(image_llm, config)
        self.reads = variant.reads or self.model.video_tokenizer.input_stage
        if variant.fresh_projector:
            self.reads = "frames"
            for module in self._projector().modules():
                if isinstance(module, torch.nn.Linear):
                    module.reset_parameters()

    def result(self) -> dict:
        """Accuracies in percent, losses, seconds and numbers of parameters."""
        variant, started = self.variant, time.monotonic()
        result = {"seed": self.seed, "options": self.options.settings(variant.world), "losses": [], "right": {}}
        result["video_tokenizer_parameters"] = sum(p.numel() for p in self.model.video_tokenizer.parameters())
        questions = self._questions()
        result["num_video_tokens"] = questions["videos"].most_video_tokens
        result["num_questions"] = {kind: len(asked.rows) for kind, asked in questions.items()}
        if variant.aligns or variant.tunes_llm:
            videos = self._videos("train")
            rows = video_rows(videos.questions)
            result["num_rows"] = result["num_rows_with_pictures"] = len(rows)
        else:
            self._evaluate("untrained", questions, result)
        share = variant.aligned_share or self.options.aligned_share
        share = share if variant.tunes_llm else 1.0
        num_aligning = round(self.options.steps * share) if variant.aligns else 0
        if variant.aligns:
            freeze_for_alignment(self.model)
            # RED-VILLM's one stage has the next-token loss only.
            weight = self.options.contrastive_weight if variant.tunes_llm else 0.0
            result["losses"] += self._train(rows, videos, num_aligning, weight)
            self._evaluate("aligned", questions, result)
        if variant.tunes_llm:
            share = self.options.picture_share
            rows = [row for row in rows if variant.video_captions or row.question.about != "caption"]
            rows = rows + picture_rows("train", round(len(rows) * share / (1 - share)))
            result["num_rows_with_pictures"] = len(rows)
            rank = self.options.lora_r
            lora = lora_for_instruction(self.model, rank, 2 * rank, learn_video_tokenizer=variant.tunes_tokenizer)
            self.model = get_peft_model(self.model, lora)
            result["losses"] += self._train(rows, videos, self.options.steps - num_aligning, 0.0)
            self._evaluate("tuned", questions, result)
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
    def num_video_tokens(self) -> int | None:
        """Video tokens of each video; `None` where those that were made once say how many they are."""
        if self.is_fixed:
            return None
        return 0 if self.variant.video_tokenizer is None else self._linvt().config.num_video_tokens

    def _linvt(self) -> LinVTForConditionalGeneration:
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    def _videos(self, split: str) -> VideoSet | FlatVideos | SeenVideos:
        """The videos of a split, or the video tokens, or the memories, that were made of them."""
        options, folder = self.options, Path(self.options.output) / "videos"
        if self.variant.world == "long":
            number = options.long_videos if split == "train" else options.long_test_videos
            number = min(number, self.variant.max_test_videos or number) if split == "test" else number
            videos = load_or_make_long_videos(folder, split, number, options.image_llm)
        else:
            number = options.videos if split == "train" else options.test_videos
            videos = VideoSet.load_or_make(folder, split, number, self.variant.num_frames, options.image_llm)
        if self.reads == "memories":
            return SeenVideos(videos, self.model)
        if self.variant.told is not None:
            return self.variant.told(videos, split)
        return fixed_tokens(videos, self._make_tokens()) if self.is_fixed else videos

    def _make_tokens(self) -> Callable[..., torch.Tensor]:
        """The one place where video tokens are made that never change."""
        weights = self.variant.baseline
        if weights is not None:
            return lambda tokens, grid, seconds, shots: weights(tokens, seconds) @ tokens.flatten(1, 2)
        size = self.model.config.video_tokenizer_config.embedding_size
        config = LinVTVideoConfig(**{**self.variant.video_tokenizer, "embedding_size": size})
        tokenizer = LinVTVideoModel(config).eval()
        if self.variant.last_first:
            return lambda *inputs: tokenizer(*inputs).video_tokens.flip(1)
        return lambda *inputs: tokenizer(*inputs).video_tokens

    def _projector(self) -> torch.nn.Module:
        return self._linvt().image_llm.model.multi_modal_projector

    def _collator(self, rows: list[Row], split: str, videos: VideoSet | FlatVideos | SeenVideos | None) -> RowCollator:
        return RowCollator(rows, split, videos, self.processor, self.num_video_tokens, self.reads)

    def _train(
        self, rows: list[Row], videos: VideoSet | FlatVideos | SeenVideos, steps: int, contrastive_weight: float
    ) -> list[dict]:
        if steps == 0:  # which the trainer would take for all epochs
            return []
        if self.variant.fresh_projector:
            self._projector().requires_grad_(True)
        collator = self._collator(rows, "train", videos)
        sizes = [collator.num_video_tokens_of(row) for row in rows]
        numbers = list(range(len(rows)))
        # A batch has equally many video tokens for each video, so where they differ the batches are made up here.
        differ = len(set(sizes) - {0}) > 1
        if differ:
            numbers = in_batches_of_one_size(sizes, self.options.batch_size, self.seed)
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
                train_sampling_strategy="sequential" if differ else "group_by_length",
                length_column_name="length",
                save_strategy="no",
                report_to="none",
                seed=self.seed,
            ),
            contrastive_weight=contrastive_weight,
            data_collator=collator,
            train_dataset=Dataset.from_dict({"row": numbers, "length": [_length(rows[number]) for number in numbers]}),
            processing_class=self.processor,
        )
        trainer.train()
        return [{"step": log["step"], "loss": log["loss"]} for log in trainer.state.log_history if "loss" in log]

    def _questions(self) -> dict[str, RowCollator]:
        videos = self._videos("test")
        return {
            "videos": self._collator(video_rows(videos.questions), "test", videos),
            "pictures": self._collator(picture_rows("test", self.options.test_pictures), "test", None),
        }

    def _evaluate(self, stage: str, questions: dict[str, RowCollator], result: dict) -> None:
        """Adds accuracies in percent, and which answers are right: see `right_by_kind`."""
        right = {kind: right_by_kind(self.model, asked) for kind, asked in questions.items()}
        result["right"][stage] = right
        result[stage] = {kind: shares(answers) for kind, answers in right.items()}


def in_batches_of_one_size(sizes: list[int], batch_size: int, seed: int) -> list[int]:
    """
    Shuffles rows so that those of each `batch_size` in turn have one size, and leaves out those that fill no batch.
    Rows of size 0, which are about no video, go with any.
    """
    rng = np.random.default_rng(seed)
    known = sorted(set(sizes) - {0})
    drawn = [size or known[int(rng.integers(len(known)))] for size in sizes]
    batches = []
    for size in known:
        numbers = rng.permutation([number for number, of_row in enumerate(drawn) if of_row == size])
        batches += [numbers[end - batch_size : end] for end in range(batch_size, len(numbers) + 1, batch_size)]
    return [int(number) for batch in rng.permutation(len(batches)) for number in batches[batch]]


def _length(row: Row) -> int:
    return len(row.question.text.split()) + len(row.question.answer.split())
