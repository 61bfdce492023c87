"""linvt: turn any image-LLM of Transformers into a video-LLM. This folder is the root of the `linvt` package.

Importing it registers LinVT with the Auto classes and with `pipeline`; nothing else happens on import.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoVideoProcessor,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)
from transformers.pipelines import PIPELINE_REGISTRY

from linvt.configuration.configuration_autoshot import AutoShotConfig
from linvt.configuration.configuration_linvt import LinVTConfig, LinVTVideoConfig
from linvt.configuration.configuration_mipha import MiphaConfig
from linvt.configuration.configuration_molmo import MolmoConfig
from linvt.configuration.configuration_qwen_vl import QwenVLConfig
from linvt.configuration.configuration_red_villm import RedVillmVideoConfig
from linvt.configuration.configuration_xgen_mm import XGenMMConfig
from linvt.former_modules import find_former_modules
from linvt.modeling_linvt import LinVTForConditionalGeneration
from linvt.pipeline_linvt import VideoTextToTextPipeline
from linvt.ports.auto_classes import register_ports
from linvt.ports.modeling_mipha import MiphaForConditionalGeneration
from linvt.ports.modeling_molmo import MolmoForConditionalGeneration
from linvt.ports.modeling_qwen_vl import QwenVLForConditionalGeneration
from linvt.ports.modeling_xgen_mm import XGenMMForConditionalGeneration
from linvt.processors.port_processors.image_processing_molmo import MolmoImageProcessor
from linvt.processors.port_processors.image_processing_xgen_mm import XGenMMImageProcessor
from linvt.processors.port_processors.processing_molmo import MolmoProcessor
from linvt.processors.port_processors.processing_qwen_vl import QwenVLProcessor
from linvt.processors.port_processors.processing_xgen_mm import XGenMMProcessor
from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.shots.modeling_autoshot import AutoShotModel
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video_processing_linvt import LinVTVideoProcessor
from linvt.video_tokenizer.modeling_linvt_video import LinVTVideoModel
from linvt.video_tokenizer.modeling_red_villm import RedVillmVideoModel
from linvt.video_tokenizer.video_memory import VideoMemory


__version__ = "0.1.0"

AutoConfig.register(LinVTConfig.model_type, LinVTConfig)
AutoConfig.register(LinVTVideoConfig.model_type, LinVTVideoConfig)
AutoConfig.register(RedVillmVideoConfig.model_type, RedVillmVideoConfig)
AutoConfig.register(AutoShotConfig.model_type, AutoShotConfig)
AutoModel.register(LinVTConfig, LinVTForConditionalGeneration)
AutoModel.register(LinVTVideoConfig, LinVTVideoModel)
AutoModel.register(RedVillmVideoConfig, RedVillmVideoModel)
AutoModel.register(AutoShotConfig, AutoShotModel)
AutoModelForImageTextToText.register(LinVTConfig, LinVTForConditionalGeneration)
AutoModelForMultimodalLM.register(LinVTConfig, LinVTForConditionalGeneration)
# `transformers serve` and TRL look for the names here, not in what is registered.
MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[LinVTConfig.model_type] = LinVTForConditionalGeneration.__name__
MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[LinVTConfig.model_type] = LinVTForConditionalGeneration.__name__
AutoProcessor.register(LinVTConfig, LinVTProcessor)
AutoVideoProcessor.register(LinVTConfig, LinVTVideoProcessor)
register_ports()
find_former_modules()
PIPELINE_REGISTRY.register_pipeline(
    "video-text-to-text",
    pipeline_class=VideoTextToTextPipeline,
    pt_model=AutoModelForImageTextToText,
    type="multimodal",
)

__all__ = [
    "AutoShotConfig",
    "AutoShotModel",
    "LinVTConfig",
    "LinVTForConditionalGeneration",
    "LinVTProcessor",
    "LinVTVideoConfig",
    "LinVTVideoModel",
    "LinVTVideoProcessor",
    "MiphaConfig",
    "MiphaForConditionalGeneration",
    "MolmoConfig",
    "MolmoForConditionalGeneration",
    "MolmoImageProcessor",
    "MolmoProcessor",
    "QwenVLConfig",
    "QwenVLForConditionalGeneration",
    "QwenVLProcessor",
    "RedVillmVideoConfig",
    "RedVillmVideoModel",
    "VideoMemory",
    "VideoReadError",
    "VideoTextToTextPipeline",
    "XGenMMConfig",
    "XGenMMForConditionalGeneration",
    "XGenMMImageProcessor",
    "XGenMMProcessor",
]
