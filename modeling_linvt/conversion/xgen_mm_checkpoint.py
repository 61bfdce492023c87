"""xGen-MM (BLIP-3): interleave-r-v1.5 with SigLIP, and r-v1 with open_clip's ViT-H and a Perceiver that reads prompts.

Both folders have `model_type: xgenmm`; their keys tell them apart. `config.json` states little but what differs from
the published code's defaults, so sizes are read off the tensors.
"""

from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    GenerationConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from linvt.configuration.configuration_xgen_mm import XGenMMConfig
from linvt.conversion.checkpoint_kinds import (
    CheckpointKind,
    JoinRule,
    KeyRule,
    Shapes,
    has_tokenizer,
    num_layers,
    stated,
)
from linvt.conversion.siglip_tower import siglip_config
from linvt.ports.modeling_xgen_mm import XGenMMForConditionalGeneration
from linvt.processors.port_processors.image_processing_xgen_mm import XGenMMImageProcessor
from linvt.processors.port_processors.processing_xgen_mm import ADDED_TOKENS, XGenMMProcessor, chat_template


_VISION, _PERCEIVER, _LANGUAGE = "vlm.vision_encoder.", "vlm.vision_tokenizer.", "vlm.lang_model."
_NUM_HEADS = 16  # of SigLIP-so400m, of ViT-H and of the Perceiver
_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

_SIGLIP_RULES = [
    KeyRule(r"vlm\.vision_encoder\.head\..+", ()),  # pools all positions into one; the Perceiver reads the positions
    KeyRule(r"vlm\.vision_encoder\.(embeddings|encoder|post_layernorm)\.(.+)", (r"vision_tower.\1.\2",)),
]
_VIT = r"vlm\.vision_encoder\."
_VIT_LAYER, _CLIP_LAYER = rf"{_VIT}transformer\.resblocks\.(\d+)\.", r"vision_tower.encoder.layers.\1."
_VIT_RULES = [
    KeyRule(rf"{_VIT}proj", ()),  # to the space that CLIP shares with texts
    KeyRule(rf"{_VIT}conv1\.weight", ("vision_tower.embeddings.patch_embedding.weight",)),
    KeyRule(rf"{_VIT}class_embedding", ("vision_tower.embeddings.class_embedding",)),
    KeyRule(rf"{_VIT}positional_embedding", ("vision_tower.embeddings.position_embedding.weight",)),
    KeyRule(rf"{_VIT}ln_pre\.(weight|bias)", (r"vision_tower.pre_layrnorm.\1",)),
    KeyRule(rf"{_VIT}ln_post\.(weight|bias)", (r"vision_tower.post_layernorm.\1",)),
    KeyRule(rf"{_VIT_LAYER}ln_([12])\.(weight|bias)", (rf"{_CLIP_LAYER}layer_norm\2.\3",)),
    KeyRule(
        rf"{_VIT_LAYER}attn\.in_proj_(weight|bias)",
        tuple(rf"{_CLIP_LAYER}self_attn.{name}_proj.\2" for name in "qkv"),
        split=lambda fused, config: fused.chunk(3),
    ),
    KeyRule(rf"{_VIT_LAYER}attn\.out_proj\.(weight|bias)", (rf"{_CLIP_LAYER}self_attn.out_proj.\2",)),
    KeyRule(rf"{_VIT_LAYER}mlp\.c_fc\.(weight|bias)", (rf"{_CLIP_LAYER}mlp.fc1.\2",)),
    KeyRule(rf"{_VIT_LAYER}mlp\.c_proj\.(weight|bias)", (rf"{_CLIP_LAYER}mlp.fc2.\2",)),
]

