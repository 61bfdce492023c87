"""Molmo, first version, a second time: in plain torch, on the published names of tensors, from the published facts.

`FACTS` are what a port can get wrong without a wrong shape; the tests change them one by one.
"""

import math
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional as F


FACTS = {
    "activation": "quick_gelu",
    "vision_eps": 1e-5,
    "vision_layers": (-2, -9),
    "class_token_dropped": True,
    "pixels_channels_last": True,
    "pad_rows": (0, 1),
    "query_of_window": "mean",
    "projector_gate": "w1",
    "gate_half": 1,
    "theta": 1e6,
    "rms_eps": 1e-6,
    "added": True,
    "head": "ff_out",
    "mask_shift": True,
}
CONFIG = {
    "architectures": ["MolmoForCausalLM"],
    "model_type": "molmo",
    "attention_layer_norm": False,
    "clip_qkv": None,
    "embedding_size": 384,
    "hidden_size": 48,
    "intermediate_size": 2 * 56,
    "layer_norm_eps": 1e-6,
    "layer_norm_type": "rms",
    "max_position_embeddings": 4096,
    "norm_after": False,
    "num_attention_heads": 6,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "qkv_bias": True,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "vocab_size": 384,
    "weight_tying": False,
}
# Of a crop: 8 x 8 patches of 14 pixels, 2 of them at each side shared with its neighbours.
PREPROCESSOR = {
    "base_image_input_size": [112, 112],
    "overlap_margins": [2, 2],
    "max_crops": 12,
    "image_patch_size": 14,
}
VIT = SimpleNamespace(hidden=64, mlp=80, layers=10, heads=16, patch=14, side=8)
_BACKBONE = "model.vision_backbone."


def random_tensors() -> dict[str, torch.Tensor]:
    """A checkpoint with the published names; no two tensors, and no two parts of one, are alike."""
    text, kv, head = CONFIG["hidden_size"], CONFIG["num_key_value_heads"], 8
    fused = CONFIG["intermediate_size"]
    shapes = {
        "model.transformer.wte.embedding": (384, text),
        "model.transformer.wte.new_embedding": (128, text),
        "model.transformer.ln_f.weight": (text,),
        "model.transformer.ff_out.weight": (384, text),
    }
    for number in range(CONFIG["num_hidden_layers"]):
        block = f"model.transformer.blocks.{number}."
        rows = text + 2 * kv * head
        shapes |= {
            block + "att_proj.weight": (rows, text),
            block + "att_proj.bias": (rows,),
            block + "attn_out.weight": (text, text),
            block + "ff_proj.weight": (fused, text),
            block + "ff_out.weight": (text, fused // 2),
            block + "attn_norm.weight": (text,),
            block + "ff_norm.weight": (text,),
        }
    vit = _BACKBONE + "image_vit."
    shapes |= {
        vit + "class_embedding": (VIT.hidden,),
        vit + "positional_embedding": (VIT.side**2 + 1, VIT.hidden),
        vit + "patch_embedding.weight": (VIT.hidden, 3 * VIT.patch**2),
        vit + "pre_ln.weight": (VIT.hidden,),
        vit + "pre_ln.bias": (VIT.hidden,),
    }
    for number in range(VIT.layers):
        block = f"{vit}transformer.resblocks.{number}."
        for name in ("wq", "wk", "wv", "wo"):
            shapes[f"{block}attention.{name}.weight"] = (VIT.hidden, VIT.hidden)
            shapes[f"{block}attention.{name}.bias"] = (VIT.hidden,)
        for name in ("attention_norm", "ffn_norm"):
            shapes[f"{block}{name}.weight"] = shapes[f"{block}{name}.bias"] = (VIT.hidden,)
        shapes |= {
            block + "feed_forward.w1.weight": (VIT.mlp, VIT.hidden),
            block + "feed_forward.w1.bias": (VIT.mlp,),
            block + "feed_forward.w2.weight": (VIT.hidden, VIT.mlp),
            block + "feed_forward.w2.bias": (VIT.hidden,),
        }
    for name in ("wq", "wk", "wv", "wo"):
        shapes[f"{_BACKBONE}image_pooling_2d.{name}.weight"] = (VIT.hidden, VIT.hidden * (1 if name == "wo" else 2))
        shapes[f"{_BACKBONE}image_pooling_2d.{name}.bias"] = (VIT.hidden,)
    shapes |= {
        _BACKBONE + "pad_embed": (2, 2 * VIT.hidden),
        _BACKBONE + "image_projector.w1.weight": (72, VIT.hidden),
        _BACKBONE + "image_projector.w2.weight": (text, 72),
        _BACKBONE + "image_projector.w3.weight": (72, VIT.hidden),
    }
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (0.1 if len(shape) == 1 else 0.8 / math.sqrt(shape[-1]))
        + (1.0 if "norm.weight" in name or name.endswith(("ln.weight", "ln_f.weight")) else 0.0)
        for name, shape in shapes.items()
    }


