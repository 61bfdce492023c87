"""
Stage 2, video instruction tuning: LoRA on the LLM, and the video tokenizer.

    python examples/train_instruction.py --model aligned --dataset chats.jsonl --output_dir tuned
    accelerate launch --config_file examples/accelerate/fsdp2.yaml examples/train_instruction.py --config tuning.yaml

MODEL is what `train_alignment.py` saved; rows and options are as there. OUTPUT_DIR/adapter then holds what was
learnt, LoRA and video tokenizer, for `PeftModel.from_pretrained` on MODEL, and OUTPUT_DIR itself the model with it
merged in, its processor and its card, for `from_pretrained` and `linvt push`.
"""

from dataclasses import dataclass, field
from pathlib import Path

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

from linvt.hub.model_card import write_adapter_card
from linvt.training import lora_for_instruction, merge_adapter


@dataclass
class InstructionArguments(DataArguments):
    lora_r: int = field(default=64, metadata={"help": "Rank of LoRA; the paper does not say which."})
    lora_alpha: int = field(default=128, metadata={"help": "LoRA is scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Share of the inputs of LoRA that are dropped."})
    freeze_video_tokenizer: bool = field(
        default=False, metadata={"help": "LoRA alone learns; better for a video tokenizer that started from merging."}
    )
    dtype: str = field(default="bfloat16", metadata={"help": "Of the frozen weights."})


def main() -> None:
    arguments, config = parse_arguments(InstructionArguments)
    stages = stages_of(arguments.model)
    model, processor = load_model_and_processor(arguments, dtype=arguments.dtype)
    rows = load_training_rows(arguments, config, processor)
    lora = lora_for_instruction(
        model,
        arguments.lora_r,
        arguments.lora_alpha,
        arguments.lora_dropout,
        learn_video_tokenizer=not arguments.freeze_video_tokenizer,
    )
    trainer = make_trainer(model, processor, rows, arguments, config, peft_config=lora)
    train(trainer, config)
    adapter = Path(config.output_dir) / "adapter"
    trainer.save_model(adapter)
    if trainer.accelerator.is_main_process:
        # From what was saved, since the weights in memory may be sharded.
        merge_adapter(arguments.model, adapter, dtype=arguments.dtype).save_pretrained(config.output_dir)
        processor.save_pretrained(config.output_dir)
        learnt = [] if arguments.freeze_video_tokenizer else ["the video tokenizer"]
        learnt.append("LoRA on the LLM")
        settings = {"lora_r": arguments.lora_r, "lora_alpha": arguments.lora_alpha}
        stage = record(trainer, rows, arguments, "instruction tuning", learnt, **settings)
        describe_model(config.output_dir, [*stages, stage])
        write_adapter_card(adapter, arguments.model)
    end(trainer)


if __name__ == "__main__":
    main()
