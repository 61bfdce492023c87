"""
Trains the AutoShot network on a folder of videos, cut together at random, and on invented scenes.

    python examples/train_autoshot.py --videos my_videos --held_out my_other_videos --output autoshot --bf16

Videos may contain cuts; they are split where a cut may be. Stop it whenever you like: the same command goes on from
the last checkpoint. At each evaluation, and at the end, the threshold is chosen on films made of the held-out videos;
OUTPUT is then a folder for `AutoShotModel.from_pretrained` and for `linvt shots --autoshot`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from synthetic_shots.pictures import Footage
from synthetic_shots.transitions import Film, make_film
from synthetic_shots.windows import Windows
from transformers import HfArgumentParser, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from linvt import AutoShotConfig, AutoShotModel
from linvt.processors.shots.shot_evaluation import TransitionCounts, count_transitions, scenes_from_probabilities


@dataclass
class Options:
    videos: Path  # folder of videos to learn from
    held_out: Path  # folder of videos to choose the threshold on, not learned from
    output: Path  # folder for the trained weights and, in OUTPUT/checkpoints, for what training needs to go on
    start: str | None = None  # weights to start from, Hub id or folder; by default random ones
    steps: int = 2000
    windows_per_step: int = 4
    learning_rate: float = 1e-3
    evaluate_every: int = 250  # steps; a checkpoint is written as often
    held_out_films: int = 4  # of 14 shots each, made of the held-out videos
    footage_share: float = 0.5  # the other shots are invented
    seed: int = 0
    bf16: bool = False  # about twice as fast where the processor has bfloat16
    device: str = "cpu"


class AutoShotTrainer(Trainer):
    """Both heads learn; evaluation finds the shots of whole films."""

    films: list[Film]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(inputs["frames"])
        # Few frames are positive.
        rare = torch.tensor(2.0, device=outputs.one_hot_logits.device)
        loss = F.binary_cross_entropy_with_logits(outputs.one_hot_logits, inputs["one_hot"], pos_weight=rare)
        loss = loss + 0.2 * F.binary_cross_entropy_with_logits(outputs.many_hot_logits, inputs["many_hot"])
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args, metric_key_prefix: str = "eval", **kwargs) -> dict[str, float]:
        model = self.model.eval()
        probabilities = [model.shot_probabilities(film.frames).cpu() for film in self.films]
        found = {t: count_films(self.films, probabilities, t) for t in np.arange(0.02, 0.99, 0.02).round(2)}
        # Few films leave many thresholds equally good; the one in their middle is the safest elsewhere.
        best_f1 = max(counts.f1 for counts in found.values())
        best = [t for t, counts in found.items() if counts.f1 == best_f1]
        threshold = best[len(best) // 2]
        counts = found[threshold]
        model.config.threshold = float(threshold)
        figures = {"threshold": threshold, "f1": counts.f1, "precision": counts.precision, "recall": counts.recall}
        metrics = {f"{metric_key_prefix}_{name}": float(value) for name, value in figures.items()}
        self.log(metrics)
        return metrics


def count_films(films: list[Film], probabilities: list[torch.Tensor], threshold: float) -> TransitionCounts:
    counts = TransitionCounts()
    for film, values in zip(films, probabilities, strict=True):
        counts += count_transitions(film.scenes, scenes_from_probabilities(values, threshold))
    return counts


def load_footage(folder: Path, config: AutoShotConfig) -> Footage:
    """Twice as large as the network sees it, so that there is something to crop."""
    return Footage(sorted(folder.iterdir()), 2 * config.frame_height, 2 * config.frame_width)


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    torch.manual_seed(options.seed)
    model = AutoShotModel(AutoShotConfig())
    if options.start is not None:
        model = AutoShotModel.from_pretrained(options.start, dtype=torch.float32)
    checkpoints = options.output / "checkpoints"
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=options.steps,
        per_device_train_batch_size=options.windows_per_step,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(50, options.steps // 10),
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=options.bf16,
        use_cpu=options.device == "cpu",
        eval_strategy="steps",
        eval_steps=options.evaluate_every,
        save_steps=options.evaluate_every,
        save_total_limit=2,
        logging_steps=10,
        seed=options.seed,
        train_sampling_strategy="sequential",
        dataloader_num_workers=1,
        remove_unused_columns=False,
        report_to="none",
    )
    num_windows = options.steps * options.windows_per_step
    footage = load_footage(options.videos, model.config)
    windows = Windows(footage, model.config, num_windows, options.footage_share, options.seed)
    trainer = AutoShotTrainer(model=model, args=arguments, train_dataset=windows, eval_dataset=windows)
    held_out, rng = load_footage(options.held_out, model.config), np.random.default_rng(options.seed)
    size = model.config.frame_height, model.config.frame_width

    def filmed(rng: np.random.Generator, num_frames: int) -> torch.Tensor:
        return F.interpolate(held_out.as_filmed(rng, num_frames), size, mode="area")

    trainer.films = [make_film(rng, filmed, 14, (10, 90)) for _ in range(options.held_out_films)]
    trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None)
    trainer.evaluate()
    # Half the size on disk; the configuration says float32, and so it is loaded.
    weights = {name: value.half() if value.ndim > 1 else value for name, value in model.state_dict().items()}
    model.save_pretrained(options.output, state_dict=weights)


if __name__ == "__main__":
    main()
