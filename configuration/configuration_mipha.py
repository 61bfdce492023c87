"""Configuration of Mipha (Zhu et al., 2024), which is LLaVA with SigLIP, Phi and a head with a bias."""

from huggingface_hub.dataclasses import strict
from transformers import LlavaConfig


@strict
class MiphaConfig(LlavaConfig):
    r"""
    Configuration of [`MiphaForConditionalGeneration`]: that of LLaVA, for a SigLIP without class token and with the
    features of its last layer but one.
    """

    model_type = "linvt_mipha"

    vision_feature_select_strategy: str = "full"
    image_seq_length: int = 729


__all__ = ["MiphaConfig"]
