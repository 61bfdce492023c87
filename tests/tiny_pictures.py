"""A small picture as the image processor of every family prepares it, and what of its tokens is its content."""

import inspect

import torch
from tiny_image_llms import for_all
from transformers import (
    CONFIG_MAPPING,
    IMAGE_PROCESSOR_MAPPING,
    FuyuImageProcessor,
    PreTrainedModel,
)


PROCESSORS: dict[str, dict] = {
    "apertus1p5": {"size": {"min_pixels": 56 * 56, "max_pixels": 56 * 56}, "spatial_factor": 8},
    "glm5_next": {"min_image_tokens": 1},
    "cohere2_vision": {"patch_size": 2},  # tokens along each side, as its processor reads it
    "deepseek_ocr2": {"tile_size": 128, "crop_to_patches": False},
    "unlimited_ocr": {"tile_size": 128, "crop_to_patches": False},
    "dots3_note": {"temporal_patch_size": 1},
    "emu3": {"min_pixels": 56 * 56, "max_pixels": 56 * 56},
    **for_all({"do_resize": True, "max_soft_tokens": 70, "pooling_kernel_size": 2}, "gemma4", "gemma4_unified"),
    "idefics2": {"size": {"longest_edge": 56, "shortest_edge": 56}},
    **for_all({"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 56}}, "idefics3", "smolvlm"),
    **for_all({"size": {"height": 28, "width": 28}}, "inkling2", "inkling2_loop"),
    "inkling_mm_model": {"size": {"height": 14, "width": 14}, "rescale_image_frac": 1.0},
    "kimi_k25": {"size": {"max_height": 56, "max_width": 56}},
    "linvt_molmo": {"overlap_margins": [0, 0]},
    "linvt_xgen_mm": {"do_tile": False},
    **for_all({"image_grid_pinpoints": [[56, 112]]}, "llava_next", "llava_next_video", "llava_onevision"),
    "video_llava": {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}},
    "lfm2_vl": {
        "encoder_patch_size": 14,
        "do_image_splitting": False,
        "min_image_tokens": 4,
        "max_image_tokens": 4,
        "tile_size": 56,
    },
    "minicpm_ocr": {"slice_mode": False, "scale_resolution": 56, "do_resize": True},
    **for_all({"slice_mode": False, "scale_resolution": 112, "do_resize": True}, "minicpmv4_6", "minicpmv4_7"),
    "molmo2": {"overlap_margins": [1, 1]},
    "nemotron_h_omni": {"min_num_patches": 16, "max_num_patches": 16},
    "perception_lm": {"tile_size": 56, "max_num_tiles": 1},
    "step3p7": {"patch_size": 84, "vision_patch_size": 14},
}
"""Arguments of image processors under which a small picture goes in whole, beside its size and that of a patch."""

SAME_PROCESSOR = (
    {"glm4v_moe": "glm4v", "glm_ocr": "glm46v", "qwen3_vl_moe": "qwen3_vl"}
    | for_all("qwen2_vl", "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
    | for_all("llava", "fast_vlm", "linvt_mipha", "linvt_qwen_vl")
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
    **for_all(_sized, "apertus1p5", "emu3", "lighton_ocr", "mistral3", "mistral_large4"),
    **for_all(_tiled, "idefics2", "idefics3", "smolvlm", "perception_lm"),
    **for_all(_view_and_tiles, "llava_next", "llava_next_video", "llava_onevision"),
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
    **for_all(lambda tokens: tokens[:16], *FIRST[:3]),
    "molmo2": lambda tokens: tokens[:4],
}
"""Which tokens of a picture are its content; the others are markers, newlines and tiles."""

SIDES = {
    **for_all(112, "got_ocr2", "granite_docling", "minicpmv4_6", "minicpmv4_7", "pp_chart2table", "step3p7"),
    **for_all(128, "deepseek_ocr2", "unlimited_ocr"),
    **for_all(224, "gemma4", "gemma4_unified"),  # their image processors enlarge smaller pictures
    "aria": 980,
}
"""Side of the picture in pixels, where 56 would give a single token, to which nothing could attend."""


def picture_side(model_type: str) -> int:
    return SIDES.get(model_type, 56)
