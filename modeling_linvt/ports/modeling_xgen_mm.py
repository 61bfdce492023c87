"""xGen-MM, also called BLIP-3 (Xue et al., 2024): a vision encoder, a Perceiver and Phi-3, in both published designs.

interleave-r-v1.5 has a SigLIP, and masks what tiled pictures are padded with. r-v1 has open_clip's ViT-H, a Perceiver
that reads the prompt, and no mask. The published code for r-v1 puts only the first image of a prompt in its place;
here all of them are.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.utils import ModelOutput, can_return_tuple

from linvt.assisted_decoding import embedded_as, reads_prompt_again
from linvt.configuration.configuration_xgen_mm import XGenMMConfig
from linvt.part_initialization import PartInitializationMixin
from linvt.ports.xgen_mm_perceiver import XGenMMPerceiver
from linvt.ports.xgen_mm_prompts import image_prompts
from linvt.ports.xgen_mm_strips import crops_to_strips, strips_mask


class XGenMMForConditionalGeneration(PartInitializationMixin, PreTrainedModel, GenerationMixin):
    """
    Example:

    ```python
    >>> import linvt  # registers the model with Transformers
    >>> from transformers import AutoModelForImageTextToText, AutoProcessor

    >>> model = AutoModelForImageTextToText.from_pretrained("xgen-mm")  # made by: linvt convert ID xgen-mm
    >>> processor = AutoProcessor.from_pretrained("xgen-mm")
    ```
    """

    config_class = XGenMMConfig
    config: XGenMMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["XGenMMPerceiverLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: XGenMMConfig):
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.perceiver = XGenMMPerceiver(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=True)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, XGenMMPerceiver):
            init.normal_(module.latents)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def get_decoder(self) -> nn.Module:
        return self.language_model

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        image_sizes: torch.LongTensor | None = None,
        crop_grids: torch.LongTensor | None = None,
        prompt_ids: list[torch.LongTensor] | None = None,
    ) -> BaseModelOutputWithPooling:
        """
        Visual tokens, in the embedding space of the LLM.

        Args:
            pixel_values (`torch.Tensor` of shape `(crops of all images, 3, size, size)`): Per image all of it, and
                then its crops row by row.
            image_sizes (`torch.LongTensor` of shape `(images, 2)`, *optional*): Height and width in pixels. Needed for
                tiled images.
            crop_grids (`torch.LongTensor` of shape `(images, 2)`, *optional*): Rows and columns of crops, 0 of an
                image that is not tiled. By default none is, so that each of `pixel_values` is an image.
            prompt_ids (`list[torch.LongTensor]`, *optional*): Per image the ids of its prompt with one placeholder for
                each image, where the Perceiver reads it (`config.reads_prompt`); `config.default_prompt_ids` by
                default.

        Returns:
            `BaseModelOutputWithPooling`: In `pooler_output` per image `((1 + crops) * num_latents, channels)`, in
            `last_hidden_state` the features of the vision encoder.
        """
        features = self._encode(pixel_values)
        grids = [(0, 0)] * len(features) if crop_grids is None else crop_grids.tolist()
        num_groups = [1 + rows * columns for rows, columns in grids]
        if sum(num_groups) != len(features):
            raise ValueError(
                f"crop_grids are of {sum(num_groups)} crops, but pixel_values hold {len(features)}; make the inputs "
                "with XGenMMProcessor."
            )
        groups, masks = [], []
        for image, (crops, (rows, columns)) in enumerate(zip(features.split(num_groups), grids, strict=True)):
            side = round(features.shape[1] ** 0.5)
            groups.append(crops[:1])
            masks.append(torch.ones(1, side**2, dtype=torch.bool))
            if rows * columns:
                height, width = image_sizes[image].tolist()  # type: ignore[index]  # given where crop_grids are
                groups.append(crops_to_strips(crops[1:], rows, columns))
                masks.append(strips_mask(height, width, rows, columns, side))
        joined = torch.cat(masks).to(features.device)
        # r-v1 was trained without a mask; and nothing is masked where nothing is padding.
        mask = None if self.config.reads_prompt or bool(joined.all()) else joined
        tokens = self.perceiver(torch.cat(groups), mask, *self._prompt_embeds(prompt_ids, num_groups))
        return BaseModelOutputWithPooling(
            last_hidden_state=features,
            pooler_output=[image.flatten(0, 1) for image in tokens.split(num_groups)],
        )

    def _encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features of crops, `(crops, positions, channels)`, after the encoder's last norm and without class token."""
        features = self.vision_tower(pixel_values=pixel_values).last_hidden_state
        if self.config.vision_config.model_type == "clip_vision_model":
            # Transformers' CLIP puts this norm on the class token only, open_clip on all tokens.
            features = self.vision_tower.post_layernorm(features)[:, 1:]
        return features

    def _prompt_embeds(
        self, prompt_ids: list[torch.LongTensor] | None, num_groups: list[int]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Returns the embeddings that the Perceiver reads for each group of an image, and their padding mask."""
        if not self.config.reads_prompt:
            return None, None
        embedding = self.get_input_embeddings()
        if prompt_ids is None:
            if not self.config.default_prompt_ids:
                return None, None
            default = torch.tensor(self.config.default_prompt_ids, device=embedding.weight.device)
            prompt_ids = [default] * len(num_groups)
        prompts = [ids[: self.config.max_prompt_tokens] for ids in prompt_ids]
        per_group = torch.tensor(num_groups, device=prompts[0].device)
        lengths = torch.tensor([len(ids) for ids in prompts], device=prompts[0].device)
        mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
        embeds = embedding(pad_sequence(prompts, batch_first=True)).repeat_interleave(per_group, dim=0)
        return embeds, None if bool(mask.all()) else mask.repeat_interleave(per_group, dim=0)

    def embed_prompt(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.LongTensor | None = None,
        crop_grids: torch.LongTensor | None = None,
    ) -> torch.Tensor:
        """
        Embeddings of prompts with the tokens of images in their places, `(batch, length, channels)`.

        Raises:
            `ValueError`: If the prompts do not have as many placeholders as the images have tokens.
        """
        embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is None:
            return embeds
        prompt_ids = None
        if self.config.reads_prompt:
            grids = [(0, 0)] * len(pixel_values) if crop_grids is None else crop_grids.tolist()
            tokens_per_image = [(1 + rows * columns) * self.config.num_latents for rows, columns in grids]
            prompt_ids = image_prompts(input_ids, attention_mask, self.config.image_token_id, tokens_per_image)
        images = torch.cat(
            self.get_image_features(pixel_values, image_sizes, crop_grids, prompt_ids).pooler_output
        ).to(embeds.device, embeds.dtype)
        is_image = input_ids == self.config.image_token_id
        if int(is_image.sum()) != len(images):
            raise ValueError(
                f"The prompts have {int(is_image.sum())} image tokens, but the images give {len(images)}; make the "
                "inputs with XGenMMProcessor."
            )
        return embeds.masked_scatter(is_image[..., None], images)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        image_sizes: torch.LongTensor | None = None,
        crop_grids: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): With a placeholder for each token of an image.
            pixel_values, image_sizes, crop_grids: The images of all prompts in their order; see
                [`~XGenMMForConditionalGeneration.get_image_features`]. Where the Perceiver reads the prompt, it reads
                `input_ids` without padding, in training also the answer, as far as `config.max_prompt_tokens` reach;
                that is how it was trained.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): -100 where no loss is wanted.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0): Last positions to compute logits of
                (0: all), or their numbers.
            kwargs: Inputs of the language model, such as the cache.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_prompt(input_ids, attention_mask, pixel_values, image_sizes, crop_grids)
        elif pixel_values is not None:
            raise ValueError("pixel_values need input_ids, which say where the images stand; inputs_embeds do not.")
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **kwargs)
        # The cache keeps its name, which is `past_key_values` before Transformers 5.24 and `cache` from then on.
        others = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return CausalLMOutputWithPast(loss=loss, logits=logits, **others)

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.LongTensor | None = None,
        crop_grids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> ModelOutput | torch.LongTensor:
        """
        `GenerationMixin.generate`, with the images embedded once, before anything is repeated for beams or grows.

        Crops of several images in a row could not be repeated like rows of a batch, and a Perceiver that reads the
        prompt must not read an answer that is being written.
        """
        prompt = input_ids if inputs is None else inputs
        if pixel_values is None:
            return super().generate(prompt, generation_config=generation_config, **kwargs)
        embeds = self.embed_prompt(prompt, kwargs.get("attention_mask"), pixel_values, image_sizes, crop_grids)
        if reads_prompt_again(generation_config or self.generation_config, kwargs):
            with embedded_as(self.get_input_embeddings(), prompt, embeds, prompt != self.config.image_token_id):
                return super().generate(prompt, generation_config=generation_config, **kwargs)
        return super().generate(prompt, generation_config=generation_config, inputs_embeds=embeds, **kwargs)


__all__ = ["XGenMMForConditionalGeneration"]
