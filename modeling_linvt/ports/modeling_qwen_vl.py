"""Qwen-VL, first version (Qwen/Qwen-VL-Chat; Bai et al., 2023), from parts of Transformers.

The numbers of the published code are kept, with its names of tensors changed to those of Transformers. Tables of
positions are of the size of the image: the published code interpolates them at each call, `linvt convert` does once.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, Cache, CLIPVisionConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.models.clip.modeling_clip import CLIPEncoder
from transformers.utils import can_return_tuple, logging

from linvt.configuration.configuration_qwen_vl import QwenVLConfig
from linvt.ports.ported_image_llm import PortedImageLLM


logger = logging.get_logger(__name__)


class QwenVLVisionTower(PreTrainedModel):
    """A vision transformer of CLIP's layers, without a class token and without a norm at its end."""

    config_class = CLIPVisionConfig
    config: CLIPVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["CLIPEncoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size, bias=False)
        self.position_embedding = nn.Parameter(torch.zeros(_num_patches(config), config.hidden_size))
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = CLIPEncoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.normal_(self.position_embedding, std=self.config.initializer_range)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pictures `(images, 3, height, width)` to `(images, patches, channels)`, row by row."""
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        hidden_states = self.pre_layernorm(patches + self.position_embedding)
        return self.encoder(inputs_embeds=hidden_states).last_hidden_state


class QwenVLResampler(nn.Module):
    """One layer of cross-attention from learnt queries to patches, which know their places; and a linear map."""

    def __init__(self, config: QwenVLConfig):
        super().__init__()
        eps, channels = config.vision_config.layer_norm_eps, config.text_config.hidden_size
        self.num_heads = config.resampler_attention_heads
        self.query = nn.Parameter(torch.zeros(config.num_image_tokens, channels))
        self.query_position = nn.Parameter(torch.zeros(config.num_image_tokens, channels))
        self.key_position = nn.Parameter(torch.zeros(_num_patches(config.vision_config), channels))
        self.in_proj = nn.Linear(config.vision_config.hidden_size, channels, bias=False)
        self.query_norm = nn.LayerNorm(channels, eps=eps)
        self.patch_norm = nn.LayerNorm(channels, eps=eps)
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        self.post_layernorm = nn.LayerNorm(channels, eps=eps)
        self.projection = nn.Linear(channels, channels, bias=False)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches `(images, patches, channels of the encoder)` to `(images, num_image_tokens, channels)`."""
        query = (self.query_norm(self.query) + self.query_position).expand(len(patches), -1, -1)
        patches = self.patch_norm(self.in_proj(patches))
        # Positions say where to look, not what is seen: they are in the keys and not in the values.
        query, key, value = (
            states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for states in (self.q_proj(query), self.k_proj(patches + self.key_position), self.v_proj(patches))
        )
        tokens = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.projection(self.post_layernorm(self.out_proj(tokens)))


class QwenVLForConditionalGeneration(PortedImageLLM):
    """
    Qwen-VL. Prompts may not be longer than `text_config.max_position_embeddings`, 2048, for what the published model
    answers: from there on it also scales its queries and its rotary base, which this class does not; it warns.

    Example:

    ```python
    >>> import linvt
    >>> from transformers import AutoModelForImageTextToText, AutoProcessor

    >>> model = AutoModelForImageTextToText.from_pretrained("qwen-vl-chat")  # made by linvt convert
    >>> processor = AutoProcessor.from_pretrained("qwen-vl-chat")
    ```
    """

    config_class = QwenVLConfig
    config: QwenVLConfig

    def __init__(self, config: QwenVLConfig):
        super().__init__(config)
        text = config.text_config
        self.vision_tower = QwenVLVisionTower(config.vision_config)
        self.resampler = QwenVLResampler(config)
        self.language_model = AutoModel.from_config(text)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, QwenVLResampler):
            for table in (module.query, module.query_position, module.key_position):
                init.normal_(table, std=self.config.text_config.initializer_range)

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """
        Visual tokens.

        Args:
            pixel_values (`torch.Tensor` of shape `(images, 3, height, width)`): Normalised pictures of `image_size`.

        Returns:
            `pooler_output` of shape `(images, num_image_tokens, channels)`; `last_hidden_state`, the patches before
            the resampler.
        """
        patches = self.vision_tower(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=patches, pooler_output=self.resampler(patches))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): The prompt, with one `<imgpad>` per visual
                token.
            pixel_values: The images of all prompts in their order; see
                [`~QwenVLForConditionalGeneration.get_image_features`].
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): -100 where no loss is wanted.
            kwargs: Inputs of the language model, such as the cache.
        """
        self._warn_if_long(input_ids if inputs_embeds is None else inputs_embeds, kwargs)
        return self.read_prompt(
            input_ids,
            inputs_embeds,
            {"pixel_values": pixel_values},
            labels,
            logits_to_keep,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )

    def _warn_if_long(self, prompt: torch.Tensor | None, inputs: dict) -> None:
        limit = self.config.text_config.max_position_embeddings
        # The cache, by its kind: its name is `past_key_values` before Transformers 5.24 and `cache` from then on.
        past = sum(value.get_seq_length() for value in inputs.values() if isinstance(value, Cache))
        if prompt is not None and past + prompt.shape[1] > limit:
            logger.warning_once(
                f"The sequence is longer than the {limit} tokens that Qwen-VL was trained with. The published code "
                "scales queries and rotary base there, which this class does not, so answers are worse than its."
            )


def _num_patches(config: CLIPVisionConfig) -> int:
    return (config.image_size // config.patch_size) ** 2


__all__ = ["QwenVLForConditionalGeneration"]
