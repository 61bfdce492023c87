"""Weights W of video tokens that nothing learns and that are no setting of the package: what LinVT is compared with.

Each function takes V of videos of one length, `(videos, frames, tokens per frame, channels)`, the times of the frames
in seconds, `(videos, frames)`, and a number of video tokens, and returns W, `(videos, video tokens, tokens)`.
"""

import torch

from linvt.processors.video.frame_selection import uniform_frame_indices
from linvt.video_tokenizer.token_clustering import LENGTH, cluster_tokens, squared_distances, token_directions


def all_tokens(frame_tokens: torch.Tensor, frame_seconds: torch.Tensor, number: int) -> torch.Tensor:
    """Keeps every token, whatever `number` is."""
    return torch.eye(frame_tokens[0, ..., 0].numel(), device=frame_tokens.device).expand(len(frame_tokens), -1, -1)


def uniform_frames(frame_tokens: torch.Tensor, frame_seconds: torch.Tensor, number: int) -> torch.Tensor:
    """Keeps all tokens of evenly spaced frames; of the last frame too if `number` ends inside of it."""
    _, num_frames, tokens_per_frame, _ = frame_tokens.shape
    frames = uniform_frame_indices(num_frames, -(-number // tokens_per_frame))
    kept = [frame * tokens_per_frame + place for frame in frames for place in range(tokens_per_frame)]
    weights = torch.eye(num_frames * tokens_per_frame, device=frame_tokens.device)[kept]
    return weights.expand(len(frame_tokens), -1, -1)


def density_peaks(
    frame_tokens: torch.Tensor, frame_seconds: torch.Tensor, number: int, num_neighbours: int = 5
) -> torch.Tensor:
    """
    Clusters tokens by density peaks (DPC-kNN, Du et al. 2016), as FastVID does, and averages the clusters: centres are
    the tokens that are dense and far from all denser ones; every other token joins the nearest centre.
    """
    directions = token_directions(frame_tokens.flatten(1, 2))
    distances = squared_distances(directions, directions) / LENGTH**2
    nearest = distances.topk(min(num_neighbours, directions.shape[1]), largest=False).values
    density = (-nearest.mean(-1)).exp()
    # Of equally dense ones the earlier counts as the denser.
    rank = density.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    denser = rank[:, None, :] < rank[:, :, None]
    peak = distances.masked_fill(~denser, float("inf")).amin(-1)
    peak = torch.where(peak.isinf(), distances.amax(-1), peak)  # of the densest one
    centres = (density * peak.sqrt()).argsort(dim=1, descending=True, stable=True)[:, :number].sort(1).values
    cluster = distances.take_along_dim(centres[:, None, :], 2).argmin(-1)
    cluster = cluster.scatter(1, centres, torch.arange(number, device=centres.device).expand_as(centres))
    return _means_in_order_of_time(cluster, number, frame_seconds.repeat_interleave(frame_tokens.shape[2], 1))


def random_scores(
    frame_tokens: torch.Tensor, frame_seconds: torch.Tensor, number: int, num_kept: int, seed: int
) -> torch.Tensor:
    """Keeps tokens that are drawn by lot, in place of the best, and averages clusters of them as LinVT does."""
    tokens = frame_tokens.flatten(1, 2)
    lots = torch.rand(tokens.shape[:2], generator=torch.Generator().manual_seed(seed))
    kept = lots.topk(min(num_kept, tokens.shape[1])).indices.sort(1).values.to(tokens.device)
    seconds = frame_seconds.repeat_interleave(frame_tokens.shape[2], 1).take_along_dim(kept, 1)
    first, last = frame_seconds.amin(1, keepdim=True), frame_seconds.amax(1, keepdim=True)
    directions = token_directions(tokens.take_along_dim(kept[..., None], 1))
    _, cluster = cluster_tokens(directions, (seconds - first) / (last - first), number)
    weights = _means_in_order_of_time(cluster, number, seconds)
    return torch.zeros(*weights.shape[:2], tokens.shape[1]).scatter(2, kept[:, None, :].expand_as(weights), weights)


def _means_in_order_of_time(cluster: torch.Tensor, number: int, seconds: torch.Tensor) -> torch.Tensor:
    """Averages the tokens of each cluster, `(videos, tokens)`; an empty one repeats the mean of the largest."""
    weights = torch.nn.functional.one_hot(cluster, number).transpose(1, 2).float()
    sizes = weights.sum(2, keepdim=True)
    largest = weights.take_along_dim(sizes.argmax(1, keepdim=True), 1)
    weights = torch.where(sizes > 0, weights, largest)
    weights = weights / weights.sum(2, keepdim=True)
    when = (weights @ seconds[..., None])[..., 0]
    return weights.take_along_dim(when.argsort(dim=1, stable=True)[..., None], 1)
