"""A tiny random model of every image-LLM of Transformers.

The default configuration of a class is cut down by the names of its fields; `TWEAKS` has what that does not reach.
"""

import copy

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)


def for_all(value, *names) -> dict:
    return dict.fromkeys(names, value)


SIZES = {
    **for_all(32, "hidden_size", "d_model", "embed_dim", "out_hidden_size", "text_hidden_size", "merged_hidden_size"),
    **for_all(
        32,
        "output_dim",
        "word_embed_proj_dim",
        "projector_output_dim",
        "projector_input_dim",
        "adapter_out_dim",
        "adapter_in_dim",
    ),
    **for_all(32, "decoder_hidden_size", "encoder_hidden_size", "projection_dim", "image_text_hidden_size"),
    **for_all(32, "moe_hidden_size", "vision_hidden_size", "patch_embed_hidden_size", "projection_hidden_size"),
    **for_all(32, "pooler_output_size", "hidden_size_per_layer_input"),
    **for_all(64, "intermediate_size", "ffn_dim", "d_ff", "mlp_dim", "decoder_ffn_dim", "encoder_ffn_dim"),
    **for_all(64, "dense_intermediate_size", "shared_intermediate_size", "intermediate_size_mlp", "share_expert_dim"),
    **for_all(64, "alignment_intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"),
    **for_all(64, "moe_shared_expert_intermediate_size", "projector_hidden_size", "projection_intermediate_size"),
    **for_all(64, "shared_experts_intermediate_size", "projection_hidden_dim"),
    **for_all(2, "num_hidden_layers", "num_layers", "depth", "layers", "encoder_layers", "decoder_layers", "n_layers"),
    **for_all(2, "num_decoder_layers", "num_global_layers", "resampler_depth", "conf_num_hidden_layers"),
    **for_all(4, "num_attention_heads", "num_heads", "attention_heads", "decoder_attention_heads"),
    **for_all(4, "encoder_attention_heads", "resampler_n_heads", "linear_num_value_heads", "linear_num_heads"),
    **for_all(4, "swa_num_attention_heads", "num_sliding_attention_heads", "mamba_num_heads", "index_n_heads"),
    **for_all(4, "conf_num_attention_heads"),
    **for_all(2, "num_key_value_heads", "swa_num_key_value_heads", "linear_num_key_heads", "n_groups"),
    **for_all(8, "head_dim", "d_kv", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "linear_key_head_dim"),
    **for_all(8, "linear_value_head_dim", "linear_head_dim", "swa_head_dim", "index_head_dim", "mamba_head_dim"),
    **for_all(8, "resampler_head_dim"),
    **for_all(16, "q_lora_rank", "kv_lora_rank", "ssm_state_size", "num_pos_feats", "output_channels"),
    **for_all(4, "moe_num_experts", "n_routed_experts", "num_experts", "num_local_experts", "num_query_tokens"),
    **for_all(4, "resampler_n_latents", "latent_query_num", "mm_tokens_per_image", "vision_soft_tokens_per_image"),
    **for_all(2, "num_experts_per_tok", "moe_topk", "moe_k"),
    **for_all(1, "n_group", "topk_group"),
    **for_all(256, "vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input"),
    "max_position_embeddings": 512,
    "image_size": 56,
    "patch_size": 14,
    "num_position_embeddings": 16,
    "hc_lowrank": 8,
    "downsample_hidden_size": 16,
    "adapter_input_size": 32,
    "insert_layer_id": 0,
    "max_img_size": 112,
    "mm_posemb_size": 64,
    "position_embedding_size": 64,
    **for_all(32, "mm_embed_dim", "output_proj_dims", "image_token_embed_dim"),
    **for_all(8, "pos_emb_height", "pos_emb_width"),
}
"""The largest value that a field of a tiny configuration may have."""

REGROWN = {
    "layer_types",
    "mlp_layer_types",
    "indexer_types",
    "moe_layers",
    "no_rope_layers",
    "layers_block_type",
    "max_window_layers",
    "rope_scaling_layers",
    "kv_source_layers",
    "per_layer_config",
    "id2label",
    "label2id",
    "architectures",
    "dtype",
    "transformers_version",
}
"""Fields that list layers, which a configuration of fewer layers makes anew."""

LAYER_LISTS = {"deepstack_visual_indexes": [0, 1], "fullatt_block_indexes": [1], "global_attn_indexes": [1]}
"""Fields that name some of the layers."""

