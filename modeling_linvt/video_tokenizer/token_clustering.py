"""What is known of tokens before anything is learnt: which are new to their shot, and which belong together.

Distances are those of the tokens' directions, as whole numbers that float32 holds exactly. Sums of whole numbers do
not depend on their order, so the same tokens are picked on every device, with any number of threads, alone or in a
batch, at once or piece by piece.
"""

from functools import cache

import numpy as np
import torch

from linvt.video_tokenizer.video_attention import no_autocast


LENGTH = 1000
"""Length of a direction. Squared distances still fit into the 24 bits of float32, those over time included."""

MAX_CHANNELS = 128
"""Wider tokens are projected to as many channels, which changes distances by 6 percent (one standard deviation)."""

TIME_WEIGHT = 0.3
"""What a whole video of time adds to a distance; two tokens at right angles are 1.4 apart."""

NUM_ROUNDS = 8  # of Lloyd's algorithm; hardly a token changes its cluster after that
MAX_ELEMENTS = 2**26  # of the directions that are looked at together
SUMMED_TOKENS = 4096  # at once: no sum over as many directions leaves the 24 bits


@cache
def _signs(num_channels: int, device: torch.device) -> torch.Tensor:
    """A random projection of signs, always the same (Achlioptas 2003; `RandomState` never changes what it draws)."""
    signs = np.random.RandomState(0).randint(0, 2, (num_channels, MAX_CHANNELS)) * 2 - 1
    return torch.from_numpy(signs).to(device, torch.float32)


@torch.compiler.disable  # the whole numbers shall not depend on how a compiler joins operations
@torch.no_grad()
def token_directions(tokens: torch.Tensor) -> torch.Tensor:
    """
    Scales tokens to one length, and projects wide ones to [`MAX_CHANNELS`].

    Args:
        tokens (`torch.Tensor` of shape `(..., channels)`).

    Returns:
        `torch.FloatTensor` of shape `(..., min(channels, 128))`: Whole numbers, of length [`LENGTH`] but for rounding.
    """
    directions = _scaled(tokens, LENGTH)
    if tokens.shape[-1] <= MAX_CHANNELS:
        return directions
    with no_autocast(tokens.device):
        # As fine as sums over all channels allow.
        whole = _scaled(tokens, 2**23 / tokens.shape[-1] ** 0.5)
        return _scaled(whole @ _signs(tokens.shape[-1], tokens.device), LENGTH)


def _scaled(tokens: torch.Tensor, length: float) -> torch.Tensor:
    """Whole numbers of this length. Those whose squares are summed for it are whole, too, in 15 bits and a sign."""
    tokens = tokens.float()
    fine = (tokens / tokens.abs().amax(-1, keepdim=True).clamp(min=1e-30) * 2**15).round()
    squares = fine.int().square().sum(-1, keepdim=True)  # of int32, the sum is int64
    return (fine * (length / squares.float().sqrt().clamp(min=1))).round()


