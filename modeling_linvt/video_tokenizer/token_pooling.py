"""Pooling as matrices. Average pooling of tokens is a matrix whose rows are non-negative and sum to 1, so pooling,
selection and aggregation compose by multiplication and the frame tokens themselves are touched only once."""

import torch

from linvt.video_tokenizer.video_attention import no_autocast


def average_pooling_matrix(num_tokens: int, window: int, device: torch.device | None = None) -> torch.Tensor:
    """
    Multi-scale token pooling of one scale (Sec. 3.2.1): the mean of each shifted window of `window` tokens.

    Returns:
        `torch.FloatTensor` of shape `(windows, num_tokens)`. A video with fewer tokens than `window` has one window.
    """
    window = min(window, num_tokens)
    last_start, step = num_tokens - window, max(window // 2, 1)
    # The last window ends at the last token, even where the steps do not lead there.
    starts = (torch.arange(-(-last_start // step) + 1, device=device) * step).clamp(max=last_start)
    offsets = torch.arange(num_tokens, device=device) - starts[:, None]  # of each token in each window
    return ((offsets >= 0) & (offsets < window)).float() / window


def window_masks(num_tokens: int, num_windows: int, device: torch.device | None = None) -> torch.Tensor:
    """
    `num_windows` windows that cover all tokens evenly, with no gap; they overlap where there are fewer tokens.

    Returns:
        `torch.BoolTensor` of shape `(num_windows, num_tokens)`.
    """
    numbers = torch.arange(num_windows, device=device)
    starts = numbers * num_tokens // num_windows
    ends = ((numbers + 1) * num_tokens + num_windows - 1) // num_windows
    tokens = torch.arange(num_tokens, device=device)
    return (tokens >= starts[:, None]) & (tokens < ends[:, None])


def even_pooling_matrix(num_tokens: int, num_windows: int, device: torch.device | None = None) -> torch.Tensor:
    """The mean of each of `num_windows` even windows, `torch.FloatTensor` of shape `(num_windows, num_tokens)`."""
    masks = window_masks(num_tokens, num_windows, device).float()
    return masks / masks.sum(1, keepdim=True)


def scale_pools(multi_scale: str, windows: list[int], kept: torch.Tensor) -> list[torch.Tensor | None]:
    """
    Returns what the queries of each scale see (Fig. 3): `None` for the tokens as they are.

    Args:
        multi_scale (`str`), windows (`list[int]`): `multi_scale` and `pooling_windows` of the configuration.
        kept (`torch.Tensor` of shape `(videos, tokens, ...)`): Gives the number of tokens, and the device.

    Returns:
        `list[torch.FloatTensor]`, each of shape `(windows, tokens)`: One for all queries with `"multi_b"`, one per
        scale with `"multi_c"`.
    """
    if multi_scale not in ("multi_b", "multi_c"):
        return [None]
    pools: list[torch.Tensor | None] = [average_pooling_matrix(kept.shape[1], size, kept.device) for size in windows]
    return [torch.cat(pools)] if multi_scale == "multi_b" else pools


def pooled_rows(weights: torch.Tensor, numbers: list[int]) -> torch.Tensor:
    """Multi-scale pooling behind TTA (Fig. 3, multi_a): rows of W, and means of them, `numbers` of each scale."""
    with no_autocast(weights.device):
        pools = [even_pooling_matrix(weights.shape[1], number, weights.device) for number in numbers if number > 0]
        return torch.cat(pools) @ weights


def windows_by_score(scores: torch.Tensor, numbers: list[int]) -> torch.Tensor:
    """
    W without TTA (Tab. 2): each row is the score-weighted average of one even window of tokens.

    Args:
        scores (`torch.FloatTensor` of shape `(videos, tokens)`).
        numbers (`list[int]`): Windows of each scale.
    """
    masks = [window_masks(scores.shape[1], number, scores.device) for number in numbers if number > 0]
    return scores[:, None, :].masked_fill(~torch.cat(masks), float("-inf")).softmax(-1)


def rows_in_order_of_time(weights: torch.Tensor, progress: torch.Tensor) -> torch.Tensor:
    """
    The rows of W in the order of when, on average, what they mix is seen: an LLM reads from the order of its tokens
    what comes first. The order is no more than that of the rows; nothing in them changes.
    """
    with no_autocast(weights.device):
        # Rows of one frame alone differ by rounding, which shall not order them: their places do.
        when = ((weights.detach() @ progress[..., None])[..., 0] * 2**20).round()
    return weights.take_along_dim(when.argsort(dim=1, stable=True)[..., None], 1)
