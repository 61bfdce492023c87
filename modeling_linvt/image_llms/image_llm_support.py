"""Which image-LLMs LinVT can wrap: what is refused, and why."""

import inspect

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from linvt.image_llms.family_table import FAMILIES, image_llm_family


_CROSS_ATTENTION = "its language model reads images through cross-attention, so there is no place for video tokens"
_ENCODER_DECODER = "it is an encoder-decoder; LinVT needs a decoder that takes inputs_embeds"
_NEEDS_A_PICTURE = "its forward and generate cannot run without pixel_values, so no prompt can hold a video alone"
_BESIDE_THE_PROMPT = (
    "its language model takes images beside the prompt, with a mask of their places (image_embeds_position_mask), and "
    "has no placeholder id for them"
)
REFUSED = {
    "blip": _CROSS_ATTENTION,
    "blip-2": _NEEDS_A_PICTURE,
    "deepseek_vl_hybrid": "each picture goes in at two sizes, normalised in two ways, and a video frame has one",
    "diffusion_gemma": "it writes a block of words at once by diffusion, not one after the other",
    "evolla": "it reads proteins and has no vision encoder",
    "git": "its image tokens stand before the text, outside of the prompt, and have no placeholder in it",
    "granite4_vision": (
        "an image enters at several layers of its language model and not at the embeddings, so there are no visual "
        "tokens in the space of the embeddings that could be averaged"
    ),
    "idefics": _CROSS_ATTENTION,
    "instructblip": _NEEDS_A_PICTURE,
    "instructblipvideo": _NEEDS_A_PICTURE,
    "kosmos-2": _BESIDE_THE_PROMPT,
    "kosmos-2.5": _BESIDE_THE_PROMPT,
    "linvt": "it is a LinVT model already; give it to `linvt ask`, or LinVTForConditionalGeneration.from_pretrained",
    "mistral4": "it is a language model without vision encoder, which Transformers lists among the image-LLMs",
    "mllama": _CROSS_ATTENTION,
    "pi0": "it gives the actions of a robot, no text",
    "shieldgemma2": (
        "it is a classifier of pictures, and Transformers does not find its weights again when it is saved as the "
        "language model that it contains; take Gemma 3"
    ),
}
"""Model types that LinVT cannot wrap, each with the reason; encoder-decoders are recognised by their configuration."""

LEAST_TRANSFORMERS = {
    "inkling_mm_model": "5.18",  # before, embeddings that are given are normalised twice
    "llama4": "5.18",  # before, get_image_features needs to be told which features to select
    "minimax_m3_vl": "5.23",  # before, pictures that are encoded together see each other
}
"""Model types that LinVT can wrap from this version of Transformers on. An entry goes when the lower bound in
`pyproject.toml` reaches its version."""

BROKEN_TRANSFORMERS = {
    "llama4": ("5.24.0", "its forward always fails there, as it reads image_outputs of a language model without such"),
}
"""Model types whose own code fails in one version of Transformers, and how. An entry goes when `pyproject.toml` allows
the version no more."""


def check_image_llm_config(config: PreTrainedConfig) -> None:
    """Raises a `ValueError` with the reason if an image-LLM of this configuration cannot work with LinVT here."""
    reason = refusal_reason(config)
    if reason is not None:
        raise _refusal(config.model_type, reason)


def refusal_reason(config: PreTrainedConfig) -> str | None:
    """
    Returns why an image-LLM of this configuration cannot work with LinVT, ever or with this version of Transformers,
    as far as the configuration tells.
    """
    least = LEAST_TRANSFORMERS.get(config.model_type, "5.0")
    if _release(transformers.__version__) < _release(least):
        return f"it needs Transformers {least} or newer, and this is {transformers.__version__}"
    broken, failure = BROKEN_TRANSFORMERS.get(config.model_type, (None, None))
    if transformers.__version__ == broken:
        return f"it does not work in Transformers {broken} and needs another version: {failure}"
    return REFUSED.get(config.model_type, _ENCODER_DECODER if config.is_encoder_decoder else None)


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def check_image_llm(image_llm: PreTrainedModel) -> None:
    """
    Raises a `ValueError` with the reason if this model lacks what LinVT needs of an image-LLM. A model without a
    family of its own must keep the contract of the default family, as far as signatures tell.
    """
    model_type, class_name = image_llm.config.model_type, type(image_llm).__name__
    check_image_llm_config(image_llm.config)
    owners = (image_llm, image_llm.base_model)  # some have it on the model without a head
    if not any(callable(getattr(owner, "get_image_features", None)) for owner in owners):
        raise _refusal(model_type, f"{class_name} has no get_image_features")
    if not image_llm.can_generate():
        raise _refusal(model_type, f"{class_name} cannot generate text")
    if getattr(image_llm.config, "vision_config", ...) is None:  # a text-only checkpoint, as there are of Gemma 4
        raise _refusal(model_type, "its configuration has no vision_config, so it has no vision encoder")
    if getattr(image_llm.config, "image_token_id", None) is None:
        raise _refusal(model_type, "its configuration names no image_token_id, the placeholder of an image's tokens")
    if model_type in FAMILIES:
        return
    family = image_llm_family(image_llm)
    arguments = inspect.signature(family.encoder_owner().get_image_features).parameters
    needed = [
        name
        for name, argument in arguments.items()
        if argument.default is argument.empty and argument.kind is argument.POSITIONAL_OR_KEYWORD
    ]
    if needed != ["pixel_values"] or "image_grid_thw" in arguments:
        raise _refusal(model_type, f"its get_image_features needs more than pixel_values ({', '.join(needed)})")
    if family.rope_owner() is not None:
        raise _refusal(model_type, "its positions have several axes, and it has no family that knows them")
    if "token_type_ids" in inspect.signature(image_llm.forward).parameters:
        raise _refusal(model_type, "its attention mask depends on token types, and it has no family that knows them")
    if image_llm.device.type != "meta":
        _try_a_blank_frame(image_llm)


@torch.no_grad()
def _try_a_blank_frame(image_llm: PreTrainedModel) -> None:
    family = image_llm_family(image_llm)
    frame = torch.zeros(1, 1, 3, *family.blank_frame_size(), device=image_llm.device, dtype=image_llm.dtype)
    try:
        tokens = family.frame_tokens(frame)
    except Exception as error:  # whatever it is, it would come at the first video
        raise _refusal(image_llm.config.model_type, f"it fails on a blank frame ({error})") from error
    if tokens.dim() != 3 or len(tokens) != 1:
        raise _refusal(image_llm.config.model_type, f"a blank frame gave tokens of shape {tuple(tokens.shape)}")


def _refusal(model_type: str, reason: str) -> ValueError:
    return ValueError(
        f"LinVT cannot wrap {model_type!r}: {reason}. Supported: {', '.join(sorted(FAMILIES))}, and others whose "
        "get_image_features(pixel_values) gives one row of tokens per image."
    )


__all__ = [
    "BROKEN_TRANSFORMERS",
    "LEAST_TRANSFORMERS",
    "REFUSED",
    "check_image_llm",
    "check_image_llm_config",
    "refusal_reason",
]
