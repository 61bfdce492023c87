"""SVR, the spatio-temporal visual token refiner (Sec. 3.2.1): scores every frame token, keeps the best."""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from linvt.configuration.configuration_linvt import LinVTVideoConfig
from linvt.video_tokenizer.kept_tokens import best_places
from linvt.video_tokenizer.token_clustering import log_novelty
from linvt.video_tokenizer.video_attention import FeedForward, RMSNorm, VideoAttention, no_autocast


class SpatioTemporalLayer(GradientCheckpointingLayer):
    """Self-attention inside each frame, then at each place of the frame over time, then a feed-forward layer."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.spatial_norm = RMSNorm(config.hidden_size)
        self.spatial_attention = VideoAttention(config)
        self.temporal_norm = RMSNorm(config.hidden_size)
        self.temporal_attention = VideoAttention(config)
        self.feed_forward_norm = RMSNorm(config.hidden_size)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: torch.Tensor, num_frames: int, shots: list[torch.Tensor] | None) -> torch.Tensor:
        """
        Args:
            hidden (`torch.Tensor` of shape `(frames of all videos, tokens per frame, hidden_size)`).
            num_frames (`int`): Frames of each video.
            shots (`list[torch.LongTensor]`, *optional*, each of shape `(shots, frames of a shot)`): Frames that attend
                to each other over time; together they hold every frame once. Whole videos by default.
        """
        hidden = hidden + self.spatial_attention(self.spatial_norm(hidden))
        normed = self.temporal_norm(hidden)
        if shots is None:
            hidden = hidden + self._attend_over_time(normed.unflatten(0, (-1, num_frames))).flatten(0, 1)
        else:
            temporal = torch.empty_like(hidden)
            for group in shots:
                temporal[group] = self._attend_over_time(normed[group]).to(temporal.dtype)
            hidden = hidden + temporal
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))

    def _attend_over_time(self, sequences: torch.Tensor) -> torch.Tensor:
        """Attention at each place of the frame, `(sequences, frames, tokens per frame, hidden_size)` in and out."""
        places = sequences.transpose(1, 2)
        return self.temporal_attention(places.flatten(0, 1)).unflatten(0, places.shape[:2]).transpose(1, 2)


class TokenRefiner(nn.Module):
    """Spatio-temporal significance scores and the selection of the `top_k` best tokens of a video."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(SpatioTemporalLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size)
        # A vector, not a Linear: what adapts or quantises linear layers must not take the scores out of float32.
        self.score_weight = nn.Parameter(torch.zeros(config.hidden_size))

    def forward(self, hidden: torch.Tensor, windows: list[list[int]]) -> torch.Tensor:
        """
        Args:
            hidden (`torch.Tensor` of shape `(videos, frames, tokens per frame, hidden_size)`).
            windows (`list[list[int]]`): As `shot_windows` gives them.

        Returns:
            `torch.FloatTensor` of shape `(videos, frames * tokens per frame)`: What it has learnt to think of each
            token. With `start="random"` these are the scores; with `"merge"` they add to [`prior_scores`].
        """
        num_videos, num_frames = hidden.shape[:2]
        attended = None
        if self.config.temporal_attention == "shot":
            of_length: dict[int, list[list[int]]] = {}  # windows of one length attend at once
            for window in windows:
                of_length.setdefault(len(window), []).append(window)
            attended = [torch.tensor(some, device=hidden.device) for some in of_length.values()]
        hidden = hidden.flatten(0, 1)
        for layer in self.layers:
            hidden = layer(hidden, num_frames, attended)
        hidden = self.norm(hidden).unflatten(0, (num_videos, -1)).flatten(1, 2)
        with no_autocast(hidden.device):
            return hidden.float() @ self.score_weight.float()

    def prior_scores(self, directions: torch.Tensor, windows: list[list[int]]) -> torch.Tensor:
        """
        How new each token is to its shot; see `log_novelty`.

        Args:
            directions (`torch.FloatTensor` of shape `(videos, frames, tokens per frame, channels)`).
            windows (`list[list[int]]`): As `shot_windows` gives them.

        Returns:
            `torch.FloatTensor` of shape `(videos, frames * tokens per frame)`.
        """
        longest = max(map(len, windows))
        padded = [window + [-1] * (longest - len(window)) for window in windows]
        padded = torch.tensor(padded, device=directions.device)
        novelty = log_novelty(directions.flatten(0, 1), padded, self.config.top_k)
        return novelty.unflatten(0, directions.shape[:2]).flatten(1, 2)

    def select(self, scores: torch.Tensor) -> torch.Tensor:
        """
        Positions of the tokens that are kept, `(videos, min(top_k, tokens))`, back in the order of the video.

        The best ones, but while the scores learn as many are drawn, without replacement, with odds of exp(score),
        which is what a score multiplies the weight of its token by: a token that is never kept has no gradient, so
        one that was dropped by mistake would stay so. To add Gumbel noise and take the best is to draw (Kool et al.
        2019, Sec. 2).
        """
        if self.training and self.score_weight.requires_grad:
            scores = scores.detach() - torch.empty_like(scores).exponential_().log()
        return best_places(scores, self.config.top_k)


def shot_windows(shot_ids: torch.Tensor, max_frames: int) -> list[list[int]]:
    """
    Cuts videos into what is looked at together: shots, and of longer ones windows of `max_frames` from their start on.

    Args:
        shot_ids (`torch.LongTensor` of shape `(videos, frames)`): Shot of each frame, frames of a shot in a row.

    Returns:
        `list[list[int]]`: Frames of each window, numbered over all videos; all frames, in order.
    """
    windows: list[list[int]] = []
    before, num_frames = None, shot_ids.shape[1]
    for frame, shot in enumerate(shot_ids.flatten().tolist()):
        of_video = (frame // num_frames, shot)
        if of_video != before or len(windows[-1]) == max_frames:
            windows.append([])
        windows[-1].append(frame)
        before = of_video
    return windows
