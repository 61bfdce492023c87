"""InternVL2 as OpenGVLab published it, `InternVLChatModel`: InternViT, an MLP, and one of four kinds of LLM."""

import importlib.util
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlamaConfig,
    LlamaTokenizer,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Tokenizer,
)
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

from linvt.conversion.checkpoint_kinds import CheckpointKind, KeyRule, Shapes, has_tokenizer, stated


IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# The vocabulary ends with <img> </img> <IMG_CONTEXT> <quad> </quad> <ref> </ref> <box> </box>.
_IMAGE_TOKEN_FROM_END = 7

_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_CHATML = {"before_role": "<|im_start|>", "after_role": "\\n", "end": "<|im_end|>"}
_TURNS = {
    "Hermes-2": _CHATML,
    "internlm2-chat": _CHATML,
    "phi3-chat": {"before_role": "<|", "after_role": "|>\\n", "end": "<|end|>"},
}
"""How the conversations that `config.json` names under `template` write a turn; nothing stands between turns."""

_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '{before_role}system{after_role}{system}{end}' }}{% endif %}"
    "{% for message in messages %}{{ '{before_role}' + message['role'] + '{after_role}' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}{% elif part['type'] == 'video' %}{{ '<video>\\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '{end}' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '{before_role}assistant{after_role}' }}{% endif %}"
)

_QWEN2_NAMES = ("use_sliding_window", "sliding_window", "max_window_layers")
_TEXT_NAMES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
)


