"""What `test_light_checkpoint.py` runs in processes of their own, since their Hub is a local one."""

from pathlib import Path

import peft
import torch
from tiny_families import SMALL, build_image_llm, random_video, user_turn

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.hub.export import export_model
from linvt.training.training_stages import lora_for_instruction, merge_adapter


IMAGE_LLMS = ("llava", "qwen2_vl")
DTYPES = ("float32", "bfloat16")


def model_inputs(family: str) -> dict:
    return processor_of(family).apply_chat_template(
        user_turn(random_video(6), "What is it?"), tokenize=True, return_dict=True, return_tensors="pt"
    )


def processor_of(family: str) -> LinVTProcessor:
    _, processor = build_image_llm(family)
    size = {"height": 56, "width": 56}
    return LinVTProcessor.from_image_llm_processor(processor, num_video_tokens=12, frame_size=size, num_frames=4)


def learn(module: torch.nn.Module, *names: str) -> None:
    """Random weights far from their start, for parameters whose name holds one of these."""
    torch.manual_seed(5)
    for name, parameter in module.named_parameters():
        if any(part in name for part in names):
            torch.nn.init.normal_(parameter, std=0.2)


def train_and_export(folder: Path, family: str, dtype: str) -> None:
    """Both stages of training, as their scripts leave them: full, light, tuned with `adapter/`, and that one light."""
    model = LinVTForConditionalGeneration.from_image_llm(f"org/{family}", SMALL, dtype=dtype)
    learn(model, "video_tokenizer", "contrast")
    model.generation_config.max_new_tokens = 7
    processor = processor_of(family)
    for part in (model, processor):
        part.save_pretrained(folder / "full")
    export_model(folder / "full", folder / "light", "light")
    model = LinVTForConditionalGeneration.from_pretrained(folder / "full", dtype=dtype)
    tuned = peft.get_peft_model(model, lora_for_instruction(model, r=4))
    learn(tuned, "lora_", "video_tokenizer.modules_to_save")
    tuned.save_pretrained(folder / "tuned" / "adapter")
    for part in (merge_adapter(folder / "full", folder / "tuned" / "adapter", dtype=dtype), processor):
        part.save_pretrained(folder / "tuned")
    export_model(folder / "tuned", folder / "tuned_light", "light")


def same_model(one: LinVTForConditionalGeneration, other: LinVTForConditionalGeneration, inputs: dict) -> bool:
    """Bit for bit: every tensor, and the logits of a prompt with a video."""
    tensors, others = one.state_dict(), other.state_dict()
    assert tensors.keys() == others.keys()
    different = [n for n in tensors if tensors[n].dtype != others[n].dtype or not torch.equal(tensors[n], others[n])]
    assert not different, different
    with torch.no_grad():
        return torch.equal(one(**inputs).logits, other(**inputs).logits)
