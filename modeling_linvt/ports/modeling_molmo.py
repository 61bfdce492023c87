"""Molmo, first version (allenai/Molmo-7B-D-0924; Deitke et al., 2024), from parts of Transformers.

The numbers of the published code are kept, with its names of tensors changed to those of Transformers.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from linvt.configuration.configuration_molmo import MolmoConfig
from linvt.ports.ported_image_llm import PortedImageLLM


class MolmoPooling(nn.Module):
    """Attention inside windows of patches, in which the mean of a window asks and its patches answer."""

    def __init__(self, config: MolmoConfig):
        super().__init__()
        vision = config.vision_config
        in_channels = vision.hidden_size * len(config.vision_feature_layers)
        self.num_heads = vision.num_attention_heads
        self.q_proj = nn.Linear(in_channels, vision.hidden_size)
        self.k_proj = nn.Linear(in_channels, vision.hidden_size)
        self.v_proj = nn.Linear(in_channels, vision.hidden_size)
        self.out_proj = nn.Linear(vision.hidden_size, vision.hidden_size)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows of patches `(windows, patches, channels in)` to `(windows, channels)`."""
        query = self.q_proj(windows.mean(1, keepdim=True))
        query, key, value = (
            states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for states in (query, self.k_proj(windows), self.v_proj(windows))
        )
        return self.out_proj(F.scaled_dot_product_attention(query, key, value).flatten(1))


class MolmoProjector(nn.Module):
    """From the channels of the vision encoder to those of the language model, gated like the layers of the latter."""

    def __init__(self, config: MolmoConfig):
        super().__init__()
        text, channels = config.text_config, config.vision_config.hidden_size
        self.gate_proj = nn.Linear(channels, config.projector_intermediate_size, bias=False)
        self.up_proj = nn.Linear(channels, config.projector_intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.projector_intermediate_size, text.hidden_size, bias=False)
        self.activation = ACT2FN[text.hidden_act]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.gate_proj(features)) * self.up_proj(features))


class MolmoForConditionalGeneration(PortedImageLLM):
    """
    Molmo. Logits are over `text_config.vocab_size` tokens; the embedding has `additional_vocab_size` rows more.

    Example:

    ```python
    >>> import linvt
    >>> from transformers import AutoModelForImageTextToText, AutoProcessor

    >>> model = AutoModelForImageTextToText.from_pretrained("molmo-7b-d")  # made by linvt convert
    >>> processor = AutoProcessor.from_pretrained("molmo-7b-d")
    ```
    """

    config_class = MolmoConfig
    config: MolmoConfig
    image_inputs = ("pixel_values", "image_masks", "image_token_order", "image_num_crops")

    def __init__(self, config: MolmoConfig):
        super().__init__(config)
        text = config.text_config
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.vision_tower.post_layernorm = nn.Identity()  # the features come from before it; there are no weights
        in_channels = config.vision_config.hidden_size * len(config.vision_feature_layers)
        self.pad_embed = nn.Parameter(torch.zeros(2, in_channels))
        self.pooling = MolmoPooling(config)
        self.projector = MolmoProjector(config)
        self.language_model = AutoModel.from_config(text)
        self.language_model.embed_tokens = nn.Embedding(
            text.vocab_size + config.additional_vocab_size, text.hidden_size
        )
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.zeros_(self.pad_embed)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        image_masks: torch.Tensor | None = None,
        image_token_order: torch.LongTensor | None = None,
        image_num_crops: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """
        Visual tokens, with the embedding of `<im_patch>` added to each: Molmo adds the two, so this is what stands in
        the prompt. An average of them is the average of the visual tokens, plus that embedding.

        Args:
            pixel_values (`torch.Tensor` of shape `(crops, 3, height, width)`): Normalised crops of all images. Without
                the other arguments every crop is an image of its own that is not cut up, such as a frame of a video.
            image_masks (`torch.Tensor` of shape `(crops, patches)`, *optional*): For each patch 1 if all of it shows
                the image, 0 if none, between them for a part; the image processor has the quirk of the published one.
                By default 1, which is what the global view of an image without padding has there.
            image_token_order (`torch.LongTensor` of shape `(crops, tokens per crop)`, *optional*): The place of each
                token among those of its image, -1 for tokens that are dropped since crops overlap.
            image_num_crops (`torch.LongTensor` of shape `(images,)`, *optional*): Crops of each image, in order.

        Returns:
            `pooler_output` of shape `(images, tokens, channels)`, or one `(tokens, channels)` per image if images are
            cut up; `last_hidden_state` of shape `(crops, tokens per crop, channels)`, the visual tokens alone.

        Raises:
            `ValueError`: If only one of `image_token_order` and `image_num_crops` is given.
        """
        if (image_token_order is None) != (image_num_crops is None):
            raise ValueError("image_token_order and image_num_crops belong together; give both or neither.")
        hidden_states = self.vision_tower(
            pixel_values.to(self.pad_embed.dtype), output_hidden_states=True, return_dict=True
        ).hidden_states
        layers = [hidden_states[layer][:, 1:] for layer in self.config.vision_feature_layers]  # no class token
        features = torch.cat(layers, dim=-1)
        if image_masks is not None:
            features = features + self._padding_features(image_masks.to(features.device))
        tokens = self.projector(self.pooling(self._windows(features)))
        tokens = tokens.unflatten(0, (len(pixel_values), -1))
        embedding = self.get_input_embeddings()
        patch = embedding(torch.tensor(self.config.image_token_id, device=embedding.weight.device)).to(tokens.device)
        placed = tokens + patch
        if image_token_order is not None:
            placed = _in_order(placed, image_token_order.to(tokens.device), image_num_crops.tolist())
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=placed)

    def _padding_features(self, image_masks: torch.Tensor) -> torch.Tensor:
        nothing = (image_masks == 0).unsqueeze(-1)
        partly = (image_masks < 1).unsqueeze(-1) & ~nothing
        return self.pad_embed[0] * nothing + self.pad_embed[1] * partly

    def _windows(self, features: torch.Tensor) -> torch.Tensor:
        """Patches `(crops, patches, channels)` to `(crops * windows, patches of a window, channels)`, row by row."""
        size = self.config.pooling_size
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        features = features.unflatten(1, (side // size, size, side // size, size)).transpose(2, 3)
        return features.flatten(0, 2).flatten(1, 2)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_masks: torch.Tensor | None = None,
        image_token_order: torch.LongTensor | None = None,
        image_num_crops: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): The prompt, with one `<im_patch>` per visual
                token.
            pixel_values, image_masks, image_token_order, image_num_crops: The images of all prompts in their order;
                see [`~MolmoForConditionalGeneration.get_image_features`].
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): -100 where no loss is wanted.
            kwargs: Inputs of the language model, such as the cache.
        """
        images = {
            "pixel_values": pixel_values,
            "image_masks": image_masks,
            "image_token_order": image_token_order,
            "image_num_crops": image_num_crops,
        }
        return self.read_prompt(
            input_ids,
            inputs_embeds,
            images,
            labels,
            logits_to_keep,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )


def _in_order(tokens: torch.Tensor, order: torch.LongTensor, num_crops: list[int]) -> list[torch.Tensor]:
    """Tokens `(crops, tokens per crop, channels)` to one `(tokens, channels)` per image, in the prompt's order."""
    images = []
    for crops, places in zip(tokens.split(num_crops), order.split(num_crops), strict=True):
        kept = places.flatten() >= 0
        images.append(crops.flatten(0, 1)[kept][places.flatten()[kept].argsort()])
    return images


__all__ = ["MolmoForConditionalGeneration"]
