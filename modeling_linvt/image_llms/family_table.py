"""Maps model types to families of image-LLMs; each family has its convention in a file beside this one."""

from transformers import PreTrainedModel

from linvt.image_llms.image_llm_family import ImageLLMFamily
from linvt.image_llms.patch_batches import (
    Gemma4Family,
    Gemma4UnifiedFamily,
    Lfm2Family,
    MiniCpmFamily,
    Molmo2Family,
    NemotronOmniFamily,
)
from linvt.image_llms.patch_sequences import (
    Cosmos3EdgeFamily,
    DeepStackFamily,
    ErnieFamily,
    HunYuanFamily,
    HyV4Family,
    Inkling2Family,
    InklingFamily,
    KimiFamily,
    MuseFamily,
    PaddleOcrFamily,
    PatchSequenceFamily,
    Qwen3OmniFamily,
    QwenOmniFamily,
    VideoLlama3Family,
)
from linvt.image_llms.ported_models import MolmoFamily, XGenMMFamily
from linvt.image_llms.projector_family import ProjectorFamily
from linvt.image_llms.sized_images import (
    Apertus1p5Family,
    Emu3Family,
    LlavaNextFamily,
    LlavaOnevisionFamily,
    SizedImageFamily,
)
from linvt.image_llms.special_llms import (
    ChameleonFamily,
    FuyuFamily,
    Gemma3nFamily,
    Llama4Family,
    Ovis2Family,
    PaliGemmaFamily,
    VideoLlavaFamily,
)
from linvt.image_llms.tiled_images import (
    DeepseekOcr2Family,
    GraniteDoclingFamily,
    Idefics2Family,
    PerceptionLMFamily,
    TiledImageFamily,
    UnlimitedOcrFamily,
)


FAMILIES: dict[str, type[ImageLLMFamily]] = {
    "apertus1p5": Apertus1p5Family,
    "aria": ImageLLMFamily,
    "aya_vision": ImageLLMFamily,
    "chameleon": ChameleonFamily,
    "cohere2_vision": ImageLLMFamily,
    "cohere_compass": DeepStackFamily,
    "cosmos3_edge": Cosmos3EdgeFamily,
    "cosmos3_omni": DeepStackFamily,
    "deepseek_ocr2": DeepseekOcr2Family,
    "deepseek_vl": ImageLLMFamily,
    "dots3_note": PatchSequenceFamily,
    "emu3": Emu3Family,
    "ernie4_5_vl_moe": ErnieFamily,
    "exaone4_5": PatchSequenceFamily,
    "fast_vlm": ImageLLMFamily,
    "fuyu": FuyuFamily,
    "gemma3": ImageLLMFamily,
    "gemma3n": Gemma3nFamily,
    "gemma4": Gemma4Family,
    "gemma4_unified": Gemma4UnifiedFamily,
    "glm46v": PatchSequenceFamily,
    "glm4v": PatchSequenceFamily,
    "glm4v_moe": PatchSequenceFamily,
    "glm5_next": PatchSequenceFamily,
    "glm_ocr": PatchSequenceFamily,
    "glmga": PatchSequenceFamily,
    "got_ocr2": ImageLLMFamily,
    "granite_docling": GraniteDoclingFamily,
    "hunyuan_vl": HunYuanFamily,
    "hy_v4_vl": HyV4Family,
    "hyperclovax_vision_v2": PatchSequenceFamily,
    "idefics2": Idefics2Family,
    "idefics3": TiledImageFamily,
    "inkling2": Inkling2Family,
    "inkling2_loop": Inkling2Family,
    "inkling_mm_model": InklingFamily,
    "internvl": ProjectorFamily,
    "janus": ImageLLMFamily,
    "kimi_k25": KimiFamily,
    "lfm2_vl": Lfm2Family,
    "lfm3_vl": PatchSequenceFamily,
    "lighton_ocr": SizedImageFamily,
    "llama4": Llama4Family,
    "llava": ProjectorFamily,
    "llava_next": LlavaNextFamily,
    "llava_next_video": LlavaNextFamily,
    "llava_onevision": LlavaOnevisionFamily,
    "linvt_mipha": ProjectorFamily,
    "linvt_molmo": MolmoFamily,
    "linvt_qwen_vl": ImageLLMFamily,
    "linvt_xgen_mm": XGenMMFamily,
    "minicpm_ocr": MiniCpmFamily,
    "minicpmv4_6": MiniCpmFamily,
    "minicpmv4_7": MiniCpmFamily,
    "minimax_m3_vl": PatchSequenceFamily,
    "mistral3": SizedImageFamily,
    "mistral_large4": SizedImageFamily,
    "molmo2": Molmo2Family,
    "muse_glimmer": MuseFamily,
    "muse_spark": MuseFamily,
    "nemotron_h_omni": NemotronOmniFamily,
    "ovis2": Ovis2Family,
    "paddleocr_vl": PaddleOcrFamily,
    "paligemma": PaliGemmaFamily,
    "perception_lm": PerceptionLMFamily,
    "pp_chart2table": ImageLLMFamily,
    "qianfan_ocr": ImageLLMFamily,
    "qwen2_5_omni_thinker": QwenOmniFamily,
    "qwen2_5_vl": PatchSequenceFamily,
    "qwen2_vl": PatchSequenceFamily,
    "qwen3_5": PatchSequenceFamily,
    "qwen3_5_moe": PatchSequenceFamily,
    "qwen3_omni_moe_thinker": Qwen3OmniFamily,
    "qwen3_vl": DeepStackFamily,
    "qwen3_vl_moe": DeepStackFamily,
    "qwen4_exp": PatchSequenceFamily,
    "smolvlm": TiledImageFamily,
    "step3p7": ImageLLMFamily,
    "unlimited_ocr": UnlimitedOcrFamily,
    "video_llama_3": VideoLlama3Family,
    "video_llava": VideoLlavaFamily,
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