def squared_distances(ones: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Exact squared distances of points in whole numbers, `(batch, ones or others, channels)`."""
    with no_autocast(ones.device):
        products = ones @ others.transpose(1, 2)
    return ones.square().sum(-1)[..., None] + others.square().sum(-1)[:, None, :] - 2 * products


@torch.no_grad()
def farthest_points(
    directions: torch.Tensor,
    number: int,
    mask: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Picks tokens, each of them the farthest from all that were picked before (Gonzalez 1985), the first token first;
    of equally far ones the first.

    Args:
        directions (`torch.FloatTensor` of shape `(batch, tokens, channels)`).
        number (`int`): How many to pick. Where there are fewer tokens, the picks begin anew.
        mask (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*): `False` on padding, behind the tokens.
        weights (`torch.FloatTensor` of shape `(batch, tokens)`, *optional*): Factors above 0 of the distances by
            which tokens are picked.

    Returns:
        The positions that were picked, `(batch, number)`, and for every token the square of its distance from those
        before it: for one that was not picked, from all of them.
    """
    num_tokens = directions.shape[1]
    # To what nothing has been shown yet, every token is as new as can be.
    distances = directions.new_full(directions.shape[:2], 4.0 * LENGTH**2)
    left = torch.ones_like(distances, dtype=torch.bool) if mask is None else mask.clone()
    novelty, picks = distances.clone(), []
    lengths = directions.square().sum(-1)
    factors = None if weights is None else weights.square()
    for _ in range(min(number, num_tokens)):
        # Where no token is left, which padding alone can bring about, the last pick is repeated and changes nothing.
        farthest = distances if factors is None else distances * factors
        pick = farthest.masked_fill(~left, -1).argmax(1, keepdim=True)
        picks.append(pick)
        left = left.scatter(1, pick, False)
        picked = directions.take_along_dim(pick[..., None], 1)
        with no_autocast(directions.device):
            products = (directions @ picked.transpose(1, 2))[..., 0]
        distances = torch.minimum(distances, lengths + lengths.take_along_dim(pick, 1) - 2 * products)
        novelty = torch.where(left, distances, novelty)
    order = torch.cat(picks, dim=1)
    return order[:, torch.arange(number, device=order.device) % order.shape[1]], novelty


@torch.compiler.disable  # a loop over picks, which a compiler would write out
@torch.no_grad()
def log_novelty(directions: torch.Tensor, windows: torch.Tensor, num_picks: int) -> torch.Tensor:
    """
    How much each token adds to what its own shot has shown already, whatever the rest of the video shows.

    Args:
        directions (`torch.FloatTensor` of shape `(frames, tokens per frame, channels)`).
        windows (`torch.LongTensor` of shape `(windows, frames)`): Frames of each shot, or of a part of a long one,
            -1 behind them. Together they hold every frame once.
        num_picks (`int`): Tokens that may be kept of a video. Of those that a shot has beyond that, none can be.

    Returns:
        `torch.FloatTensor` of shape `(frames, tokens per frame)`: The logarithm of the distance from what was shown
        before, between 0.7 (the farthest that directions can be apart) and -8.3 (the same again).
    """
    num_frames, tokens_per_frame, channels = directions.shape
    novelty = directions.new_empty(num_frames, tokens_per_frame)
    at_once = max(MAX_ELEMENTS // (windows.shape[1] * tokens_per_frame * channels), 1)
    for some in windows.split(at_once):
        mask = (some >= 0).repeat_interleave(tokens_per_frame, 1)
        tokens = directions[some.clamp(min=0)].flatten(1, 2)
        _, squares = farthest_points(tokens, min(num_picks, tokens.shape[1]), mask)
        novelty[some[some >= 0]] = squares[mask].view(-1, tokens_per_frame)
    return 0.5 * (novelty.clamp(min=0.25) / LENGTH**2).log()


@torch.compiler.disable
@torch.no_grad()
def cluster_tokens(
    directions: torch.Tensor,
    progress: torch.Tensor,
    number: int,
    weights: torch.Tensor | None = None,
    time_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Clusters the tokens of each video by k-means: Lloyd's algorithm, from the farthest points on.

    Args:
        directions (`torch.FloatTensor` of shape `(videos, tokens, channels)`).
        progress (`torch.FloatTensor` of shape `(videos, tokens)`): When in the video each token is, from 0 to 1.
        number (`int`): Clusters. One that is empty, as where there are fewer tokens, keeps the centre that it had.
        weights (`torch.FloatTensor` of shape `(videos, tokens)`, *optional*): See [`farthest_points`].
        time_weights (`torch.FloatTensor` of shape `(videos, tokens)`, *optional*): What a whole video of time adds to
            distances between such tokens; [`TIME_WEIGHT`] by default, 2 at most.

    Returns:
        Per cluster and token how much farther the token is from this centre than from the nearest one, in squares of
        distances where the length of a direction is 1, float32 `(videos, number, tokens)`; and the cluster that each
        token is in, `(videos, tokens)`.
    """
    when = (progress * (TIME_WEIGHT if time_weights is None else time_weights) * LENGTH).round()
    points = torch.cat([directions, when[..., None]], dim=-1)
    seeds, _ = farthest_points(points, number, weights=weights)
    centres = points.take_along_dim(seeds[..., None], 1)
    for _ in range(NUM_ROUNDS):
        members = _one_hot(squared_distances(centres, points).argmin(1), number)
        sizes = members.sum(2, keepdim=True)
        means = (_exact_product(members, points).float() / sizes.clamp(min=1)).round()
        centres = torch.where(sizes > 0, means, centres)
    squares = squared_distances(centres, points)
    nearest, cluster = squares.min(1)
    return (squares - nearest[:, None, :]) / LENGTH**2, cluster


def _exact_product(members: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """`members @ points` in int64, of zeros and ones and of whole numbers."""
    parts = zip(members.split(SUMMED_TOKENS, dim=2), points.split(SUMMED_TOKENS, dim=1), strict=True)
    with no_autocast(points.device):
        return torch.stack([(ones @ some).long() for ones, some in parts]).sum(0)


def _one_hot(cluster: torch.Tensor, number: int) -> torch.Tensor:
    """`(videos, tokens)` as float32 `(videos, number, tokens)`."""
    return (cluster[:, None, :] == torch.arange(number, device=cluster.device)[:, None]).float()
