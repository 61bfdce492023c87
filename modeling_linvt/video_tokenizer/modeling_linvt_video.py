"""The video tokenizer: frame tokens in, a few video tokens out, each of them a weighted average of frame tokens.

Everything here computes *weights*: selection, pooling and attention are matrices whose rows are non-negative and sum
to 1, and so is their product W. The frame tokens V are touched in one place, the last line of `forward`: `W @ V`. That
makes the module linear in the sense of the paper (Sec. 3.2) and gives the image-LLM inputs of the kind it knows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from linvt.configuration.configuration_linvt import LinVTVideoConfig
from linvt.video_tokenizer.kept_tokens import KeptTokens, ScoredTokens
from linvt.video_tokenizer.layer_states import refuse_layer_states
from linvt.video_tokenizer.merging_aggregation import MergingAggregator
from linvt.video_tokenizer.token_aggregation import InstructionEncoder, TokenAggregator
from linvt.video_tokenizer.token_clustering import token_directions
from linvt.video_tokenizer.token_pooling import even_pooling_matrix, rows_in_order_of_time, windows_by_score
from linvt.video_tokenizer.token_refiner import TokenRefiner, shot_windows
from linvt.video_tokenizer.video_attention import RMSNorm, no_autocast, sinusoidal_features


_ZERO_BEFORE_TRAINING = {
    "refiner.score_weight",
    "aggregator.time_weight",
    "aggregator.query_proj.weight",
    "aggregator.relevance.word_proj.weight",
    "aggregator.relevance.word_gate.weight",
}
"""Weights by which what is learnt changes W, where the video tokenizer starts from merging."""


@dataclass
class LinVTVideoOutput(ModelOutput):
    """
    Args:
        video_tokens (`torch.Tensor` of shape `(videos, num_video_tokens, embedding_size)`):
            What the LLM sees of each video, in the order of the mean time of the frame tokens that each is made of
            (without TTA, scale after scale).
        token_weights (`torch.FloatTensor` of shape `(videos, num_video_tokens, frames * tokens per frame)`):
            W, returned with `output_token_weights=True`: `video_tokens == W @ V` with V the frame tokens, or the kept
            tokens where these were given. Rows are non-negative and sum to 1.
        token_scores (`torch.FloatTensor` of shape `(videos, frames * tokens per frame)`, *optional*):
            Significance scores of SVR (Sec. 3.2.1); `None` without SVR, and of kept tokens.
        relevance_keys (`torch.Tensor` of shape `(videos, kept tokens, size)`, *optional*):
            What the words of a text are compared with to tell which tokens it is about; see `TokenRelevance`.
            `None` where no text is read, or with `start="random"`.
    """

    video_tokens: torch.Tensor
    token_weights: torch.Tensor | None = None
    token_scores: torch.Tensor | None = None
    relevance_keys: torch.Tensor | None = None


class LinVTVideoModel(PreTrainedModel):
    """
    SVR, multi-scale token pooling and TTA (Fig. 2). It has no state beyond its weights and knows nothing of the
    image-LLM but the width of its embeddings, so it can be saved, loaded and trained on its own.
    """

    config_class = LinVTVideoConfig
    config: LinVTVideoConfig
    base_model_prefix = "video_tokenizer"
    main_input_name = "frame_tokens"
    input_stage = "tokens"  # behind the projector; RED-VILLM is given the features before it
    supports_gradient_checkpointing = True
    _no_split_modules = ["SpatioTemporalLayer", "CrossModalLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LinVTVideoConfig):
        super().__init__(config)
        if config.use_svr or config.use_tta:  # the average tokens of Tab. 2 need no weights
            self.token_norm = RMSNorm(config.embedding_size)  # type: ignore[arg-type]  # LinVTConfig sets it
            self.token_proj = nn.Linear(config.embedding_size, config.hidden_size, bias=False)
            self.time_proj = nn.Linear(config.hidden_size // 2, config.hidden_size, bias=False)
            self.place_proj = nn.Linear(config.hidden_size // 2, config.hidden_size, bias=False)
        self.refiner = TokenRefiner(config) if config.use_svr else None
        self.merges = config.start == "merge"
        aggregator = MergingAggregator if self.merges else TokenAggregator
        self.aggregator = aggregator(config) if config.use_tta else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TokenRefiner):
            if self.config.start == "merge":
                init.zeros_(module.score_weight)
            else:
                init.normal_(module.score_weight, std=self.config.initializer_range)
        elif isinstance(module, MergingAggregator):
            init.normal_(module.scales, std=self.config.initializer_range)
            module.init_prior()
        elif isinstance(module, TokenAggregator):
            init.normal_(module.queries, std=self.config.initializer_range)
            module.init_moments()
        elif isinstance(module, InstructionEncoder):
            init.normal_(module.no_text, std=self.config.initializer_range)

    @property
    def only_merges(self) -> bool:
        """Returns whether nothing of it was trained, so that all it does is to merge frame tokens."""
        return only_merges(self.config, self.named_parameters())

    @can_return_tuple
    @refuse_layer_states
    def forward(
        self,
        frame_tokens: torch.Tensor | None = None,
        grid: tuple[int, int] = (1, 1),
        frame_seconds: torch.Tensor | None = None,
        shot_ids: torch.Tensor | None = None,
        instruction_embeds: torch.Tensor | None = None,
        instruction_mask: torch.Tensor | None = None,
        output_token_weights: bool = False,
        num_video_tokens: int | None = None,
        kept_tokens: ScoredTokens | None = None,
    ) -> LinVTVideoOutput:
        """
        Args:
            frame_tokens (`torch.Tensor` of shape `(videos, frames, rows * columns, embedding_size)`):
                V, the visual tokens of the frames after the projector. Videos of one call have equally many frames;
                there is no padding, so a video never depends on its neighbours.
            grid (`tuple[int, int]`): Rows and columns of a frame's tokens.
            frame_seconds (`torch.Tensor` of shape `(videos, frames)`): Time of each frame, in seconds.
            shot_ids (`torch.LongTensor` of shape `(videos, frames)`, *optional*): Shot that each frame belongs to;
                by default a video is one shot. Frames of a shot stand in a row.
            instruction_embeds (`torch.Tensor` of shape `(videos, text_length, embedding_size)`, *optional*):
                The LLM's input embeddings of the user's instruction, read with `text_conditioning`.
            instruction_mask (`torch.BoolTensor` of shape `(videos, text_length)`, *optional*):
                `True` on the tokens of the instruction; everywhere by default.
            output_token_weights (`bool`, *optional*, defaults to `False`): Whether to return W.
            num_video_tokens (`int`, *optional*): Video tokens to make; those of the configuration by default, and
                always with `start="random"`, which has learnt as many queries.
            kept_tokens ([`ScoredTokens`], *optional*): What SVR has kept of videos that were seen before, in place of
                their frames; with their `grid`. W is then that of these tokens.

        Raises:
            `ValueError`: If inputs do not fit each other or the configuration.
        """
        number = self.config.num_video_tokens if num_video_tokens is None else num_video_tokens
        self.config.check_num_video_tokens(number)
        if (frame_tokens is None) == (kept_tokens is None):
            raise ValueError("Give either frame_tokens, or the kept_tokens of videos that were seen before.")
        scores = places = None
        if frame_tokens is not None:
            if self.refiner is None and self.aggregator is None:
                return self._average_tokens(frame_tokens.flatten(1, 2), number, output_token_weights)
            kept_tokens = self.score(frame_tokens, grid, frame_seconds, shot_ids)
            if self.refiner is not None:
                scores = kept_tokens.scores
                places = self.refiner.select(scores)  # (videos, kept tokens)
                kept_tokens = kept_tokens.select(places)
        kept: Any = kept_tokens
        weights, keys = self._mix(kept, grid, instruction_embeds, instruction_mask, number)
        token_weights = None
        if output_token_weights:
            token_weights = weights
            if places is not None and scores is not None:
                index = places[:, None, :].expand_as(weights)
                token_weights = weights.new_zeros(*weights.shape[:2], scores.shape[1]).scatter(2, index, weights)
        # The only place where frame tokens are touched, but for the average tokens.
        with no_autocast(kept.tokens.device):
            video_tokens = weights.to(kept.tokens.dtype) @ kept.tokens
        return LinVTVideoOutput(
            video_tokens=video_tokens, token_weights=token_weights, token_scores=scores, relevance_keys=keys
        )

    def score(
        self,
        frame_tokens: torch.Tensor,
        grid: tuple[int, int],
        frame_seconds: torch.Tensor,
        shot_ids: torch.Tensor | None = None,
    ) -> ScoredTokens:
        """
        Scores all frame tokens of videos by SVR, with 0 without it. Where `scores_shot_by_shot` holds, the scores of a
        shot do not depend on the rest of its video.

        Args: See `forward`.
        """
        num_videos, num_frames, tokens_per_frame, _ = frame_tokens.shape
        if grid[0] * grid[1] != tokens_per_frame:
            raise ValueError(f"A grid of {grid[0]} x {grid[1]} does not fit the {tokens_per_frame} tokens of a frame.")
        if shot_ids is None:
            shot_ids = frame_seconds.new_zeros(frame_seconds.shape, dtype=torch.long)
        windows = shot_windows(shot_ids, self.config.max_shot_frames)
        scores = frame_tokens.new_zeros(num_videos, num_frames * tokens_per_frame, dtype=torch.float32)
        bias = scores
        if self.refiner is not None:
            bias = scores = self.refiner(self._embed_frames(frame_tokens, grid, frame_seconds), windows)
            if self.merges:
                scores = scores + self.refiner.prior_scores(token_directions(frame_tokens), windows)
                # Where clusters say what is averaged, the prior has done its part once it has chosen the tokens.
                bias = bias if self.aggregator is not None else scores
        numbers = [number for number, window in enumerate(windows) for _ in window]
        shots = torch.tensor(numbers, device=frame_tokens.device).view(num_videos, -1)
        seconds = frame_seconds.float()
        return ScoredTokens(
            tokens=frame_tokens.flatten(1, 2),
            scores=scores,
            score_bias=bias,
            seconds=seconds.repeat_interleave(tokens_per_frame, 1),
            places=torch.arange(tokens_per_frame, device=seconds.device).repeat(num_videos, num_frames),
            shots=shots.repeat_interleave(tokens_per_frame, 1),
            span_seconds=_span(seconds),
        )

    @property
    def scores_shot_by_shot(self) -> bool:
        """
        Returns whether the scores of a token depend on its own shot (or window of a long one) and on absolute time
        alone, so that a video can be scored piece by piece: what is learnt looks no further, or nothing is learnt.
        """
        if self.refiner is None:
            return False
        return self.config.temporal_attention == "shot" or (self.merges and not bool(self.refiner.score_weight.any()))

    def blank_video(self, device: torch.device, dtype: torch.dtype) -> tuple:
        """Inputs of `forward` that all its weights take part in: one frame of one token; see `rank_agreement.py`."""
        frame_tokens = torch.zeros(1, 1, 1, self.config.embedding_size, device=device, dtype=dtype)
        frame_seconds = torch.zeros(1, 1, device=device)
        shot_ids = torch.zeros(1, 1, device=device, dtype=torch.long)
        return frame_tokens, (1, 1), frame_seconds, shot_ids

    def _embed_frames(
        self, frame_tokens: torch.Tensor, grid: tuple[int, int], frame_seconds: torch.Tensor
    ) -> torch.Tensor:
        """What SVR sees of all tokens, `(videos, frames, tokens per frame, hidden_size)`."""
        # How much of the video has passed is not known to who sees it shot by shot.
        seconds = frame_seconds.float()
        progress = None if self.config.temporal_attention == "shot" else _progress(seconds, _span(seconds))
        times = self._embed_times(frame_seconds, progress)[:, :, None, :]
        return self._project(frame_tokens) + times + self._embed_places(grid, frame_tokens.device)

    def _mix(
        self,
        kept: ScoredTokens,
        grid: tuple[int, int],
        instruction_embeds: torch.Tensor | None,
        instruction_mask: torch.Tensor | None,
        num_video_tokens: int,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """W over the kept tokens, and what words are compared with, by TTA, or without it by the scores alone."""
        if self.aggregator is None:
            multi = self.config.multi_scale == "multi_c"
            numbers = self.config.video_tokens_per_scale(num_video_tokens) if multi else [num_video_tokens]
            return windows_by_score(kept.score_bias, numbers), None
        if instruction_embeds is None:
            instruction_embeds = kept.tokens.new_zeros(len(kept.tokens), 0, self.config.embedding_size)
        if instruction_mask is None:
            instruction_mask = instruction_embeds.new_ones(instruction_embeds.shape[:2], dtype=torch.bool)
        progress = _progress(kept.seconds, kept.span_seconds)
        places = self._embed_places(grid, kept.tokens.device)[kept.places]
        mixed = KeptTokens(
            tokens=kept.tokens,
            visual=self._project(kept.tokens) + self._embed_times(kept.seconds, progress) + places,
            score_bias=kept.score_bias,
            progress=progress,
            shot_ids=kept.shots,
            directions=token_directions(kept.tokens) if self.merges else None,
        )
        weights, keys = self.aggregator(mixed, instruction_embeds, instruction_mask, num_video_tokens)
        return rows_in_order_of_time(weights, progress), keys

    def _project(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.token_proj(self.token_norm(tokens.to(self.token_proj.weight.dtype)))

    def _embed_times(self, seconds: torch.Tensor, progress: torch.Tensor | None) -> torch.Tensor:
        """Times from half a second to four hours, and fractions of the video, down to a 40th; any shape."""
        size = self.config.hidden_size // 4
        time = sinusoidal_features(seconds, size, 0.5, 14_400)
        passed = torch.zeros_like(time) if progress is None else sinusoidal_features(progress, size, 0.05, 2)
        return self.time_proj(torch.cat([time, passed], dim=-1).to(self.time_proj.weight.dtype))

    def _embed_places(self, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
        """Rows and columns as fractions, down to a 40th: `(tokens per frame, hidden_size)`."""
        size = self.config.hidden_size // 4
        row, column = (
            sinusoidal_features((torch.arange(number, device=device) + 0.5) / number, size, 0.05, 2) for number in grid
        )
        place = torch.cat([row.repeat_interleave(grid[1], 0), column.repeat(grid[0], 1)], dim=-1)
        return self.place_proj(place.to(self.place_proj.weight.dtype))

    def _average_tokens(self, tokens: torch.Tensor, number: int, output_token_weights: bool) -> LinVTVideoOutput:
        """The naive baseline of Tab. 2: each video token is the plain mean of one even window of frame tokens."""
        weights = even_pooling_matrix(tokens.shape[1], number, tokens.device)
        with no_autocast(tokens.device):
            # In float32, since 1 / n rounded to bfloat16 would scale all tokens alike.
            video_tokens = (weights @ tokens.float()).to(tokens.dtype)
        weights = weights.expand(len(tokens), -1, -1)
        return LinVTVideoOutput(video_tokens=video_tokens, token_weights=weights if output_token_weights else None)


def only_merges(config: PreTrainedConfig, weights: Iterable[tuple[str, torch.Tensor]]) -> bool:
    """
    Returns whether nothing of a video tokenizer was trained, so that all it does is to merge frame tokens.

    It is read off the weights. Random ones do not tell whether they were trained, so of `start="random"` it is
    `False`, as of RED-VILLM.

    Args:
        config (`LinVTVideoConfig` or `RedVillmVideoConfig`): That of the video tokenizer.
        weights: Names and tensors of its parameters.
    """
    if not isinstance(config, LinVTVideoConfig) or config.start != "merge":
        return False
    return not any(name in _ZERO_BEFORE_TRAINING and bool(weight.any()) for name, weight in weights)


def _span(seconds: torch.Tensor) -> torch.Tensor:
    """Times of the first and of the last frame of each video, `(videos, 2)`."""
    return torch.stack([seconds.amin(1), seconds.amax(1)], dim=1)


def _progress(seconds: torch.Tensor, span_seconds: torch.Tensor) -> torch.Tensor:
    """When in its video something is: 0 in its first frame, 1 in its last, and 0 in a single one."""
    first, last = span_seconds[:, :1], span_seconds[:, 1:]
    return (seconds - first) / (last - first).clamp(min=1e-3)


__all__ = ["LinVTVideoModel", "LinVTVideoOutput", "only_merges"]
