"""The image-LLMs of the LinVT paper and of RED-VILLM's in their published sizes, to be built on the meta device.

Sizes are those of the published checkpoints. Where Transformers has a class, the model is that class; where it has
none, its weights are listed here part by part. Not a script.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    CLIPVisionModel,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)


@dataclass(frozen=True)
class Base:
    """
    Args:
        config (`PreTrainedConfig`): Of the image-LLM, or of its LLM where Transformers has no class for the whole.
        frame_pixels (`int`): Height and width of a frame, unless `linvt wrap --frame-size` says otherwise.
        tokens_per_frame (`int`): N.
        build (`Callable`, *optional*): Makes the model, or its parts, of the configuration.
    """

    config: PreTrainedConfig
    frame_pixels: int
    tokens_per_frame: int
    build: Callable[[PreTrainedConfig], nn.Module] = AutoModelForImageTextToText.from_config

    @property
    def channels(self) -> int:
        """C, the width of the LLM's embeddings."""
        return self.config.get_text_config().hidden_size


def _sizes(hidden: int, layers: int, heads: int, mlp: int, vocabulary: int = 0, kv_heads: int | None = None) -> dict:
    """Sizes under the names that most configurations share; without a vocabulary those of a vision encoder."""
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
    }
    if not vocabulary:
        return sizes
    text = {"num_key_value_heads": kv_heads or heads, "vocab_size": vocabulary, "tie_word_embeddings": False}
    # Special tokens play no part here, and the defaults may lie outside the vocabulary.
    return sizes | text | {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


_QWEN2_7B = _sizes(3584, 28, 28, 18944, 152_064, kv_heads=4)
_PHI3_MINI = _sizes(3072, 32, 32, 8192, 32_064)
_CLIP_LARGE_336 = CLIPVisionConfig(**_sizes(1024, 24, 16, 4096), image_size=336, patch_size=14)


def _siglip_384(layers: int = 27) -> SiglipVisionConfig:
    # The pooling head, which some checkpoints hold, is not part of an image-LLM.
    return SiglipVisionConfig(**_sizes(1152, layers, 16, 4304), image_size=384, patch_size=14, vision_use_head=False)


def _internvl2(text_config: PreTrainedConfig) -> Base:
    vision = _sizes(1024, 24, 16, 4096) | {"image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True}
    config = InternVLConfig(vision_config=vision, text_config=text_config, tie_word_embeddings=False)
    return Base(config, 448, (448 // 14) ** 2 // 4)  # pixel shuffle makes one of four


def _llava(text_config: PreTrainedConfig) -> Base:
    return Base(LlavaConfig(vision_config=_CLIP_LARGE_336, text_config=text_config), 336, (336 // 14) ** 2)


def _onevision(text_config: PreTrainedConfig) -> Base:
    config = LlavaOnevisionConfig(
        vision_config=_siglip_384(layers=26), text_config=text_config, tie_word_embeddings=False
    )
    return Base(config, 384, (384 // 14) ** 2)


def _mipha(text_config: PhiConfig) -> Base:
    config = LlavaConfig(
        vision_config=_siglip_384(),
        text_config=text_config,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
    )
    return Base(config, 384, (384 // 14) ** 2, _with_biased_head)


def _with_biased_head(config: LlavaConfig) -> nn.Module:
    image_llm = AutoModelForImageTextToText.from_config(config)
    image_llm.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size)
    return image_llm


def _weights(*shapes: tuple[int, ...]) -> nn.ParameterList:
    return nn.ParameterList([torch.empty(shape) for shape in shapes])


def _linears(*sizes: tuple[int, int], bias: bool = True) -> nn.ModuleList:
    """Layers by (width in, width out)."""
    return nn.ModuleList([nn.Linear(*size, bias=bias) for size in sizes])


def _molmo(llm_config: Qwen2Config) -> nn.Module:
    """CLIP without its last layer, features of two layers pooled by attention 2 x 2, 128 more rows of embeddings."""
    vision = CLIPVisionModel(CLIPVisionConfig(**_sizes(1024, 23, 16, 4096), image_size=336, patch_size=14))
    vision.post_layernorm = nn.Identity()
    pooling = _linears((2048, 1024), (2048, 1024), (2048, 1024), (1024, 1024))
    projector = _linears((1024, 18944), (1024, 18944), (18944, llm_config.hidden_size), bias=False)
    other = _weights((2, 2048), (128, llm_config.hidden_size))  # of padding, and the rows
    return nn.ModuleList([vision, pooling, projector, other, Qwen2ForCausalLM(llm_config)])


def _xgen_mm(vision: nn.Module, width: int, *text_path: nn.Module) -> Callable[[Phi3Config], nn.Module]:
    """A Perceiver of 6 layers, 16 heads of 96 and 128 latents between `vision` and Phi-3; a head with a bias."""

    def build(llm_config: Phi3Config) -> nn.Module:
        layers = [
            nn.ModuleList(
                [
                    *(nn.LayerNorm(width) for _ in ("media", "latents", "feed-forward")),
                    _linears((width, 1536), (width, 2 * 1536), (1536, width), bias=False),
                    _linears((width, 4 * width), (4 * width, width), bias=False),
                ]
            )
            for _ in range(6)
        ]
        channels = llm_config.hidden_size
        ends = nn.ModuleList([nn.LayerNorm(width), nn.Linear(width, channels), _weights((128, width))])
        # Three tokens of its own have rows of their own, in the embeddings and in the head.
        rows = _weights((3, channels), (llm_config.vocab_size,), (3, channels), (3,))
        return nn.ModuleList([vision, *layers, ends, *text_path, rows, Phi3ForCausalLM(llm_config)])

    return build


def _qwen_vl(llm_config: Qwen2Config) -> nn.Module:
    """A ViT-bigG without class token, and one layer of attention that makes 256 tokens of 1024."""
    width, mlp, channels = 1664, 8192, llm_config.hidden_size
    blocks = [
        nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width), _linears(*sizes)])
        for sizes in [((width, 3 * width), (width, width), (width, mlp), (mlp, width))] * 48
    ]
    ends = nn.ModuleList([nn.Conv2d(3, width, 14, 14, bias=False), nn.LayerNorm(width), _weights((256, width))])
    attention = [nn.Linear(width, channels, bias=False), *_linears((channels, 3 * channels), (channels, channels))]
    norms = [nn.LayerNorm(channels) for _ in ("queries", "keys", "after")]
    other = _weights((256, channels), (256, channels), (channels, channels))  # queries, their positions, projection
    return nn.ModuleList([*blocks, ends, *attention, *norms, other, Qwen2ForCausalLM(llm_config)])


def published_bases() -> dict[str, Base]:
    """By Hub id. To be called, like `Base.build`, with the meta device as the default one."""
    vit_h = _sizes(1280, 32, 16, 5120) | {"image_size": 378, "patch_size": 14}
    text_path = _linears((3072, 1280), (1280, 1280))  # the prompt, which the Perceiver of r-v1 reads
    phi2 = PhiConfig(**_sizes(2560, 32, 32, 10240, 51_200), partial_rotary_factor=0.4)
    phi1_5 = PhiConfig(**_sizes(2048, 24, 32, 8192, 51_200), partial_rotary_factor=0.5)
    return {
        "Qwen/Qwen2-VL-7B-Instruct": Base(
            # Its vision encoder's sizes are the defaults.
            Qwen2VLConfig(text_config=_QWEN2_7B, vision_config={"hidden_size": 3584}, tie_word_embeddings=False),
            448,
            (448 // 28) ** 2,
        ),
        "OpenGVLab/InternVL2-1B": _internvl2(Qwen2Config(**_sizes(896, 24, 14, 4864, 151_655, kv_heads=2))),
        "OpenGVLab/InternVL2-2B": _internvl2(LlamaConfig(**_sizes(2048, 24, 16, 8192, 92_553, kv_heads=8))),
        "OpenGVLab/InternVL2-4B": _internvl2(Phi3Config(**_sizes(3072, 32, 32, 8192, 32_020))),
        "OpenGVLab/InternVL2-8B": _internvl2(LlamaConfig(**_sizes(4096, 32, 32, 14336, 92_553, kv_heads=8))),
        "BAAI/Aquila-VL-2B-llava-qwen": _onevision(Qwen2Config(**_sizes(1536, 28, 12, 8960, 151_936, kv_heads=2))),
        "zhumj34/Mipha-phi1_5-1.6B": _mipha(phi1_5),
        "zhumj34/Mipha-3B": _mipha(phi2),
        "allenai/Molmo-7B-D-0924": Base(Qwen2Config(**_QWEN2_7B), 336, (336 // 14) ** 2 // 4, _molmo),
        "Salesforce/xgen-mm-phi3-mini-instruct-interleave-r-v1.5": Base(
            Phi3Config(**_PHI3_MINI), 384, 128, _xgen_mm(SiglipVisionModel(_siglip_384()), 1152)
        ),
        "Salesforce/xgen-mm-phi3-mini-instruct-r-v1": Base(
            Phi3Config(**_PHI3_MINI), 378, 128, _xgen_mm(CLIPVisionModel(CLIPVisionConfig(**vit_h)), 1280, text_path)
        ),
        "Qwen/Qwen-VL-Chat": Base(Qwen2Config(**_sizes(4096, 32, 32, 11008, 151_936)), 448, 256, _qwen_vl),
        "llava-hf/llava-1.5-7b-hf": _llava(LlamaConfig(**_sizes(4096, 32, 32, 11008, 32_064))),
        "llava-hf/llava-1.5-13b-hf": _llava(LlamaConfig(**_sizes(5120, 40, 40, 13824, 32_064))),
        "llava-hf/llava-onevision-qwen2-7b-ov-hf": _onevision(Qwen2Config(**_QWEN2_7B | {"vocab_size": 152_128})),
    }
