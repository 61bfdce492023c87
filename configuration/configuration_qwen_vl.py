"""Configuration of the port of Qwen-VL, first version (Qwen/Qwen-VL-Chat)."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers import CLIPVisionConfig, PreTrainedConfig, Qwen2Config


@strict
class QwenVLConfig(PreTrainedConfig):
    r"""
    Defaults are those of Qwen-VL-Chat.

    The model type is not "qwen", which is what the published folders state, together with all text models of that
    generation. `linvt convert` makes one of the other.

    Args:
        vision_config (`dict` or `CLIPVisionConfig`, *optional*):
            ViT-bigG/14 at 448 pixels. Of CLIP's settings, those of patches and layers; there is no class token.
        text_config (`dict` or `Qwen2Config`, *optional*):
            Qwen-7B, as a Qwen2. `max_position_embeddings` is the length that it was trained with.
        image_token_id (`int`, *optional*, defaults to 151859): Of `<imgpad>`.
        num_image_tokens (`int`, *optional*, defaults to 256): Queries of the resampler, whatever the image.
        resampler_attention_heads (`int`, *optional*, defaults to 32): Heads of the resampler.
    """

    model_type = "linvt_qwen_vl"
    sub_configs: ClassVar = {"vision_config": CLIPVisionConfig, "text_config": Qwen2Config}

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    image_token_id: int = 151859
    num_image_tokens: int = 256
    resampler_attention_heads: int = 32
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = CLIPVisionConfig(**(VISION_DEFAULTS | (self.vision_config or {})))
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = Qwen2Config(**(TEXT_DEFAULTS | (self.text_config or {})))
        super().__post_init__(**kwargs)
        if self.text_config.hidden_size % self.resampler_attention_heads != 0:
            raise ValueError(
                f"resampler_attention_heads {self.resampler_attention_heads} must divide the hidden_size "
                f"{self.text_config.hidden_size} of text_config; change one of them."
            )


VISION_DEFAULTS = {
    "hidden_size": 1664,
    "intermediate_size": 8192,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "image_size": 448,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}
TEXT_DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "tie_word_embeddings": False,
    "eos_token_id": 151643,
}

__all__ = ["QwenVLConfig"]
