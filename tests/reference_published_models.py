"""
InternVL2, Aquila-VL and Mipha in plain torch, on the keys and the `config.json` of the published checkpoints.
Written from what is known of the original models; knows nothing of the package or of Transformers.
"""

import math

import torch
from torch.nn import functional as F


def internvl2(state: dict, config: dict, pixels: torch.Tensor, ids: torch.Tensor, image_id: int):
    """Visual tokens `(pictures, tokens, channels)` and logits `(length, vocabulary)` of a prompt `(length,)`."""
    tokens = intern_vit(state, config["vision_config"], pixels, config["select_layer"])
    tokens = pixel_shuffle(tokens)
    tokens = F.layer_norm(tokens, tokens.shape[-1:], state["mlp1.0.weight"], state["mlp1.0.bias"], 1e-5)
    tokens = linear(state, "mlp1.3", F.gelu(linear(state, "mlp1.1", tokens)))
    llm = config["llm_config"]
    text = {key.removeprefix("language_model."): value for key, value in state.items()}
    run = {"Qwen2ForCausalLM": qwen2, "InternLM2ForCausalLM": internlm2, "Phi3ForCausalLM": phi3}
    run["LlamaForCausalLM"] = qwen2  # the same without biases
    names = {"InternLM2ForCausalLM": ("model.tok_embeddings.weight", "output.weight")}
    embedding, head = names.get(llm["architectures"][0], ("model.embed_tokens.weight", "lm_head.weight"))
    x = put_images(text[embedding], ids, image_id, tokens)
    x = run[llm["architectures"][0]](text, llm, x)
    return tokens, x @ text.get(head, text[embedding]).T


