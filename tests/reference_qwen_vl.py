"""Qwen-VL, first version, a second time: in plain torch, on the published names of tensors, from the published facts.

`FACTS` are what a port can get wrong without a wrong shape; the tests change them one by one.
"""

import math

import torch
from torch.nn import functional as F


FACTS = {
    "heads_interleaved": True,
    "activation": "gelu",
    "vision_eps": 1e-6,
    "positions": "bicubic",
    "key_positions": True,
    "positions_in_values": False,
    "query_positions": True,
    "resampler_heads": 2,
    "projection_from_the_right": True,
    "gate": "w2",
    "theta": 1e4,
    "rms_eps": 1e-6,
    "head": "lm_head",
    "replaced": True,
}
BYTES_AND_MERGES = 276
CONFIG = {
    "architectures": ["QWenLMHeadModel"],
    "model_type": "qwen",
    "hidden_size": 256,
    "intermediate_size": 2 * 120,
    "kv_channels": 64,
    "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 8192,
    "no_bias": True,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "seq_length": 2048,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "visual": {
        "heads": 4,
        "image_size": 56,
        "image_start_id": BYTES_AND_MERGES + 3 + 205 + 6,
        "layers": 3,
        "mlp_ratio": 2.05,
        "output_dim": 256,
        "patch_size": 14,
        "width": 48,
    },
    "vocab_size": 512,
}
_VISUAL = "transformer.visual."


def random_tensors() -> dict[str, torch.Tensor]:
    """A checkpoint with the published names. Tables of positions are 3 x 3 and 2 x 2, of a picture 4 x 4 patches."""
    text, visual = CONFIG["hidden_size"], CONFIG["visual"]
    width, mlp, inner = visual["width"], int(visual["width"] * visual["mlp_ratio"]), CONFIG["intermediate_size"] // 2
    shapes = {
        "lm_head.weight": (512, text),
        "transformer.wte.weight": (512, text),
        "transformer.ln_f.weight": (text,),
        _VISUAL + "conv1.weight": (width, 3, 14, 14),
        _VISUAL + "positional_embedding": (9, width),
        _VISUAL + "proj": (text, text),
        _VISUAL + "attn_pool.query": (4, text),
        _VISUAL + "attn_pool.pos_embed": (4, text),
        _VISUAL + "attn_pool.kv_proj.weight": (text, width),
        _VISUAL + "attn_pool.attn.in_proj_weight": (3 * text, text),
        _VISUAL + "attn_pool.attn.in_proj_bias": (3 * text,),
        _VISUAL + "attn_pool.attn.out_proj.weight": (text, text),
        _VISUAL + "attn_pool.attn.out_proj.bias": (text,),
    }
    norms = {"ln_pre": width, "ln_post": text, "attn_pool.ln_q": text, "attn_pool.ln_kv": text}
    for number in range(visual["layers"]):
        block = f"transformer.resblocks.{number}."
        norms |= {block + "ln_1": width, block + "ln_2": width}
        linears = {"attn.in_proj": (3 * width, width), "attn.out_proj": (width, width)}
        linears |= {"mlp.c_fc": (mlp, width), "mlp.c_proj": (width, mlp)}
        for name, shape in linears.items():
            shapes |= {f"{_VISUAL}{block}{name}.weight": shape, f"{_VISUAL}{block}{name}.bias": shape[:1]}
    for name, channels in norms.items():
        shapes |= {f"{_VISUAL}{name}.weight": (channels,), f"{_VISUAL}{name}.bias": (channels,)}
    for number in range(CONFIG["num_hidden_layers"]):
        block = f"transformer.h.{number}."
        shapes |= {
            block + "ln_1.weight": (text,),
            block + "ln_2.weight": (text,),
            block + "attn.c_attn.weight": (3 * text, text),
            block + "attn.c_attn.bias": (3 * text,),
            block + "attn.c_proj.weight": (text, text),
            block + "mlp.w1.weight": (inner, text),
            block + "mlp.w2.weight": (inner, text),
            block + "mlp.c_proj.weight": (text, inner),
        }
    generator = torch.Generator().manual_seed(0)
    tables = ("positional_embedding", "attn_pool.query", "pos_embed", "wte.weight")
    made = {}
    for name, shape in shapes.items():
        fan_in = 1 if name.endswith(tables) else math.prod(shape[1:])
        made[name] = torch.randn(shape, generator=generator) * (0.1 if len(shape) == 1 else fan_in**-0.5)
        if ".ln_" in name and name.endswith("weight"):
            made[name] += 1
    return made


def _attention(query, key, value, num_heads: int, bias=0.0):
    query, key, value = (states.unflatten(-1, (num_heads, -1)) for states in (query, key, value))
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1]) + bias
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2)


def _at_patches(table: torch.Tensor, side: int, facts: dict) -> torch.Tensor:
    old = math.isqrt(len(table))
    grid = table.T.reshape(1, -1, old, old)
    options = {} if facts["positions"] == "nearest" else {"align_corners": False}
    return F.interpolate(grid, size=(side, side), mode=facts["positions"], **options)[0].flatten(1).T


