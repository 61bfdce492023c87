"""xGen-MM (BLIP-3) in plain torch, on the keys under which it was published, and tiny checkpoints in that format.

Written from published descriptions and measured facts, independently of the port, which it does not import. `wrong`
names single mistakes that are easy to make; a test that compares with the reference has to notice each of them.
"""

import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch.nn.functional import conv2d, embedding, gelu, layer_norm, linear, silu


HIDDEN, HEADS, PATCH, GRID = 32, 16, 14, 3
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "sliding_window": 2047,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "model_type": "phi3",
}
SIZE = GRID * PATCH  # pixels
GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # columns and rows


def config_json(num_tokens: int, **text) -> dict:
    """`config.json` as published, of a tokenizer with `num_tokens` tokens before the three that are added."""
    return {
        "architectures": ["XGenMMModelForConditionalGeneration"],
        "model_type": "xgenmm",
        "text_config": {**TEXT, "initial_tokenizer_len": num_tokens, "vocab_size": num_tokens + 9, **text},
        "vision_encoder_config": {
            "model_type": "xgenmm_vision_encoder",
            "anyres_patch_sampling": True,
            "image_aspect_ratio": "anyres",
        },
        "vision_tokenizer_config": {"model_type": "xgenmm_vision_tokenizer", "num_vis_tokens": 6},
    }


@dataclass(frozen=True)
class Sizes:
    """Of a checkpoint; by default the tiny one's."""

    hidden: int = HIDDEN
    vision_mlp: int = 48
    vision_layers: int = 2
    grid: int = GRID
    projection: int = 20  # of the space that CLIP shares with texts
    latents: int = 6
    inner: int = HEADS * 4
    perceiver_layers: int = 2
    text: int = TEXT["hidden_size"]
    text_mlp: int = TEXT["intermediate_size"]
    text_layers: int = TEXT["num_hidden_layers"]
    qkv: int = 64
    rows: int = 0


