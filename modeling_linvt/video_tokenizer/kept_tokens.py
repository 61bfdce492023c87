"""The frame tokens that SVR hands on to TTA, and what is known of each."""

from typing import NamedTuple

import torch


class KeptTokens(NamedTuple):
    """
    Holds the kept tokens of videos, in the order of time.

    Args:
        tokens (`torch.Tensor` of shape `(videos, tokens, embedding_size)`): Rows of V.
        visual (`torch.Tensor` of shape `(videos, tokens, hidden_size)`): What queries and keys see of them.
        score_bias (`torch.FloatTensor` of shape `(videos, tokens)`): Significance of each token. It is added to the
            logit of the token, which keeps the result an average and lets the scores learn.
        progress (`torch.FloatTensor` of shape `(videos, tokens)`): When in the video each token is: 0 in its first
            frame, 1 in its last.
        shot_ids (`torch.LongTensor` of shape `(videos, tokens)`): Shot of each token.
        directions (`torch.FloatTensor` of shape `(videos, tokens, channels)`, *optional*): What clusters are made by;
            see `token_directions`.
    """

    tokens: torch.Tensor
    visual: torch.Tensor
    score_bias: torch.Tensor
    progress: torch.Tensor
    shot_ids: torch.Tensor
    directions: torch.Tensor | None = None

    def select(self, places: torch.Tensor) -> "KeptTokens":
        """Keeps the tokens at `places`, `(videos, kept tokens)`."""
        return KeptTokens(*(None if values is None else _select(values, places) for values in self))


def _select(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return values.take_along_dim(places[..., None] if values.dim() == 3 else places, 1)
