"""Qwen-VL, first version, as published (Qwen/Qwen-VL-Chat)."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import CLIPImageProcessor, GenerationConfig, PreTrainedConfig

from linvt.configuration.configuration_qwen_vl import QwenVLConfig
from linvt.conversion.checkpoint_kinds import CheckpointKind, KeyRule, Shapes, stated
from linvt.conversion.tiktoken_tokenizer import qwen_tokenizer
from linvt.ports.modeling_qwen_vl import QwenVLForConditionalGeneration
from linvt.processors.port_processors.processing_qwen_vl import QwenVLProcessor


# In the order of their ids, after the vocabulary.
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|extra_{number}|>" for number in range(205)),
    *("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>"),
]

# What the language model would be otherwise than a Qwen2.
_NEEDED = {"no_bias": True, "rotary_pct": 1.0, "tie_word_embeddings": False}


class QwenVLCheckpoint(CheckpointKind):
    name = "qwen_vl"
    model_class = QwenVLForConditionalGeneration

    def recognises(self, config: dict, shapes: Shapes) -> bool:
        return config.get("model_type") == "qwen" and "transformer.visual.conv1.weight" in shapes

    def config(self, config: dict, shapes: Shapes) -> QwenVLConfig:
        for name, needed in _NEEDED.items():
            if config.get(name, needed) != needed:
                raise ValueError(f"config.json states {name} {config[name]!r}; the conversion knows only {needed!r}.")
        hidden_size, heads = stated(config, "hidden_size"), stated(config, "num_attention_heads")
        output_dim = stated(config, "visual", "output_dim")
        if output_dim != hidden_size or stated(config, "kv_channels") * heads != hidden_size:
            raise ValueError(
                f"config.json states hidden_size {hidden_size}, visual.output_dim {output_dim}, and {heads} heads of "
                f"{config['kv_channels']} channels; all three must be the same width."
            )
        return QwenVLConfig(
            vision_config={
                "hidden_size": stated(config, "visual", "width"),
                "intermediate_size": shapes["transformer.visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
                "num_hidden_layers": stated(config, "visual", "layers"),
                "num_attention_heads": stated(config, "visual", "heads"),
                "image_size": stated(config, "visual", "image_size"),
                "patch_size": stated(config, "visual", "patch_size"),
            },
            text_config={
                "vocab_size": stated(config, "vocab_size"),
                "hidden_size": hidden_size,
                "intermediate_size": stated(config, "intermediate_size") // 2,  # of both w1 and w2
                "num_hidden_layers": stated(config, "num_hidden_layers"),
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "max_position_embeddings": stated(config, "seq_length"),
                "rms_norm_eps": stated(config, "layer_norm_epsilon"),
                "rope_parameters": {"rope_type": "default", "rope_theta": float(stated(config, "rotary_emb_base"))},
                "eos_token_id": _special_id(stated(config, "visual", "image_start_id") + 2, "<|endoftext|>"),
            },
            image_token_id=stated(config, "visual", "image_start_id") + 2,  # <img>, </img>, <imgpad>
            num_image_tokens=shapes["transformer.visual.attn_pool.query"][0],
            resampler_attention_heads=output_dim // 128,
        )

    def rules(self, config: QwenVLConfig) -> list[KeyRule]:
        block, layer = r"transformer\.h\.(\d+)\.", r"language_model.layers.\1."
        vit = r"transformer\.visual\."
        vit_block, vit_layer = vit + r"transformer\.resblocks\.(\d+)\.", r"vision_tower.encoder.layers.\1."
        pool = vit + r"attn_pool\."
        return [
            KeyRule(r"lm_head\.weight", ("lm_head.weight",)),
            KeyRule(r"transformer\.wte\.weight", ("language_model.embed_tokens.weight",)),
            KeyRule(r"transformer\.ln_f\.weight", ("language_model.norm.weight",)),
            KeyRule(
                block + r"attn\.c_attn\.(weight|bias)",
                tuple(rf"{layer}self_attn.{name}_proj.\2" for name in "qkv"),
                _thirds,
            ),
            KeyRule(block + r"attn\.c_proj\.weight", (rf"{layer}self_attn.o_proj.weight",)),
            KeyRule(block + r"ln_1\.weight", (rf"{layer}input_layernorm.weight",)),
            KeyRule(block + r"ln_2\.weight", (rf"{layer}post_attention_layernorm.weight",)),
            KeyRule(block + r"mlp\.w1\.weight", (rf"{layer}mlp.up_proj.weight",)),
            KeyRule(block + r"mlp\.w2\.weight", (rf"{layer}mlp.gate_proj.weight",)),
            KeyRule(block + r"mlp\.c_proj\.weight", (rf"{layer}mlp.down_proj.weight",)),
            KeyRule(vit + r"conv1\.weight", ("vision_tower.patch_embedding.weight",)),
            KeyRule(vit + "positional_embedding", ("vision_tower.position_embedding",), _interpolated),
            KeyRule(vit + r"ln_pre\.(weight|bias)", (r"vision_tower.pre_layernorm.\1",)),
            KeyRule(
                vit_block + r"attn\.in_proj\.(weight|bias)",
                tuple(rf"{vit_layer}self_attn.{name}_proj.\2" for name in "qkv"),
                _split_heads,
            ),
            KeyRule(vit_block + r"attn\.out_proj\.(weight|bias)", (rf"{vit_layer}self_attn.out_proj.\2",)),
            KeyRule(vit_block + r"ln_([12])\.(weight|bias)", (rf"{vit_layer}layer_norm\2.\3",)),
            KeyRule(vit_block + r"mlp\.c_fc\.(weight|bias)", (rf"{vit_layer}mlp.fc1.\2",)),
            KeyRule(vit_block + r"mlp\.c_proj\.(weight|bias)", (rf"{vit_layer}mlp.fc2.\2",)),
            KeyRule(pool + "query", ("resampler.query",)),
            KeyRule(
                pool + "pos_embed",
                ("resampler.query_position", "resampler.key_position"),
                lambda table, config: [table, *_interpolated(table, config)],
            ),
            KeyRule(pool + r"kv_proj\.weight", ("resampler.in_proj.weight",)),
            KeyRule(pool + r"ln_q\.(weight|bias)", (r"resampler.query_norm.\1",)),
            KeyRule(pool + r"ln_kv\.(weight|bias)", (r"resampler.patch_norm.\1",)),
            KeyRule(
                pool + r"attn\.in_proj_(weight|bias)",
                tuple(rf"resampler.{name}_proj.\1" for name in "qkv"),
                _thirds,
            ),
            KeyRule(pool + r"attn\.out_proj\.(weight|bias)", (r"resampler.out_proj.\1",)),
            KeyRule(vit + r"ln_post\.(weight|bias)", (r"resampler.post_layernorm.\1",)),
            # Multiplied from the right there, and so transposed here.
            KeyRule(vit + "proj", ("resampler.projection.weight",), lambda weight, _: [weight.T.contiguous()]),
        ]

    def processor(self, folder: Path, config: QwenVLConfig) -> QwenVLProcessor | None:
        vocabularies = sorted(folder.glob("*.tiktoken"))
        if not vocabularies:
            return None
        tokenizer = qwen_tokenizer(vocabularies[0], SPECIAL_TOKENS)
        tokenizer.eos_token = "<|im_end|>"
        side = config.vision_config.image_size
        image_processor = CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False)
        processor = QwenVLProcessor(image_processor, tokenizer, num_image_tokens=config.num_image_tokens)
        if processor.image_token_id != config.image_token_id:
            raise ValueError(
                f"{processor.image_token} is {processor.image_token_id} in the vocabulary of {folder}, but "
                f"{config.image_token_id} in config.json; do the two belong together?"
            )
        return processor

    def generation_config(self, folder: Path, config: PreTrainedConfig) -> GenerationConfig:
        ends = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
        ids = [_special_id(config.image_token_id, token) for token in ends]
        return GenerationConfig(eos_token_id=ids, pad_token_id=ids[-1])


def _special_id(image_token_id: int, token: str) -> int:
    """Id of a special token, counted from that of `<imgpad>`, the last of them."""
    return image_token_id - (len(SPECIAL_TOKENS) - 1) + SPECIAL_TOKENS.index(token)


def _thirds(rows: torch.Tensor, _: QwenVLConfig) -> Sequence[torch.Tensor]:
    return rows.chunk(3)


def _split_heads(rows: torch.Tensor, config: QwenVLConfig) -> list[torch.Tensor]:
    """Rows of query, key and value of the first head, then those of the second, and so on."""
    heads = rows.unflatten(0, (config.vision_config.num_attention_heads, 3, -1))
    return [part.flatten(0, 1).contiguous() for part in heads.unbind(1)]


def _interpolated(table: torch.Tensor, config: QwenVLConfig) -> list[torch.Tensor]:
    """A square table of positions, brought to the number of patches of an image."""
    patches = config.vision_config.image_size // config.vision_config.patch_size
    side = math.isqrt(len(table))
    if side == patches:
        return [table]
    grid = table.float().unflatten(0, (side, side)).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=(patches, patches), mode="bicubic", align_corners=False)
    return [grid[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype).contiguous()]


__all__ = ["SPECIAL_TOKENS", "QwenVLCheckpoint"]
