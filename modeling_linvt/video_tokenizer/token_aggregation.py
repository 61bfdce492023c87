"""TTA, the text-conditioned token aggregation (Sec. 3.2.2): queries that say how the tokens are averaged."""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from linvt.configuration.configuration_linvt import LinVTVideoConfig
from linvt.video_tokenizer.kept_tokens import KeptTokens
from linvt.video_tokenizer.token_pooling import pooled_rows, scale_pools
from linvt.video_tokenizer.video_attention import (
    FeedForward,
    RMSNorm,
    VideoAttention,
    no_autocast,
    sinusoidal_features,
)


# Standard deviation of a query's bell curve, as a share of the video. A narrow one would keep the query from what it
# is to find (docs/design.md).
INITIAL_WIDTH = 0.5


class CrossModalLayer(GradientCheckpointingLayer):
    """Queries attend to each other, to the visual tokens of their scale, and to the instruction."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.self_norm = RMSNorm(config.hidden_size)
        self.self_attention = VideoAttention(config)
        self.visual_norm = RMSNorm(config.hidden_size)
        self.visual_attention = VideoAttention(config)
        if config.text_conditioning:
            self.text_norm = RMSNorm(config.hidden_size)
            self.text_attention = VideoAttention(config)
        self.feed_forward_norm = RMSNorm(config.hidden_size)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        queries: torch.Tensor,
        visual: torch.Tensor,
        text: torch.Tensor | None,
        text_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        queries = queries + self.self_attention(self.self_norm(queries))
        queries = queries + self.visual_attention(self.visual_norm(queries), visual)
        if text is not None:
            queries = queries + self.text_attention(self.text_norm(queries), text, text_mask)
        return queries + self.feed_forward(self.feed_forward_norm(queries))


class InstructionEncoder(nn.Module):
    """Brings the embeddings of the instruction to the width of the video tokenizer."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.norm = RMSNorm(config.embedding_size)  # type: ignore[arg-type]  # LinVTConfig sets it
        self.proj = nn.Linear(config.embedding_size, config.hidden_size, bias=False)
        # Always attended to, so that a video without any instruction has something to attend to.
        self.no_text = nn.Parameter(torch.zeros(config.hidden_size))

    def forward(self, embeds: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            embeds (`torch.Tensor` of shape `(videos, text_length, embedding_size)`).
            mask (`torch.BoolTensor` of shape `(videos, text_length)`): `True` on the tokens of the instruction.
        """
        text = self.proj(self.norm(embeds.to(self.proj.weight.dtype)))
        order = mask.long().cumsum(1)  # place in the instruction, whatever padding stands before it
        text = text + sinusoidal_features(order, text.shape[-1], 2, 2000).to(text.dtype)
        text = torch.cat([self.no_text.to(text.dtype).expand(len(text), 1, -1), text], dim=1)
        return text, nn.functional.pad(mask, (1, 0), value=True)


class TokenAggregator(nn.Module):
    """Learnable queries per scale, `num_layers` cross-modal layers, and the attention map of Eq. 1."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.config = config
        self.queries_per_scale = config.num_queries[:1] if config.multi_scale == "multi_a" else config.num_queries
        num_queries = sum(self.queries_per_scale)
        self.queries = nn.Parameter(torch.zeros(num_queries, config.hidden_size))
        # Where in the video each query looks, 0 its first frame and 1 its last, and how closely: the logarithm of one
        # over the standard deviation of a bell curve.
        self.moments = nn.Parameter(torch.zeros(num_queries))
        self.log_focus = nn.Parameter(torch.zeros(num_queries))
        self.instruction = InstructionEncoder(config) if config.text_conditioning else None
        self.layers = nn.ModuleList(CrossModalLayer(config) for _ in range(config.num_layers))
        self.query_norm = RMSNorm(config.hidden_size)
        self.query_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.key_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    @torch.no_grad()
    def init_moments(self) -> None:
        """Spreads the queries of each scale over the video, in their order; each still sees all of it."""
        numbers = self.queries_per_scale
        init.copy_(self.moments, torch.cat([(torch.arange(number) + 0.5) / number for number in numbers]))
        init.constant_(self.log_focus, math.log(1 / INITIAL_WIDTH))

    def forward(
        self,
        kept: KeptTokens,
        instruction_embeds: torch.Tensor,
        instruction_mask: torch.Tensor,
        num_video_tokens: int,
    ) -> tuple[torch.Tensor, None]:
        """
        Args:
            kept ([`KeptTokens`]): Tokens that are mixed.
            instruction_embeds, instruction_mask: See `InstructionEncoder`.
            num_video_tokens (`int`): That of the configuration, for which queries were learnt.

        Returns:
            `torch.FloatTensor` of shape `(videos, video tokens, tokens)`: W, rows sum to 1; and `None`, for there is
            nothing that words are compared with.
        """
        pools = scale_pools(self.config.multi_scale, list(self.config.pooling_windows), kept.visual)
        visual = [kept.visual if pool is None else pool.to(kept.visual.dtype) @ kept.visual for pool in pools]
        with no_autocast(kept.visual.device):
            biases, moments = (
                [values if pool is None else values @ pool.T for pool in pools]
                for values in (kept.score_bias, kept.progress)
            )
        maps = self._maps(visual, biases, moments, instruction_embeds, instruction_mask)
        with no_autocast(kept.visual.device):
            if self.config.multi_scale == "multi_a":
                return pooled_rows(maps[0], list(self.config.num_queries)), None
            parts = [m if pool is None else m @ pool for m, pool in zip(maps, pools, strict=True)]
            return torch.cat(parts, dim=1), None

    def _maps(
        self,
        visual: list[torch.Tensor],
        score_bias: list[torch.Tensor],
        progress: list[torch.Tensor],
        instruction_embeds: torch.Tensor,
        instruction_mask: torch.Tensor,
    ) -> list[torch.Tensor]:
        """
        Per scale the attention map of Eq. 1, float32 `(videos, queries, windows)`, rows sum to 1, of what the scale's
        windows show on average. Where all scales are given as one, all queries share it.
        """
        text = text_mask = None
        if self.instruction is not None:
            text, text_mask = self.instruction(instruction_embeds, instruction_mask)
        numbers = self.queries_per_scale if len(visual) > 1 else [len(self.queries)]
        maps, first = [], 0
        for tokens, bias, when, number in zip(visual, score_bias, progress, numbers, strict=True):
            scale = slice(first, first + number)
            queries = self.queries[scale].expand(len(tokens), -1, -1)
            for layer in self.layers:
                queries = layer(queries, tokens, text, text_mask)
            bias = bias[:, None, :] + self._moment_bias(when, scale)
            maps.append(self._attention_map(self.query_norm(queries), tokens, bias))
            first += number
        return maps

    def _moment_bias(self, progress: torch.Tensor, scale: slice) -> torch.Tensor:
        with no_autocast(progress.device):
            distance = progress[:, None, :] - self.moments[scale, None].float()
            return -0.5 * (distance * self.log_focus[scale, None].float().exp()).square()

    def _attention_map(self, queries: torch.Tensor, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        queries, keys = self.query_proj(queries), self.key_proj(tokens)
        with no_autocast(tokens.device):
            logits = queries.float() @ keys.float().transpose(1, 2) * queries.shape[-1] ** -0.5
            return (logits + bias).softmax(-1)
