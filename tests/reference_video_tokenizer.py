"""The video tokenizer once more, from docs/design.md: float64, one video at a time, loops, no shared code."""

import math

import numpy as np
import torch
from reference_merging import clusters_of_tokens, directions_of_tokens, log_novelty
from torch.nn.functional import gelu


def reference_weights(model, frame_tokens, grid, seconds, shots, instruction, number=None) -> torch.Tensor:
    """W of one video, `(video tokens, frames * tokens per frame)`; `instruction` is `(text_length, channels)`."""
    config = model.config
    numbers = list(config.num_queries)
    if number is not None:
        numbers = [number * queries // sum(config.num_queries) for queries in config.num_queries]
        numbers[0] += number - sum(numbers)
    merges = config.start == "merge"
    directions = directions_of_tokens(frame_tokens.flatten(0, 1).tolist()) if merges else None
    first, last = float(min(seconds)), float(max(seconds))
    passed = [(float(second) - first) / (last - first) if last > first else 0.0 for second in seconds]
    hidden = _embed(model, frame_tokens, grid, seconds, passed)  # (frames, tokens per frame, hidden_size)
    total = hidden.shape[0] * hidden.shape[1]
    windows = _windows(shots.tolist(), config.max_shot_frames)
    kept, scores = list(range(total)), torch.zeros(total, dtype=torch.double)
    if config.use_svr:
        refined = hidden
        if config.temporal_attention == "shot":  # then a shot does not know what share of the video has passed
            refined = _embed(model, frame_tokens, grid, seconds, None)
        for layer in model.refiner.layers:
            refined = _refine(layer, refined, windows, config)
        refined = _rms_norm(refined, model.refiner.norm)
        scores = refined.flatten(0, 1) @ model.refiner.score_weight.double()
        learnt = scores
        if merges:
            tokens_of_frames = [shot for shot in shots.tolist() for _ in range(frame_tokens.shape[1])]
            window = config.max_shot_frames * frame_tokens.shape[1]
            novelty = log_novelty(directions, tokens_of_frames, window, config.top_k)
            scores = scores + torch.tensor(novelty, dtype=torch.double)
        best_first = sorted(range(total), key=lambda token: -float(scores[token]))
        kept = sorted(best_first[: config.top_k])
        if merges and config.use_tta:
            scores = learnt  # the prior has chosen, and the clusters say what is averaged
    hidden, scores = hidden.flatten(0, 1)[kept], scores[kept]
    selection = torch.zeros(len(kept), total, dtype=torch.double)
    for row, token in enumerate(kept):
        selection[row, token] = 1
    progress = torch.tensor([passed[token // frame_tokens.shape[1]] for token in kept], dtype=torch.double)
    if not config.use_tta:
        return _score_windows(config, scores, numbers) @ selection
    if merges:
        directions = [directions[token] for token in kept]
        shots_of_kept = [windows[token // frame_tokens.shape[1]] for token in kept]
        weights = _merge(model, hidden, scores, progress, instruction, directions, shots_of_kept, numbers)
    else:
        weights = _aggregate(model, hidden, scores, progress, instruction)
    return _in_order(weights, progress) @ selection


def _in_order(weights, progress):
    """Rows in the order of their mean time, to a millionth of the video."""
    return weights[sorted(range(len(weights)), key=lambda row: round(float(weights[row] @ progress) * 2**20))]


def _rms_norm(hidden, norm):
    mean_square = hidden.square().mean(-1, keepdim=True)
    return hidden / (mean_square + 1e-6).sqrt() * norm.weight.double()


def _linear(hidden, linear):
    return hidden @ linear.weight.double().T


def _sinusoids(value: float, size: int, shortest: float, longest: float) -> list[float]:
    number = size // 2
    wavelengths = [shortest * (longest / shortest) ** (i / (number - 1)) for i in range(number)]
    angles = [2 * math.pi * value / wavelength for wavelength in wavelengths]
    return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]


def _attend(queries, context, attention, num_heads):
    size = queries.shape[-1] // num_heads
    query, key = _linear(queries, attention.q_proj), _linear(context, attention.k_proj)
    value = _linear(context, attention.v_proj)
    heads = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = (query[:, part] @ key[:, part].T / math.sqrt(size)).softmax(-1)
        heads.append(weights @ value[:, part])
    return _linear(torch.cat(heads, dim=-1), attention.o_proj)


def _feed_forward(hidden, layer):
    normed = _rms_norm(hidden, layer.feed_forward_norm)
    return hidden + _linear(gelu(_linear(normed, layer.feed_forward.up_proj)), layer.feed_forward.down_proj)


def _windows(shots, max_frames):
    """For each frame the number of the window of its shot."""
    windows, begun = [], 0
    for frame, shot in enumerate(shots):
        if frame == 0:
            windows.append(0)
            continue
        if shot != shots[frame - 1] or frame - begun == max_frames:
            begun = frame
        windows.append(windows[-1] + (begun == frame))
    return windows


def _embed(model, frame_tokens, grid, seconds, passed):
    size = model.config.hidden_size
    hidden = _linear(_rms_norm(frame_tokens.double(), model.token_norm), model.token_proj)
    rows, columns = grid
    for frame in range(len(hidden)):
        time = _sinusoids(float(seconds[frame]), size // 4, 0.5, 14400)
        time += [0.0] * (size // 4) if passed is None else _sinusoids(passed[frame], size // 4, 0.05, 2)
        time = torch.tensor(time, dtype=torch.double)
        for row in range(rows):
            for column in range(columns):
                place = _sinusoids((row + 0.5) / rows, size // 4, 0.05, 2)
                place += _sinusoids((column + 0.5) / columns, size // 4, 0.05, 2)
                position = _linear(time, model.time_proj)
                position = position + _linear(torch.tensor(place, dtype=torch.double), model.place_proj)
                hidden[frame, row * columns + column] += position
    return hidden


def _refine(layer, hidden, windows, config):
    heads = config.num_attention_heads
    normed = _rms_norm(hidden, layer.spatial_norm)
    hidden = torch.stack(
        [hidden[t] + _attend(normed[t], normed[t], layer.spatial_attention, heads) for t in range(len(hidden))]
    )
    normed = _rms_norm(hidden, layer.temporal_norm)
    numbers = [0] * len(hidden) if config.temporal_attention == "video" else windows
    over_time = torch.zeros_like(hidden)
    for number in set(numbers):
        frames = [frame for frame in range(len(hidden)) if numbers[frame] == number]
        for place in range(hidden.shape[1]):
            sequence = normed[frames, place]
            over_time[frames, place] = _attend(sequence, sequence, layer.temporal_attention, heads)
    return _feed_forward(hidden + over_time, layer)


def _mean_of_windows(num_tokens: int, window: int) -> torch.Tensor:
    window = min(window, num_tokens)
    starts = [*range(0, num_tokens - window, max(window // 2, 1)), num_tokens - window]
    matrix = torch.zeros(len(starts), num_tokens, dtype=torch.double)
    for row, start in enumerate(starts):
        matrix[row, start : start + window] = 1 / window
    return matrix


def _even_windows(num_tokens: int, number: int) -> torch.Tensor:
    matrix = torch.zeros(number, num_tokens, dtype=torch.double)
    for row in range(number):
        matrix[row, math.floor(row * num_tokens / number) : math.ceil((row + 1) * num_tokens / number)] = 1
    return matrix


def _score_windows(config, scores, numbers):
    scales = [number for number in numbers if number] if config.multi_scale == "multi_c" else [sum(numbers)]
    windows = torch.cat([_even_windows(len(scores), number) for number in scales])
    weights = windows * scores.exp()
    return weights / weights.sum(1, keepdim=True)


def _text(aggregator, config, instruction):
    """What TTA reads of the instruction, `(1 + text_length, hidden_size)`; `None` where it reads none."""
    if not config.text_conditioning:
        return None
    encoder = aggregator.instruction
    text = _linear(_rms_norm(instruction.double(), encoder.norm), encoder.proj)
    order = [_sinusoids(place + 1, config.hidden_size, 2, 2000) for place in range(len(text))]
    text = text + torch.tensor(order, dtype=torch.double).view(len(text), -1)
    return torch.cat([encoder.no_text.double()[None], text])


def _cross_modal(layer, queries, tokens, text, heads):
    normed = _rms_norm(queries, layer.self_norm)
    queries = queries + _attend(normed, normed, layer.self_attention, heads)
    queries = queries + _attend(_rms_norm(queries, layer.visual_norm), tokens, layer.visual_attention, heads)
    if text is not None:
        queries = queries + _attend(_rms_norm(queries, layer.text_norm), text, layer.text_attention, heads)
    return _feed_forward(queries, layer)


def _aggregate(model, hidden, scores, progress, instruction):
    config, aggregator = model.config, model.aggregator
    text = _text(aggregator, config, instruction)

    def scale(numbers, pool):
        queries, tokens, bias = aggregator.queries.double()[numbers], pool @ hidden, []
        for number in numbers:  # a bell curve over time
            width = math.exp(-float(aggregator.log_focus[number]))
            bias.append(pool @ scores - (pool @ progress - float(aggregator.moments[number])) ** 2 / (2 * width**2))
        for layer in aggregator.layers:
            queries = _cross_modal(layer, queries, tokens, text, config.num_attention_heads)
        query = _linear(_rms_norm(queries, aggregator.query_norm), aggregator.query_proj)
        logits = query @ _linear(tokens, aggregator.key_proj).T / math.sqrt(config.hidden_size)  # Eq. 1
        return (logits + torch.stack(bias)).softmax(-1) @ pool

    queries = torch.arange(len(aggregator.queries))
    everything = torch.eye(len(hidden), dtype=torch.double)
    pools = [_mean_of_windows(len(hidden), window) for window in config.pooling_windows]
    if config.multi_scale == "multi_c":
        return torch.cat([scale(*pair) for pair in zip(queries.split(config.num_queries), pools, strict=True)])
    if config.multi_scale == "multi_b":
        return scale(queries, torch.cat(pools))
    weights = scale(queries, everything)
    if config.multi_scale == "single":
        return weights
    windows = [_even_windows(config.num_queries[0], number) for number in config.num_queries]
    return torch.cat([window / window.sum(1, keepdim=True) for window in windows]) @ weights


def _relevance(module, text, hidden, heads):
    """Per token how much more it is what a word is about than the tokens are on average: of the word it fits best."""
    normed = _rms_norm(text, module.text_norm)
    words = _feed_forward(text + _attend(normed, normed, module.text_attention, heads), module)
    words = _rms_norm(words, module.word_norm)
    keys = _linear(gelu(_linear(_rms_norm(hidden, module.token_norm), module.token_up_proj)), module.token_proj)
    relevance = [0.0] * len(hidden)
    for word in words:
        gate = 1 / (1 + math.exp(-float(word @ module.word_gate.weight[0].double())))
        fits = [float(fit) for fit in keys @ _linear(word, module.word_proj) * gate / math.sqrt(module.size)]
        of_word = [math.exp((fit - max(fits)) / 3) for fit in fits]
        mean = sum(of_word) / len(of_word)
        relevance = [max(known, some - mean) for known, some in zip(relevance, of_word, strict=True)]
    return relevance


def _merge(model, hidden, scores, progress, instruction, directions, shots, numbers):
    config, aggregator = model.config, model.aggregator
    text = _text(aggregator, config, instruction)
    factors = times = None
    if text is not None:
        relevance = _relevance(aggregator.relevance, text, hidden, config.num_attention_heads)
        scores = scores + math.exp(float(aggregator.log_emphasis)) * torch.tensor(relevance, dtype=torch.double)
        steps = [round(some * 256) / 256 for some in relevance]
        of_shots = [max(some for some, its in zip(steps, shots, strict=True) if its == shot) for shot in shots]
        factors = [1 + 1.5 * some + 3 * of_shot for some, of_shot in zip(steps, of_shots, strict=True)]
        times = [np.float32(0.3) + np.float32(1.7) * np.float32(of_shot) for of_shot in of_shots]
    if config.multi_scale == "multi_a":
        queries_of_scales = numbers[:1]
    else:
        queries_of_scales = numbers if config.multi_scale == "multi_c" else [sum(numbers)]
    pools = [torch.eye(len(hidden), dtype=torch.double)]
    if config.multi_scale in ("multi_b", "multi_c"):
        pools = [_mean_of_windows(len(hidden), window) for window in config.pooling_windows]
    if config.multi_scale == "multi_b":
        pools = [torch.cat(pools)]

    rows, first = [], 0
    centres = (sum(queries_of_scales), factors, times)
    margins = clusters_of_tokens(directions, progress.tolist(), *centres)  # smallest cluster first
    prior = -math.exp(float(aggregator.log_sharpness)) * torch.tensor(margins, dtype=torch.double)
    merged = prior.softmax(-1)
    for scale, (number, pool) in enumerate(zip(queries_of_scales, pools, strict=True)):
        own, tokens = slice(first, first + number), pool @ hidden
        queries = merged[own] @ hidden + aggregator.scales[scale].double()
        for layer in aggregator.layers:
            queries = _cross_modal(layer, queries, tokens, text, config.num_attention_heads)
        queries = _rms_norm(queries, aggregator.query_norm)
        keys = _linear(tokens, aggregator.key_proj)
        of_windows = _linear(queries, aggregator.query_proj) @ keys.T / math.sqrt(config.hidden_size)  # Eq. 1
        for row in range(number):
            logits = []
            for token in range(len(hidden)):
                windows = [window for window in range(len(pool)) if pool[window, token] > 0]
                attention = sum(of_windows[row, window] for window in windows) / len(windows)
                offset = progress[token] - merged[first + row] @ progress
                later, nearer = aggregator.time_weight.double() @ queries[row]
                time = later * offset - nearer * offset**2
                logits.append(prior[first + row, token] + scores[token] + attention + time)
            rows.append(torch.stack(logits).softmax(-1))
        first += number
    weights = torch.stack(rows)
    if config.multi_scale != "multi_a":
        return weights
    weights = _in_order(weights, progress)
    windows = [_even_windows(numbers[0], number) for number in numbers if number]
    return torch.cat([window / window.sum(1, keepdim=True) for window in windows]) @ weights
