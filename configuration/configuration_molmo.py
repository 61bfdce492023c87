"""Configuration of the port of Molmo, first version (allenai/Molmo-7B-D-0924)."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers import CLIPVisionConfig, PreTrainedConfig, Qwen2Config


@strict
class MolmoConfig(PreTrainedConfig):
    r"""
    Defaults are those of Molmo-7B-D-0924.

    The model type is not "molmo": that is what the published folders state, whose weights have other names and which
    need code from the Hub. `linvt convert` makes one of the other.

    Args:
        vision_config (`dict` or `CLIPVisionConfig`, *optional*): CLIP ViT-L/14 at 336 pixels, 23 of its 24 layers.
        text_config (`dict` or `Qwen2Config`, *optional*): Qwen2-7B. Its `vocab_size` counts the logits.
        additional_vocab_size (`int`, *optional*, defaults to 128):
            Rows of the embedding beyond `text_config.vocab_size`, for tokens that are read but never written, such
            as those of images.
        image_token_id (`int`, *optional*, defaults to 152066): Of `<im_patch>`.
        vision_feature_layers (`list[int]`, *optional*, defaults to `(-2, -9)`):
            Layers whose outputs are joined channel by channel, in this order; -1 is the last.
        pooling_size (`int`, *optional*, defaults to 2): Rows and columns of patches that become one visual token.
        projector_intermediate_size (`int`, *optional*, defaults to 18944): Channels inside the projector.
    """

    model_type = "linvt_molmo"
    sub_configs: ClassVar = {"vision_config": CLIPVisionConfig, "text_config": Qwen2Config}

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    additional_vocab_size: int = 128
    image_token_id: int = 152066
    vision_feature_layers: list[int] | tuple[int, ...] = (-2, -9)
    pooling_size: int = 2
    projector_intermediate_size: int = 18944
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = CLIPVisionConfig(**(VISION_DEFAULTS | (self.vision_config or {})))
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = Qwen2Config(**(TEXT_DEFAULTS | (self.text_config or {})))
        self.vision_feature_layers = list(self.vision_feature_layers)
        super().__post_init__(**kwargs)
        patches = self.vision_config.image_size // self.vision_config.patch_size
        if patches % self.pooling_size != 0:
            raise ValueError(
                f"An image of {patches} x {patches} patches does not fall into windows of pooling_size "
                f"{self.pooling_size}; change image_size or patch_size of vision_config."
            )
        if self.tie_word_embeddings:
            raise ValueError("The head of Molmo is not tied: it has fewer rows than the embedding.")


VISION_DEFAULTS = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
TEXT_DEFAULTS = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": False,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
}

__all__ = ["MolmoConfig"]
