"""What the ports share: a language model of Transformers that reads images as embeddings in its prompt."""

import copy
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput

from linvt.part_initialization import PartInitializationMixin


class PortedImageLLM(PartInitializationMixin, PreTrainedModel, GenerationMixin):
    """
    Holds a `language_model` and a `lm_head`; a port adds its vision encoder, `get_image_features`, and a `forward`
    that names its image inputs. `GenerationMixin` gives it `pixel_values` with the prompt and not again, and without
    them the other image inputs mean nothing.

    Attributes:
        image_inputs (`tuple[str, ...]`): Names of the inputs that describe images, `pixel_values` first.
    """

    image_inputs: tuple[str, ...] = ("pixel_values",)
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["CLIPEncoderLayer", "Qwen2DecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        self.language_model.embed_tokens = value

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: torch.nn.Module) -> None:
        self.lm_head = value

    def prompt_embeds(self, input_ids: torch.LongTensor, **images: torch.Tensor) -> torch.Tensor:
        """
        Embeddings of prompts, `(batch, length, channels)`, with the visual tokens of `images` in place of the
        placeholders.

        Raises:
            `ValueError`: If there are not as many placeholders as visual tokens.
        """
        embeds = self.get_input_embeddings()(input_ids)
        features = self.get_image_features(**images, return_dict=True).pooler_output
        tokens = torch.cat([image.flatten(0, -2) for image in features]).to(embeds.device, embeds.dtype)
        is_image = input_ids == self.config.image_token_id
        num_places = int(is_image.sum())
        if num_places != len(tokens):
            raise ValueError(
                f"The prompts have {num_places} image tokens (id {self.config.image_token_id}), but the images give "
                f"{len(tokens)}; make the inputs with the processor of this model, without truncation."
            )
        return embeds.masked_scatter(is_image[..., None], tokens)

    def read_prompt(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor | None,
        images: dict[str, torch.Tensor | None],
        labels: torch.LongTensor | None,
        logits_to_keep: int | torch.Tensor,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """`forward` of every port; `kwargs` go to the language model."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds.")
        if images["pixel_values"] is not None:
            if input_ids is None:
                raise ValueError("Images need input_ids, which say where they stand; inputs_embeds have them already.")
            inputs_embeds = self.prompt_embeds(input_ids, **images)
        elif inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        outputs = self.language_model(inputs_embeds=inputs_embeds, **kwargs)
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
        self, inputs: torch.LongTensor | None = None, generation_config: GenerationConfig | None = None, **kwargs: Any
    ) -> ModelOutput | torch.LongTensor:
        """
        `GenerationMixin.generate`, where prompts may also be repeated: it repeats every input row by row, which would
        tear the images of a prompt, or the crops of an image, from each other. So images become embeddings before.
        """
        config = copy.deepcopy(self.generation_config if generation_config is None else generation_config)
        config.update(**kwargs)
        repeats = (config.num_beams or 1) * (config.num_return_sequences or 1)
        if repeats > 1 and kwargs.get("pixel_values") is not None:
            if config.use_cache is False:
                raise ValueError(
                    "Beams and several answers to a prompt with images need the cache; leave out use_cache=False."
                )
            images = {name: kwargs.pop(name, None) for name in self.image_inputs}
            prompt = kwargs.get("input_ids") if inputs is None else inputs
            kwargs["inputs_embeds"] = self.prompt_embeds(prompt, **images)
        return super().generate(inputs, generation_config=generation_config, **kwargs)


__all__ = ["PortedImageLLM"]
