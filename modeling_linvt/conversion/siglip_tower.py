"""Describes the SigLIP inside of several published checkpoints."""

import math

from transformers import SiglipVisionConfig

from linvt.conversion.checkpoint_kinds import KeyRule, Shapes, num_layers


def siglip_config(shapes: Shapes, prefix: str) -> SiglipVisionConfig:
    """
    Returns the configuration of a SigLIP so400m of which no sizes are stated.

    Args:
        prefix (`str`): What its keys start with, such as `model.vision_tower.vision_tower.vision_model.`.

    Raises:
        `ValueError`: If there is no such tensor.
    """
    sized = (
        "embeddings.patch_embedding.weight",
        "embeddings.position_embedding.weight",
        "encoder.layers.0.mlp.fc1.weight",
    )
    missing = [prefix + key for key in sized if prefix + key not in shapes]
    if missing:
        raise ValueError(f"missing {missing[0]}, which tells the size of the vision encoder.")
    (hidden_size, _, patch_size, _), (positions, _), (intermediate_size, _) = (shapes[prefix + key] for key in sized)
    return SiglipVisionConfig(
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers(shapes, prefix + "encoder.layers."),
        num_attention_heads=16,
        # The picture is larger than its patches: 384 = 27 x 14 + 6 pixels, which the encoder does not see.
        image_size=384 if (patch_size, positions) == (14, 729) else patch_size * math.isqrt(positions),
        patch_size=patch_size,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        vision_use_head=False,
    )


def siglip_rules(prefix: str) -> list[KeyRule]:
    """
    Returns the rules for a SigLIP that becomes `model.vision_tower`, without its pooling head.

    Args:
        prefix (`str`): As a pattern, such as `model\\.vision_tower\\.vision_model\\.`.
    """
    return [
        KeyRule(prefix + r"head\..+", ()),
        KeyRule(prefix + r"embeddings\.position_ids", ()),
        KeyRule(prefix + "(.+)", (r"model.vision_tower.\1",)),
    ]


__all__ = ["siglip_config", "siglip_rules"]
