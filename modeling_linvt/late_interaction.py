"""Contrastive loss of the alignment stage for a video tokenizer that starts from merging: words against frame tokens.

The paper contrasts means of video tokens with texts (Sec. 3.3; `contrastive_loss.py`), which says of a video as a
whole what it shows. Here every word of a text looks for the token of a video that it fits best, as in FILIP (Yao et
al. 2021), so that it is also learnt which tokens a text is about: `token_relevance.py`.
"""

import math

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from linvt.contrastive_loss import gather_pairs, info_nce
from linvt.video_tokenizer.token_relevance import word_token_fits
from linvt.video_tokenizer.video_attention import no_autocast


MAX_TOKENS = 128  # of a prompt's videos: more would cost memory, and tell little


class LateInteractionContrast(nn.Module):
    """Computes InfoNCE in both directions over the pairs of all ranks, with a learnable temperature."""

    def __init__(self):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(1), requires_grad=False)  # as that of `VideoTextContrast`

    def forward(self, keys: list[torch.Tensor], words: torch.Tensor, text_ids: torch.LongTensor) -> torch.Tensor:
        """
        All ranks must call this together, those without videos too.

        Args:
            keys (`list[torch.Tensor]`, per pair `(tokens, size)`): Tokens of its videos; see `TokenRelevance.keys`.
            words (`torch.Tensor` of shape `(pairs, words, size)`): Words of its text, zero on padding.
            text_ids (`torch.LongTensor` of shape `(pairs,)`): Equal for equal texts, which are right for each other's
                videos.

        Returns:
            `torch.FloatTensor`, a scalar; see [`~linvt.contrastive_loss.VideoTextContrast.forward`].
        """
        scale, size = self.logit_scale.float().exp(), words.shape[-1]
        with no_autocast(text_ids.device):
            chosen = [_evenly_chosen(tokens.float()).flatten() for tokens in keys]
            videos = torch.stack(chosen) if chosen else words.new_zeros(0, 0).float()
            videos, texts, text_ids = gather_pairs(videos, words.float().flatten(1), text_ids)
            if len(text_ids) < 2:
                return (videos.sum() + texts.sum() + scale.sum()) * 0
            videos, texts = videos.unflatten(1, (MAX_TOKENS, size)), texts.unflatten(1, (-1, size))
            # Text by text, and again in the backward pass: all fits at once would be gigabytes.
            columns = [checkpoint(_fit_of_text, text, videos, use_reentrant=False) for text in texts]
            logits = scale * torch.stack(columns, dim=1)
        return info_nce(logits, text_ids)


def _fit_of_text(words: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """How well a text fits each video, `(videos,)`: a word that is zero, as padding is, fits all of them alike."""
    return (word_token_fits(words, keys).logsumexp(2) - math.log(keys.shape[1])).sum(1)


def _evenly_chosen(keys: torch.Tensor) -> torch.Tensor:
    """Chooses [`MAX_TOKENS`] rows, some of them several times where there are fewer: `(MAX_TOKENS, size)`."""
    return keys[torch.arange(MAX_TOKENS, device=keys.device) * len(keys) // MAX_TOKENS]


__all__ = ["LateInteractionContrast"]
