"""The processor of an image-LLM as settings, which are saved with a LinVT processor, and made from them again."""

import json
from typing import Any

import transformers
from transformers.models.auto.processing_auto import processor_class_from_name
from transformers.processing_utils import ProcessorMixin


_SHARED = ("image_processor", "tokenizer")  # parts that a LinVT processor has itself


def settings_of(processor: ProcessorMixin) -> dict:
    """Returns class and settings of a processor, and those of its parts but for the image processor and tokenizer."""
    fields = json.loads(processor.to_json_string())  # as they are once they have been saved
    return {name: value for name, value in fields.items() if name not in _SHARED}


def build_image_llm_processor(owner: ProcessorMixin, settings: dict | None) -> ProcessorMixin:
    """
    Makes the processor of an image-LLM from its settings and the parts of `owner`, the LinVT processor.

    Raises:
        `ValueError`: If there are no settings, or this version of Transformers lacks one of the classes.
    """
    if not settings or "processor_class" not in settings:
        raise ValueError(
            "LinVTProcessor needs image_llm_processor, the class and settings of the image-LLM's processor; make it "
            "with LinVTProcessor.from_image_llm_processor(AutoProcessor.from_pretrained(id))."
        )
    settings = dict(settings)
    name = settings.pop("processor_class")
    processor_class = processor_class_from_name(name)  # also one that is registered, such as a port's
    if processor_class is None:
        raise _missing(name)
    parts = {}
    for attribute in processor_class.get_attributes():
        # A part of its own is a feature extractor for audio, say, or the image-LLM's way with videos.
        own = settings.pop(attribute, None)
        parts[attribute] = getattr(owner, attribute) if own is None else _part_from_settings(own)
    processor = processor_class(**parts, **settings)
    processor.chat_template = owner.chat_template  # not every class takes it as an argument
    return processor


def place_of_images(processor: ProcessorMixin) -> str:
    """
    Returns the token that the chat template of an image-LLM writes where an image stands.

    Raises:
        `ValueError`: If there is none.
    """
    for name in ("image_placeholder_token", "image_token"):  # Qianfan-OCR has both, and the second stands for a patch
        if getattr(processor, name, None) is not None:
            return getattr(processor, name)
    raise ValueError(
        f"{type(processor).__name__} has no image_token, the place of an image in a prompt, so a prompt has no place "
        "for a video."
    )


def _part_from_settings(settings: dict) -> Any:
    (key,) = (name for name in settings if name in ("feature_extractor_type", "video_processor_type"))
    if not hasattr(transformers, settings[key]):
        raise _missing(settings[key])
    return getattr(transformers, settings[key])(**{name: value for name, value in settings.items() if name != key})


def _missing(name: str) -> ValueError:
    return ValueError(f"This version of Transformers ({transformers.__version__}) has no {name}.")


__all__ = ["build_image_llm_processor", "place_of_images", "settings_of"]
