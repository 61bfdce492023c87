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
    PreTrainedConfig,
    PreTrainedModel,
)


def _all(value, *names):
    return dict.fromkeys(names, value)


SIZES = {
    **_all(32, "hidden_size", "d_model", "embed_dim", "out_hidden_size", "text_hidden_size", "merged_hidden_size"),
    **_all(32, "output_dim", "word_embed_proj_dim", "projector_output_dim", "projector_input_dim", "adapter_out_dim"),
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
    **_all(256, "vocab_size", "vocab_size_per_layer_input"),
    "max_position_embeddings": 512,
    "image_size": 56,
    "patch_size": 14,
    "num_position_embeddings": 16,
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

IMAGE_TOKEN = 250
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _shrink(fields: dict) -> dict:
    small = {}
    for name, value in fields.items():
        if name in REGROWN:
            continue
        if name in ("rope_parameters", "rope_scaling") and isinstance(value, dict):
            small[name] = value | ({"mrope_section": [2, 1, 1]} if "mrope_section" in value else {})
        elif isinstance(value, dict):
            small[name] = _shrink(value)
        elif name in SPECIAL_TOKENS and value is not None:
            small[name] = SPECIAL_TOKENS[name]
        elif name in SIZES and type(value) is int:
            small[name] = min(SIZES[name], value)
        elif name in SIZES and isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
            small[name] = [min(SIZES[name], item) for item in value]
        elif name in ("image_token_id", "image_token_index"):
            small[name] = IMAGE_TOKEN
        elif name.endswith(("_token_id", "_token_index")) and type(value) is int and value > 240:
            small[name] = 200 + len(name) % 40  # other tokens that the LLM knows by name; none stands in a prompt
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
    fields = _merge(_shrink(config_class().to_dict()), copy.deepcopy(TWEAKS.get(model_type, {})))
    fields.pop("model_type", None)
    return config_class.from_dict(fields)


TWEAKS: dict[str, dict] = {}

# Arguments of image processors under which a picture of 56 x 56 pixels goes in whole.
PROCESSORS: dict[str, dict] = {}

PICTURE = 56


def picture_processor(model_type: str):
    """The image processor of a model type, set up for one small picture; `None` where Transformers has none."""
    found = IMAGE_PROCESSOR_MAPPING.get(CONFIG_MAPPING[model_type], None)
    classes = list(found.values()) if isinstance(found, dict) else list(found or ())
    classes = [item for item in classes if item is not None and not item.__name__.endswith("Pil")] or classes
    if not classes:
        return None
    processor_class = classes[-1]
    given = PROCESSORS.get(model_type, {})
    probe = processor_class()
    if "size" not in given and isinstance(getattr(probe, "size", None), object) and hasattr(probe, "merge_size"):
        given = {"size": {"shortest_edge": PICTURE**2, "longest_edge": PICTURE**2}, "patch_size": 14} | given
    return processor_class(**given)


def build(model_type: str) -> PreTrainedModel:
    """A model of random weights, far from their tiny initial spread, so that a wrong token shows in the logits."""
    config = tiny_config(model_type)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]._from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


def picture_inputs(model: PreTrainedModel, frame: torch.Tensor) -> dict:
    """What the image processor makes of a picture that is `frame` of shape `(3, 56, 56)` after normalisation."""
    model_type = model.config.model_type
    if model_type in PICTURES:
        return PICTURES[model_type](frame)
    processor = picture_processor(model_type)
    if processor is None or not takes_patches(model):
        return {"pixel_values": frame[None]}
    done = {"do_rescale": False, "do_normalize": False, "do_resize": False}
    inputs = processor(images=[frame], return_tensors="pt", **done)
    return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}


def takes_patches(model: PreTrainedModel) -> bool:
    return len(inspect.signature(model.forward).parameters.keys() & {"image_grid_thw", "spatial_shapes"}) > 0


PICTURES = {}
KEPT = {}
