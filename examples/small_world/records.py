"""What a run in the small world leaves beside its model, so that a card can tell."""

from importlib.metadata import version

from small_world.training import Options

from linvt.hub.model_records import Evaluation, TrainingStage


LIBRARIES = ("linvt", "transformers", "trl", "peft", "torch")


def records(result: dict, options: Options) -> tuple[list[TrainingStage], list[Evaluation]]:
    """Of a variant that is trained in two stages, from what `Run.result` returned."""
    num_aligning = round(options.steps * options.aligned_share)
    shared = {
        "data": "questions about videos of the small world (examples/small_world)",
        "data_on_hub": False,
        "num_rows_left_out": 0,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    stages = [
        TrainingStage(
            stage="alignment",
            learnt=["the video tokenizer"],
            num_rows=result["num_rows"],
            num_steps=num_aligning,
            settings={
                "videos": options.videos,
                "contrastive_weight": options.contrastive_weight,
                "seed": result["seed"],
            },
            **shared,
        ),
        TrainingStage(
            stage="instruction tuning",
            learnt=["the video tokenizer", "LoRA on the LLM"],
            num_rows=result["num_rows_with_pictures"],
            num_steps=options.steps - num_aligning,
            settings={
                "picture_share": options.picture_share,
                "lora_r": options.lora_r,
                "seed": result["seed"],
                "seconds_with_evaluations": result["seconds"],
            },
            **shared,
        ),
    ]
    evaluations = [
        Evaluation(
            evaluated="this model" if stage == "tuned" else "the model after stage 1",
            data=f"{kind} of the small world",
            data_id=f"small-world-{kind}",
            split="test",
            num_examples=result["num_questions"][kind],
            metric="accuracy",
            unit="percent",
            values={about: round(share, 1) for about, share in shares.items()},
        )
        for stage in ("aligned", "tuned")
        for kind, shares in result[stage].items()
    ]
    return stages, evaluations


__all__ = ["records"]
