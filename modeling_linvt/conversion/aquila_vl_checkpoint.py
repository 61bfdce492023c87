"""Aquila-VL-2B as BAAI published it: the `llava_qwen` of LLaVA-NeXT, with SigLIP and Qwen2.5."""

import re
from pathlib import Path

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2Tokenizer,
)

from linvt.conversion.checkpoint_kinds import CheckpointKind, KeyRule, Shapes, has_tokenizer, stated
from linvt.conversion.siglip_tower import siglip_config, siglip_rules


_VISION = "model.vision_tower.vision_tower.vision_model."
# Qwen2.5 has 151,665 tokens and 151,936 rows of embeddings; what follows its tokens is free.
_FIRST_FREE_TOKEN = 151_665

_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% elif part['type'] == 'video' %}{{ '<video>\\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

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


class AquilaVLCheckpoint(CheckpointKind):
    """Aquila-VL-2B, and other `llava_qwen` of LLaVA-NeXT with a SigLIP and images at any resolution."""

    name = "aquila_vl"
    model_class = LlavaOnevisionForConditionalGeneration

    def recognises(self, config: dict, shapes: Shapes) -> bool:
        is_llava_qwen = config.get("model_type") == "llava_qwen" or "LlavaQwenForCausalLM" in (
            config.get("architectures") or []
        )
        return is_llava_qwen and any(key.startswith(_VISION) for key in shapes)

    def config(self, config: dict, shapes: Shapes) -> PreTrainedConfig:
        expected = {"mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad"}
        for name, value in expected.items():
            if stated(config, name) != value:
                raise ValueError(f"{name} is {config[name]!r}, expected {value!r}.")
        aspect_ratio = stated(config, "image_aspect_ratio")
        if not re.fullmatch(r"anyres_max_\d+", aspect_ratio):
            raise ValueError(f"image_aspect_ratio is {aspect_ratio!r}, expected 'anyres_max_' and a number.")
        if config.get("rope_scaling") is not None:
            raise ValueError(f"rope_scaling is {config['rope_scaling']}, expected none.")
        vision = siglip_config(shapes, _VISION)
        settings = {name: stated(config, name) for name in _TEXT_NAMES}
        settings |= {name: config.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return LlavaOnevisionConfig(
            vision_config=vision,
            text_config=Qwen2Config(
                **settings,
                rope_parameters={"rope_type": "default", "rope_theta": stated(config, "rope_theta")},
                tie_word_embeddings=False,
            ),
            image_token_index=_FIRST_FREE_TOKEN,
            video_token_index=_FIRST_FREE_TOKEN + 1,
            projector_hidden_act="gelu",
            # LLaVA-NeXT deletes the layers behind the one it takes, whatever mm_vision_select_layer says, and takes
            # what comes out of the last one that is left, before the norm.
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            vision_aspect_ratio=aspect_ratio,
            image_grid_pinpoints=_pinpoints(stated(config, "image_grid_pinpoints"), vision.image_size),
            tie_word_embeddings="lm_head.weight" not in shapes,
        )

    def rules(self, config: PreTrainedConfig) -> list[KeyRule]:
        return [
            *siglip_rules(re.escape(_VISION)),
            KeyRule(r"model\.mm_projector\.0\.(\w+)", (r"model.multi_modal_projector.linear_1.\1",)),
            KeyRule(r"model\.mm_projector\.2\.(\w+)", (r"model.multi_modal_projector.linear_2.\1",)),
            KeyRule(r"model\.image_newline", ("model.image_newline",)),
            KeyRule(r"model\..*\.rotary_emb\.inv_freq", ()),
            KeyRule(r"model\.(embed_tokens|layers|norm)\.(.+)", (r"model.language_model.\1.\2",)),
            KeyRule(r"lm_head\.weight", ("lm_head.weight",)),
        ]

    def processor(self, folder: Path, config: PreTrainedConfig) -> LlavaOnevisionProcessor | None:
        if not has_tokenizer(folder):
            return None
        tokens = {"image_token": "<image>", "video_token": "<video>"}
        tokenizer = Qwen2Tokenizer.from_pretrained(folder, extra_special_tokens=tokens)
        config.image_token_id, config.video_token_id = tokenizer.image_token_id, tokenizer.video_token_id
        size = config.vision_config.image_size
        pictures = {"size": {"height": size, "width": size}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        return LlavaOnevisionProcessor(
            image_processor=LlavaOnevisionImageProcessor(**pictures, image_grid_pinpoints=config.image_grid_pinpoints),
            tokenizer=tokenizer,
            video_processor=LlavaOnevisionVideoProcessor(**pictures),
            num_image_tokens=(size // config.vision_config.patch_size) ** 2,
            vision_feature_select_strategy="full",
            vision_aspect_ratio=config.vision_aspect_ratio,
            chat_template=_TEMPLATE,
        )


def _pinpoints(published: str | list, image_size: int) -> list[list[int]]:
    """Returns the sizes in pixels to resize a picture to; also written as a range of tiles, `(1x1),...,(6x6)`."""
    if isinstance(published, list):
        return [list(size) for size in published]
    tiles = [tuple(map(int, pair)) for pair in re.findall(r"\((\d+)x(\d+)\)", published)]
    if len(tiles) != 2 or "..." not in published:
        raise ValueError(
            f"image_grid_pinpoints is {published!r}, expected sizes or a range such as '(1x1),...,(6x6)'."
        )
    (first_row, first_column), (last_row, last_column) = tiles
    return [
        [row * image_size, column * image_size]
        for row in range(first_row, last_row + 1)
        for column in range(first_column, last_column + 1)
    ]


__all__ = ["AquilaVLCheckpoint"]
