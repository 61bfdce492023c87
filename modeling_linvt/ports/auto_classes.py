"""Registers the image-LLMs that Transformers lacks with its Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)

from linvt.configuration.configuration_mipha import MiphaConfig
from linvt.configuration.configuration_molmo import MolmoConfig
from linvt.configuration.configuration_qwen_vl import QwenVLConfig
from linvt.configuration.configuration_xgen_mm import XGenMMConfig
from linvt.ports.modeling_mipha import MiphaForConditionalGeneration
from linvt.ports.modeling_molmo import MolmoForConditionalGeneration
from linvt.ports.modeling_qwen_vl import QwenVLForConditionalGeneration
from linvt.ports.modeling_xgen_mm import XGenMMForConditionalGeneration
from linvt.processors.image_processing_molmo import MolmoImageProcessor
from linvt.processors.image_processing_xgen_mm import XGenMMImageProcessor
from linvt.processors.processing_molmo import MolmoProcessor
from linvt.processors.processing_qwen_vl import QwenVLProcessor
from linvt.processors.processing_xgen_mm import XGenMMProcessor


MODELS = {
    MiphaConfig: MiphaForConditionalGeneration,
    MolmoConfig: MolmoForConditionalGeneration,
    QwenVLConfig: QwenVLForConditionalGeneration,
    XGenMMConfig: XGenMMForConditionalGeneration,
}
# Mipha has the processor of LLaVA, and Qwen-VL the image processor of CLIP.
PROCESSORS = {MolmoConfig: MolmoProcessor, QwenVLConfig: QwenVLProcessor, XGenMMConfig: XGenMMProcessor}
IMAGE_PROCESSORS = {MolmoConfig: MolmoImageProcessor, XGenMMConfig: XGenMMImageProcessor}


def register_ports() -> None:
    for config, model in MODELS.items():
        AutoConfig.register(config.model_type, config)
        AutoModel.register(config, model)
        AutoModelForImageTextToText.register(config, model)
        AutoModelForMultimodalLM.register(config, model)
    for config, processor in PROCESSORS.items():
        AutoProcessor.register(config, processor)
    for config, image_processor in IMAGE_PROCESSORS.items():
        # Under both names, since Transformers asks for torchvision and warns where there is only Pillow.
        names = dict.fromkeys(("pil", "torchvision"), image_processor)
        AutoImageProcessor.register(config, image_processor_classes=names)
