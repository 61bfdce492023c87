"""Tiny random checkpoints with the files, the keys and the `config.json` that InternVL2, Aquila-VL and Mipha have."""

import json
import math
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2 as model_format
from tokenizers.pre_tokenizers import ByteLevel


INTERNVL2_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
SENTENCES = ["What is in the picture?", "A cat on a mat.", "How many frames does the video have?"] * 20


def internvl2(llm: str = "InternLM2ForCausalLM", big_vision: bool = False, **llm_settings) -> tuple[dict, dict]:
    """
    `config.json` and tensors. The encoder is that of 1B to 8B, or the one of 26B and larger.

    Args:
        llm (`str`): `"Qwen2ForCausalLM"` (1B), `"InternLM2ForCausalLM"` (2B, 8B), `"Phi3ForCausalLM"` (4B) or
            `"LlamaForCausalLM"` (40B).
    """
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "norm_type": "rms_norm" if big_vision else "layer_norm",
        "qk_normalization": big_vision,
        "qkv_bias": not big_vision,
        "model_type": "intern_vit_6b",
        "use_flash_attn": True,
    }
    shared = {
        "architectures": [llm],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "rope_scaling": None,
        "rope_theta": 1e4,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "attn_implementation": "flash_attention_2",
        "_attn_implementation": "flash_attention_2",
        "temperature": 1.0,
    }
    only = {
        "Qwen2ForCausalLM": {
            "rms_norm_eps": 1e-6,
            "bos_token_id": 256,
            "eos_token_id": 258,
            "use_sliding_window": False,
            "sliding_window": 64,
            "max_window_layers": 24,
            "vocab_size": 259 + 9,
        },
        "InternLM2ForCausalLM": {
            "bias": False,
            "rms_norm_eps": 1e-5,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "vocab_size": 320 + 9,
        },
        "Phi3ForCausalLM": {"rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 320 + 11 + 9},
        "LlamaForCausalLM": {"rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 320 + 9},
    }
    templates = {"Qwen2ForCausalLM": "Hermes-2", "Phi3ForCausalLM": "phi3-chat", "LlamaForCausalLM": "Hermes-2"}
    config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "force_image_size": 56,
        "ps_version": "v2",
        "select_layer": -1,
        "template": templates.get(llm, "internlm2-chat"),
        "torch_dtype": "bfloat16",
        "vision_config": vision,
        "llm_config": {**shared, **only[llm], **llm_settings},
    }
    make = _Maker()
    make("vision_model.embeddings.class_embedding", 1, 1, 16)
    make("vision_model.embeddings.position_embedding", 1, 17, 16)
    make.layer("vision_model.embeddings.patch_embedding", 16, 3, 14, 14)
    for index in range(3):
        layer = f"vision_model.encoder.layers.{index}."
        make(layer + "ls1", 16)
        make(layer + "ls2", 16)
        make.layer(layer + "attn.qkv", 48, 16, bias=not big_vision)
        make.layer(layer + "attn.proj", 16, 16)
        make.layer(layer + "mlp.fc1", 24, 16)
        make.layer(layer + "mlp.fc2", 16, 24)
        for name in ("norm1", "norm2", *(("attn.q_norm", "attn.k_norm") if big_vision else ())):
            make.norm(layer + name, 16, bias=not big_vision)
    make.norm("mlp1.0", 64)
    make.layer("mlp1.1", 32, 64)
    make.layer("mlp1.3", 32, 32)
    text = config["llm_config"]
    heads, kv_heads, vocabulary = text["num_attention_heads"], text["num_key_value_heads"], text["vocab_size"]
    is_internlm2 = llm == "InternLM2ForCausalLM"
    make("language_model.model." + ("tok_embeddings" if is_internlm2 else "embed_tokens") + ".weight", vocabulary, 32)
    make("language_model." + ("output" if is_internlm2 else "lm_head") + ".weight", vocabulary, 32)
    make.norm("language_model.model.norm", 32, bias=False)
    for index in range(2):
        layer = f"language_model.model.layers.{index}."
        if is_internlm2:
            make.layer(layer + "attention.wqkv", (heads + 2 * kv_heads) * 8, 32, bias=text["bias"])
            make.layer(layer + "attention.wo", 32, 32, bias=text["bias"])
            for name, shape in (("w1", (48, 32)), ("w3", (48, 32)), ("w2", (32, 48))):
                make(f"{layer}feed_forward.{name}.weight", *shape)
            make.norm(layer + "attention_norm", 32, bias=False)
            make.norm(layer + "ffn_norm", 32, bias=False)
            continue
        if llm == "Phi3ForCausalLM":
            make(layer + "self_attn.qkv_proj.weight", (heads + 2 * kv_heads) * 8, 32)
            make(layer + "mlp.gate_up_proj.weight", 96, 32)
        else:
            for name, size in (("q", heads * 8), ("k", kv_heads * 8), ("v", kv_heads * 8)):
                make.layer(f"{layer}self_attn.{name}_proj", size, 32, bias=llm == "Qwen2ForCausalLM")
            make(layer + "mlp.gate_proj.weight", 48, 32)
            make(layer + "mlp.up_proj.weight", 48, 32)
        make(layer + "self_attn.o_proj.weight", 32, 32)
        make(layer + "mlp.down_proj.weight", 32, 48)
        make.norm(layer + "input_layernorm", 32, bias=False)
        make.norm(layer + "post_attention_layernorm", 32, bias=False)
    return config, make.tensors


def aquila_vl() -> tuple[dict, dict]:
    """Encoder of 16 heads (as all of its kind), width 32, 28 x 28 pixels; `config.json` says nothing of it."""
    config = {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "vocab_size": 280,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,  # which the separate head contradicts
        "bos_token_id": 256,
        "eos_token_id": 258,
        "image_aspect_ratio": "anyres_max_2",
        "image_grid_pinpoints": [[28, 28], [28, 56], [56, 28], [56, 56], [28, 84], [84, 28]],
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,  # which that code never looks at
        "torch_dtype": "bfloat16",
    }
    make = _Maker()
    make.siglip("model.vision_tower.vision_tower.vision_model.", num_layers=3, head=False)
    make.layer("model.mm_projector.0", 32, 32)
    make.layer("model.mm_projector.2", 32, 32)
    make("model.image_newline", 32)
    make("model.embed_tokens.weight", 280, 32)
    for index in range(2):
        layer = f"model.layers.{index}."
        for name, size in (("q", 32), ("k", 16), ("v", 16)):
            make.layer(f"{layer}self_attn.{name}_proj", size, 32)
        make(layer + "self_attn.o_proj.weight", 32, 32)
        make(layer + "mlp.gate_proj.weight", 48, 32)
        make(layer + "mlp.up_proj.weight", 48, 32)
        make(layer + "mlp.down_proj.weight", 32, 48)
        make.norm(layer + "input_layernorm", 32, bias=False)
        make.norm(layer + "post_attention_layernorm", 32, bias=False)
    make.norm("model.norm", 32, bias=False)
    make("lm_head.weight", 280, 32)
    return config, make.tensors


def mipha(fused: bool, partial_rotary_factor: float) -> tuple[dict, dict]:
    """Mipha-3B has separate projections and rotates 0.4 of a head, Mipha-1.6B a fused one and 0.5."""
    config = {
        "architectures": ["MiphaPhi15ForCausalLM" if fused else "MiphaPhiForCausalLM"],
        "model_type": "mipha_phi",
        "vocab_size": 280,
        "hidden_size": 40,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 256,
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "partial_rotary_factor": partial_rotary_factor,
        "qk_layernorm": False,
        "image_aspect_ratio": "pad",
        "tie_word_embeddings": False,
        "vision_config": {
            "mm_projector": {"mm_projector_type": "mlp2x_gelu"},
            "vision_tower": {
                "hidden_size": 32,
                "intermediate_size": 40,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "image_size": 28,
                "patch_size": 14,
                "hidden_act": "gelu_pytorch_tanh",
                "layer_norm_eps": 1e-6,
                "mm_vision_select_feature": "patch",
                "mm_vision_select_layer": -2,
            },
        },
    }
    make = _Maker()
    make.siglip("model.vision_tower.vision_model.", num_layers=4, head=True)
    make.layer("model.mm_projector.0", 40, 32)
    make.layer("model.mm_projector.2", 40, 40)
    make("model.embed_tokens.weight", 280, 40)
    for index in range(2):
        layer = f"model.layers.{index}."
        if fused:
            make.layer(layer + "self_attn.query_key_value", 120, 40)
        else:
            for name in "qkv":
                make.layer(f"{layer}self_attn.{name}_proj", 40, 40)
        make.layer(layer + "self_attn.dense", 40, 40)
        make.layer(layer + "mlp.fc1", 48, 40)
        make.layer(layer + "mlp.fc2", 40, 48)
        make.norm(layer + "input_layernorm", 40)
    make.norm("model.final_layernorm", 40)
    make.layer("lm_head", 280, 40)
    return config, make.tensors


class _Maker:
    """Random tensors, spread widely enough that each of them shows in the logits."""

    def __init__(self):
        self.tensors: dict[str, torch.Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, key: str, *shape: int) -> None:
        spread = 0.5 if len(shape) != 2 else shape[-1] ** -0.5
        if "embed" in key:  # so small that the first norms show their eps
            spread = 0.02 if len(shape) < 4 else 0.02 * math.prod(shape[1:]) ** -0.5
        self.tensors[key] = torch.randn(shape, generator=self.generator) * spread

    def layer(self, key: str, *shape: int, bias: bool = True) -> None:
        self(key + ".weight", *shape)
        if bias:
            self(key + ".bias", shape[0])

    def norm(self, key: str, size: int, bias: bool = True) -> None:
        self(key + ".weight", size)
        self.tensors[key + ".weight"] += 1
        if bias:
            self(key + ".bias", size)

    def siglip(self, prefix: str, num_layers: int, head: bool) -> None:
        self.layer(prefix + "embeddings.patch_embedding", 32, 3, 14, 14)
        self(prefix + "embeddings.position_embedding.weight", 4, 32)
        for index in range(num_layers):
            layer = f"{prefix}encoder.layers.{index}."
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                self.layer(layer + "self_attn." + name, 32, 32)
            self.layer(layer + "mlp.fc1", 40, 32)
            self.layer(layer + "mlp.fc2", 32, 40)
            self.norm(layer + "layer_norm1", 32)
            self.norm(layer + "layer_norm2", 32)
        self.norm(prefix + "post_layernorm", 32)
        if head:
            self(prefix + "head.probe", 1, 1, 32)
            self(prefix + "head.attention.in_proj_weight", 96, 32)


def write_checkpoint(folder: Path, config: dict, tensors: dict, file_format: str = "safetensors") -> Path:
    """
    Args:
        file_format (`str`): `"safetensors"`, `"bin"`, one of them with `" sharded"`, or `"old bin"`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    suffix = "safetensors" if "safetensors" in file_format else "bin"
    stem = "model" if suffix == "safetensors" else "pytorch_model"

    def write(path: Path, part: dict) -> None:
        if suffix == "safetensors":
            save_file(part, path, metadata={"format": "pt"})
        else:
            torch.save(part, path, _use_new_zipfile_serialization=file_format != "old bin")

    if "sharded" not in file_format:
        write(folder / f"{stem}.{suffix}", tensors)
        return folder
    keys = sorted(tensors)
    parts = [keys[0::3], keys[1::3], keys[2::3]]
    names = [f"{stem}-{number:05}-of-00003.{suffix}" for number in (1, 2, 3)]
    for name, part in zip(names, parts, strict=True):
        write(folder / name, {key: tensors[key] for key in part})
    weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def write_byte_tokenizer(folder: Path, tokenizer_class: str, special: list[str], **settings) -> None:
    """`vocab.json` and `merges.txt` of Qwen2 and CodeGen, with the 256 bytes for a vocabulary."""
    vocabulary = {token: index for index, token in enumerate(sorted(ByteLevel.alphabet()))}
    added = _added_tokens(special, len(vocabulary))
    if tokenizer_class == "CodeGenTokenizer":  # has it in the vocabulary itself
        vocabulary["<|endoftext|>"] = len(vocabulary)
        added = {}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    _write_tokenizer_config(folder, added, tokenizer_class=tokenizer_class, **settings)


def write_sentencepiece(folder: Path, tokenizer_class: str, special: list[str], renamed: int = 0, **settings) -> None:
    """
    `tokenizer.model` with 320 pieces. The last `renamed` of them are spare, and become the first special tokens; the
    others follow.
    """
    spare = [f"[UNUSED_TOKEN_{number}]" for number in range(renamed)]
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES),
            model_writer=file,
            vocab_size=320,
            model_type="bpe",
            byte_fallback=True,
            user_defined_symbols=[],
            add_dummy_prefix=tokenizer_class == "LlamaTokenizer",
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            hard_vocab_limit=False,
            minloglevel=3,
        )
    model = model_format.ModelProto()
    model.ParseFromString((folder / "tokenizer.model").read_bytes())
    del model.pieces[320 - renamed :]
    while len(model.pieces) < 320:
        number = len(model.pieces) - (320 - renamed)
        text = spare[number] if number >= 0 else f"[FILLER_{len(model.pieces)}]"
        model.pieces.add(piece=text, score=0.0, type=4)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    added = _added_tokens(special, 320 - renamed)
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", **settings}
    _write_tokenizer_config(folder, added, tokenizer_class=tokenizer_class, **settings)


def _added_tokens(tokens: list[str], start: int) -> dict:
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    return {str(start + place): {"content": token, **flags} for place, token in enumerate(tokens)}


def _write_tokenizer_config(folder: Path, added: dict, **settings) -> None:
    settings = {"added_tokens_decoder": added, "clean_up_tokenization_spaces": False, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
