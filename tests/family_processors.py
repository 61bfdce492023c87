"""A tiny processor for every family: its own classes, with a tokenizer whose ids are those of the tiny image-LLM.

Tokenizers and chat templates of the families are on the Hub only, so each has here a tokenizer of one token per
character, and ChatML with what the family's own template writes for a picture.
"""

import transformers
from family_conventions import CONVENTIONS, OF_MODEL_TYPE, Convention
from small_world.small_image_llm import CHAT_TEMPLATE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    FEATURE_EXTRACTOR_MAPPING,
    PROCESSOR_MAPPING,
    VIDEO_PROCESSOR_MAPPING,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
)


NAMED_BY_CHECKPOINTS = {
    "cosmos3_omni": "Qwen3VLProcessor",
    "fast_vlm": "LlavaProcessor",
    "glm_ocr": "Glm46VProcessor",
    "glmga": "Glm46VProcessor",
    "linvt_mipha": "LlavaProcessor",
    "qwen2_5_omni_thinker": "Qwen2_5OmniProcessor",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeProcessor",
}
"""Processors of model types that Transformers maps to none."""

NO_CHAT = {
    "fuyu": "its processor puts the image in front of every prompt itself, so a prompt has no place for a video",
    "pp_chart2table": (
        "its processor has no token for the place of an image: its chat template writes all visual tokens, and the "
        "question too"
    ),
}
"""Model types whose processor LinVT cannot wrap, with the reason."""

CALLS = {"cosmos3_edge": {"return_mm_token_type_ids": True}, "got_ocr2": {"multi_page": True, "num_image_tokens": 4}}
"""What the processor must be told for a chat with an image, or the image-LLM fails, with or without LinVT."""

NO_IMAGE_BESIDE_VIDEO = {"got_ocr2": "its processor takes the images of a chat as pages of one document only"}


def tiny_tokenizer(config: PreTrainedConfig, convention: Convention) -> PreTrainedTokenizerFast:
    """A tokenizer of one token per ASCII character, whose special tokens have the ids that the configuration names."""
    names = [*convention.tokens, *convention.others]
    contents = [*convention.tokens.values(), *convention.others]
    vocabulary = {"<pad>": 0, "<|im_end|>": 2, convention.visual_token: config.image_token_id}
    characters = sorted(pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(_CHARACTERS)[0][0])
    vocabulary |= {character: 3 + place for place, character in enumerate(characters)}
    for name, content in zip(names, contents, strict=True):
        number = getattr(config, f"{name}_id", getattr(config, f"{name}_index", None))
        if content not in vocabulary and number not in vocabulary.values() and number in range(256):
            vocabulary[content] = number
    free = iter(number for number in range(180, 256) if number not in {*vocabulary.values(), *_named_ids(config)})
    for content in ("<|im_start|>", *contents):
        if content not in vocabulary:
            vocabulary[content] = next(free)
    special = [token for token in vocabulary if token not in characters]
    vocabulary |= {f"<unused{number}>": number for number in set(range(256)) - {*vocabulary.values()}}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    named = dict(convention.tokens)
    bos = {"bos_token": named.pop("bos_token")} if "bos_token" in named else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        extra_special_tokens=named,
        padding_side="left",
        **bos,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special}, replace_extra_special_tokens=False)
    return tokenizer


_CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"


def _named_ids(config: PreTrainedConfig) -> set[int]:
    """Ids of all tokens that a configuration names, at any depth."""
    parts = [config.to_dict(), *(part for part in config.to_dict().values() if isinstance(part, dict))]
    return {value for part in parts for value in part.values() if type(value) is int}


def processor_class(model_type: str) -> type[ProcessorMixin]:
    if model_type in NAMED_BY_CHECKPOINTS:
        return getattr(transformers, NAMED_BY_CHECKPOINTS[model_type])
    return PROCESSOR_MAPPING[CONFIG_MAPPING[model_type]]


def _other_part(name: str, model_type: str):
    """The family's own video processor or feature extractor, with its defaults."""
    mapping, otherwise = {
        "video_processor": (VIDEO_PROCESSOR_MAPPING, Qwen2VLVideoProcessor),
        "feature_extractor": (FEATURE_EXTRACTOR_MAPPING, WhisperFeatureExtractor),
    }[name]
    found = mapping.get(CONFIG_MAPPING[model_type], None) or otherwise
    settings = {"draw_on_frames": False} if model_type == "ernie4_5_vl_moe" else {}  # else it needs a font
    return (found["torchvision"] if isinstance(found, dict) else found)(**settings)


def tiny_processor(model_type: str, config: PreTrainedConfig, image_processor, num_tokens: int) -> ProcessorMixin:
    """
    Args:
        config (`PreTrainedConfig`): That of the tiny image-LLM.
        num_tokens (`int`): Visual tokens of a picture.
    """
    cls = processor_class(model_type)
    convention = OF_MODEL_TYPE.get(model_type) or CONVENTIONS[cls.__name__]
    parts = {"image_processor": image_processor, "tokenizer": tiny_tokenizer(config, convention)}
    for name in cls.get_attributes():
        if name not in parts:
            parts[name] = _other_part(name, model_type)
    if cls.__name__ == "PaliGemmaProcessor":
        image_processor.image_seq_length = num_tokens
    counted = {convention.count: num_tokens} if convention.count else {}
    processor = cls(**parts, **counted, **convention.settings)
    processor.chat_template = CHAT_TEMPLATE.replace("<image>\\n", convention.picture)
    return processor
