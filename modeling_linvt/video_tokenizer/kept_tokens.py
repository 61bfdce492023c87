"""Frame tokens between SVR and TTA: as SVR has scored them, and as TTA mixes them."""

from typing import NamedTuple

import torch


class ScoredTokens(NamedTuple):
    """
    Holds frame tokens of videos with their scores and whereabouts, in the order of time and place: all that is needed
    of a video to answer questions about it.

    Args:
        tokens (`torch.Tensor` of shape `(videos, tokens, embedding_size)`): Rows of V.
        scores (`torch.FloatTensor` of shape `(videos, tokens)`): By which the best are kept.
        score_bias (`torch.FloatTensor` of shape `(videos, tokens)`): The part of the score that TTA adds to the
            logit of the token, which keeps the result an average and lets the scores learn.
        seconds (`torch.FloatTensor` of shape `(videos, tokens)`): Time of each token's frame.
        places (`torch.LongTensor` of shape `(videos, tokens)`): Place in the frame, `row * columns + column`.
        shots (`torch.LongTensor` of shape `(videos, tokens)`): A number for each window of a shot; see
            `shot_windows`.
        span_seconds (`torch.FloatTensor` of shape `(videos, 2)`): Time of the first and of the last frame of the
            video, whether or not tokens of these were kept.
    """

    tokens: torch.Tensor
    scores: torch.Tensor
    score_bias: torch.Tensor
    seconds: torch.Tensor
    places: torch.Tensor
    shots: torch.Tensor
    span_seconds: torch.Tensor

    def select(self, places: torch.Tensor) -> "ScoredTokens":
        """Keeps the tokens at `places`, `(videos, kept tokens)`."""
        # Not by `_replace`, whose tuple the compiler of PyTorch 2.9 cannot make again after a break.
        return ScoredTokens(
            tokens=self.tokens.take_along_dim(places[..., None], 1),
            scores=self.scores.take_along_dim(places, 1),
            score_bias=self.score_bias.take_along_dim(places, 1),
            seconds=self.seconds.take_along_dim(places, 1),
            places=self.places.take_along_dim(places, 1),
            shots=self.shots.take_along_dim(places, 1),
            span_seconds=self.span_seconds,
        )


class KeptTokens(NamedTuple):
    """
    Holds the kept tokens of videos as TTA mixes them, in the order of time.

    Args:
        tokens (`torch.Tensor` of shape `(videos, tokens, embedding_size)`): Rows of V.
        visual (`torch.Tensor` of shape `(videos, tokens, hidden_size)`): What queries and keys see of them.
        score_bias (`torch.FloatTensor` of shape `(videos, tokens)`): See [`ScoredTokens`].
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


def best_places(scores: torch.Tensor, number: int) -> torch.Tensor:
    """
    Returns the positions of the `number` best scores of each video, ascending; of equal scores the earlier is better.

    Args:
        scores (`torch.FloatTensor` of shape `(videos, tokens)`): In the order of time and place.
    """
    # Stable, since topk would not say which of equal scores it takes.
    best_first = scores.sort(dim=1, descending=True, stable=True).indices
    return best_first[:, :number].sort(dim=1).values
