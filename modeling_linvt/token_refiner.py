"""SVR, the spatio-temporal visual token refiner (Sec. 3.2.1): scores every frame token, keeps the best."""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from linvt.configuration.configuration_linvt import LinVTVideoConfig
from linvt.video_attention import FeedForward, VideoAttention


class SpatioTemporalLayer(GradientCheckpointingLayer):
    """Self-attention inside each frame, then at each place of the frame over time, then a feed-forward layer."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.spatial_norm = nn.RMSNorm(config.hidden_size, eps=1e-6)
        self.spatial_attention = VideoAttention(config)
        self.temporal_norm = nn.RMSNorm(config.hidden_size, eps=1e-6)
        self.temporal_attention = VideoAttention(config)
        self.feed_forward_norm = nn.RMSNorm(config.hidden_size, eps=1e-6)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: torch.Tensor, frame_groups: list[torch.Tensor]) -> torch.Tensor:
        """
        Args:
            hidden (`torch.Tensor` of shape `(frames of all videos, tokens per frame, hidden_size)`).
            frame_groups (`list[torch.LongTensor]`, each of shape `(sequences, frames of a sequence)`):
                Which frames attend to each other over time; together they hold every frame once.
        """
        hidden = hidden + self.spatial_attention(self.spatial_norm(hidden))
        normed = self.temporal_norm(hidden)
        temporal = torch.empty_like(hidden)
        for group in frame_groups:
            sequences = normed[group].transpose(1, 2)  # (sequences, tokens per frame, frames, hidden_size)
            attended = self.temporal_attention(sequences.flatten(0, 1)).view_as(sequences)
            temporal[group] = attended.transpose(1, 2).to(temporal.dtype)
        hidden = hidden + temporal
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))


class TokenRefiner(nn.Module):
    """Spatio-temporal significance scores and the selection of the `top_k` best tokens of a video."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(SpatioTemporalLayer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=1e-6)
        self.score_head = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, hidden: torch.Tensor, shot_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            hidden (`torch.Tensor` of shape `(videos, frames, tokens per frame, hidden_size)`).
            shot_ids (`torch.LongTensor` of shape `(videos, frames)`): Number of the shot that each frame belongs to.

        Returns:
            The hidden states after attention, `(videos, frames * tokens per frame, hidden_size)`, and the scores,
            float32 `(videos, frames * tokens per frame)`.
        """
        num_videos = hidden.shape[0]
        frame_groups = self._frame_groups(shot_ids)
        hidden = hidden.flatten(0, 1)
        for layer in self.layers:
            hidden = layer(hidden, frame_groups)
        hidden = self.norm(hidden).unflatten(0, (num_videos, -1)).flatten(1, 2)
        with torch.autocast(hidden.device.type, enabled=False):
            scores = nn.functional.linear(hidden.float(), self.score_head.weight.float()).squeeze(-1)
        return hidden, scores

    def select(self, scores: torch.Tensor) -> torch.Tensor:
        """Positions of the tokens that are kept, `(videos, min(top_k, tokens))`, back in the order of the video."""
        num_kept = min(self.config.top_k, scores.shape[1])
        return scores.topk(num_kept, dim=1).indices.sort(dim=1).values

    def _frame_groups(self, shot_ids: torch.Tensor) -> list[torch.Tensor]:
        """Frames that attend to each other: those of a video, or of a shot; shots of one length share a group."""
        num_videos, num_frames = shot_ids.shape
        if self.config.temporal_attention == "video":
            return [torch.arange(num_videos * num_frames, device=shot_ids.device).view(num_videos, num_frames)]
        frames_of_shot: dict[tuple[int, int], list[int]] = {}
        for video, shots in enumerate(shot_ids.tolist()):
            for frame, shot in enumerate(shots):
                frames_of_shot.setdefault((video, shot), []).append(video * num_frames + frame)
        shots_of_length: dict[int, list[list[int]]] = {}
        for frames in frames_of_shot.values():
            shots_of_length.setdefault(len(frames), []).append(frames)
        return [torch.tensor(shots, device=shot_ids.device) for shots in shots_of_length.values()]