IMAGE_TOKEN = 250
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _shrink(fields: dict, ids: dict[str, int]) -> dict:
    """Cuts a configuration down; `ids` are those of the special tokens seen so far, each of which gets its own."""
    small = {}
    for name, value in fields.items():
        if name in REGROWN:
            continue
        if not isinstance(name, str):
            small[name] = value
            continue
        if name in LAYER_LISTS and value:
            small[name] = LAYER_LISTS[name]
        elif name in ("rope_parameters", "rope_scaling") and isinstance(value, dict):
            small[name] = value | ({"mrope_section": [2, 1, 1]} if "mrope_section" in value else {})
        elif isinstance(value, dict):
            small[name] = _shrink(value, ids)
        elif name in SPECIAL_TOKENS and value is not None:
            small[name] = SPECIAL_TOKENS[name]
        elif name in SIZES and type(value) is int:
            small[name] = min(SIZES[name], value)
        elif name in SIZES and isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
            small[name] = [min(SIZES[name], item) for item in value]
        elif name in ("image_token_id", "image_token_index"):
            small[name] = IMAGE_TOKEN
        elif name.endswith(("_token_id", "_token_index")) and type(value) is int and value > 240:
            small[name] = ids.setdefault(name.removesuffix("_id").removesuffix("_index"), 200 + len(ids))
        else:
            small[name] = value
    return small


def _merge(fields: dict, tweaks: dict) -> dict:
    for name, value in tweaks.items():
        if isinstance(value, dict) and isinstance(fields.get(name), dict):
            _merge(fields[name], value)
        elif value is ...:
            fields.pop(name, None)
        else:
            fields[name] = value
    return fields


def tiny_config(model_type: str) -> PreTrainedConfig:
    config_class = CONFIG_MAPPING[model_type]
    fields = _merge(_shrink(config_class().to_dict(), {}), copy.deepcopy(TWEAKS.get(model_type, {})))
    fields.pop("model_type", None)
    return config_class.from_dict(fields)


_VQ = {"base_channels": 32, "num_res_blocks": 1}
_SAM = {"image_size": 128, "downsample_channels": [16, 32], "mlp_dim": 64}
_OMNI_TOKENS = {"vision_start_token_id": 240, "vision_end_token_id": 241, "audio_start_token_id": 242}
_TIMM = {"architecture": "test_resnet", "hidden_size": 96, "model_args": None}
_PERCEPTION = {
    "architecture": "vit_pe_core_tiny_patch16_384",
    "model_args": {
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 4,
        "img_size": [56, 56],
        "patch_size": 14,
        "ref_feat_shape": [4, 4],
        "global_pool": "",
    },
}
_PATCH_14 = {"patch_size": 14}


def _m_rope(**settings):
    """Positions of three axes, which share the half of each head that is turned."""
    return {"text_config": {"rope_parameters": {"mrope_section": [2, 1, 1]}, **settings}}


