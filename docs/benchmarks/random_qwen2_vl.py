"""Qwen2-VL with random weights in a given shape, wrapped by LinVT, and the model inputs of one random video.

What the benchmarks measure does not depend on what the weights say, so no checkpoint is needed. Not a script.
"""

from dataclasses import dataclass, field

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from linvt import LinVTForConditionalGeneration


VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = 151652, 151653, 151655, 151656
TEXT, IMAGE, VIDEO = 0, 1, 2  # values of `mm_token_type_ids`
TOKENS_BEFORE, TOKENS_QUESTION, TOKENS_AFTER = 14, 12, 5  # system turn and header, instruction, answer's header


@dataclass(frozen=True)
class Shape:
    """
    Args:
        text, vision (`dict`): Sizes of the LLM and of the vision encoder.
        frame_pixels (`int`): Height and width of a frame.
        video_tokenizer (`dict`): Sizes of the video tokenizer; its defaults if empty.
    """

    text: dict
    vision: dict
    frame_pixels: int
    video_tokenizer: dict = field(default_factory=dict)
    tied: bool = True


def _text(hidden: int, layers: int, heads: int, kv_heads: int, mlp: int, vocabulary: int = 151_936) -> dict:
    half_head = hidden // heads // 2
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [half_head // 4, half_head * 3 // 8, half_head * 3 // 8],
        },
    }


_TOY_LLM = _text(896, 24, 14, 2, 4864)  # that of Qwen2-0.5B
_TOY_TOKENIZER = {"hidden_size": 256, "intermediate_size": 1024, "top_k": 512}
SHAPES: dict[str, Shape] = {
    "small": Shape(_TOY_LLM, {"depth": 8, "embed_dim": 320, "num_heads": 4}, 112, _TOY_TOKENIZER),
    "quarter": Shape(_TOY_LLM, {"depth": 32, "embed_dim": 320, "num_heads": 4}, 112, _TOY_TOKENIZER),
    "2b": Shape(_text(1536, 28, 12, 2, 8960), {"depth": 32, "embed_dim": 1280, "num_heads": 16}, 448),
    "7b": Shape(
        _text(3584, 28, 28, 4, 18_944, 152_064), {"depth": 32, "embed_dim": 1280, "num_heads": 16}, 448, tied=False
    ),
}
"""`small`: a toy in which the LLM dominates. `quarter`: a toy with the widths, the picture size and `top_k` of `7b`
divided by four, and as many encoder layers. `2b`, `7b`: true shapes of Qwen2-VL-2B and Qwen2-VL-7B."""


def random_linvt(shape: Shape, device: str, dtype: torch.dtype, attention: str) -> LinVTForConditionalGeneration:
    """A LinVT model of random weights, built on the device in its final dtype."""
    config = Qwen2VLConfig(
        text_config=shape.text,
        vision_config={**shape.vision, "hidden_size": shape.text["hidden_size"]},
        tie_word_embeddings=shape.tied,
    )
    torch.manual_seed(0)
    with torch.device(device):
        image_llm = Qwen2VLForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation=attention)
        return LinVTForConditionalGeneration.from_image_llm(image_llm.eval(), shape.video_tokenizer)


def random_frames(num_frames: int, shape: Shape, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Normalised frames, `(num_frames, 3, height, width)`."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(num_frames, 3, shape.frame_pixels, shape.frame_pixels, generator=generator)
    return frames.to(device, dtype)


def linvt_inputs(model: LinVTForConditionalGeneration, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `LinVTProcessor` makes of a prompt with one video, one frame per second."""
    block = [VISION_START, *[IMAGE_PAD] * model.config.num_video_tokens, VISION_END]
    inputs = _prompt(block, IMAGE_PAD, VIDEO, frames.device)
    turns = (inputs["mm_token_type_ids"] == VIDEO).long()
    turns[:, -TOKENS_QUESTION - TOKENS_AFTER : -TOKENS_AFTER] = 1
    milliseconds = 1000 * torch.arange(len(frames), device=frames.device)
    video = {
        "pixel_values_videos": frames,
        "video_num_frames": torch.tensor([len(frames)]),
        "video_milliseconds": milliseconds,
        "video_shot_ids": torch.zeros_like(milliseconds),
    }
    return {**inputs, **video, "instruction_turns": turns}


def own_inputs(model: LinVTForConditionalGeneration, frames: torch.Tensor, baseline: str) -> dict[str, torch.Tensor]:
    """What Qwen2-VL's processor makes of the frames, as a `"video"` (two frames a patch) or as `"images"`."""
    vision = model.image_llm.config.vision_config
    side = frames.shape[-1] // vision.patch_size
    tokens = side * side // vision.spatial_merge_size**2
    if baseline == "images":
        block = [VISION_START, *[IMAGE_PAD] * tokens, VISION_END] * len(frames)
        grid = torch.tensor([[1, side, side]] * len(frames), device=frames.device)
        visual = {"pixel_values": patchify(frames.repeat_interleave(2, 0), vision), "image_grid_thw": grid}
        return {**_prompt(block, IMAGE_PAD, IMAGE, frames.device), **visual}
    frames = torch.cat([frames, frames[-1:]]) if len(frames) % 2 else frames
    block = [VISION_START, *[VIDEO_PAD] * (len(frames) // 2 * tokens), VISION_END]
    grid = torch.tensor([[len(frames) // 2, side, side]], device=frames.device)
    visual = {"pixel_values_videos": patchify(frames, vision), "video_grid_thw": grid}
    return {**_prompt(block, VIDEO_PAD, VIDEO, frames.device), **visual}


def patchify(frames: torch.Tensor, vision) -> torch.Tensor:
    """Patches of two frames each, in the order of Qwen2-VL's vision encoder: `(patches, pixels of a patch)`."""
    patch, merge, depth = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    blocks = frames.unflatten(3, (-1, merge, patch)).unflatten(2, (-1, merge, patch)).unflatten(0, (-1, depth))
    # (time, frame, channel, row, merge row, y, column, merge column, x)
    return blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).flatten(0, 4).flatten(1).contiguous()


def _prompt(block: list[int], pad: int, pad_type: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A system turn, the visual tokens, a question and the header of the answer; random words."""
    words = torch.randint(1000, 150_000, (TOKENS_BEFORE + TOKENS_QUESTION + TOKENS_AFTER,), generator=_seeded())
    ids = torch.cat([words[:TOKENS_BEFORE], torch.tensor(block), words[TOKENS_BEFORE:]])[None].to(device)
    return {"input_ids": ids, "mm_token_type_ids": torch.where(ids == pad, pad_type, TEXT)}


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(2)
