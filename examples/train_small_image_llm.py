"""
Trains the small image-LLM of the small world from random weights, on pictures only.

    python examples/train_small_image_llm.py --output_dir small-image-llm

First the vision encoder learns what patches show. Then projector and LLM learn to answer several questions about one
picture, and at last also about an album (which comes first, where a shape moves): from albums at once they did not
learn which colour belongs to which kind. Stop it whenever you like: the same command goes on from
the last checkpoint. At the end OUTPUT_DIR is a folder for `AutoModelForImageTextToText` and `linvt wrap`, and
accuracy.json in it says how right it is about pictures and albums of the test. To ask an image-LLM that is there:

    python examples/train_small_image_llm.py --start docs/small_world_runs/image_llm --album_steps 0 --output_dir asked
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from small_world.accuracy import accuracy
from small_world.picture_chats import CollateChats, Pictures, shuffle_tokens
from small_world.small_image_llm import small_llava, small_processor
from small_world.video_rows import RowCollator, album_rows, picture_rows
from small_world.vision_pretraining import CollateLabelled, LabelledPictures, PatchClassifier
from torch.utils.data import Dataset
from transformers import (
    HfArgumentParser,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint


@dataclass
class Options:
    output_dir: str
    start: str | None = None  # an image-LLM that knows single pictures, to go on from with albums
    vision_steps: int = 1500
    picture_steps: int = 2000  # about single pictures
    album_steps: int = 4000  # about pictures and albums
    pictures: int = 200_000  # different scenes in training
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    evaluate_every: int = 500  # steps; a checkpoint is written as often
    workers: int = 1  # processes that draw; one keeps a CPU busy, an accelerator needs a dozen
    seed: int = 0


class PictureTrainer(Trainer):
    """Evaluation asks for answers that are right to the last word."""

    processor: LlavaProcessor

    def evaluate(self, *args, metric_key_prefix: str = "eval", **kwargs) -> dict[str, float]:
        metrics = {
            f"{metric_key_prefix}_{kind}_{about}": share
            for kind, shares in _accuracies(self.model, self.processor, "validation", 1000).items()
            for about, share in shares.items()
        }
        self.log(metrics)
        return metrics


def main(options: Options) -> None:
    set_seed(options.seed)
    processor = small_processor()
    # The trainer looks for the weights of a LLaVA checkpoint under other names than it has saved them under, finds
    # none and goes on with those of the model (Transformers 5.23). So the model must have them already.
    done = {stage: get_last_checkpoint(_folder(stage, options)) for stage in ("pictures", "albums")}
    start = done["albums"] or done["pictures"] or options.start
    model = small_llava(processor) if start is None else LlavaForConditionalGeneration.from_pretrained(start)
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")  # the fastest on a CPU for sequences as short as these
    if start is None:
        vision = PatchClassifier(model.model.vision_tower)
        labelled = LabelledPictures(options.pictures)
        _train(Trainer, vision, "vision", options.vision_steps, labelled, CollateLabelled(processor), options)
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.register_forward_hook(shuffle_tokens)
    PictureTrainer.processor = processor
    if options.start is None and done["albums"] is None:
        _train_language(model, "pictures", options.picture_steps, False, options)
    _train_language(model, "albums", options.album_steps, True, options)
    model.save_pretrained(options.output_dir)
    processor.save_pretrained(options.output_dir)
    # Loaded again: after training in mixed precision a model goes on with it.
    saved = LlavaForConditionalGeneration.from_pretrained(options.output_dir).eval()
    shares = _accuracies(saved, processor, "test", 4000)
    (Path(options.output_dir) / "accuracy.json").write_text(json.dumps(shares, indent=1))
    print(json.dumps(shares))


def _train_language(model, stage: str, steps: int, albums: bool, options: Options) -> None:
    if not str(get_last_checkpoint(_folder(stage, options))).endswith(f"-{steps}"):  # it would take one step more
        processor = PictureTrainer.processor
        rows = Pictures("train", options.pictures, processor, albums)
        _train(PictureTrainer, model, stage, steps, rows, CollateChats(processor), options)


def _accuracies(model, processor: LlavaProcessor, split: str, number: int) -> dict[str, dict[str, float]]:
    """Percent of right answers about as many pictures and as many albums, per kind of question."""
    rows = {"pictures": picture_rows(split, number), "albums": album_rows(split, number)}
    shares = {kind: accuracy(model, RowCollator(asked, split, None, processor, 0)) for kind, asked in rows.items()}
    return {kind: {about: round(share, 1) for about, share in found.items()} for kind, found in shares.items()}


def _folder(stage: str, options: Options) -> str:
    folder = Path(options.output_dir) / "checkpoints" / stage
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _train(trainer_class, model, stage: str, steps: int, rows: Dataset, collate, options: Options) -> None:
    if steps == 0:  # which the trainer would take for all epochs
        return
    arguments = TrainingArguments(
        _folder(stage, options),
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=200,
        weight_decay=0.01,
        use_cpu=not torch.cuda.is_available(),
        bf16=not torch.cuda.is_available(),  # on an accelerator, casting would take longer than computing
        logging_steps=100,
        eval_strategy="steps" if trainer_class is PictureTrainer else "no",
        eval_steps=options.evaluate_every,
        save_steps=options.evaluate_every,
        save_total_limit=1,
        dataloader_num_workers=options.workers,
        remove_unused_columns=False,
        report_to="none",
        seed=options.seed,
    )
    trainer = trainer_class(model, arguments, data_collator=collate, train_dataset=rows, eval_dataset=rows)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir))


if __name__ == "__main__":
    main(HfArgumentParser(Options).parse_args_into_dataclasses()[0])
