"""TTA that begins as merging: a query for each cluster of tokens, and Eq. 1 on top of what the cluster says."""

import math

import torch
from torch import nn
from transformers import initialization as init

from linvt.configuration.configuration_linvt import LinVTVideoConfig
from linvt.video_tokenizer.kept_tokens import KeptTokens
from linvt.video_tokenizer.token_aggregation import CrossModalLayer, InstructionEncoder
from linvt.video_tokenizer.token_clustering import TIME_WEIGHT, cluster_tokens
from linvt.video_tokenizer.token_pooling import pooled_rows, rows_in_order_of_time, scale_pools
from linvt.video_tokenizer.token_relevance import TokenRelevance
from linvt.video_tokenizer.video_attention import RMSNorm, no_autocast


# Of the prior, at first: a token that is 0.2 farther, in squares, from this centre than from the nearest one has
# 1 / e**20 of the weight of one of the cluster's own.
INITIAL_SHARPNESS = 100.0

# What a token of full relevance adds: to its logit, at first; to the distance by which it becomes a centre, by itself
# and by its shot; and to the weight of time between the tokens of its shot (docs/design.md says why).
INITIAL_EMPHASIS = 2.0
TOKEN_FOCUS, SHOT_FOCUS, TIME_FOCUS = 1.5, 3.0, 1.7
RELEVANCE_STEPS = 256  # from 0 to 1, where it moves centres


