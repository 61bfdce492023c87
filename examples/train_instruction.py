"""
Stage 2, video instruction tuning: LoRA on the LLM, and the video tokenizer.

    python examples/train_instruction.py --model aligned --dataset chats.jsonl --output_dir tuned
    accelerate launch --config_file examples/accelerate/fsdp2.yaml examples/train_instruction.py --config tuning.yaml

MODEL is what `train_alignment.py` saved; rows and options are as there. OUTPUT_DIR/adapter then holds what was
learnt, LoRA and video tokenizer, for `PeftModel.from_pretrained` on MODEL, and OUTPUT_DIR itself the model with it
merged in, and its processor, for `from_pretrained`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from trl import SFTConfig, TrlParser
from video_chat_training import DataArguments, load_model_and_processor, make_trainer, record, train

from linvt.training.training_stages import lora_for_instruction, merge_adapter


@dataclass
class InstructionArguments(DataArguments):
    lora_r: int = field(default=64, metadata={"help": "Rank of LoRA; the paper does not say which."})
    lora_alpha: int = field(default=128, metadata={"help": "LoRA is scaled by lora_alpha / lora_r."})
    lora_dropout: float = 0.0
    dtype: str = field(default="bfloat16", metadata={"help": "Of the frozen weights."})


def main() -> None:
    arguments, config = TrlParser((InstructionArguments, SFTConfig)).parse_args_and_config()
    model, processor = load_model_and_processor(arguments, dtype=arguments.dtype)
    lora = lora_for_instruction(model, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout)
    trainer = make_trainer(model, processor, arguments, config, peft_config=lora)
    train(trainer, config)
    adapter = Path(config.output_dir) / "adapter"
    trainer.save_model(adapter)
    if trainer.accelerator.is_main_process:
        # From what was saved, since the weights in memory may be sharded.
        merge_adapter(arguments.model, adapter, dtype=arguments.dtype).save_pretrained(config.output_dir)
        processor.save_pretrained(config.output_dir)
        learnt = ["the video tokenizer", "LoRA on the LLM"]
        lora = {"lora_r": arguments.lora_r, "lora_alpha": arguments.lora_alpha}
        record(trainer, arguments, "instruction tuning", learnt, **lora)
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
