"""A tiny random model of every image-LLM of Transformers, and a picture as its own image processor prepares it.

The default configuration of a class is cut down by the names of its fields; `TWEAKS` has what that does not reach.
"""

import copy
import inspect

import torch
from transformers import (
    CONFIG_MAPPING,
    IMAGE_PROCESSOR_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    FuyuImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)


def _all(value, *names):
    return dict.fromkeys(names, value)


SIZES = {
    **_all(32, "hidden_size", "d_model", "embed_dim", "out_hidden_size", "text_hidden_size", "merged_hidden_size"),
    **_all(
        32,
        "output_dim",
        "word_embed_proj_dim",
        "projector_output_dim",
        "projector_input_dim",
        "adapter_out_dim",
        "adapter_in_dim",
    ),
    **_all(32, "decoder_hidden_size", "encoder_hidden_size", "projection_dim", "image_text_hidden_size"),
    **_all(32, "moe_hidden_size", "vision_hidden_size", "patch_embed_hidden_size", "projection_hidden_size"),
    **_all(32, "pooler_output_size", "hidden_size_per_layer_input"),
    **_all(64, "intermediate_size", "ffn_dim", "d_ff", "mlp_dim", "decoder_ffn_dim", "encoder_ffn_dim"),
    **_all(64, "dense_intermediate_size", "shared_intermediate_size", "intermediate_size_mlp", "share_expert_dim"),
    **_all(64, "alignment_intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"),
    **_all(64, "moe_shared_expert_intermediate_size", "projector_hidden_size", "projection_intermediate_size"),
    **_all(64, "shared_experts_intermediate_size", "projection_hidden_dim"),
    **_all(2, "num_hidden_layers", "num_layers", "depth", "layers", "encoder_layers", "decoder_layers", "n_layers"),
    **_all(2, "num_decoder_layers", "num_global_layers", "resampler_depth", "conf_num_hidden_layers"),
    **_all(4, "num_attention_heads", "num_heads", "attention_heads", "decoder_attention_heads"),
    **_all(4, "encoder_attention_heads", "resampler_n_heads", "linear_num_value_heads", "linear_num_heads"),
    **_all(4, "swa_num_attention_heads", "num_sliding_attention_heads", "mamba_num_heads", "index_n_heads"),
    **_all(4, "conf_num_attention_heads"),
    **_all(2, "num_key_value_heads", "swa_num_key_value_heads", "linear_num_key_heads", "n_groups"),
    **_all(8, "head_dim", "d_kv", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "linear_key_head_dim"),
    **_all(8, "linear_value_head_dim", "linear_head_dim", "swa_head_dim", "index_head_dim", "mamba_head_dim"),
    **_all(8, "resampler_head_dim"),
    **_all(16, "q_lora_rank", "kv_lora_rank", "ssm_state_size", "num_pos_feats", "output_channels"),
    **_all(4, "moe_num_experts", "n_routed_experts", "num_experts", "num_local_experts", "num_query_tokens"),
    **_all(4, "resampler_n_latents", "latent_query_num", "mm_tokens_per_image", "vision_soft_tokens_per_image"),
    **_all(2, "num_experts_per_tok", "moe_topk", "moe_k"),
    **_all(1, "n_group", "topk_group"),
    **_all(256, "vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input"),
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
    **_all(32, "mm_embed_dim", "output_proj_dims", "image_token_embed_dim"),
    **_all(8, "pos_emb_height", "pos_emb_width"),
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
    **_all(_m_rope(), "cosmos3_edge", "cosmos3_omni", "paddleocr_vl", "qwen2_5_vl"),
    **_all(_m_rope(), "qwen2_vl", "qwen3_vl", "qwen3_vl_moe"),
    **_all(_m_rope(), "glm46v", "glm4v", "glm_ocr", "glmga"),
    "glm4v_moe": _m_rope(head_dim=16),
    **_all(_m_rope(head_dim=32, layer_types=["linear_attention", "full_attention"]), "qwen3_5", "qwen3_5_moe"),
    **_all(_m_rope(head_dim=32, layer_types=["linear_attention", "full_attention"]), "minicpm_ocr", "minicpmv4_6"),
    "minicpmv4_7": _m_rope(head_dim=32, layer_types=["linear_attention", "full_attention"]),
    "qwen4_exp": _m_rope(
        layer_types=["linear_attention", "full_attention"],  # full is read as sparse, whose name differs by version
        indexer_n_heads=2,
        indexer_kv_heads=1,
        indexer_head_dim=8,
        indexer_budget=16,
        indexer_compress_ratio=4,
    ),
    **_all(_m_rope() | _OMNI_TOKENS, "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"),
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
    **_all({"vision_config": {"image_size": 112}}, "got_ocr2", "pp_chart2table", "granite_docling"),
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

PROCESSORS: dict[str, dict] = {
    "apertus1p5": {"size": {"min_pixels": 56 * 56, "max_pixels": 56 * 56}, "spatial_factor": 8},
    "glm5_next": {"min_image_tokens": 1},
    "cohere2_vision": {"patch_size": 2},  # tokens along each side, as its processor reads it
    "deepseek_ocr2": {"tile_size": 128, "crop_to_patches": False},
    "unlimited_ocr": {"tile_size": 128, "crop_to_patches": False},
    "dots3_note": {"temporal_patch_size": 1},
    "emu3": {"min_pixels": 56 * 56, "max_pixels": 56 * 56},
    **_all({"do_resize": True, "max_soft_tokens": 70, "pooling_kernel_size": 2}, "gemma4", "gemma4_unified"),
    "idefics2": {"size": {"longest_edge": 56, "shortest_edge": 56}},
    **_all({"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 56}}, "idefics3", "smolvlm"),
    **_all({"size": {"height": 28, "width": 28}}, "inkling2", "inkling2_loop"),
    "inkling_mm_model": {"size": {"height": 14, "width": 14}, "rescale_image_frac": 1.0},
    "kimi_k25": {"size": {"max_height": 56, "max_width": 56}},
    "linvt_molmo": {"overlap_margins": [0, 0]},
    "linvt_xgen_mm": {"do_tile": False},
    **_all({"image_grid_pinpoints": [[56, 112]]}, "llava_next", "llava_next_video", "llava_onevision"),
    "video_llava": {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}},
    "lfm2_vl": {
        "encoder_patch_size": 14,
        "do_image_splitting": False,
        "min_image_tokens": 4,
        "max_image_tokens": 4,
        "tile_size": 56,
    },
    "minicpm_ocr": {"slice_mode": False, "scale_resolution": 56, "do_resize": True},
    **_all({"slice_mode": False, "scale_resolution": 112, "do_resize": True}, "minicpmv4_6", "minicpmv4_7"),
    "molmo2": {"overlap_margins": [1, 1]},
    "nemotron_h_omni": {"min_num_patches": 16, "max_num_patches": 16},
    "perception_lm": {"tile_size": 56, "max_num_tiles": 1},
    "step3p7": {"patch_size": 84, "vision_patch_size": 14},
}
"""Arguments of image processors under which a small picture goes in whole, beside its size and that of a patch."""

SAME_PROCESSOR = (
    {"glm4v_moe": "glm4v", "glm_ocr": "glm46v", "qwen3_vl_moe": "qwen3_vl"}
    | _all("qwen2_vl", "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
    | _all("llava", "fast_vlm", "linvt_mipha", "linvt_qwen_vl")
)
"""Model types that Transformers gives no image processor, and whose checkpoints name that of another type."""


def image_processor_class(model_type: str) -> type:
    found = IMAGE_PROCESSOR_MAPPING[CONFIG_MAPPING[SAME_PROCESSOR.get(model_type, model_type)]]
    classes = list(found.values()) if isinstance(found, dict) else list(found)
    classes = [item for item in classes if item is not None and not item.__name__.endswith("Pil")] or classes
    return classes[-1]


def picture_processor(model_type: str):
    """The image processor of a model type, set up for one small picture."""
    processor_class, side = image_processor_class(model_type), picture_side(model_type)
    takes = processor_class.valid_kwargs.__annotations__
    given = {"patch_size": 14} if "patch_size" in takes else {}
    size = dict(getattr(processor_class, "size", None) or {})
    square = {"height": side, "width": side}
    if {"height", "width"} <= size.keys():
        given |= {"size": square}
    elif "merge_size" in takes:
        given |= {"size": {"shortest_edge": side**2, "longest_edge": 4 * side**2}}
    elif getattr(processor_class, "do_center_crop", False):
        given |= {"size": {"shortest_edge": side}, "crop_size": square}
    return processor_class(**given | PROCESSORS.get(model_type, {}))


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


def picture_inputs(model: PreTrainedModel, frame: torch.Tensor) -> dict:
    """What the image-LLM takes for a picture that is `frame` of shape `(3, height, width)` after normalisation."""
    model_type = model.config.model_type
    if model_type in PICTURES:
        return PICTURES[model_type](frame)
    processor = picture_processor(model_type)
    if not takes_patches(model):
        return {"pixel_values": frame[None]}
    done = {"do_rescale": False, "do_normalize": False, "do_resize": PROCESSORS.get(model_type, {}).get("do_resize")}
    inputs = processor(images=[frame], return_tensors="pt", **done)
    takes = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in takes}


def takes_patches(model: PreTrainedModel) -> bool:
    """Whether the image processor, and not this file, must say how a picture is laid out."""
    takes = inspect.signature(model.forward).parameters
    return model.config.model_type == "inkling_mm_model" or bool(_LAYOUTS & set(takes))


_LAYOUTS = {"image_grid_thw", "image_grid_hw", "image_grids", "image_position_ids", "spatial_shapes", "target_sizes"}
"""Inputs that say where the patches of a picture were."""


def _sized(frame):
    return {"pixel_values": frame[None], "image_sizes": torch.tensor([frame.shape[1:]])}


def _tiled(frame):
    return {"pixel_values": frame[None, None]}


def _masked_tile(frame):
    return {**_tiled(frame), "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool)}


def _view_and_tiles(frame):
    tiles = torch.stack([frame, frame.flip(1), frame.flip(2)])
    return {"pixel_values": tiles[None], "image_sizes": torch.tensor([[56, 112]])}


_FUYU_PATCH = {"height": 14, "width": 14}
PICTURES = {
    **_all(_sized, "apertus1p5", "emu3", "lighton_ocr", "mistral3", "mistral_large4"),
    **_all(_tiled, "idefics2", "idefics3", "smolvlm", "perception_lm"),
    **_all(_view_and_tiles, "llava_next", "llava_next_video", "llava_onevision"),
    "fuyu": lambda frame: {"image_patches": FuyuImageProcessor(patch_size=_FUYU_PATCH).patchify_image(frame[None])},
    "granite_docling": _masked_tile,
    "video_llava": lambda frame: {"pixel_values_images": frame[None]},
}
"""Pictures for image-LLMs that take whole pictures, with what they want beside the pixels."""

FIRST = ("llava_next", "llava_next_video", "llava_onevision", "molmo2")
"""Image-LLMs that always add tiles behind the view of the whole picture, which alone is what a frame is."""


def _between_marks(tokens):
    return tokens[1:-1].unflatten(0, (2, 3))[:, :-1].flatten(0, 1)


KEPT = {
    "hunyuan_vl": _between_marks,
    "hy_v4_vl": lambda tokens: tokens.unflatten(0, (2, 3))[:, :-1].flatten(0, 1),
    "deepseek_ocr2": lambda tokens: tokens[:-1],
    "unlimited_ocr": lambda tokens: tokens[:-1].unflatten(0, (3, 4))[:, :-1].flatten(0, 1),
    # Its image processor adds a column of padding where the width is a multiple of the patch.
    "inkling_mm_model": lambda tokens: tokens.unflatten(0, (4, 5))[:, :-1].flatten(0, 1),
    "emu3": lambda tokens: tokens.unflatten(0, (7, 8))[:, :-1].flatten(0, 1),
    **_all(lambda tokens: tokens[:16], *FIRST[:3]),
    "molmo2": lambda tokens: tokens[:4],
}
"""Which tokens of a picture are its content; the others are markers, newlines and tiles."""

SIDES = {
    **_all(112, "got_ocr2", "granite_docling", "minicpmv4_6", "minicpmv4_7", "pp_chart2table", "step3p7"),
    **_all(128, "deepseek_ocr2", "unlimited_ocr"),
    **_all(224, "gemma4", "gemma4_unified"),  # their image processors enlarge smaller pictures
    "aria": 980,
}
"""Side of the picture in pixels, where 56 would give a single token, to which nothing could attend."""


def picture_side(model_type: str) -> int:
    return SIDES.get(model_type, 56)


NEEDED_PACKAGES = {**_all(("timm",), "fast_vlm", "gemma3n", "perception_lm"), "smolvlm": ("num2words",)}
"""What Transformers itself needs for the encoder or the processor of an image-LLM, and does not install."""