def aquila_vl(state: dict, config: dict, pictures: list[torch.Tensor], sizes: list[tuple[int, int]], ids, image_id):
    """
    Pictures are `(1 + crops, 3, height, width)`, the whole picture first, and `sizes` their (height, width) before.
    Visual tokens are a list of `(tokens, channels)`.
    """
    prefix = "model.vision_tower.vision_tower.vision_model."
    num_layers = 1 + max(
        int(key.split("encoder.layers.")[1].split(".")[0]) for key in state if "encoder.layers" in key
    )
    tokens = []
    for picture, size in zip(pictures, sizes, strict=True):
        settings = {"num_attention_heads": 16, "layer_norm_eps": 1e-6}
        x = siglip(state, prefix, settings, picture, num_layers)
        x = linear(state, "model.mm_projector.2", F.gelu(linear(state, "model.mm_projector.0", x)))
        newline = state["model.image_newline"]
        if len(picture) == 1:
            tokens.append(torch.cat([x[0], newline[None]]))
            continue
        side = math.isqrt(x.shape[1])
        patch = state[prefix + "embeddings.patch_embedding.weight"].shape[-1]
        rows, columns = (length // (side * patch) for length in best_pinpoint(size, config["image_grid_pinpoints"]))
        grid = x[1:].view(rows, columns, side, side, -1).permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
        grid = unpad(grid, size)
        most = int(config["image_aspect_ratio"].removeprefix("anyres_max_"))
        times = math.sqrt(grid.shape[1] * grid.shape[2] / (most * side**2))
        if times > 1.1:
            smaller = (int(grid.shape[1] // times), int(grid.shape[2] // times))
            grid = F.interpolate(grid[None], smaller, mode="bilinear")[0]
        lines = torch.cat([grid, newline[:, None, None].expand(-1, grid.shape[1], 1)], dim=2)
        tokens.append(torch.cat([x[0], lines.flatten(1).T]))
    x = put_images(state["model.embed_tokens.weight"], ids, image_id, torch.cat(tokens))
    x = qwen2(state, config, x)
    return tokens, x @ state.get("lm_head.weight", state["model.embed_tokens.weight"]).T


def mipha(state: dict, config: dict, pixels: torch.Tensor, ids: torch.Tensor, image_id: int):
    vision = config["vision_config"]["vision_tower"]
    # hidden_states[0] is what enters the first of N layers, hidden_states[-1] what leaves the last.
    num_layers = vision["num_hidden_layers"] + 1 + vision["mm_vision_select_layer"]
    x = siglip(state, "model.vision_tower.vision_model.", vision, pixels, num_layers)
    tokens = linear(state, "model.mm_projector.2", F.gelu(linear(state, "model.mm_projector.0", x)))
    x = put_images(state["model.embed_tokens.weight"], ids, image_id, tokens)
    return tokens, linear(state, "lm_head", phi(state, config, x))


def intern_vit(state: dict, config: dict, pixels: torch.Tensor, select_layer: int) -> torch.Tensor:
    prefix = "vision_model.embeddings."
    patch = config["patch_size"]
    x = F.conv2d(
        pixels, state[prefix + "patch_embedding.weight"], state[prefix + "patch_embedding.bias"], stride=patch
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state[prefix + "class_embedding"].expand(len(x), -1, -1), x], dim=1)
    x = x + state[prefix + "position_embedding"]
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    for index in range(config["num_hidden_layers"] + 1 + select_layer):
        layer = f"vision_model.encoder.layers.{index}."

        def norm(name: str, x: torch.Tensor, layer: str = layer) -> torch.Tensor:
            if config["norm_type"] == "rms_norm":
                return rms_norm(state[f"{layer}{name}.weight"], x, eps)
            return layer_norm(state, layer + name, x, eps)

        q, k, v = linear(state, layer + "attn.qkv", norm("norm1", x)).chunk(3, dim=-1)
        if config["qk_normalization"]:
            q = rms_norm(state[layer + "attn.q_norm.weight"], q, eps)
            k = rms_norm(state[layer + "attn.k_norm.weight"], k, eps)
        mixed = attention(*(split_heads(part, heads) for part in (q, k, v)))
        x = x + state[layer + "ls1"] * linear(state, layer + "attn.proj", mixed)
        inner = F.gelu(linear(state, layer + "mlp.fc1", norm("norm2", x)))
        x = x + state[layer + "ls2"] * linear(state, layer + "mlp.fc2", inner)
    return x[:, 1:]


def pixel_shuffle(x: torch.Tensor) -> torch.Tensor:
    """2 x 2 patches become one token: the upper two side by side, then the lower two."""
    side = math.isqrt(x.shape[1])
    grid = x.unflatten(1, (side, side))
    corners = [grid[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(corners, dim=-1).flatten(1, 2)


def siglip(state: dict, prefix: str, config: dict, pixels: torch.Tensor, num_layers: int) -> torch.Tensor:
    """What leaves the layer of this number, counted from 1, without a norm."""
    weight, bias = (state[f"{prefix}embeddings.patch_embedding.{name}"] for name in ("weight", "bias"))
    x = F.conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    x = x + state[prefix + "embeddings.position_embedding.weight"]
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    for index in range(num_layers):
        layer = f"{prefix}encoder.layers.{index}."
        normed = layer_norm(state, layer + "layer_norm1", x, eps)
        parts = [split_heads(linear(state, f"{layer}self_attn.{name}_proj", normed), heads) for name in "qkv"]
        x = x + linear(state, layer + "self_attn.out_proj", attention(*parts))
        normed = layer_norm(state, layer + "layer_norm2", x, eps)
        x = x + linear(state, layer + "mlp.fc2", F.gelu(linear(state, layer + "mlp.fc1", normed), approximate="tanh"))
    return x


def qwen2(state: dict, config: dict, x: torch.Tensor) -> torch.Tensor:
    heads, kv_heads, eps = (config[n] for n in ("num_attention_heads", "num_key_value_heads", "rms_norm_eps"))
    frequencies = rope_frequencies(config["hidden_size"] // heads, config["rope_theta"])
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        normed = rms_norm(state[layer + "input_layernorm.weight"], x, eps)
        q, k, v = (linear(state, f"{layer}self_attn.{name}_proj", normed) for name in "qkv")
        q, k, v = split_heads(q, heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
        mixed = attention(rotate(q, frequencies), rotate(k, frequencies), v, window=len(x))
        x = x + linear(state, layer + "self_attn.o_proj", mixed)
        normed = rms_norm(state[layer + "post_attention_layernorm.weight"], x, eps)
        gate, up = linear(state, layer + "mlp.gate_proj", normed), linear(state, layer + "mlp.up_proj", normed)
        x = x + linear(state, layer + "mlp.down_proj", F.silu(gate) * up)
    return rms_norm(state["model.norm.weight"], x, eps)


def internlm2(state: dict, config: dict, x: torch.Tensor) -> torch.Tensor:
    heads, kv_heads, eps = (config[n] for n in ("num_attention_heads", "num_key_value_heads", "rms_norm_eps"))
    size, theta = config["hidden_size"] // heads, config["rope_theta"]
    scaling, longest = config["rope_scaling"], config["max_position_embeddings"]
    if scaling and len(x) > longest:
        factor = scaling["factor"]
        theta = theta * (factor * len(x) / longest - (factor - 1)) ** (size / (size - 2))
    frequencies = rope_frequencies(size, theta)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        normed = rms_norm(state[layer + "attention_norm.weight"], x, eps)
        # One after the other: the query heads of a group, its key head, its value head.
        groups = linear(state, layer + "attention.wqkv", normed).view(len(x), kv_heads, heads // kv_heads + 2, size)
        q = groups[:, :, :-2].reshape(len(x), heads, size).transpose(0, 1)
        k, v = groups[:, :, -2].transpose(0, 1), groups[:, :, -1].transpose(0, 1)
        mixed = attention(rotate(q, frequencies), rotate(k, frequencies), v, window=len(x))
        x = x + linear(state, layer + "attention.wo", mixed)
        normed = rms_norm(state[layer + "ffn_norm.weight"], x, eps)
        gate, up = linear(state, layer + "feed_forward.w1", normed), linear(state, layer + "feed_forward.w3", normed)
        x = x + linear(state, layer + "feed_forward.w2", F.silu(gate) * up)
    return rms_norm(state["model.norm.weight"], x, eps)


def phi3(state: dict, config: dict, x: torch.Tensor) -> torch.Tensor:
    heads, kv_heads, eps = (config[n] for n in ("num_attention_heads", "num_key_value_heads", "rms_norm_eps"))
    size = config["hidden_size"] // heads
    frequencies, scale = rope_frequencies(size, config["rope_theta"]), 1.0
    if config["rope_scaling"]:  # "su"
        original = config["original_max_position_embeddings"]
        name = "long_factor" if len(x) > original else "short_factor"
        frequencies = frequencies / torch.tensor(config["rope_scaling"][name])
        longer = config["max_position_embeddings"] / original
        scale = math.sqrt(1 + math.log(longer) / math.log(original)) if longer > 1 else 1.0
    # In the Transformers of that time a token sees itself and as many before it as the window has.
    window = len(x) if config["sliding_window"] is None else config["sliding_window"] + 1
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        normed = rms_norm(state[layer + "input_layernorm.weight"], x, eps)
        qkv = linear(state, layer + "self_attn.qkv_proj", normed).split(
            [heads * size, kv_heads * size, kv_heads * size], -1
        )
        q, k, v = split_heads(qkv[0], heads), split_heads(qkv[1], kv_heads), split_heads(qkv[2], kv_heads)
        mixed = attention(rotate(q, frequencies, scale), rotate(k, frequencies, scale), v, window=window)
        x = x + linear(state, layer + "self_attn.o_proj", mixed)
        normed = rms_norm(state[layer + "post_attention_layernorm.weight"], x, eps)
        gate, up = linear(state, layer + "mlp.gate_up_proj", normed).chunk(2, -1)
        x = x + linear(state, layer + "mlp.down_proj", F.silu(gate) * up)
    return rms_norm(state["model.norm.weight"], x, eps)


def phi(state: dict, config: dict, x: torch.Tensor) -> torch.Tensor:
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    size = config["hidden_size"] // heads
    rotated = int(config["partial_rotary_factor"] * size)
    frequencies = rope_frequencies(rotated, config["rope_theta"])

    def turn(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([rotate(x[..., :rotated], frequencies), x[..., rotated:]], dim=-1)

    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        normed = layer_norm(state, layer + "input_layernorm", x, eps)
        if layer + "self_attn.query_key_value.weight" in state:  # a head's query, key and value stand together
            fused = linear(state, layer + "self_attn.query_key_value", normed).view(len(x), heads, 3, size)
            q, k, v = fused.permute(2, 1, 0, 3)
        else:
            q, k, v = (split_heads(linear(state, f"{layer}self_attn.{name}_proj", normed), heads) for name in "qkv")
        mixed = linear(state, layer + "self_attn.dense", attention(turn(q), turn(k), v, window=len(x)))
        inner = F.gelu(linear(state, layer + "mlp.fc1", normed), approximate="tanh")
        x = x + mixed + linear(state, layer + "mlp.fc2", inner)
    return layer_norm(state, "model.final_layernorm", x, eps)


def put_images(embeddings: torch.Tensor, ids: torch.Tensor, image_id: int, tokens: torch.Tensor) -> torch.Tensor:
    x = embeddings[ids.where(ids != image_id, 0)].clone()
    x[ids == image_id] = tokens.reshape(-1, x.shape[-1])
    return x


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """`(..., heads, length, size)` to `(..., length, heads * size)`; causal if there is a window."""
    k, v = (part.repeat_interleave(q.shape[-3] // k.shape[-3], dim=-3) for part in (k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if window is not None:
        places = torch.arange(q.shape[-2])
        back = places[:, None] - places[None]
        scores = scores.masked_fill((back < 0) | (back >= window), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2)


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def rope_frequencies(size: int, theta: float) -> torch.Tensor:
    return 1 / theta ** (torch.arange(0, size, 2).float() / size)


def rotate(x: torch.Tensor, frequencies: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    angles = torch.arange(x.shape[-2])[:, None] * frequencies
    cos, sin = angles.cos() * scale, angles.sin() * scale
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def linear(state: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[name + ".weight"], state.get(name + ".bias"))


def layer_norm(state: dict, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], state[name + ".weight"], state[name + ".bias"], eps)


def rms_norm(weight: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    return weight * x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def best_pinpoint(size: tuple[int, int], pinpoints: list) -> tuple[int, int]:
    """Of the sizes, the one that keeps most pixels of a picture, and of those the one with least room wasted."""
    height, width = size

    def quality(pinpoint) -> tuple[float, float]:
        scale = min(pinpoint[0] / height, pinpoint[1] / width)
        kept = min(int(height * scale) * int(width * scale), height * width)
        return kept, kept - pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=quality)


def unpad(grid: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Without what of `(channels, rows, columns)` shows only the margin round a picture of another shape."""
    height, width = size
    rows, columns = grid.shape[1:]
    if width / height > columns / rows:
        margin = (rows - int(height * columns / width)) // 2
        return grid[:, margin : rows - margin]
    margin = (columns - int(width * rows / height)) // 2
    return grid[:, :, margin : columns - margin]