TWEAKS: dict[str, dict] = {
    **for_all(_m_rope(), "cosmos3_edge", "cosmos3_omni", "paddleocr_vl", "qwen2_5_vl"),
    **for_all(_m_rope(), "qwen2_vl", "qwen3_vl", "qwen3_vl_moe"),
    **for_all(_m_rope(), "glm46v", "glm4v", "glm_ocr", "glmga"),
    "glm4v_moe": _m_rope(head_dim=16),
    **for_all(_m_rope(head_dim=32, layer_types=["linear_attention", "full_attention"]), "qwen3_5", "qwen3_5_moe"),
    **for_all(_m_rope(head_dim=32, layer_types=["linear_attention", "full_attention"]), "minicpm_ocr", "minicpmv4_6"),
    "minicpmv4_7": _m_rope(head_dim=32, layer_types=["linear_attention", "full_attention"]),
    "qwen4_exp": _m_rope(
        layer_types=["linear_attention", "full_attention"],  # full is read as sparse, whose name differs by version
        indexer_n_heads=2,
        indexer_kv_heads=1,
        indexer_head_dim=8,
        indexer_budget=16,
        indexer_compress_ratio=4,
    ),
    **for_all(_m_rope() | _OMNI_TOKENS, "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"),
    "apertus1p5": {
        "image_token_offset": 100,
        "audio_token_offset": 164,
        "vision_config": {
            "codebook_size": 64,
            "embed_dim": 8,
            "latent_channels": 8,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
        },
        "audio_config": {"codebook_size": 16, "codebook_dim": 32},
    },
    "aria": {
        "projector_patch_to_query_dict": {49: 4},
        "vision_config": {"image_size": 980, "patch_size": 140},  # that of its image processor, whatever it is told
    },
    "chameleon": {
        "vocabulary_map": {"<image>": IMAGE_TOKEN} | {f"IMGIMG{chr(65 + code)}Z": 100 + code for code in range(8)},
        "vq_config": {
            **_VQ,
            "num_embeddings": 8,
            "channel_multiplier": [1, 1, 1, 1],
            "resolution": 56,
            "latent_channels": 8,
            "embed_dim": 8,
        },
    },
    "emu3": {
        "text_config": {"pad_token_id": 0},
        "vocabulary_map": {"<image>": IMAGE_TOKEN, "<|extra_200|>": 99}
        | {f"<|visual token {code:06d}|>": 100 + code for code in range(64)},
        "vq_config": {
            **_VQ,
            "codebook_size": 64,
            "channel_multiplier": [1, 1, 1, 1],
            "latent_channels": 4,
            "attn_resolutions": [],
        },
    },
    "molmo2": {
        "vision_config": {"image_size": [56, 56], "num_position_embeddings": 16},
        "adapter_config": {"vision_feature_layer": [1, 0]},
        "image_patch_id": IMAGE_TOKEN,
    },
    "muse_spark": {
        "audio_config": {"num_hidden_layers": 2, "patch_sizes": [4, 4], "hidden_sizes": [16, 16], "depths": [1, 1]},
        "text_config": {"layer_rope_theta": ...},
        "out_hidden_size": 128,
    },
    "muse_glimmer": {"text_config": {"layer_rope_theta": ...}, "out_hidden_size": 128},
    "vipllava": {"vision_feature_layers": [-2, -1]},  # a name that all versions of Transformers know
    "cohere_compass": {
        "text_config": {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
            },
        },
    },
    "deepseek_ocr2": {
        "text_config": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2},
        "vision_config": {"sam_config": _SAM, "encoder_config": {"num_key_value_heads": 4}},
    },
    "unlimited_ocr": {"vision_config": {"sam_config": _SAM, "encoder_config": {"image_size": 28}}},
    "dots3_note": {
        "audio_config": {"num_key_value_heads": 4},
        "text_config": {"num_key_value_heads": 4},
        "vision_config": {"mlp_layer_types": ["dense", "sparse"]},
    },
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": {"mrope_section": [1, 1, 2]}}},
    "gemma4": {
        "vision_config": {
            "pooling_kernel_size": 2,
            "patch_size": 14,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "position_embedding_size": 64,
        },
        "text_config": {"use_bidirectional_attention": "vision", "vocab_size_per_layer_input": 256},
    },
    "gemma4_unified": {
        "vision_config": {
            "pooling_kernel_size": 2,
            "patch_size": 14,
            "mm_embed_dim": 32,
            "mm_posemb_size": 64,
            "output_proj_dims": 32,
        }
    },
    "kimi_k25": {"text_config": {"num_key_value_heads": 4}},
    "lfm3_vl": {"text_config": {"layer_types": ["conv", "full_attention"]}},
    "mistral_large4": {"text_config": {"num_key_value_heads": 4}},
    "ovis2": {"visual_indicator_token_ids": [240, 241, 242, 243, 244]},
    "step3p7": {
        "text_config": {"sliding_window": 16},
        "vision_config": {"image_size": 112, "max_position_embeddings": 64},
    },
    **for_all({"vision_config": {"image_size": 112}}, "got_ocr2", "pp_chart2table", "granite_docling"),
    "perception_lm": {"vision_config": _PERCEPTION},
    "llama4": {"vision_config": {"intermediate_size": 128, "vision_output_dim": 32}},
    "inkling2_loop": {
        "text_config": {
            "num_hidden_layers": 3,
            "n_layers_per_attn_res_block": 1,
            "loop_layer_index_start": 1,
            "loop_layer_index_end": 2,
            "loop_gate_rank": 8,
        }
    },
    "inkling_mm_model": {"vision_config": {"num_hidden_layers": 12}},
    "fast_vlm": {"vision_config": _TIMM, "mm_hidden_size": 24},
    "gemma3n": {
        "vision_config": _TIMM,
        "vision_soft_tokens_per_image": 4,
        "text_config": {
            "intermediate_size": 64,
            "activation_sparsity_pattern": [0.0, 0.0],
            "num_kv_shared_layers": 0,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    },
    "glm5_next": {"text_config": {"num_key_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}},
    "hunyuan_vl": {
        "text_config": {
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 1, 1]},
        },
    },
    "janus": {"vq_config": _VQ | {"channel_multiplier": [1, 1], "latent_channels": 8, "num_embeddings": 8}},
    "linvt_molmo": {"vision_feature_layers": [-1, -2]},
    "llava_next": {"image_grid_pinpoints": [[56, 112]]},
    "llava_next_video": {"image_grid_pinpoints": [[56, 112]]},
    "llava_onevision": {"image_grid_pinpoints": [[56, 112]]},
}


def build(model_type: str) -> PreTrainedModel:
    """A model of random weights, far from their tiny initial spread, so that a wrong token shows in the logits."""
    config = tiny_config(model_type)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]._from_config(config)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
            # Others begin as zero or one, and none shall switch a part of the model off; but where pictures become
            # words of a code book, a constant would make them all the same word.
            elif "vqmodel" not in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.generation_config.suppress_tokens = [IMAGE_TOKEN]  # a random model may say it, and means no image
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


NEEDED_PACKAGES = {**for_all(("timm",), "fast_vlm", "gemma3n", "perception_lm"), "smolvlm": ("num2words",)}
"""What Transformers itself needs for the encoder or the processor of an image-LLM, and does not install."""
