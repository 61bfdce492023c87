"""Maps model types to families of image-LLMs; each family has its convention in a file beside this one."""

from transformers import PreTrainedModel

from linvt.image_llms.image_llm_family import ImageLLMFamily
from linvt.image_llms.patch_batches import (
    FlatGridFamily,
    PatchRibbonFamily,
    PlacedPatchesFamily,
    PooledPatchesFamily,
    ShapedPatchesFamily,
    WholePatchesFamily,
)
from linvt.image_llms.patch_sequences import (
    DeepFeatureFamily,
    DeepOmniFamily,
    ErnieFamily,
    KimiFamily,
    LonePatchFamily,
    MergeSizeFamily,
    MuseFamily,
    OmniFamily,
    PatchPictureFamily,
    PatchSequenceFamily,
    PixelsFirstFamily,
    RowMajorFamily,
    TokenPatchFamily,
    UnmarkedRowFamily,
)
from linvt.image_llms.ported_models import MolmoFamily, XGenMMFamily
from linvt.image_llms.projector_family import ProjectorFamily
from linvt.image_llms.sized_images import (
    CodeWordFamily,
    LlavaNextFamily,
    LlavaOnevisionFamily,
    RowEndFamily,
    SizedImageFamily,
)
from linvt.image_llms.special_llms import (
    CodeBookFamily,
    LayerWordsFamily,
    MarkedImageFamily,
    OuterProjectorFamily,
    PositionedImagesFamily,
    PrefixFamily,
    RawPixelsFamily,
)
from linvt.image_llms.tiled_images import DeepTileFamily, NewlineFamily, SeparatorFamily, TiledImageFamily


FAMILIES: dict[str, type[ImageLLMFamily]] = {
    "apertus1p5": CodeWordFamily,
    "aria": ImageLLMFamily,
    "aya_vision": ImageLLMFamily,
    "chameleon": CodeBookFamily,
    "cohere2_vision": ImageLLMFamily,
    "cohere_compass": DeepFeatureFamily,
    "cosmos3_edge": PixelsFirstFamily,
    "cosmos3_omni": DeepFeatureFamily,
    "deepseek_ocr2": SeparatorFamily,
    "deepseek_vl": ImageLLMFamily,
    "dots3_note": PatchSequenceFamily,
    "emu3": RowEndFamily,
    "ernie4_5_vl_moe": ErnieFamily,
    "exaone4_5": PatchSequenceFamily,
    "fast_vlm": ImageLLMFamily,
    "fuyu": RawPixelsFamily,
    "gemma3": ImageLLMFamily,
    "gemma3n": LayerWordsFamily,
    "gemma4": PlacedPatchesFamily,
    "gemma4_unified": WholePatchesFamily,
    "glm46v": PatchSequenceFamily,
    "glm4v": PatchSequenceFamily,
    "glm4v_moe": PatchSequenceFamily,
    "glm5_next": PatchSequenceFamily,
    "glm_ocr": PatchSequenceFamily,
    "glmga": PatchSequenceFamily,
    "got_ocr2": ImageLLMFamily,
    "granite_docling": DeepTileFamily,
    "hunyuan_vl": RowMajorFamily,
    "hy_v4_vl": UnmarkedRowFamily,
    "hyperclovax_vision_v2": PatchSequenceFamily,
    "idefics2": TiledImageFamily,
    "idefics3": TiledImageFamily,
    "inkling2": TokenPatchFamily,
    "inkling2_loop": TokenPatchFamily,
    "inkling_mm_model": LonePatchFamily,
    "internvl": ProjectorFamily,
    "janus": ImageLLMFamily,
    "kimi_k25": KimiFamily,
    "lfm2_vl": ShapedPatchesFamily,
    "lfm3_vl": PatchSequenceFamily,
    "lighton_ocr": SizedImageFamily,
    "llama4": OuterProjectorFamily,
    "llava": ProjectorFamily,
    "llava_next": LlavaNextFamily,
    "llava_next_video": LlavaNextFamily,
    "llava_onevision": LlavaOnevisionFamily,
    "linvt_mipha": ProjectorFamily,
    "linvt_molmo": MolmoFamily,
    "linvt_qwen_vl": ImageLLMFamily,
    "linvt_xgen_mm": XGenMMFamily,
    "minicpm_ocr": PatchRibbonFamily,
    "minicpmv4_6": PatchRibbonFamily,
    "minicpmv4_7": PatchRibbonFamily,
    "minimax_m3_vl": PatchSequenceFamily,
    "mistral3": SizedImageFamily,
    "mistral_large4": SizedImageFamily,
    "molmo2": PooledPatchesFamily,
    "muse_glimmer": MuseFamily,
    "muse_spark": MuseFamily,
    "nemotron_h_omni": FlatGridFamily,
    "ovis2": MarkedImageFamily,
    "paddleocr_vl": PatchPictureFamily,
    "paligemma": PrefixFamily,
    "perception_lm": TiledImageFamily,
    "pp_chart2table": ImageLLMFamily,
    "qianfan_ocr": ImageLLMFamily,
    "qwen2_5_omni_thinker": OmniFamily,
    "qwen2_5_vl": PatchSequenceFamily,
    "qwen2_vl": PatchSequenceFamily,
    "qwen3_5": PatchSequenceFamily,
    "qwen3_5_moe": PatchSequenceFamily,
    "qwen3_omni_moe_thinker": DeepOmniFamily,
    "qwen3_vl": DeepFeatureFamily,
    "qwen3_vl_moe": DeepFeatureFamily,
    "qwen4_exp": PatchSequenceFamily,
    "smolvlm": TiledImageFamily,
    "step3p7": ImageLLMFamily,
    "unlimited_ocr": NewlineFamily,
    "video_llama_3": MergeSizeFamily,
    "video_llava": PositionedImagesFamily,
    "vipllava": ImageLLMFamily,
}


def image_llm_family(image_llm: PreTrainedModel) -> ImageLLMFamily:
    """The family of an image-LLM, chosen by `model_type`; the default one if it has none of its own."""
    return FAMILIES.get(image_llm.config.model_type, ImageLLMFamily)(image_llm)


def projector_family(image_llm: PreTrainedModel) -> ProjectorFamily:
    """
    Returns the family of an image-LLM whose projector can be told apart from its vision encoder.

    Raises:
        `ValueError`: If it cannot.
    """
    family = image_llm_family(image_llm)
    if not isinstance(family, ProjectorFamily):
        supported = sorted(name for name, other in FAMILIES.items() if issubclass(other, ProjectorFamily))
        raise ValueError(
            f"RED-VILLM needs the features of the vision encoder and the projector one by one, which linvt does not "
            f"know how to get from {image_llm.config.model_type!r}. Supported: {', '.join(supported)}."
        )
    return family


__all__ = ["FAMILIES", "ImageLLMFamily", "image_llm_family", "projector_family"]
