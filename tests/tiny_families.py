"""Tiny random models of the four families with their real processors, and clips that tests make themselves."""

from pathlib import Path

import av
import numpy as np
import torch
from tiny_models import CHAT_TEMPLATE, byte_tokenizer, tiny_llava
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipVisionConfig,
)
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor


FAMILIES = ("llava", "llava_onevision", "internvl", "qwen2_vl")

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 2,
    "num_attention_heads": 2,
    "top_k": 40,
    "num_queries": [6, 4, 2],
}
"""A video tokenizer for tests: 12 video tokens of 40 kept ones."""

_VARIANTS = {
    "multi_c": {},
    "multi_b": {"multi_scale": "multi_b"},
    "multi_a": {"multi_scale": "multi_a"},
    "single": {"multi_scale": "single"},
    "svr_only": {"use_tta": False, "text_conditioning": False},
    "tta_only": {"use_svr": False, "multi_scale": "single"},
    "text_off": {"text_conditioning": False},
    "shot": {"temporal_attention": "shot"},
}
VARIANTS = _VARIANTS | {f"{name}_random": {**variant, "start": "random"} for name, variant in _VARIANTS.items()}
"""The variants of the video tokenizer, which start from merging unless their name ends in "_random"."""

# How each family's own chat template writes a picture.
_PICTURES = {
    "internvl": "<IMG_CONTEXT>\\n",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
}
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
}


def chat_template(picture: str) -> str:
    return CHAT_TEMPLATE.replace("<image>\\n", picture)


# As LLaVA-OneVision writes turns: pictures first, a line break before texts and none before pictures.
_ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ '\\n' + message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] }}{% endgeneration %}"
    "{% else %}{{ part['text'] }}{% endif %}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _text_settings(tokenizer) -> dict:
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {**_TEXT, "vocab_size": len(tokenizer), **ids}


def _llava_onevision():
    tokenizer = byte_tokenizer(image_token="<image>", video_token="<video>")
    size = {"height": 56, "width": 56}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[56, 56], [56, 112], [112, 56]]),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_ONEVISION_TEMPLATE,
    )
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**vision, image_size=56, patch_size=14, vision_use_head=False),
        text_config=Qwen2Config(**_text_settings(tokenizer)),
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=[[56, 56], [56, 112], [112, 56]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def _internvl():
    tokenizer = byte_tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    size = {"height": 56, "width": 56}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, image_mean=[0.485, 0.456, 0.406], image_std=[0.2, 0.2, 0.2]),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=chat_template(_PICTURES["internvl"]),
    )
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        text_config=Qwen2Config(**_text_settings(tokenizer)),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return InternVLForConditionalGeneration(config), processor


def _qwen2_vl():
    tokenizer = byte_tokenizer(
        "<|vision_start|>", "<|vision_end|>", image_token="<|image_pad|>", video_token="<|video_pad|>"
    )
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        chat_template=chat_template(_PICTURES["qwen2_vl"]),
    )
    config = Qwen2VLConfig(
        text_config={
            **_text_settings(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        },
        vision_config={"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 32},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config), processor


_BUILDERS = {"llava": tiny_llava, "llava_onevision": _llava_onevision, "internvl": _internvl, "qwen2_vl": _qwen2_vl}


def build_image_llm(name: str):
    """The image-LLM of a family and its processor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        image_llm, image_llm_processor = _BUILDERS[name]()
        # Weights far from their tiny initial spread, so that a wrong token or position shows in the logits.
        for parameter in image_llm.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    image_llm.eval()
    image_llm.tie_weights()
    return image_llm, image_llm_processor


def random_video(num_frames: int, seed: int = 0, height: int = 36, width: int = 64) -> np.ndarray:
    """Smooth random frames, uint8 of shape `(num_frames, height, width, 3)`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (num_frames, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(height // 4, 1).repeat(width // 4, 2)


def write_video(path: Path, frames: np.ndarray, fps: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def user_turn(*parts) -> list[dict]:
    """A conversation of one user turn: strings are text, arrays and paths are videos."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "video", "video": part} for part in parts
    ]
    return [{"role": "user", "content": content}]


def move_from_merging(video_tokenizer: torch.nn.Module) -> None:
    """
    Gives weights to what is zero before training, and leaves the clusters less to say: so that scores, text, time and
    place make a visible difference with `start="merge"`. What starts at random is left as it is.
    """
    for name, parameter in video_tokenizer.named_parameters():
        if name.endswith("log_sharpness"):
            torch.nn.init.constant_(parameter, 0.5)
        elif not parameter.any():
            torch.nn.init.normal_(parameter, std=0.15)


def without_gradient(module: torch.nn.Module) -> list[str]:
    """Names of the parameters that a backward pass has given no gradient, one of zeros, or one that is not finite."""
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
