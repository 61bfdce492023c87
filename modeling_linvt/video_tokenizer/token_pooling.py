"""Pooling as matrices. Average pooling of tokens is a matrix whose rows are non-negative and sum to 1, so pooling,
selection and aggregation compose by multiplication and the frame tokens themselves are touched only once."""

import torch


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
