"""How an image-LLM that Transformers lacks is made known to the Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin


def register_port(
    config: type[PreTrainedConfig],
    model: type[PreTrainedModel],
    processor: type[ProcessorMixin] | None = None,
    image_processor: type[BaseImageProcessor] | None = None,
) -> None:
    """
    Registers a port under its `model_type`. What was registered under it before gives way: a self-contained checkpoint
    brings a copy of these classes, and may have been loaded before `linvt` was imported.
    """
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    AutoModelForImageTextToText.register(config, model, exist_ok=True)
    AutoModelForMultimodalLM.register(config, model, exist_ok=True)
    if processor is not None:
        AutoProcessor.register(config, processor, exist_ok=True)
    if image_processor is not None:
        # Under both names, since Transformers asks for torchvision and warns where there is only Pillow.
        names = dict.fromkeys(("pil", "torchvision"), image_processor)
        AutoImageProcessor.register(config, image_processor_classes=names, exist_ok=True)


__all__ = ["register_port"]