_LAYER, _NEW_LAYER = r"vlm\.vision_tokenizer\.layers\.(\d+)\.", r"perceiver.layers.\1."
_PERCEIVER_RULES = [
    KeyRule(r"vlm\.vision_tokenizer\.latents", ("perceiver.latents",)),
    KeyRule(r"vlm\.vision_tokenizer\.(norm|projection|text_projection)\.(.+)", (r"perceiver.\1.\2",)),
    KeyRule(rf"{_LAYER}0\.(norm_media|norm_latents)\.(weight|bias)", (rf"{_NEW_LAYER}attention.\2.\3",)),
    KeyRule(rf"{_LAYER}0\.to_(q|out)\.weight", (rf"{_NEW_LAYER}attention.\2_proj.weight",)),
    KeyRule(
        rf"{_LAYER}0\.to_kv\.weight",
        (rf"{_NEW_LAYER}attention.k_proj.weight", rf"{_NEW_LAYER}attention.v_proj.weight"),
        split=lambda fused, config: fused.chunk(2),
    ),
    KeyRule(rf"{_LAYER}1\.0\.(weight|bias)", (rf"{_NEW_LAYER}mlp_norm.\2",)),
    KeyRule(rf"{_LAYER}1\.1\.weight", (rf"{_NEW_LAYER}fc1.weight",)),
    KeyRule(rf"{_LAYER}1\.3\.weight", (rf"{_NEW_LAYER}fc2.weight",)),
]


def _with_added_rows(tensors: list[torch.Tensor], config: PreTrainedConfig) -> torch.Tensor:
    """The published table has rows that no token uses; rows of tokens that were added stand apart from it."""
    base, added = tensors
    return torch.cat([base[: config.text_config.vocab_size - len(added)], added])


_LANGUAGE_RULES: list[KeyRule | JoinRule] = [
    KeyRule(r"vlm\.lang_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", ()),
    KeyRule(r"vlm\.lang_model\.model\.(layers|norm)\.(.+)", (r"language_model.\1.\2",)),
    JoinRule(
        (f"{_LANGUAGE}model.embed_tokens.weight", f"{_LANGUAGE}model.embed_tokens.additional_embedding.weight"),
        "language_model.embed_tokens.weight",
        _with_added_rows,
    ),
    *(
        JoinRule(
            (f"{_LANGUAGE}lm_head.{name}", f"{_LANGUAGE}lm_head.additional_fc.{name}"),
            f"lm_head.{name}",
            _with_added_rows,
        )
        for name in ("weight", "bias")
    ),
]


class XGenMMCheckpoint(CheckpointKind):
    name = "xgen_mm"
    model_class = XGenMMForConditionalGeneration

    def recognises(self, config: dict, shapes: Shapes) -> bool:
        return f"{_PERCEIVER}latents" in shapes and f"{_LANGUAGE}lm_head.additional_fc.weight" in shapes

    def config(self, config: dict, shapes: Shapes) -> PreTrainedConfig:
        encoder = config.get("vision_encoder_config") or {}
        if encoder.get("image_aspect_ratio") == "anyres" and not encoder.get("anyres_patch_sampling"):
            raise ValueError(
                "config.json states image_aspect_ratio 'anyres' without anyres_patch_sampling: crops that go through "
                "the Perceiver together, which no supported checkpoint does."
            )
        is_siglip = f"{_VISION}embeddings.position_embedding.weight" in shapes
        return XGenMMConfig(
            vision_config=siglip_config(shapes, _VISION) if is_siglip else _vit(shapes),
            text_config=_phi3(config, shapes),
            num_latents=_shape(shapes, f"{_PERCEIVER}latents")[0],
            perceiver_num_layers=num_layers(shapes, f"{_PERCEIVER}layers."),
            perceiver_num_heads=_NUM_HEADS,
            perceiver_head_dim=_shape(shapes, f"{_PERCEIVER}layers.0.0.to_q.weight")[0] // _NUM_HEADS,
            perceiver_intermediate_size=_shape(shapes, f"{_PERCEIVER}layers.0.1.1.weight")[0],
            reads_prompt=f"{_PERCEIVER}text_projection.0.weight" in shapes,
            image_token_id=stated(config, "text_config", "initial_tokenizer_len"),
        )

    def rules(self, config: PreTrainedConfig) -> list[KeyRule | JoinRule]:
        is_siglip = config.vision_config.model_type == "siglip_vision_model"
        return [*(_SIGLIP_RULES if is_siglip else _VIT_RULES), *_PERCEIVER_RULES, *_LANGUAGE_RULES]

    def processor(self, folder: Path, config: PreTrainedConfig) -> XGenMMProcessor | None:
        """
        Where the Perceiver reads the prompt, this also sets `config.default_prompt_ids`, which need the tokenizer: the
        chat with an empty question. So what is encoded without a prompt sees what all prompts have in common, and not
        the absence of one, which training never showed.
        """
        if not has_tokenizer(folder):
            return None
        tokenizer = _tokenizer(folder, config)
        if len(tokenizer) != config.image_token_id:
            raise ValueError(
                f"the tokenizer in {folder} has {len(tokenizer)} tokens, but config.json states initial_tokenizer_len "
                f"{config.image_token_id}, so {ADDED_TOKENS[0]} would get the id of another token."
            )
        tokenizer.add_special_tokens({"additional_special_tokens": list(ADDED_TOKENS)})
        tokenizer.padding_side = "left"
        tokenizer.chat_template = None  # the processor's stands in its place, under the same file name
        size, settings = config.vision_config.image_size, {}
        if config.vision_config.model_type == "clip_vision_model":
            settings = {"image_mean": _CLIP_MEAN, "image_std": _CLIP_STD}
        processor = XGenMMProcessor(
            image_processor=XGenMMImageProcessor(size={"height": size, "width": size}, **settings),
            tokenizer=tokenizer,
            num_latents=config.num_latents,
            chat_template=chat_template("\n" if config.reads_prompt else " "),
        )
        if config.reads_prompt:
            content = [{"type": "image"}, {"type": "text", "text": ""}]
            chat = [{"role": "user", "content": content}]
            prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
            config.default_prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return processor

    def generation_config(self, folder: Path, config: PreTrainedConfig) -> GenerationConfig:
        """An answer ends at the end of its turn, which the published callers pass with every call."""
        generation = super().generation_config(folder, config)
        if has_tokenizer(folder):
            tokenizer = _tokenizer(folder, config)
            generation.eos_token_id = [tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id]
            generation.pad_token_id = tokenizer.pad_token_id
        return generation


