"""Molmo, first version, as published (allenai/Molmo-7B-D-0924, also Molmo-72B-0924)."""

import json
import math
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedConfig, Qwen2Tokenizer

from linvt.configuration.configuration_molmo import MolmoConfig
from linvt.conversion.checkpoint_kinds import (
    CheckpointKind,
    JoinRule,
    KeyRule,
    Shapes,
    has_tokenizer,
    num_layers,
    stated,
)
from linvt.ports.modeling_molmo import MolmoForConditionalGeneration
from linvt.processors.port_processors.image_processing_molmo import MolmoImageProcessor
from linvt.processors.port_processors.processing_molmo import MolmoProcessor


_VIT = "model.vision_backbone.image_vit."
_END_OF_TEXT = 151643  # starts prompts, ends answers and pads; config.json does not state it

# What the language model would be otherwise than a Qwen2.
_NEEDED = {
    "attention_layer_norm": False,
    "clip_qkv": None,
    "layer_norm_type": "rms",
    "norm_after": False,
    "qkv_bias": True,
    "weight_tying": False,
}


class MolmoCheckpoint(CheckpointKind):
    name = "molmo"
    model_class = MolmoForConditionalGeneration

    def recognises(self, config: dict, shapes: Shapes) -> bool:
        return config.get("model_type") == "molmo" and f"{_VIT}class_embedding" in shapes

    def config(self, config: dict, shapes: Shapes) -> MolmoConfig:
        for name, needed in _NEEDED.items():
            if config.get(name, needed) != needed:
                raise ValueError(
                    f"config.json states {name} {config[name]!r}, but only Molmo on Qwen2 ({name} {needed!r}) can be "
                    "converted, such as Molmo-7B-D; Molmo-7B-O and MolmoE-1B have another language model."
                )
        vocab_size = shapes["model.transformer.wte.embedding"][0]
        width, pixels = shapes[f"{_VIT}patch_embedding.weight"]
        patch_size = math.isqrt(pixels // 3)
        return MolmoConfig(
            vision_config={
                "hidden_size": width,
                "intermediate_size": shapes[f"{_VIT}transformer.resblocks.0.feed_forward.w1.weight"][0],
                "num_hidden_layers": num_layers(shapes, f"{_VIT}transformer.resblocks."),
                "patch_size": patch_size,
                "image_size": math.isqrt(shapes[f"{_VIT}positional_embedding"][0] - 1) * patch_size,
            },
            text_config={
                "vocab_size": vocab_size,
                "hidden_size": stated(config, "hidden_size"),
                "intermediate_size": stated(config, "intermediate_size") // 2,  # of both halves of ff_proj
                "num_hidden_layers": stated(config, "num_hidden_layers"),
                "num_attention_heads": stated(config, "num_attention_heads"),
                "num_key_value_heads": stated(config, "num_key_value_heads"),
                "max_position_embeddings": stated(config, "max_position_embeddings"),
                "rms_norm_eps": stated(config, "layer_norm_eps"),
                "rope_parameters": {"rope_type": "default", "rope_theta": stated(config, "rope_theta")},
                "bos_token_id": _END_OF_TEXT,
                "eos_token_id": _END_OF_TEXT,
            },
            additional_vocab_size=shapes["model.transformer.wte.new_embedding"][0],
            image_token_id=vocab_size + 2,  # after <im_start> and <im_end>
            projector_intermediate_size=shapes["model.vision_backbone.image_projector.w1.weight"][0],
        )

    def rules(self, config: MolmoConfig) -> list[KeyRule | JoinRule]:
        block, layer = r"model\.transformer\.blocks\.(\d+)\.", r"language_model.layers.\1."
        vit_block, vit_layer = (
            r"model\.vision_backbone\.image_vit\.transformer\.resblocks\.(\d+)\.",
            (r"vision_tower.encoder.layers.\1."),
        )
        embeddings = "vision_tower.embeddings."
        vit, backbone = r"model\.vision_backbone\.image_vit\.", r"model\.vision_backbone\."
        return [
            JoinRule(
                ("model.transformer.wte.embedding", "model.transformer.wte.new_embedding"),
                "language_model.embed_tokens.weight",
                lambda tables, _: torch.cat(tables),
            ),
            KeyRule(r"model\.transformer\.ff_out\.weight", ("lm_head.weight",)),
            KeyRule(r"model\.transformer\.ln_f\.weight", ("language_model.norm.weight",)),
            KeyRule(
                block + r"att_proj\.(weight|bias)",
                tuple(rf"{layer}self_attn.{name}_proj.\2" for name in "qkv"),
                _split_attention,
            ),
            KeyRule(block + r"attn_out\.weight", (rf"{layer}self_attn.o_proj.weight",)),
            # The half that is not gated comes first.
            KeyRule(
                block + r"ff_proj\.weight",
                (rf"{layer}mlp.up_proj.weight", rf"{layer}mlp.gate_proj.weight"),
                lambda halves, _: halves.chunk(2),
            ),
            KeyRule(block + r"ff_out\.weight", (rf"{layer}mlp.down_proj.weight",)),
            KeyRule(block + r"attn_norm\.weight", (rf"{layer}input_layernorm.weight",)),
            KeyRule(block + r"ff_norm\.weight", (rf"{layer}post_attention_layernorm.weight",)),
            KeyRule(vit + "class_embedding", (f"{embeddings}class_embedding",)),
            KeyRule(vit + "positional_embedding", (f"{embeddings}position_embedding.weight",)),
            KeyRule(
                vit + r"patch_embedding\.weight", (f"{embeddings}patch_embedding.weight",), _patches_to_convolution
            ),
            KeyRule(vit + r"pre_ln\.(weight|bias)", (r"vision_tower.pre_layrnorm.\1",)),
            KeyRule(vit_block + r"attention\.w([qkv])\.(weight|bias)", (rf"{vit_layer}self_attn.\2_proj.\3",)),
            KeyRule(vit_block + r"attention\.wo\.(weight|bias)", (rf"{vit_layer}self_attn.out_proj.\2",)),
            KeyRule(vit_block + r"attention_norm\.(weight|bias)", (rf"{vit_layer}layer_norm1.\2",)),
            KeyRule(vit_block + r"ffn_norm\.(weight|bias)", (rf"{vit_layer}layer_norm2.\2",)),
            KeyRule(vit_block + r"feed_forward\.w([12])\.(weight|bias)", (rf"{vit_layer}mlp.fc\2.\3",)),
            KeyRule(backbone + "pad_embed", ("pad_embed",)),
            KeyRule(backbone + r"image_pooling_2d\.w([qkv])\.(weight|bias)", (r"pooling.\1_proj.\2",)),
            KeyRule(backbone + r"image_pooling_2d\.wo\.(weight|bias)", (r"pooling.out_proj.\1",)),
            KeyRule(backbone + r"image_projector\.w1\.weight", ("projector.gate_proj.weight",)),
            KeyRule(backbone + r"image_projector\.w2\.weight", ("projector.down_proj.weight",)),
            KeyRule(backbone + r"image_projector\.w3\.weight", ("projector.up_proj.weight",)),
        ]

    def processor(self, folder: Path, config: MolmoConfig) -> MolmoProcessor | None:
        if not has_tokenizer(folder):
            return None
        size = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
        settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        kept = ("max_crops", "overlap_margins", "image_mean", "image_std")
        image_processor = MolmoImageProcessor(
            size=size,
            patch_size=config.vision_config.patch_size,
            pooling_size=config.pooling_size,
            **{name: settings[name] for name in kept if name in settings},
        )
        tokenizer = Qwen2Tokenizer.from_pretrained(folder, padding_side="left")  # as generation needs it
        tokenizer.chat_template = None  # that of the language model, which Molmo does not follow
        processor = MolmoProcessor(image_processor, tokenizer)
        if processor.image_token_id != config.image_token_id:
            raise ValueError(
                f"{processor.image_token} is {processor.image_token_id} in the tokenizer of {folder}, but "
                f"{config.image_token_id} in the model; do the tokenizer and the weights belong together?"
            )
        return processor

    def generation_config(self, folder: Path, config: PreTrainedConfig) -> GenerationConfig:
        ids = ("bos_token_id", "eos_token_id", "pad_token_id")
        return GenerationConfig(**dict.fromkeys(ids, config.text_config.eos_token_id))


def _split_attention(rows: torch.Tensor, config: MolmoConfig) -> tuple[torch.Tensor, ...]:
    text = config.text_config
    keys = text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    return rows.split([text.hidden_size, keys, keys])


def _patches_to_convolution(weight: torch.Tensor, config: MolmoConfig) -> list[torch.Tensor]:
    """A linear map of the pixels of a patch, channels last, to a convolution, channels first."""
    size = config.vision_config.patch_size
    return [weight.unflatten(1, (size, size, 3)).permute(0, 3, 1, 2).contiguous()]


__all__ = ["MolmoCheckpoint"]
