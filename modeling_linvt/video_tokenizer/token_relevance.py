"""Which tokens an instruction is about: word by word, learnt by the contrastive loss of the alignment stage."""

import torch
from torch import nn
from transformers import initialization as init

from linvt.configuration.configuration_linvt import LinVTVideoConfig
from linvt.video_tokenizer.video_attention import FeedForward, RMSNorm, VideoAttention, no_autocast


LARGEST_SIZE = 128  # channels in which words and tokens are compared
SOFTNESS = 3.0  # a token that a word fits this much less than the best one, in nats, is 1 / e as relevant


class TokenRelevance(nn.Module):
    """
    Compares the words of an instruction with tokens. A word that says nothing of what is seen is near zero, and fits
    all tokens alike; before anything is learnt all words are.
    """

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.size = size = min(config.hidden_size, LARGEST_SIZE)
        self.text_norm = RMSNorm(config.hidden_size)
        self.text_attention = VideoAttention(config)
        self.feed_forward_norm = RMSNorm(config.hidden_size)
        self.feed_forward = FeedForward(config)
        self.word_norm = RMSNorm(config.hidden_size)
        self.word_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.word_gate = nn.Linear(config.hidden_size, 1, bias=False)
        self.token_norm = RMSNorm(config.hidden_size)
        self.token_up_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.token_proj = nn.Linear(config.hidden_size, size, bias=False)

    @torch.no_grad()
    def init_words(self) -> None:
        """Makes all words zero; called when all other weights have their first values."""
        init.zeros_(self.word_proj.weight)
        init.zeros_(self.word_gate.weight)

    def words(self, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Returns what is compared with tokens, `(videos, words, size)`, zero on padding.

        Args:
            text (`torch.Tensor` of shape `(videos, words, hidden_size)`): See `InstructionEncoder`.
            mask (`torch.BoolTensor` of shape `(videos, words)`): `False` on padding.
        """
        normed = self.text_norm(text)
        text = text + self.text_attention(normed, normed, mask)  # "red" and "ring" are to be one thing
        text = self.word_norm(text + self.feed_forward(self.feed_forward_norm(text)))
        gate = self.word_gate(text).sigmoid()
        return self.word_proj(text) * gate * mask[..., None]

    def keys(self, visual: torch.Tensor) -> torch.Tensor:
        """Returns what words are compared with, `(videos, tokens, size)`, of `(videos, tokens, hidden_size)`."""
        return self.token_proj(nn.functional.gelu(self.token_up_proj(self.token_norm(visual))))

    def forward(
        self, text: torch.Tensor, mask: torch.Tensor, visual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Returns how much more relevant each token is than the tokens of its video are on average, to the word that
        it fits best: float32 `(videos, tokens)`, 0 to 1; 0 where all words fit all tokens alike. And its keys.

        Args: As for `words` and `keys`.
        """
        words, keys = self.words(text, mask), self.keys(visual)
        with no_autocast(keys.device):
            fits = word_token_fits(words, keys)
            relevance = ((fits - fits.amax(2, keepdim=True)) / SOFTNESS).exp()
            above_mean = (relevance - relevance.mean(2, keepdim=True)).amax(1)
            # Not `clamp`, which has no gradient at 0, where everything begins.
            return above_mean.maximum(above_mean.new_zeros(())), keys


def word_token_fits(words: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """How well each word fits each token, in nats: float32 `(..., words, tokens)`."""
    return words.float() @ keys.float().transpose(-1, -2) * keys.shape[-1] ** -0.5