def _tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    # The configuration is given because that in the folder names code of its own, which is not to be run.
    return AutoTokenizer.from_pretrained(folder, config=config.text_config)


def _phi3(config: dict, shapes: Shapes) -> Phi3Config:
    text = stated(config, "text_config")
    if text.get("rope_scaling") is not None:
        raise ValueError(f"config.json states text_config.rope_scaling {text['rope_scaling']}; expected none.")
    fields = ("num_attention_heads", "num_key_value_heads", "bos_token_id", "eos_token_id", "pad_token_id")
    window = text.get("sliding_window")
    added, _ = _shape(shapes, f"{_LANGUAGE}model.embed_tokens.additional_embedding.weight")
    width, intermediate = _shape(shapes, f"{_LANGUAGE}model.layers.0.mlp.down_proj.weight")
    max_positions = text.get("max_position_embeddings", 4096)
    return Phi3Config(
        vocab_size=stated(text, "initial_tokenizer_len") + added,
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=num_layers(shapes, f"{_LANGUAGE}model.layers."),
        max_position_embeddings=max_positions,
        original_max_position_embeddings=text.get("original_max_position_embeddings", max_positions),
        rms_norm_eps=text.get("rms_norm_eps", 1e-5),
        rope_parameters={"rope_type": "default", "rope_theta": text.get("rope_theta", 10000.0)},
        # In the Transformers of the published code a token sees as many tokens before itself, now one less.
        sliding_window=None if window is None else window + 1,
        tie_word_embeddings=False,
        **{name: text[name] for name in fields if text.get(name) is not None},
    )


def _shape(shapes: Shapes, key: str) -> tuple[int, ...]:
    if key not in shapes:
        raise ValueError(f"the checkpoint has no {key}, whose shape tells the sizes of the model.")
    return shapes[key]


def _vit(shapes: Shapes) -> CLIPVisionConfig:
    positions, width = _shape(shapes, f"{_VISION}positional_embedding")
    patch_size = _shape(shapes, f"{_VISION}conv1.weight")[-1]
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=_shape(shapes, f"{_VISION}transformer.resblocks.0.mlp.c_fc.weight")[0],
        num_hidden_layers=num_layers(shapes, f"{_VISION}transformer.resblocks."),
        num_attention_heads=_NUM_HEADS,
        image_size=round((positions - 1) ** 0.5) * patch_size,
        patch_size=patch_size,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        projection_dim=width,
    )


__all__ = ["XGenMMCheckpoint"]
