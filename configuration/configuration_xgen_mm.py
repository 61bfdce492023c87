"""Configuration of xGen-MM, also called BLIP-3 (Xue et al., 2024), of which two designs were published."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, CLIPVisionConfig, Phi3Config, PreTrainedConfig, SiglipVisionConfig


@strict
class XGenMMConfig(PreTrainedConfig):
    r"""
    Configuration of [`XGenMMForConditionalGeneration`].

    The published folders have the model type `xgenmm`, other fields and code of their own. The type here is another
    one, so that an original folder is never taken for a converted one.

    Args:
        vision_config (`dict` or `PreTrainedConfig`, *optional*):
            Of the vision encoder: a SigLIP (interleave-r-v1.5, the default) or a CLIP (r-v1).
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            Of the language model, Phi-3-mini with 4096 positions by default.
        num_latents (`int`, *optional*, defaults to 128):
            Latents of the Perceiver, which are the tokens of an image that is taken whole, and of every strip of one
            that is tiled.
        perceiver_num_layers (`int`, *optional*, defaults to 6):
            Layers of the Perceiver.
        perceiver_num_heads (`int`, *optional*, defaults to 16):
            Its attention heads.
        perceiver_head_dim (`int`, *optional*, defaults to 96):
            Channels of a head.
        perceiver_intermediate_size (`int`, *optional*, defaults to 4608):
            Width of its feed-forward layers.
        reads_prompt (`bool`, *optional*, defaults to `False`):
            Whether the Perceiver reads the prompt, so that the tokens of an image depend on it (r-v1). That design
            also knows no padding: it sees the black borders of tiled images.
        max_prompt_tokens (`int`, *optional*, defaults to 256):
            Tokens of the prompt that such a Perceiver reads, from the start; an image counts as one.
        default_prompt_ids (`list[int]`, *optional*):
            What it reads where no prompt is given, as for the frames of a video: nothing by default.
        image_token_id (`int`, *optional*, defaults to 32012):
            Placeholder of the tokens of images.
        tie_word_embeddings (`bool`, *optional*, defaults to `False`):
            Not tied in any published model.
    """

    model_type = "linvt_xgen_mm"
    keys_to_ignore_at_inference: ClassVar = ["cache", "past_key_values"]  # the older name until 5.24
    sub_configs: ClassVar = {"vision_config": AutoConfig, "text_config": AutoConfig}

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    num_latents: int = 128
    perceiver_num_layers: int = 6
    perceiver_num_heads: int = 16
    perceiver_head_dim: int = 96
    perceiver_intermediate_size: int = 4608
    reads_prompt: bool = False
    max_prompt_tokens: int = 256
    default_prompt_ids: list[int] | None = None
    image_token_id: int = 32012
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if self.vision_config is None:
            self.vision_config = SiglipVisionConfig(
                hidden_size=1152,
                intermediate_size=4304,
                num_hidden_layers=27,
                num_attention_heads=16,
                image_size=384,
                patch_size=14,
                vision_use_head=False,
            )
        if self.text_config is None:
            # A window of 2048 here is one of 2047 in the Transformers of the published code.
            self.text_config = Phi3Config(vocab_size=32015, sliding_window=2048)
        self.vision_config = _of_type(self.vision_config, _VISION)
        self.text_config = _of_type(self.text_config, {"phi3": Phi3Config})
        super().__post_init__(**kwargs)
        if self.image_token_id >= self.text_config.vocab_size:
            raise ValueError(
                f"image_token_id is {self.image_token_id}, but the vocabulary has {self.text_config.vocab_size} "
                "tokens."
            )


_VISION = {"siglip_vision_model": SiglipVisionConfig, "clip_vision_model": CLIPVisionConfig}


def _of_type(config: dict | PreTrainedConfig, classes: dict[str, type[PreTrainedConfig]]) -> PreTrainedConfig:
    fields = dict(config) if isinstance(config, dict) else None
    model_type = config.model_type if fields is None else fields.pop("model_type", None)
    if model_type not in classes:
        raise ValueError(f"A part of xGen-MM has model_type {model_type!r}; expected {' or '.join(classes)}.")
    return config if fields is None else classes[model_type](**fields)


__all__ = ["XGenMMConfig"]