class MergingAggregator(nn.Module):
    """
    Clusters the tokens, and makes one video token of each. The queries are the means of the clusters; layers and text
    act on them as on the learnt queries of [`TokenAggregator`], but what comes of it is added to the logits of the
    clustering, and is zero at first. So an untrained one merges, and any number of video tokens can be asked for.
    """

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.config = config
        num_scales = 1 if config.multi_scale in ("single", "multi_a", "multi_b") else len(config.num_queries)
        self.scales = nn.Parameter(torch.zeros(num_scales, config.hidden_size))
        self.log_sharpness = nn.Parameter(torch.zeros(1))
        # Earlier or later than the cluster's mean time, and nearer to it or farther: a vector each, as the score is.
        self.time_weight = nn.Parameter(torch.zeros(2, config.hidden_size))
        self.instruction = InstructionEncoder(config) if config.text_conditioning else None
        self.relevance = TokenRelevance(config) if config.text_conditioning else None
        self.log_emphasis = nn.Parameter(torch.zeros(1)) if config.text_conditioning else None
        self.layers = nn.ModuleList(CrossModalLayer(config) for _ in range(config.num_layers))
        self.query_norm = RMSNorm(config.hidden_size)
        self.query_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.key_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    @torch.no_grad()
    def init_prior(self) -> None:
        """Makes what is learnt zero; called when all other weights have their first values."""
        init.constant_(self.log_sharpness, math.log(INITIAL_SHARPNESS))
        init.zeros_(self.time_weight)
        init.zeros_(self.query_proj.weight)
        if self.relevance is not None:
            self.relevance.init_words()
            init.constant_(self.log_emphasis, math.log(INITIAL_EMPHASIS))

    def forward(
        self,
        kept: KeptTokens,
        instruction_embeds: torch.Tensor,
        instruction_mask: torch.Tensor,
        num_video_tokens: int,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            kept ([`KeptTokens`]): Tokens that are mixed, with their directions.
            instruction_embeds, instruction_mask: See `InstructionEncoder`.
            num_video_tokens (`int`): How many to make.

        Returns:
            `torch.FloatTensor` of shape `(videos, video tokens, tokens)`: W, rows sum to 1; and what words of a text
            are compared with, `(videos, tokens, size)`, `None` without `text_conditioning`.
        """
        config = self.config
        numbers = config.video_tokens_per_scale(num_video_tokens)
        pools = scale_pools(config.multi_scale, list(config.pooling_windows), kept.visual)
        if config.multi_scale == "multi_a":
            weights, keys = self._maps(kept, pools, instruction_embeds, instruction_mask, numbers[:1])
            return pooled_rows(rows_in_order_of_time(weights, kept.progress), numbers), keys
        queries_per_scale = numbers if config.multi_scale == "multi_c" else [num_video_tokens]
        return self._maps(kept, pools, instruction_embeds, instruction_mask, queries_per_scale)

    def _maps(
        self,
        kept: KeptTokens,
        pools: list[torch.Tensor | None],
        instruction_embeds: torch.Tensor,
        instruction_mask: torch.Tensor,
        queries_per_scale: list[int],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        W of as many clusters as there are queries; see `scale_pools` for the pools. The largest clusters are the
        coarsest scale's.
        """
        visual, progress, score_bias = kept.visual, kept.progress, kept.score_bias
        text = text_mask = keys = weights = times = None
        if self.instruction is not None and self.relevance is not None:
            text, text_mask = self.instruction(instruction_embeds, instruction_mask)
            relevance, keys = self.relevance(text, text_mask, visual)
            weights, times = focus_of(relevance.detach(), kept.shot_ids)
            score_bias = score_bias + self.log_emphasis.float().exp() * relevance
        margins, clusters = cluster_tokens(kept.directions, progress, sum(queries_per_scale), weights, times)
        margins = _smallest_clusters_first(margins, clusters)
        with no_autocast(visual.device):
            prior = -self.log_sharpness.float().exp() * margins
            merged = prior.softmax(-1)
            offsets = progress[:, None, :] - (merged @ progress[..., None])  # from the mean time of each cluster
            logits = prior + score_bias[:, None, :]
        queries = merged.to(visual.dtype) @ visual
        learnt = []
        for scale, pool, some in zip(self.scales, pools, queries.split(queries_per_scale, dim=1), strict=True):
            if some.shape[1] == 0:  # of a scale that is left without a token, when few are asked for
                continue
            tokens = visual if pool is None else pool.to(visual.dtype) @ visual
            some = some + scale
            for layer in self.layers:
                some = layer(some, tokens, text, text_mask)
            learnt.append(self._attention_logits(self.query_norm(some), tokens, pool))
        attention, times = (torch.cat(parts, dim=1) for parts in zip(*learnt, strict=True))
        with no_autocast(visual.device):
            logits = logits + attention + times[..., :1] * offsets - times[..., 1:] * offsets.square()
            return logits.softmax(-1), keys

    def encode_words(self, embeds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns the words of texts as they are compared with tokens, `(texts, words, size)`, zero on padding."""
        # With `text_conditioning` alone, without which there are no words to learn from.
        return self.relevance.words(*self.instruction(embeds, mask))  # type: ignore[misc]  # see above

    def _attention_logits(
        self, queries: torch.Tensor, tokens: torch.Tensor, pool: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Learnt logits of every token, the mean of those of the windows it is in, and what to think of its time."""
        projected, keys = self.query_proj(queries), self.key_proj(tokens)
        with no_autocast(tokens.device):
            logits = projected.float() @ keys.float().transpose(1, 2) * projected.shape[-1] ** -0.5
            if pool is not None:
                shares = (pool > 0).float()
                logits = logits @ (shares / shares.sum(0))
            return logits, queries.float() @ self.time_weight.float().T


def focus_of(relevance: torch.Tensor, shot_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Where centres of clusters are needed: `weights` and `time_weights` of `cluster_tokens`. A question is about a thing
    in a shot, and what becomes of the thing shows in all of the shot, so both count.
    """
    # In steps, since the last bits of a sum, which depend on the batch, shall not say where a centre is.
    relevance = (relevance * RELEVANCE_STEPS).round() / RELEVANCE_STEPS
    _, numbers = torch.unique(shot_ids, return_inverse=True)
    of_shots = relevance.new_zeros(len(relevance), int(numbers.max()) + 1)
    of_shots = of_shots.scatter_reduce(1, numbers, relevance, "amax").take_along_dim(numbers, 1)
    weights = 1 + TOKEN_FOCUS * relevance + SHOT_FOCUS * of_shots
    return weights, TIME_WEIGHT + TIME_FOCUS * of_shots


def _smallest_clusters_first(margins: torch.Tensor, clusters: torch.Tensor) -> torch.Tensor:
    number = margins.shape[1]
    sizes = (clusters[:, None, :] == torch.arange(number, device=clusters.device)[:, None]).sum(2)
    return margins.take_along_dim(sizes.argsort(dim=1, stable=True)[..., None], 1)