def published_shapes(design: str, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a `"siglip"` (interleave-r-v1.5) or a `"vit"` (r-v1) checkpoint."""
    shapes, hidden = {}, sizes.hidden

    def norm(key, width=hidden, bias=True):
        shapes[f"{key}.weight"] = (width,)
        if bias:
            shapes[f"{key}.bias"] = (width,)

    def dense(key, outputs, inputs, bias=True):
        shapes[f"{key}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{key}.bias"] = (outputs,)

    vision = "vlm.vision_encoder."
    if design == "siglip":
        shapes[f"{vision}embeddings.patch_embedding.weight"] = (hidden, 3, PATCH, PATCH)
        shapes[f"{vision}embeddings.patch_embedding.bias"] = (hidden,)
        shapes[f"{vision}embeddings.position_embedding.weight"] = (sizes.grid**2, hidden)
        for layer in (f"{vision}encoder.layers.{number}." for number in range(sizes.vision_layers)):
            for name in ("layer_norm1", "layer_norm2"):
                norm(layer + name)
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                dense(f"{layer}self_attn.{name}", hidden, hidden)
            dense(f"{layer}mlp.fc1", sizes.vision_mlp, hidden)
            dense(f"{layer}mlp.fc2", hidden, sizes.vision_mlp)
        norm(f"{vision}post_layernorm")
        shapes[f"{vision}head.probe"] = (1, 1, hidden)
        shapes[f"{vision}head.attention.in_proj_weight"] = (3 * hidden, hidden)
        shapes[f"{vision}head.attention.in_proj_bias"] = (3 * hidden,)
        dense(f"{vision}head.attention.out_proj", hidden, hidden)
        norm(f"{vision}head.layernorm")
        dense(f"{vision}head.mlp.fc1", sizes.vision_mlp, hidden)
        dense(f"{vision}head.mlp.fc2", hidden, sizes.vision_mlp)
    else:
        shapes[f"{vision}class_embedding"] = (hidden,)
        shapes[f"{vision}positional_embedding"] = (sizes.grid**2 + 1, hidden)
        shapes[f"{vision}proj"] = (hidden, sizes.projection)
        shapes[f"{vision}conv1.weight"] = (hidden, 3, PATCH, PATCH)
        for name in ("ln_pre", "ln_post"):
            norm(vision + name)
        for layer in (f"{vision}transformer.resblocks.{number}." for number in range(sizes.vision_layers)):
            for name in ("ln_1", "ln_2"):
                norm(layer + name)
            shapes[f"{layer}attn.in_proj_weight"] = (3 * hidden, hidden)
            shapes[f"{layer}attn.in_proj_bias"] = (3 * hidden,)
            dense(f"{layer}attn.out_proj", hidden, hidden)
            dense(f"{layer}mlp.c_fc", sizes.vision_mlp, hidden)
            dense(f"{layer}mlp.c_proj", hidden, sizes.vision_mlp)

    perceiver = "vlm.vision_tokenizer."
    shapes[f"{perceiver}latents"] = (sizes.latents, hidden)
    for layer in (f"{perceiver}layers.{number}." for number in range(sizes.perceiver_layers)):
        for name in ("norm_media", "norm_latents"):
            norm(f"{layer}0.{name}")
        dense(f"{layer}0.to_q", sizes.inner, hidden, bias=False)
        dense(f"{layer}0.to_kv", 2 * sizes.inner, hidden, bias=False)
        dense(f"{layer}0.to_out", hidden, sizes.inner, bias=False)
        norm(f"{layer}1.0")
        dense(f"{layer}1.1", 4 * hidden, hidden, bias=False)
        dense(f"{layer}1.3", hidden, 4 * hidden, bias=False)
    norm(f"{perceiver}norm")
    dense(f"{perceiver}projection", sizes.text, hidden)
    if design == "vit":
        dense(f"{perceiver}text_projection.0", hidden, sizes.text)
        dense(f"{perceiver}text_projection.2", hidden, hidden)

    language, width = "vlm.lang_model.", sizes.text
    shapes[f"{language}model.embed_tokens.weight"] = (sizes.rows, width)
    shapes[f"{language}model.embed_tokens.additional_embedding.weight"] = (3, width)
    for layer in (f"{language}model.layers.{number}." for number in range(sizes.text_layers)):
        dense(f"{layer}self_attn.qkv_proj", sizes.qkv, width, bias=False)
        dense(f"{layer}self_attn.o_proj", width, width, bias=False)
        dense(f"{layer}mlp.gate_up_proj", 2 * sizes.text_mlp, width, bias=False)
        dense(f"{layer}mlp.down_proj", width, sizes.text_mlp, bias=False)
        for name in ("input_layernorm", "post_attention_layernorm"):
            norm(layer + name, width, bias=False)
    norm(f"{language}model.norm", width, bias=False)
    dense(f"{language}lm_head", sizes.rows, width)
    dense(f"{language}lm_head.additional_fc", 3, width)
    return shapes


def checkpoint(design: str, num_tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of a tiny checkpoint, large enough that every part of it shows in the result."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in published_shapes(design, Sizes(rows=num_tokens + 9)).items():
        # Wide enough before activations that one is told from another.
        spreads = {"latents": 1.0, "embed_tokens": 0.5, "conv1": 0.05, "patch_embedding.w": 0.05}
        spreads |= {"fc1": 0.5, "c_fc": 0.5, ".1.1.": 0.5}
        spread = next((value for name, value in spreads.items() if name in key), 0.15)
        is_norm = key.endswith("weight") and len(shape) == 1
        state[key] = float(is_norm) + spread * torch.randn(*shape, generator=generator)
    return state


def vision_features(state: dict, pixels: torch.Tensor, wrong: str = "") -> torch.Tensor:
    """`(crops, 3, size, size)` to what the Perceiver gets of each crop, `(crops, GRID ** 2, HIDDEN)`."""
    names = _siglip_names() if "vlm.vision_encoder.embeddings.patch_embedding.bias" in state else _vit_names()
    eps, activation, has_class = names["eps"], names["activation"], "class" in names
    if wrong == "activation of the encoder":
        activation = gelu
    if wrong == "eps of the encoder":
        eps = 1e-2

    def get(name):
        return state.get("vlm.vision_encoder." + name)

    def norm(x, name):
        return layer_norm(x, (HIDDEN,), get(f"{name}.weight"), get(f"{name}.bias"), eps)

    x = conv2d(pixels, get(f"{names['conv']}.weight"), get(f"{names['conv']}.bias"), stride=PATCH).flatten(2).mT
    if has_class:
        x = torch.cat([get(names["class"]).expand(len(x), 1, -1), x], dim=1)
    x = x + get(names["positions"])
    if has_class:
        x = norm(x, "ln_pre")
    for layer in (names["layer"].format(number) for number in range(2)):
        y = norm(x, layer + names["norms"][0])
        if has_class:  # one matrix: thirds for queries, keys and values
            weights = get(f"{layer}attn.in_proj_weight").chunk(3), get(f"{layer}attn.in_proj_bias").chunk(3)
            q, k, v = (linear(y, weight, bias) for weight, bias in zip(*weights, strict=True))
            if wrong == "order of the thirds":
                q, k, v = k, v, q
        else:
            q, k, v = (
                linear(y, get(f"{layer}self_attn.{n}_proj.weight"), get(f"{layer}self_attn.{n}_proj.bias"))
                for n in "qkv"
            )
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
        y = ((q @ k.mT) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        y = y.transpose(1, 2).flatten(2)
        x = x + linear(y, get(f"{layer}{names['out']}.weight"), get(f"{layer}{names['out']}.bias"))
        y = norm(x, layer + names["norms"][1])
        first, second = (layer + name for name in names["mlp"])
        y = activation(linear(y, get(f"{first}.weight"), get(f"{first}.bias")))
        x = x + linear(y, get(f"{second}.weight"), get(f"{second}.bias"))
    if wrong != "no norm after the encoder":
        x = norm(x, names["last"])
    if has_class:
        x = x[:, :-1] if wrong == "class token kept" else x[:, 1:]
    return x


def merged_crops(
    features: torch.Tensor, size: tuple[int, int], grid: tuple[int, int], wrong: str = ""
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Groups for the Perceiver and masks of what is no padding, of one image: the view of all of it, then its crops.

    Args:
        size: Width and height of the image in pixels.
        grid: Columns and rows of crops.
    """
    columns, rows = grid
    mask = torch.ones(rows * GRID, columns * GRID)
    (width, height), (map_height, map_width) = size, mask.shape
    if width / height > map_width / map_height:
        padding = (map_height - int(height * (map_width / width))) // 2
        mask[:padding], mask[map_height - padding :] = 0, 0
    else:
        padding = (map_width - int(width * (map_height / height))) // 2
        mask[:, :padding], mask[:, map_width - padding :] = 0, 0
    crops = features[1:].reshape(rows, columns, GRID, GRID, -1)
    if wrong == "crops instead of strips":
        groups = features[1:]
        masks = mask.reshape(rows, GRID, columns, GRID).transpose(1, 2).reshape(rows * columns, -1)
    else:
        stitched = torch.cat([torch.cat(list(row), dim=1) for row in crops], dim=0)  # the map of the whole image
        groups = stitched.reshape(rows * columns, GRID**2, -1)
        masks = mask.reshape(rows * columns, GRID**2)
    return torch.cat([features[:1], groups]), torch.cat([torch.ones(1, GRID**2), masks])


def perceiver(
    state: dict, media: torch.Tensor, masks: torch.Tensor | None, text: torch.Tensor | None, wrong: str = ""
) -> torch.Tensor:
    """
    `(groups, GRID ** 2, HIDDEN)` to `(groups, 6, channels of the LLM)`.

    Args:
        text: Embeddings of the prompt, `(length, channels of the LLM)`, for the design that reads it.
    """

    def get(name):
        return state["vlm.vision_tokenizer." + name]

    def norm(x, name):
        return layer_norm(x, (HIDDEN,), get(f"{name}.weight"), get(f"{name}.bias"))

    latents = get("latents").expand(len(media), -1, -1)
    if text is not None:
        text = linear(text, get("text_projection.0.weight"), get("text_projection.0.bias"))
        text = linear(gelu(text), get("text_projection.2.weight"), get("text_projection.2.bias"))
        latents = torch.cat([latents, text.expand(len(media), -1, -1)], dim=1)
    for layer in ("layers.0.", "layers.1."):
        x = media if wrong == "media not normed" else norm(media, f"{layer}0.norm_media")
        y = norm(latents, f"{layer}0.norm_latents")
        q = linear(y, get(f"{layer}0.to_q.weight"))
        seen = torch.cat([x, latents if wrong == "latents not normed as keys" else y], dim=1)
        if wrong == "latents no keys":
            seen = x
        k, v = linear(seen, get(f"{layer}0.to_kv.weight")).chunk(2, dim=-1)
        if wrong == "keys and values swapped":
            k, v = v, k
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.mT if wrong == "no scale" else (q * q.shape[-1] ** -0.5) @ k.mT
        if masks is not None:
            allowed = torch.cat([masks, torch.ones(len(masks), seen.shape[1] - masks.shape[1])], dim=1).bool()
            scores = scores.masked_fill(~allowed[:, None, None], -math.inf)
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        latents = linear(y, get(f"{layer}0.to_out.weight")) + latents
        y = linear(norm(latents, f"{layer}1.0"), get(f"{layer}1.1.weight"))
        y = gelu(y, approximate="tanh" if wrong == "tanh gelu in the Perceiver" else "none")
        latents = linear(y, get(f"{layer}1.3.weight")) + latents
    latents = latents[:, :6] if wrong == "no norm after the Perceiver" else norm(latents[:, :6], "norm")
    return linear(latents, get("projection.weight"), get("projection.bias"))


def embed(state: dict, ids: torch.Tensor, num_tokens: int, wrong: str = "") -> torch.Tensor:
    """Rows of the base vocabulary up to `num_tokens`, and rows of their own for the three tokens after them."""
    table = state["vlm.lang_model.model.embed_tokens.weight"]
    added = state["vlm.lang_model.model.embed_tokens.additional_embedding.weight"]
    if wrong != "added rows of the embedding":
        table = torch.cat([table[:num_tokens], added])
    return embedding(ids, table)


def visual_tokens(
    state: dict,
    pixels: torch.Tensor,
    size: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    prompt: torch.Tensor | None = None,
    num_tokens: int | None = None,
    wrong: str = "",
) -> torch.Tensor:
    """
    Tokens of one image, `(6 * crops, channels of the LLM)`.

    Args:
        size, grid: Of a tiled image; see `merged_crops`. One that is taken whole has none.
        prompt: Ids of the prompt with one `<image>` for the image, for the design that reads it.
    """
    features, masks = vision_features(state, pixels, wrong), None
    if grid is not None:
        features, masks = merged_crops(features, size, grid, wrong)
    reads_prompt = "vlm.vision_tokenizer.text_projection.0.weight" in state
    if reads_prompt != (wrong == "mask of the other design"):  # only the design without a prompt masks padding
        masks = None
    text = None
    if reads_prompt and prompt is not None and wrong != "prompt not read":
        text = embed(state, prompt if wrong == "all of the prompt" else prompt[:256], num_tokens)
    return perceiver(state, features, masks, text, wrong).flatten(0, 1)


def language_model(state: dict, x: torch.Tensor, num_tokens: int, window: int = 2047, wrong: str = "") -> torch.Tensor:
    """Phi-3 of the Transformers of its time, on embeddings `(length, channels)`, to logits."""

    def get(name):
        return state["vlm.lang_model." + name]

    def norm(x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * get(f"{name}.weight")

    heads, kv_heads = TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
    size = TEXT["hidden_size"] // heads
    places = torch.arange(len(x))
    angles = places[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def turned(t):
        first, second = t.chunk(2, dim=-1)
        return t * cos + torch.cat([-second, first], dim=-1) * sin

    distance = places[:, None] - places
    # That version let a token see `window` tokens before itself.
    reach = window - 1 if wrong == "window of the new version" else window
    allowed = (distance >= 0) & (distance <= reach)
    for layer in (f"model.layers.{number}." for number in range(TEXT["num_hidden_layers"])):
        y = linear(norm(x, layer + "input_layernorm"), get(layer + "self_attn.qkv_proj.weight"))
        q, k, v = y.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
        q, k, v = (t.unflatten(-1, (-1, size)).transpose(0, 1) for t in (q, k, v))
        k, v = (t.repeat_interleave(heads // kv_heads, dim=0) for t in (k, v))
        scores = turned(q) @ turned(k).mT / math.sqrt(size)
        y = scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v
        x = x + linear(y.transpose(0, 1).flatten(1), get(layer + "self_attn.o_proj.weight"))
        y = linear(norm(x, layer + "post_attention_layernorm"), get(layer + "mlp.gate_up_proj.weight"))
        gate, up = y.chunk(2, dim=-1)
        x = x + linear(up * silu(gate), get(layer + "mlp.down_proj.weight"))
    x = norm(x, "model.norm")
    bias, added_bias = get("lm_head.bias"), get("lm_head.additional_fc.bias")
    if wrong == "no bias of the head":
        bias, added_bias = None, None
    logits = linear(x, get("lm_head.weight"), bias)
    if wrong == "added rows of the head":
        return logits[:, : num_tokens + 3]
    added = linear(x, get("lm_head.additional_fc.weight"), added_bias)
    return torch.cat([logits[:, :num_tokens], added], dim=-1)


def answer_logits(
    state: dict, ids: list[int], images: list[torch.Tensor], num_tokens: int, window: int = 2047, wrong: str = ""
) -> torch.Tensor:
    """Logits of a prompt whose `<image>` ids, `num_tokens`, are replaced by the tokens of `images`."""
    pieces, images = [], iter(images)
    for token in ids:
        row = embed(state, torch.tensor([token]), num_tokens, wrong)
        pieces.append(next(images) if token == num_tokens else row)
    return language_model(state, torch.cat(pieces), num_tokens, window, wrong)


def preprocess(image: Image.Image, size: int, mean: tuple, std: tuple) -> tuple[torch.Tensor, tuple[int, int]]:
    """The published rule for still images: crops `(1 + crops, 3, size, size)`, and columns and rows of crops."""
    width, height = image.size
    best, best_effective, best_wasted = None, 0, math.inf
    for columns, rows in GRIDS:
        scale = min(columns * size / width, rows * size / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = columns * size * rows * size - effective
        if effective > best_effective or (effective == best_effective and wasted < best_wasted):
            best, best_effective, best_wasted = (columns, rows), effective, wasted
    full = best[0] * size, best[1] * size
    if full[0] / width < full[1] / height:
        inner = full[0], min(math.ceil(height * (full[0] / width)), full[1])
    else:
        inner = min(math.ceil(width * (full[1] / height)), full[0]), full[1]
    canvas = Image.new("RGB", full)
    canvas.paste(image.resize(inner, Image.Resampling.BICUBIC), ((full[0] - inner[0]) // 2, (full[1] - inner[1]) // 2))
    crops = [image.resize((size, size), Image.Resampling.BICUBIC)]
    for top in range(0, full[1], size):
        crops += [canvas.crop((left, top, left + size, top + size)) for left in range(0, full[0], size)]
    return torch.stack([normalised(crop, mean, std) for crop in crops]), best


def normalised(picture: Image.Image, mean: tuple, std: tuple) -> torch.Tensor:
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    pixels = pixels.reshape(picture.height, picture.width, 3).permute(2, 0, 1) / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def _siglip_names() -> dict:
    return {
        "conv": "embeddings.patch_embedding",
        "positions": "embeddings.position_embedding.weight",
        "layer": "encoder.layers.{}.",
        "norms": ("layer_norm1", "layer_norm2"),
        "out": "self_attn.out_proj",
        "mlp": ("mlp.fc1", "mlp.fc2"),
        "last": "post_layernorm",
        "eps": 1e-6,
        "activation": lambda x: gelu(x, approximate="tanh"),
    }


def _vit_names() -> dict:
    return {
        "conv": "conv1",
        "class": "class_embedding",
        "positions": "positional_embedding",
        "layer": "transformer.resblocks.{}.",
        "norms": ("ln_1", "ln_2"),
        "out": "attn.out_proj",
        "mlp": ("mlp.c_fc", "mlp.c_proj"),
        "last": "ln_post",
        "eps": 1e-5,
        "activation": lambda x: x * (1.702 * x).sigmoid(),
    }
