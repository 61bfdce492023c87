"""The Perceiver of xGen-MM: a few latents attend to the features of a picture and become its tokens."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_layers import GradientCheckpointingLayer

from linvt.configuration.configuration_xgen_mm import XGenMMConfig


class XGenMMPerceiver(nn.Module):
    """
    Latents to tokens; each layer is attention to the features and to the latents themselves, then feed-forward.

    In the design that reads the prompt (r-v1), its embeddings are projected, go through all layers beside the latents,
    and are cut off before the last norm.
    """

    def __init__(self, config: XGenMMConfig):
        super().__init__()
        width, text_width = config.vision_config.hidden_size, config.text_config.hidden_size
        self.latents = nn.Parameter(torch.empty(config.num_latents, width))
        self.text_projection = None
        if config.reads_prompt:
            self.text_projection = nn.Sequential(nn.Linear(text_width, width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(XGenMMPerceiverLayer(config) for _ in range(config.perceiver_num_layers))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, text_width)

    def forward(
        self,
        features: torch.Tensor,
        features_mask: torch.BoolTensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_mask: torch.BoolTensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(groups, positions, channels of the encoder)`): Each group gives tokens
                of its own.
            features_mask (`torch.BoolTensor` of shape `(groups, positions)`, *optional*): `False` on padding.
            prompt_embeds (`torch.Tensor` of shape `(groups, length, channels of the LLM)`, *optional*): What the
                latents read besides, where the design reads the prompt.
            prompt_mask (`torch.BoolTensor` of shape `(groups, length)`, *optional*): `False` on its padding.

        Returns:
            `torch.Tensor` of shape `(groups, num_latents, channels of the LLM)`.
        """
        num_groups, num_positions, _ = features.shape
        latents = self.latents.expand(num_groups, -1, -1)
        if prompt_embeds is not None:
            read = self.text_projection(prompt_embeds)  # type: ignore[misc]  # the design reads the prompt, so it is there
            latents = torch.cat([latents, read], dim=1)
        mask = None
        if features_mask is not None or prompt_mask is not None:
            num_keys = num_positions + latents.shape[1]
            mask = torch.ones(num_groups, num_keys, dtype=torch.bool, device=features.device)
            if features_mask is not None:
                mask[:, :num_positions] = features_mask
            if prompt_mask is not None:
                mask[:, num_keys - prompt_mask.shape[1] :] = prompt_mask
            mask = mask[:, None, None]  # the same for all heads and queries
        for layer in self.layers:
            latents = layer(latents, features, mask)
        return self.projection(self.norm(latents[:, : len(self.latents)]))


class XGenMMPerceiverLayer(GradientCheckpointingLayer):
    def __init__(self, config: XGenMMConfig):
        super().__init__()
        width = config.vision_config.hidden_size
        self.attention = XGenMMPerceiverAttention(config)
        self.mlp_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.perceiver_intermediate_size, bias=False)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(config.perceiver_intermediate_size, width, bias=False)

    def forward(self, latents: torch.Tensor, features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        latents = self.attention(latents, features, mask) + latents
        return self.fc2(self.act(self.fc1(self.mlp_norm(latents)))) + latents


class XGenMMPerceiverAttention(nn.Module):
    """The latents are queries; features and latents, each with a norm of their own, are keys and values."""

    def __init__(self, config: XGenMMConfig):
        super().__init__()
        width, inner = config.vision_config.hidden_size, config.perceiver_num_heads * config.perceiver_head_dim
        self.head_dim = config.perceiver_head_dim
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, inner, bias=False)
        self.k_proj = nn.Linear(width, inner, bias=False)
        self.v_proj = nn.Linear(width, inner, bias=False)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, latents: torch.Tensor, features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        latents = self.norm_latents(latents)
        seen = torch.cat([self.norm_media(features), latents], dim=1)
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for states in (self.q_proj(latents), self.k_proj(seen), self.v_proj(seen))
        )
        attended = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


__all__ = ["XGenMMPerceiver", "XGenMMPerceiverLayer"]
