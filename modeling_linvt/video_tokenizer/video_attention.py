"""The attention, feed-forward and position parts that SVR and TTA are made of.

They work on scores, queries and keys only; the frame tokens that become video tokens never pass through them.
No layer has a bias: a constant that is added to every key or score leaves a softmax as it is, so it could not learn.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from linvt.configuration.configuration_linvt import LinVTVideoConfig


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Disables autocast, so that scores and attention logits keep their dtype."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` that keeps its fused kernel under autocast, where input and weight differ in dtype."""

    def __init__(self, size: int):
        super().__init__(size, eps=1e-6)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(hidden, self.normalized_shape, self.weight.to(hidden.dtype), self.eps)


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention with the softmax in float32, in the signature of Transformers' attention interface."""
    logits = (query @ key.transpose(2, 3) * scaling).float()
    if attention_mask is not None:
        logits = logits.masked_fill(~attention_mask, float("-inf"))
    weights = logits.softmax(-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2), weights


class VideoAttention(nn.Module):
    """Multi-head attention of `hidden` to `context`, or to itself, through Transformers' attention interface."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.config = config
        self.head_size = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_size**-0.5
        self.is_causal = False  # read by the attention functions, as is the next
        self.num_key_value_groups = 1
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self,
        hidden: torch.Tensor,
        context: torch.Tensor | None = None,
        context_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            hidden (`torch.Tensor` of shape `(batch, length, hidden_size)`).
            context (`torch.Tensor` of shape `(batch, context_length, hidden_size)`, *optional*): defaults to `hidden`.
            context_mask (`torch.BoolTensor` of shape `(batch, context_length)`, *optional*): `True` where there is
                something to attend to.
        """
        context = hidden if context is None else context
        query, key, value = (
            states.unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for states in (self.q_proj(hidden), self.k_proj(context), self.v_proj(context))
        )  # (batch, heads, length, head_size)
        implementation = self.config._attn_implementation
        if context_mask is not None:
            context_mask = context_mask[:, None, None, :].expand(-1, 1, hidden.shape[1], -1)
            if implementation != "eager":
                implementation = "sdpa"  # flash attention takes no masks of this form; only the short text has one
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        output, _ = attend(self, query, key, value, context_mask, scaling=self.scaling, dropout=0.0, is_causal=False)
        return self.o_proj(output.flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: LinVTVideoConfig):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.down_proj(nn.functional.gelu(self.up_proj(hidden)))


def sinusoidal_features(
    values: torch.Tensor, num_features: int, shortest_wavelength: float, longest_wavelength: float
) -> torch.Tensor:
    """
    Sines and cosines of `values` at `num_features // 2` wavelengths, spaced evenly in their logarithm.

    Args:
        values (`torch.Tensor` of shape `(...)`): Positions, in the unit of the wavelengths.

    Returns:
        `torch.FloatTensor` of shape `(..., num_features)`. float32, since hours in bfloat16 are minutes apart.
    """
    exponents = torch.linspace(0, 1, num_features // 2, device=values.device, dtype=torch.float32)
    wavelengths = shortest_wavelength * (longest_wavelength / shortest_wavelength) ** exponents
    angles = values.float().unsqueeze(-1) * (2 * torch.pi / wavelengths)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
