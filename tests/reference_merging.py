"""Directions, novelty and clusters of tokens once more, from docs/design.md: whole numbers, loops, no shared code."""

import math

import numpy as np


def directions_of_tokens(tokens: list[list[float]]) -> list[list[int]]:
    """Per token whole numbers of length 1000; of more than 128 channels, 128 sums with fixed signs."""
    channels = len(tokens[0])
    if channels <= 128:
        return [_whole(token, 1000) for token in tokens]
    signs = [[2 * bit - 1 for bit in row] for row in np.random.RandomState(0).randint(0, 2, (channels, 128)).tolist()]
    projected = []
    for token in tokens:
        wide = _whole(token, 2**23 / math.sqrt(channels))
        projected.append([sum(wide[c] * signs[c][place] for c in range(channels)) for place in range(128)])
    return [_whole(token, 1000) for token in projected]


def _whole(values: list[float], length: float) -> list[int]:
    """Steps of 1/32768 of the largest value, then of the length; each operation rounds to float32."""
    values = [np.float32(value) for value in values]
    peak = max(abs(value) for value in values)
    if peak == 0:
        return [0] * len(values)
    fine = [round(float(value / peak * np.float32(32768))) for value in values]
    scale = np.float32(length) / np.sqrt(np.float32(sum(value**2 for value in fine)))
    return [round(float(np.float32(value) * scale)) for value in fine]


def square(one: list[int], other: list[int]) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def log_novelty(directions: list[list[int]], shots: list[int], window: int, num_picks: int) -> list[float]:
    """Per token the logarithm of its distance from what was picked before it of its shot, at most `window` tokens."""
    novelty = [0.0] * len(directions)
    for shot in set(shots):
        tokens = [token for token, its_shot in enumerate(shots) if its_shot == shot]
        for start in range(0, len(tokens), window):
            part = tokens[start : start + window]
            for token, distance in zip(part, _farthest([directions[t] for t in part], num_picks)[1], strict=True):
                novelty[token] = math.log(math.sqrt(max(distance, 0.25)) / 1000)
    return novelty


def _farthest(points: list[list[int]], number: int, factors: list[float] | None = None) -> tuple[list[int], list[int]]:
    """Picks, and per point its squared distance from the picks before it: from all of them if it is none."""
    factors = [1.0] * len(points) if factors is None else factors
    left, picks = list(range(len(points))), []
    distances = [(2 * 1000) ** 2] * len(points)
    while left and len(picks) < number:
        pick = max(left, key=lambda token: (distances[token] * factors[token] ** 2, -token))
        picks.append(pick)
        left.remove(pick)
        for token in left:
            distances[token] = min(distances[token], square(points[token], points[pick]))
    return picks, distances


def clusters_of_tokens(
    directions: list[list[int]],
    progress: list[float],
    number: int,
    factors: list[float] | None = None,
    times: list[np.float32] | None = None,
) -> list[list[float]]:
    """
    Per cluster, the smallest first, how much farther each token is from its centre than from the nearest one; with
    factors of the distances by which centres are picked, and weights of time.
    """
    times = [np.float32(0.3)] * len(progress) if times is None else times
    when = [round(float(np.float32(p) * time * np.float32(1000))) for p, time in zip(progress, times, strict=True)]
    points = [[*direction, moment] for direction, moment in zip(directions, when, strict=True)]
    picks, _ = _farthest(points, number, factors)
    centres = [points[picks[place % len(picks)]] for place in range(number)]
    for _ in range(8):
        nearest = [_nearest(point, centres) for point in points]
        for cluster in range(number):
            members = [points[token] for token in range(len(points)) if nearest[token] == cluster]
            if members:
                sums = (sum(column) for column in zip(*members, strict=True))
                centres[cluster] = [round(float(np.float32(value) / np.float32(len(members)))) for value in sums]
    nearest = [_nearest(point, centres) for point in points]
    sizes = [nearest.count(cluster) for cluster in range(number)]
    squares = [[square(point, centre) for point in points] for centre in centres]
    least = [min(column) for column in zip(*squares, strict=True)]
    in_order = sorted(range(number), key=lambda cluster: sizes[cluster])
    return [[(a - b) / 1000**2 for a, b in zip(squares[cluster], least, strict=True)] for cluster in in_order]


def _nearest(point: list[int], centres: list[list[int]]) -> int:
    return min(range(len(centres)), key=lambda cluster: square(point, centres[cluster]))
