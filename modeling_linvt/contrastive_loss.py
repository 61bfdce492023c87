"""Video-text contrastive loss of the alignment stage: InfoNCE over the batch and over all ranks (Sec. 3.3).

A pair is the mean of a prompt's video tokens and the mean of its answer's input embeddings. Both live in the embedding
space of the LLM, so there is no projection to learn and to throw away.
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from linvt.configuration.input_values import IGNORED_LABEL
from linvt.video_tokenizer.video_attention import no_autocast


FRESH_LOGIT_SCALE = math.log(1 / 0.07)
LARGEST_LOGIT_SCALE = math.log(100)
_HASH_BASE = 6364136223846793005  # odd, so that its powers never become 0 modulo 2^64


class VideoTextContrast(nn.Module):
    """
    Computes InfoNCE in both directions, with a learnable temperature as in CLIP. The temperature learns only where
    `requires_grad` is set, as the alignment stage does: without this loss it would be a weight without a gradient,
    for which data parallel training waits.
    """

    def __init__(self):
        super().__init__()
        # The logarithm of 1 / temperature. Not a scalar: FSDP shards along the first dimension.
        self.logit_scale = nn.Parameter(torch.full((1,), FRESH_LOGIT_SCALE), requires_grad=False)

    def forward(
        self, embeds: torch.Tensor | None, is_video: torch.Tensor | None, labels: torch.LongTensor
    ) -> torch.Tensor:
        """
        All ranks must call this together, those without videos too.

        Args:
            embeds (`torch.Tensor` of shape `(batch, length, channels)`, *optional*): What the LLM reads: the video
                tokens, and the input embeddings of the text. `None` where no prompt has a video.
            is_video (`torch.BoolTensor` of shape `(batch, length)`, *optional*): `True` on video tokens.
            labels (`torch.LongTensor` of shape `(batch, length)`): Tokens of the answers, -100 elsewhere.

        Returns:
            `torch.FloatTensor`, a scalar: the loss over the pairs of all ranks, the same on each of them; 0 if there
            are fewer than two pairs. Its gradients are such that their mean over the ranks, which DDP and FSDP take,
            is the gradient of the loss over the joined batch.
        """
        device = self.logit_scale.device
        # The temperature enters even a loss of 0: every rank has the same graph.
        scale = self.logit_scale.float()
        # Clamped in its value only: a gradient that would lower it must come through.
        scale = (scale - (scale - LARGEST_LOGIT_SCALE).clamp(min=0).detach()).exp()
        with no_autocast(device):
            videos, texts, text_ids = self._pairs(embeds, is_video, labels.to(device))
            videos, texts, text_ids = gather_pairs(videos, texts, text_ids)
            if len(text_ids) < 2:
                return (videos.sum() + texts.sum() + scale.sum()) * 0
            logits = scale * F.normalize(videos, dim=-1) @ F.normalize(texts, dim=-1).T
        return info_nce(logits, text_ids)

    def _pairs(
        self, embeds: torch.Tensor | None, is_video: torch.Tensor | None, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means of video tokens and of answers, `(pairs, channels)`, and a number for each answer, `(pairs,)`."""
        if embeds is None:
            empty = torch.zeros(0, 0, device=labels.device)
            return empty, empty, labels.new_zeros(0)
        embeds, is_video = embeds.to(labels.device), is_video.to(labels.device)
        is_answer = labels != IGNORED_LABEL
        rows = (is_video.any(1) & is_answer.any(1)).nonzero()[:, 0]
        embeds, is_video, is_answer, labels = embeds[rows].float(), is_video[rows], is_answer[rows], labels[rows]
        return _mean(embeds, is_video), _mean(embeds, is_answer), hash_texts(labels, is_answer)


def info_nce(logits: torch.Tensor, text_ids: torch.Tensor) -> torch.Tensor:
    """
    InfoNCE in both directions, a scalar.

    Args:
        logits (`torch.FloatTensor` of shape `(pairs, pairs)`): Of each video with each text.
        text_ids (`torch.LongTensor` of shape `(pairs,)`): Equal for equal texts.
    """
    # The same text on two videos is right for both of them.
    same_text = (text_ids[:, None] == text_ids[None, :]).fill_diagonal_(False)
    logits = logits.masked_fill(same_text, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _mean(embeds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (embeds * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def hash_texts(tokens: torch.Tensor, is_text: torch.Tensor) -> torch.Tensor:
    """A number per text, equal for equal tokens wherever they stand: a polynomial of the tokens modulo 2^64."""
    powers = torch.full((tokens.shape[1],), _HASH_BASE, device=tokens.device).cumprod(0)
    place = is_text.long().cumsum(1) - 1
    return ((tokens + 1) * powers[place.clamp(min=0)]).masked_fill(~is_text, 0).sum(1)


def gather_pairs(
    videos: torch.Tensor, texts: torch.Tensor, text_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    The pairs of all ranks, in the order of the ranks, each side `(pairs, channels)`; a side with fewer channels than
    that of another rank has zeros behind them. Every rank computes the whole loss, so it knows the whole
    gradient of its own pairs, and those of others can be constants: nothing has to be communicated in the backward
    pass, where ranks may be at different places.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return videos, texts, text_ids
    sizes = [torch.empty(3, dtype=torch.long, device=videos.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([*videos.shape, texts.shape[1]], device=videos.device))
    sizes = torch.stack(sizes)
    counts, channels = sizes[:, 0].tolist(), sizes[:, 1:].amax(0).tolist()
    if max(counts) == 0:
        return videos, texts, text_ids
    widened = (F.pad(part, (0, width - part.shape[1])) for part, width in zip((videos, texts), channels, strict=True))
    gathered = [_gather_rows(part, counts) for part in widened]
    return *gathered, torch.cat(_all_gather_padded(text_ids, counts))


def _gather_rows(rows: torch.Tensor, counts: list[int]) -> torch.Tensor:
    parts = _all_gather_padded(rows.detach(), counts)
    # Each rank has the whole gradient of its own rows and none of the others', so their mean over the ranks would be
    # too small by the number of ranks. The value stays: `rows - rows.detach()` is 0.
    parts[dist.get_rank()] = rows.detach() + len(counts) * (rows - rows.detach())
    return torch.cat(parts)


def _all_gather_padded(rows: torch.Tensor, counts: list[int]) -> list[torch.Tensor]:
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return [part[:count] for part, count in zip(gathered, counts, strict=True)]


__all__ = ["FRESH_LOGIT_SCALE", "VideoTextContrast", "gather_pairs", "hash_texts", "info_nce"]