def _linear(tensors: dict, name: str, states: torch.Tensor) -> torch.Tensor:
    return F.linear(states, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def _attention(query, key, value, num_heads: int, bias=0.0):
    query, key, value = (states.unflatten(-1, (-1, query.shape[-1] // num_heads)) for states in (query, key, value))
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1]) + bias
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2)


def vision_features(tensors: dict, patches: torch.Tensor, facts: dict) -> torch.Tensor:
    """Patches `(crops, patches, 588)`, pixels row by row and channels last, to `(crops, patches, 2 * hidden)`."""
    vit = _BACKBONE + "image_vit."
    if not facts["pixels_channels_last"]:
        patches = patches.unflatten(-1, (-1, 3)).transpose(-1, -2).flatten(-2)
    states = patches @ tensors[vit + "patch_embedding.weight"].T
    token = tensors[vit + "class_embedding"].expand(len(states), 1, -1)
    states = torch.cat([token, states], 1) + tensors[vit + "positional_embedding"]

    def norm(name: str, given: torch.Tensor) -> torch.Tensor:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return F.layer_norm(given, weight.shape, weight, bias, facts["vision_eps"])

    states, outputs = norm(vit + "pre_ln", states), []
    for number in range(VIT.layers):
        block = f"{vit}transformer.resblocks.{number}."
        given = norm(block + "attention_norm", states)
        mixed = _attention(*(_linear(tensors, f"{block}attention.w{n}", given) for n in "qkv"), VIT.heads)
        states = states + _linear(tensors, block + "attention.wo", mixed)
        inner = _linear(tensors, block + "feed_forward.w1", norm(block + "ffn_norm", states))
        inner = inner * torch.sigmoid(1.702 * inner) if facts["activation"] == "quick_gelu" else F.gelu(inner)
        states = states + _linear(tensors, block + "feed_forward.w2", inner)
        outputs.append(states)
    features = torch.cat([outputs[layer] for layer in facts["vision_layers"]], -1)
    return features[:, 1:] if facts["class_token_dropped"] else features[:, :-1]


def visual_tokens(tensors: dict, patches: torch.Tensor, masks: torch.Tensor | None, facts: dict) -> torch.Tensor:
    """`(crops, tokens per crop, channels of the language model)`."""
    features = vision_features(tensors, patches, facts)
    if masks is not None:
        pad, (nothing_row, partly_row) = tensors[_BACKBONE + "pad_embed"], facts["pad_rows"]
        nothing, partly = masks == 0, (masks < 1) & (masks != 0)
        features = features + nothing[..., None] * pad[nothing_row] + partly[..., None] * pad[partly_row]
    pooled = []
    for row in range(0, VIT.side, 2):
        for column in range(0, VIT.side, 2):
            corners = [(row + y) * VIT.side + column + x for y in (0, 1) for x in (0, 1)]
            window = features[:, corners]
            query = window.mean(1, keepdim=True) if facts["query_of_window"] == "mean" else window[:, :1]
            pool = _BACKBONE + "image_pooling_2d."
            mixed = _attention(
                _linear(tensors, pool + "wq", query),
                _linear(tensors, pool + "wk", window),
                _linear(tensors, pool + "wv", window),
                VIT.heads,
            )
            pooled.append(_linear(tensors, pool + "wo", mixed))
    pooled, projector = torch.cat(pooled, 1), _BACKBONE + "image_projector."
    gate, up = ("w1", "w3") if facts["projector_gate"] == "w1" else ("w3", "w1")
    inner = F.silu(_linear(tensors, projector + gate, pooled)) * _linear(tensors, projector + up, pooled)
    return _linear(tensors, projector + "w2", inner)


def embeddings(tensors: dict, ids: list[int], tokens: torch.Tensor, places: torch.Tensor, facts: dict):
    """The prompt `(1, length, channels)`, with visual tokens at their places, -100 for those that are left out."""
    table = torch.cat([tensors["model.transformer.wte.embedding"], tensors["model.transformer.wte.new_embedding"]])
    states = table[torch.tensor(ids)].clone()
    kept = places.flatten() >= 0
    places, tokens = places.flatten()[kept], tokens.flatten(0, 1)[kept]
    states[places] = states[places] + tokens if facts["added"] else tokens
    return states[None]


def logits(tensors: dict, states: torch.Tensor, facts: dict) -> torch.Tensor:
    """`(1, length, channels)` to `(1, length, 384)`."""
    length, heads, kv = states.shape[1], CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
    head = CONFIG["hidden_size"] // heads
    angles = torch.outer(torch.arange(length).float(), facts["theta"] ** -(torch.arange(0, head, 2) / head))
    cos, sin = angles.cos().repeat(1, 2)[:, None], angles.sin().repeat(1, 2)[:, None]
    causal = torch.full((length, length), -torch.inf).triu(1)

    def norm(name: str, given: torch.Tensor) -> torch.Tensor:
        return given * (given.pow(2).mean(-1, keepdim=True) + facts["rms_eps"]).rsqrt() * tensors[f"{name}.weight"]

    def rotate(given: torch.Tensor) -> torch.Tensor:
        given = given.unflatten(-1, (-1, head))
        first, second = given.chunk(2, -1)
        return (given * cos + torch.cat([-second, first], -1) * sin).flatten(2)

    def repeat(given: torch.Tensor) -> torch.Tensor:
        return given.unflatten(-1, (-1, head)).repeat_interleave(heads // kv, 2).flatten(2)

    for number in range(CONFIG["num_hidden_layers"]):
        block = f"model.transformer.blocks.{number}."
        fused = _linear(tensors, block + "att_proj", norm(block + "attn_norm", states))
        query, key, value = fused.split([heads * head, kv * head, kv * head], -1)
        mixed = _attention(rotate(query), repeat(rotate(key)), repeat(value), heads, causal)
        states = states + _linear(tensors, block + "attn_out", mixed)
        halves = _linear(tensors, block + "ff_proj", norm(block + "ff_norm", states)).chunk(2, -1)
        gate = facts["gate_half"]
        states = states + _linear(tensors, block + "ff_out", F.silu(halves[gate]) * halves[1 - gate])
    head_weight = {"ff_out": "model.transformer.ff_out.weight", "tied": "model.transformer.wte.embedding"}
    return norm("model.transformer.ln_f", states) @ tensors[head_weight[facts["head"]]].T


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with antialiasing, `(height, width, 3)`: each new pixel is a triangle-weighted mean of old ones."""

    def weights(old: int, new: int) -> np.ndarray:
        scale = old / new
        reach = max(scale, 1.0)
        centres = (np.arange(new) + 0.5) * scale
        rows = np.maximum(0.0, 1 - np.abs(np.arange(old) + 0.5 - centres[:, None]) / reach)
        return rows / rows.sum(1, keepdims=True)

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("yh,xw,hwc->yxc", rows, columns, image, optimize=True)


def _on_canvas(picture: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of 0 to 1 in the middle of black, then normalised; and where the picture is."""
    scale = min(np.float32(height) / np.float32(picture.shape[0]), np.float32(width) / np.float32(picture.shape[1]))
    new = [int(np.float32(length) * scale) for length in picture.shape[:2]]
    top, left = (height - new[0]) // 2, (width - new[1]) // 2
    canvas, shown = np.zeros((height, width, 3)), np.zeros((height, width))
    canvas[top : top + new[0], left : left + new[1]] = _resize(picture / 255, *new)
    shown[top : top + new[0], left : left + new[1]] = 1
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return (canvas - mean) / std, shown


def _patches(picture: np.ndarray) -> np.ndarray:
    """Square picture `(pixels, pixels, ...)` to `(patches, values of a patch)`."""
    size = VIT.patch
    return np.stack(
        [
            picture[y : y + size, x : x + size].reshape(-1)
            for y in range(0, len(picture), size)
            for x in range(0, len(picture), size)
        ]
    )


def tiling(height: int, width: int, window: int, margin: int, max_crops: int = 12) -> tuple[int, int]:
    """Rows and columns of crops: enlarged as little as can be, else shrunk as little as can be."""
    scales = {
        (rows, columns): min(
            np.float32(rows * window) / np.float32(height - margin),
            np.float32(columns * window) / np.float32(width - margin),
        )
        for rows in range(1, max_crops + 1)
        for columns in range(1, max_crops + 1)
        if rows * columns <= max_crops
    }
    enlarging = [grid for grid, scale in scales.items() if scale >= 1]
    if enlarging:
        return min(enlarging, key=lambda grid: (scales[grid], grid[0] * grid[1], grid[0]))
    return max(scales, key=lambda grid: (scales[grid], -grid[0] * grid[1], -grid[0]))


def preprocess(picture: np.ndarray, facts: dict) -> SimpleNamespace:
    """
    What the published processor makes of one picture, uint8 of shape `(height, width, 3)`: `patches`
    `(crops, 64, 588)`, `masks` `(crops, 64)`, the `text` of its tokens, and `places`, the index of each visual token
    in this text, -100 for those that are left out.
    """
    pixels, margin = VIT.side * VIT.patch, 2
    window = pixels - 2 * margin * VIT.patch
    rows, columns = tiling(*picture.shape[:2], window, 2 * margin * VIT.patch)
    height, width = (count * window + 2 * margin * VIT.patch for count in (rows, columns))
    whole, _ = _on_canvas(picture, pixels, pixels)
    canvas, shown = _on_canvas(picture, height, width)
    patches, masks = [_patches(whole)], []
    for row in range(rows):
        for column in range(columns):
            area = np.s_[row * window : row * window + pixels, column * window : column * window + pixels]
            patches.append(_patches(canvas[area]))
            masks.append(_patches(shown[area]).mean(1))
    padding = np.full_like(masks[0], -1)
    masks = [*masks, padding] if facts["mask_shift"] else [np.ones_like(padding), *masks]

    # The text, and for each <im_patch> in it the crop and the token of the crop that belongs there.
    side, step, edge = VIT.side // 2, VIT.side // 2 - margin, margin // 2
    text, owners = ["<im_start>"], {}
    for index in range(side * side):
        owners[len(text)] = (0, index)
        text.append("<im_patch>")
        if index % side == side - 1:
            text.append("<im_col>")
    text += ["<im_end>", "<im_start>"]

    def owner(place: int, count: int) -> tuple[int, int]:
        number = min(max((place - edge) // step, 0), count - 1)
        return number, place - number * step

    for y in range(rows * step + margin):
        for x in range(columns * step + margin):
            (row, inner_y), (column, inner_x) = owner(y, rows), owner(x, columns)
            owners[len(text)] = (1 + row * columns + column, inner_y * side + inner_x)
            text.append("<im_patch>")
        text.append("<im_col>")
    text.append("<im_end>")
    places = torch.full((1 + rows * columns, side * side), -100)
    for place, (crop, index) in owners.items():
        places[crop, index] = place
    return SimpleNamespace(
        patches=torch.tensor(np.stack(patches), dtype=torch.float32),
        masks=torch.tensor(np.stack(masks), dtype=torch.float32),
        text=text,
        places=places,
        grid=(rows, columns),
    )