class InternVL2Checkpoint(CheckpointKind):
    """InternVL2 1B (Qwen2), 2B, 8B and 26B (InternLM2), 4B (Phi-3), 40B and 76B (Llama)."""

    name = "internvl2"
    model_class = InternVLForConditionalGeneration

    def recognises(self, config: dict, shapes: Shapes) -> bool:
        return config.get("model_type") == "internvl_chat"

    def config(self, config: dict, shapes: Shapes) -> PreTrainedConfig:
        if config.get("ps_version") != "v2":
            raise ValueError(f"ps_version is {config.get('ps_version')!r}; the order of the tokens is known for 'v2'.")
        vision = stated(config, "vision_config")
        image_size = config.get("force_image_size") or stated(vision, "image_size")
        patches = (image_size // stated(vision, "patch_size")) ** 2
        ratio = stated(config, "downsample_ratio")
        text = _text_config(stated(config, "llm_config"))
        # Not what a config states: Qwen2-0.5B is tied elsewhere, but has a head of its own here.
        has_head = any(f"language_model.{name}.weight" in shapes for name in ("lm_head", "output"))
        return InternVLConfig(
            vision_config={
                "hidden_size": stated(vision, "hidden_size"),
                "intermediate_size": stated(vision, "intermediate_size"),
                "num_hidden_layers": stated(vision, "num_hidden_layers"),
                "num_attention_heads": stated(vision, "num_attention_heads"),
                "attention_bias": stated(vision, "qkv_bias"),
                "use_qk_norm": stated(vision, "qk_normalization"),
                "norm_type": stated(vision, "norm_type"),
                "layer_norm_eps": stated(vision, "layer_norm_eps"),
                "hidden_act": stated(vision, "hidden_act"),
                "image_size": image_size,
                "patch_size": vision["patch_size"],
            },
            text_config=text,
            image_token_id=text.vocab_size - _IMAGE_TOKEN_FROM_END,
            image_seq_length=int(patches * ratio**2),
            downsample_ratio=ratio,
            vision_feature_layer=stated(config, "select_layer"),
            vision_feature_select_strategy="default",  # drops the class token
            tie_word_embeddings=not has_head,
            template=config.get("template"),
        )

    def rules(self, config: PreTrainedConfig) -> list[KeyRule]:
        layer, to = r"vision_model\.encoder\.layers\.(\d+)\.", r"model.vision_tower.encoder.layer.\1."
        embeddings, to_embeddings = r"vision_model\.embeddings\.", "model.vision_tower.embeddings."
        qkv = tuple(rf"{to}attention.{name}_proj.\2" for name in "qkv")
        return [
            KeyRule(embeddings + "class_embedding", (to_embeddings + "cls_token",)),
            KeyRule(embeddings + "position_embedding", (to_embeddings + "position_embeddings",)),
            KeyRule(embeddings + r"patch_embedding\.(\w+)", (to_embeddings + r"patch_embeddings.projection.\1",)),
            KeyRule(layer + "ls([12])", (to + r"lambda_\2",)),
            KeyRule(layer + r"attn\.qkv\.(weight|bias)", qkv, lambda tensor, config: tensor.chunk(3)),
            KeyRule(layer + r"attn\.([qk]_norm)\.weight", (to + r"attention.\2.weight",)),
            KeyRule(layer + r"attn\.proj\.(\w+)", (to + r"attention.projection_layer.\2",)),
            KeyRule(layer + r"mlp\.(fc[12])\.(\w+)", (to + r"mlp.\2.\3",)),
            KeyRule(layer + r"norm1\.(\w+)", (to + r"layernorm_before.\2",)),
            KeyRule(layer + r"norm2\.(\w+)", (to + r"layernorm_after.\2",)),
            KeyRule(r"mlp1\.0\.(\w+)", (r"model.multi_modal_projector.layer_norm.\1",)),
            KeyRule(r"mlp1\.1\.(\w+)", (r"model.multi_modal_projector.linear_1.\1",)),
            KeyRule(r"mlp1\.3\.(\w+)", (r"model.multi_modal_projector.linear_2.\1",)),
            *_INTERNLM2_RULES,
            KeyRule(r"language_model\..*\.rotary_emb\.inv_freq", ()),
            KeyRule(r"language_model\.lm_head\.weight", ("lm_head.weight",)),
            KeyRule(r"language_model\.model\.(.+)", (r"model.language_model.\1",)),
        ]

    def processor(self, folder: Path, config: PreTrainedConfig) -> InternVLProcessor | None:
        if not has_tokenizer(folder):
            return None
        if config.template not in _TURNS:
            raise ValueError(
                f"config.json names the template {config.template!r}; expected one of {', '.join(_TURNS)}."
            )
        tokenizer = _tokenizer(folder, config)
        config.image_token_id = tokenizer.context_image_token_id
        height, width = config.vision_config.image_size
        pictures = {
            "size": {"height": height, "width": width},
            "image_mean": IMAGENET_MEAN,
            "image_std": IMAGENET_STD,
        }
        turns = {**_TURNS[config.template], "system": _SYSTEM}
        template = _TEMPLATE
        for name, text in turns.items():
            template = template.replace("{" + name + "}", text)
        return InternVLProcessor(
            image_processor=GotOcr2ImageProcessor(**pictures, min_patches=1, max_patches=12),
            tokenizer=tokenizer,
            video_processor=InternVLVideoProcessor(**pictures),
            image_seq_length=config.image_seq_length,
            chat_template=template,
        )


def _split_wqkv(tensor: torch.Tensor, config: PreTrainedConfig) -> list[torch.Tensor]:
    """InternLM2 keeps a key head with its query heads and its value head: `(key heads, group + 2, head, ...)`."""
    text = config.text_config
    groups = text.num_attention_heads // text.num_key_value_heads
    heads = tensor.unflatten(0, (text.num_key_value_heads, groups + 2, text.head_dim))
    return [part.flatten(0, 2) for part in heads.split([groups, 1, 1], dim=1)]


_LAYER, _TO = r"language_model\.model\.layers\.(\d+)\.", r"model.language_model.layers.\1."
_INTERNLM2_RULES = [
    KeyRule(r"language_model\.model\.tok_embeddings\.weight", ("model.language_model.embed_tokens.weight",)),
    KeyRule(r"language_model\.output\.weight", ("lm_head.weight",)),
    KeyRule(
        _LAYER + r"attention\.wqkv\.(weight|bias)",
        tuple(rf"{_TO}self_attn.{name}_proj.\2" for name in "qkv"),
        _split_wqkv,
    ),
    KeyRule(_LAYER + r"attention\.wo\.(weight|bias)", (_TO + r"self_attn.o_proj.\2",)),
    KeyRule(_LAYER + r"feed_forward\.w1\.weight", (_TO + "mlp.gate_proj.weight",)),
    KeyRule(_LAYER + r"feed_forward\.w3\.weight", (_TO + "mlp.up_proj.weight",)),
    KeyRule(_LAYER + r"feed_forward\.w2\.weight", (_TO + "mlp.down_proj.weight",)),
    KeyRule(_LAYER + r"attention_norm\.weight", (_TO + "input_layernorm.weight",)),
    KeyRule(_LAYER + r"ffn_norm\.weight", (_TO + "post_attention_layernorm.weight",)),
]


def _text_config(llm: dict) -> PreTrainedConfig:
    """Only what the arithmetic needs; such as `flash_attention_2`, which the LLM was trained with, stays behind."""
    settings = {name: stated(llm, name) for name in _TEXT_NAMES}
    settings |= {name: llm.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    settings["tie_word_embeddings"] = False
    rope = {"rope_type": "default", **(llm.get("rope_scaling") or {}), "rope_theta": llm.get("rope_theta", 10_000.0)}
    rope["rope_type"] = rope.pop("type", rope["rope_type"])
    architecture = stated(llm, "architectures")[0]
    if architecture == "Qwen2ForCausalLM":
        extra = {name: llm[name] for name in _QWEN2_NAMES if llm.get(name) is not None}
        return Qwen2Config(**settings, **extra, rope_parameters=rope)
    if architecture == "InternLM2ForCausalLM":
        return LlamaConfig(**settings, attention_bias=llm.get("bias", False), rope_parameters=rope)
    if architecture == "LlamaForCausalLM":
        return LlamaConfig(**settings, attention_bias=llm.get("attention_bias", False), rope_parameters=rope)
    if architecture == "Phi3ForCausalLM":
        original = llm.get("original_max_position_embeddings", settings["max_position_embeddings"])
        if rope["rope_type"] == "su":  # the name it had before
            rope |= {"rope_type": "longrope", "original_max_position_embeddings": original}
        window = llm.get("sliding_window")
        return Phi3Config(
            **settings,
            original_max_position_embeddings=original,
            # A token saw the window before it and itself; today it counts as one of the window.
            sliding_window=None if window is None else window + 1,
            rope_parameters=rope,
        )
    raise ValueError(f"the LLM of config.json is a {architecture}; expected one of Qwen2, InternLM2, Llama and Phi3.")


def _tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    tokens = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",  # behind the vocabulary; the processor writes the tokens of frames in its place
    }
    kinds = {"qwen2": Qwen2Tokenizer, "phi3": LlamaTokenizer}
    if (folder / "tokenizer.json").is_file() or config.text_config.model_type in kinds:
        kind = kinds.get(config.text_config.model_type, PreTrainedTokenizerFast)
        return kind.from_pretrained(folder, extra_special_tokens=tokens)
    # InternLM2Tokenizer is code of the checkpoint; what it does is SentencePiece and a token in front.
    missing = [name for name in ("sentencepiece", "google.protobuf") if not _is_installed(name)]
    if missing:
        raise ValueError(
            f"{folder}/tokenizer.model needs {' and '.join(missing)}: pip install sentencepiece protobuf."
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, extra_special_tokens=tokens)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.bos_token} $A",
        pair=f"{tokenizer.bos_token} $A $B",
        special_tokens=[(tokenizer.bos_token, tokenizer.bos_token_id)],
    )
    return tokenizer


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


__all__ = ["InternVL2Checkpoint"]
