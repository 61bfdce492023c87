"""Mipha as its authors published it: SigLIP, an MLP, and Phi-2 (3B) or Phi-1.5 (1.6B)."""

from pathlib import Path

import torch
from transformers import (
    CodeGenTokenizer,
    GenerationConfig,
    LlavaImageProcessor,
    LlavaProcessor,
    PhiConfig,
    PreTrainedConfig,
    SiglipVisionConfig,
)

from linvt.configuration.configuration_mipha import MiphaConfig
from linvt.conversion.checkpoint_kinds import CheckpointKind, KeyRule, Shapes, has_tokenizer, stated
from linvt.conversion.siglip_tower import siglip_rules
from linvt.ports.modeling_mipha import MiphaForConditionalGeneration


# Phi has 50,295 tokens and 51,200 rows of embeddings; what follows its tokens is free.
_FIRST_FREE_TOKEN = 50_295
_END_OF_TEXT = 50_256

_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ 'A chat between a curious user and an artificial intelligence "
    "assistant. The assistant gives helpful, detailed, and polite answers to the user\\'s questions. ' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}"
    "{% endif %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|endoftext|>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

_VISION_NAMES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)
_TEXT_NAMES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "layer_norm_eps",
)


class MiphaCheckpoint(CheckpointKind):
    """Mipha-3B and Mipha-1.6B, whose attention has its queries, keys and values in one matrix."""

    name = "mipha"
    model_class = MiphaForConditionalGeneration

    def recognises(self, config: dict, shapes: Shapes) -> bool:
        return config.get("model_type") == "mipha_phi"

    def config(self, config: dict, shapes: Shapes) -> PreTrainedConfig:
        vision = stated(config, "vision_config", "vision_tower")
        if config.get("rope_scaling") is not None:
            raise ValueError(f"rope_scaling is {config['rope_scaling']}, expected none.")
        text = {name: stated(config, name) for name in _TEXT_NAMES}
        return MiphaConfig(
            vision_config=SiglipVisionConfig(
                **{name: stated(vision, name) for name in _VISION_NAMES}, vision_use_head=False
            ),
            text_config=PhiConfig(
                **text,
                num_key_value_heads=config.get("num_key_value_heads"),
                qk_layernorm=config.get("qk_layernorm", False),
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": config.get("rope_theta", 10_000.0),
                    "partial_rotary_factor": config.get("partial_rotary_factor", 0.5),
                },
                bos_token_id=_END_OF_TEXT,
                eos_token_id=_END_OF_TEXT,
                tie_word_embeddings="lm_head.weight" not in shapes,
            ),
            image_token_index=_FIRST_FREE_TOKEN,
            image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
            projector_hidden_act="gelu",
            vision_feature_layer=vision.get("mm_vision_select_layer", -2),
            vision_feature_select_strategy="full",  # SigLIP has no class token to drop
            image_aspect_ratio=config.get("image_aspect_ratio", "pad"),
        )

    def rules(self, config: PreTrainedConfig) -> list[KeyRule]:
        attention, to = r"model\.layers\.(\d+)\.self_attn\.", r"model.language_model.layers.\1.self_attn."
        return [
            *siglip_rules(r"model\.vision_tower\.vision_model\."),
            KeyRule(r"model\.mm_projector\.0\.(\w+)", (r"model.multi_modal_projector.linear_1.\1",)),
            KeyRule(r"model\.mm_projector\.2\.(\w+)", (r"model.multi_modal_projector.linear_2.\1",)),
            KeyRule(r"model\..*\.rotary_emb\.inv_freq", ()),
            KeyRule(
                attention + r"query_key_value\.(weight|bias)",
                tuple(rf"{to}{name}_proj.\2" for name in "qkv"),
                _split_query_key_value,
            ),
            KeyRule(r"model\.(embed_tokens|layers|final_layernorm)\.(.+)", (r"model.language_model.\1.\2",)),
            KeyRule(r"lm_head\.(weight|bias)", (r"lm_head.\1",)),
        ]

    def processor(self, folder: Path, config: PreTrainedConfig) -> LlavaProcessor | None:
        if not has_tokenizer(folder):
            return None
        tokens = {"image_token": "<image>"}
        tokenizer = CodeGenTokenizer.from_pretrained(folder, extra_special_tokens=tokens, pad_token="<|endoftext|>")
        config.image_token_id = tokenizer.image_token_id
        size = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
        return LlavaProcessor(
            image_processor=LlavaImageProcessor(
                size=size,
                do_center_crop=False,
                crop_size=size,
                do_pad=config.image_aspect_ratio == "pad",  # to a square, in the grey that is the mean
                image_mean=[0.5] * 3,
                image_std=[0.5] * 3,
            ),
            tokenizer=tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy="full",
            chat_template=_TEMPLATE,
        )

    def generation_config(self, folder: Path, config: PreTrainedConfig) -> GenerationConfig:
        return GenerationConfig(bos_token_id=_END_OF_TEXT, eos_token_id=_END_OF_TEXT, pad_token_id=_END_OF_TEXT)


def _split_query_key_value(tensor: torch.Tensor, config: PreTrainedConfig) -> list[torch.Tensor]:
    """Each head has its query, its key and its value together: `(heads, 3, head, ...)`."""
    heads = tensor.unflatten(0, (config.text_config.num_attention_heads, 3, -1))
    return [part.flatten(0, 1) for part in heads.unbind(1)]


__all__ = ["MiphaCheckpoint"]
