"""
Stage 1, video-language alignment: the video tokenizer learns, on next-token loss and the video-text contrastive loss.

    python examples/train_alignment.py --model llava-hf/llava-1.5-7b-hf --dataset captions.jsonl --output_dir aligned
    accelerate launch --config_file examples/accelerate/fsdp2.yaml examples/train_alignment.py --config alignment.yaml

Every option, also those of TRL's `SFTConfig`, may stand in the YAML file. A row of the data set is
`{"messages": [{"role": "user", "content": [{"type": "video", "video": PATH}, {"type": "text", "text": ...}]},
{"role": "assistant", "content": [{"type": "text", "text": ...}]}]}`. With `--resume_from_checkpoint last` a run
resumes from its last checkpoint. OUTPUT_DIR then holds a LinVT model, its processor and its card, for
`from_pretrained` and `linvt push`.
"""

from dataclasses import dataclass, field

from video_chat_training import (
    DataArguments,
    describe_model,
    end,
    load_model_and_processor,
    load_training_rows,
    make_trainer,
    parse_arguments,
    record,
    stages_of,
    train,
)

from linvt.training import freeze_for_alignment


@dataclass
class AlignmentArguments(DataArguments):
    model: str = field(metadata={"help": "Folder or Hub id of an image-LLM, or of a LinVT model."})
    video_tokenizer: dict | str | None = field(
        default=None, metadata={"help": "Its configuration as JSON, for an image-LLM; all defaults if left out."}
    )
    contrastive_weight: float = field(default=1.0, metadata={"help": "Factor of the contrastive loss; 0: none."})
    dtype: str = field(default="bfloat16", metadata={"help": "Of the frozen image-LLM."})


def main() -> None:
    arguments, config = parse_arguments(AlignmentArguments)
    stages = stages_of(arguments.model)
    model, processor = load_model_and_processor(arguments, arguments.video_tokenizer, dtype=arguments.dtype)
    rows = load_training_rows(arguments, config, processor)
    trainer = make_trainer(freeze_for_alignment(model), processor, rows, arguments, config)
    train(trainer, config)
    trainer.save_model()
    if trainer.is_world_process_zero():
        settings = {"contrastive_weight": arguments.contrastive_weight}
        stage = record(trainer, rows, arguments, "alignment", ["the video tokenizer"], **settings)
        describe_model(config.output_dir, [*stages, stage])
    end(trainer)


if __name__ == "__main__":
    main()