def visual_tokens(tensors: dict, pictures: torch.Tensor, facts: dict) -> torch.Tensor:
    """`(images, 3, 56, 56)` to `(images, 4, 256)`."""
    heads, side = CONFIG["visual"]["heads"], 4

    def linear(name: str, states: torch.Tensor) -> torch.Tensor:
        return F.linear(states, tensors[f"{_VISUAL}{name}.weight"], tensors.get(f"{_VISUAL}{name}.bias"))

    def norm(name: str, states: torch.Tensor) -> torch.Tensor:
        weight, bias = tensors[f"{_VISUAL}{name}.weight"], tensors[f"{_VISUAL}{name}.bias"]
        return F.layer_norm(states, weight.shape, weight, bias, facts["vision_eps"])

    states = F.conv2d(pictures, tensors[_VISUAL + "conv1.weight"], stride=14).flatten(2).transpose(1, 2)
    states = norm("ln_pre", states + _at_patches(tensors[_VISUAL + "positional_embedding"], side, facts))
    for number in range(CONFIG["visual"]["layers"]):
        block = f"transformer.resblocks.{number}."
        fused = linear(block + "attn.in_proj", norm(block + "ln_1", states))
        if facts["heads_interleaved"]:
            parts = [part.flatten(2) for part in fused.unflatten(-1, (heads, 3, -1)).unbind(3)]
        else:
            parts = fused.chunk(3, -1)
        states = states + linear(block + "attn.out_proj", _attention(*parts, heads))
        inner = linear(block + "mlp.c_fc", norm(block + "ln_2", states))
        inner = F.gelu(inner) if facts["activation"] == "gelu" else inner * torch.sigmoid(1.702 * inner)
        states = states + linear(block + "mlp.c_proj", inner)

    seen = norm("attn_pool.ln_kv", linear("attn_pool.kv_proj", states))
    table = tensors[_VISUAL + "attn_pool.pos_embed"]
    key_places = _at_patches(table, side, facts) if facts["key_positions"] else 0
    query = norm("attn_pool.ln_q", tensors[_VISUAL + "attn_pool.query"])
    query = (query + (table if facts["query_positions"] else 0)).expand(len(states), -1, -1)
    value = seen + key_places if facts["positions_in_values"] else seen
    weights = tensors[_VISUAL + "attn_pool.attn.in_proj_weight"].chunk(3)
    biases = tensors[_VISUAL + "attn_pool.attn.in_proj_bias"].chunk(3)
    asked = [F.linear(*three) for three in zip((query, seen + key_places, value), weights, biases, strict=True)]
    tokens = linear("attn_pool.attn.out_proj", _attention(*asked, facts["resampler_heads"]))
    projection = tensors[_VISUAL + "proj"]
    return norm("ln_post", tokens) @ (projection if facts["projection_from_the_right"] else projection.T)


def logits(tensors: dict, ids: list[int], tokens: torch.Tensor, image_token_id: int, facts: dict) -> torch.Tensor:
    """`(1, length, 512)` for a prompt with `tokens` of shape `(images, tokens, 256)` at the places of its images."""
    states = tensors["transformer.wte.weight"][torch.tensor(ids)].clone()
    places = [place for place, token in enumerate(ids) if token == image_token_id]
    states[places] = tokens.flatten(0, 1) + (0 if facts["replaced"] else states[places])
    states, length = states[None], len(ids)
    heads, head = CONFIG["num_attention_heads"], CONFIG["kv_channels"]
    angles = torch.outer(torch.arange(length).float(), facts["theta"] ** -(torch.arange(0, head, 2) / head))
    cos, sin = angles.cos().repeat(1, 2)[:, None], angles.sin().repeat(1, 2)[:, None]
    causal = torch.full((length, length), -torch.inf).triu(1)

    def norm(name: str, given: torch.Tensor) -> torch.Tensor:
        return given * (given.pow(2).mean(-1, keepdim=True) + facts["rms_eps"]).rsqrt() * tensors[f"{name}.weight"]

    def rotate(given: torch.Tensor) -> torch.Tensor:
        given = given.unflatten(-1, (heads, head))
        first, second = given.chunk(2, -1)
        return (given * cos + torch.cat([-second, first], -1) * sin).flatten(2)

    for number in range(CONFIG["num_hidden_layers"]):
        block = f"transformer.h.{number}."
        fused = F.linear(
            norm(block + "ln_1", states), tensors[block + "attn.c_attn.weight"], tensors[block + "attn.c_attn.bias"]
        )
        query, key, value = fused.chunk(3, -1)
        mixed = _attention(rotate(query), rotate(key), value, heads, causal)
        states = states + mixed @ tensors[block + "attn.c_proj.weight"].T
        given = norm(block + "ln_2", states)
        first, second = (given @ tensors[f"{block}mlp.{name}.weight"].T for name in ("w1", "w2"))
        gate, up = (second, first) if facts["gate"] == "w2" else (first, second)
        states = states + (F.silu(gate) * up) @ tensors[block + "mlp.c_proj.weight"].T
    head_weight = tensors["lm_head.weight" if facts["head"] == "lm_head" else "transformer.wte.weight"]
    return norm("transformer.ln_f", states) @ head_weight.T


def byte_pairs(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Byte-pair encoding by ranks: again and again, the two neighbours whose union has the lowest rank become one."""
    parts = [bytes([byte]) for byte in word]
    while True:
        unions = [
            (ranks[a + b], place) for place, (a, b) in enumerate(zip(parts, parts[1:], strict=False)) if a + b in ranks
        ]
        if not unions:
            return [ranks[part] for part in parts]
        _, place = min(unions)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
