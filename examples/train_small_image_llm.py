"""
Trains the small image-LLM of the small world from random weights, on pictures only.

    python examples/train_small_image_llm.py --output_dir small-image-llm

First the vision encoder learns what patches show. Then all of it learns to answer: several questions about one
picture, or about an album (which comes first, where a shape moves). Stop it whenever you like: the same command
goes on from the last checkpoint. At the end OUTPUT_DIR is a folder for `AutoModelForImageTextToText` and `linvt wrap`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from small_world.accuracy import accuracy
from small_world.picture_chats import CollateChats, Pictures
from small_world.small_image_llm import small_llava, small_processor
from small_world.video_rows import RowCollator, picture_rows
from small_world.vision_pretraining import CollateLabelled, LabelledPictures, PatchClassifier
from torch.utils.data import Dataset
from transformers import (
    HfArgumentParser,
    LlavaForConditionalGeneration,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint


@dataclass
class Options:
    output_dir: str
    vision_steps: int = 3000
    steps: int = 6000
    pictures: int = 200_000  # different scenes in training
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    evaluate_every: int = 500  # steps; a checkpoint is written as often
    seed: int = 0


class PictureTrainer(Trainer):
    """Evaluation asks for answers that are right to the last word."""

    held_out: RowCollator

    def evaluate(self, *args, metric_key_prefix: str = "eval", **kwargs) -> dict[str, float]:
        shares = accuracy(self.model, self.held_out)
        metrics = {f"{metric_key_prefix}_{about}": round(share, 1) for about, share in shares.items()}
        self.log(metrics)
        return metrics


def main(options: Options) -> None:
    set_seed(options.seed)
    processor = small_processor()
    checkpoint = get_last_checkpoint(_folder("language", options))
    # The trainer looks for the weights of a LLaVA checkpoint under other names than it has saved them under, finds
    # none and goes on with those of the model (Transformers 5.23). So the model must have them already.
    model = small_llava(processor) if checkpoint is None else LlavaForConditionalGeneration.from_pretrained(checkpoint)
    # The fastest on a CPU for sequences as short as these.
    model.set_attn_implementation("eager")
    if checkpoint is None:
        vision = PatchClassifier(model.model.vision_tower)
        labelled = LabelledPictures(options.pictures)
        _train(Trainer, vision, "vision", options.vision_steps, labelled, CollateLabelled(processor), options)
    rows = Pictures("train", options.pictures, processor)
    PictureTrainer.held_out = RowCollator(picture_rows("validation", 2000), "validation", None, processor, 0)
    if checkpoint is None or not checkpoint.endswith(f"-{options.steps}"):  # the trainer would take one step more
        _train(PictureTrainer, model, "language", options.steps, rows, CollateChats(processor), options)
    model.save_pretrained(options.output_dir)
    processor.save_pretrained(options.output_dir)
    test = RowCollator(picture_rows("test", 4000), "test", None, processor, 0)
    print({about: round(share, 1) for about, share in accuracy(model, test).items()})


def _folder(stage: str, options: Options) -> str:
    folder = Path(options.output_dir) / "checkpoints" / stage
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _train(trainer_class, model, stage: str, steps: int, rows: Dataset, collate, options: Options) -> None:
    arguments = TrainingArguments(
        _folder(stage, options),
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=200,
        weight_decay=0.01,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=100,
        eval_strategy="steps" if trainer_class is PictureTrainer else "no",
        eval_steps=options.evaluate_every,
        save_steps=options.evaluate_every,
        save_total_limit=1,
        dataloader_num_workers=1,
        remove_unused_columns=False,
        report_to="none",
        seed=options.seed,
    )
    trainer = trainer_class(model, arguments, data_collator=collate, train_dataset=rows, eval_dataset=rows)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir))


if __name__ == "__main__":
    main(HfArgumentParser(Options).parse_args_into_dataclasses()[0])
