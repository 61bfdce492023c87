"""LinVT: an image-LLM, complete and untouched, with a video tokenizer between its projector and its LLM (Fig. 1a).

Text and images go straight to the image-LLM. For a video, the image-LLM encodes the frames, the video tokenizer turns
their tokens into a few video tokens, and the image-LLM reads those as `inputs_embeds` in place of an image's tokens.
"""

import copy
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from inspect import signature

import torch
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput
from transformers.utils.quantization_config import QuantizationConfigMixin

from linvt.assisted_decoding import embedded_as, is_assisted
from linvt.checkpoints.light_checkpoint import load_light
from linvt.checkpoints.safe_weights import HUB_ARGUMENTS, safetensors_only
from linvt.configuration.configuration_linvt import LinVTConfig, LinVTVideoConfig
from linvt.configuration.configuration_red_villm import RedVillmVideoConfig
from linvt.contrastive_loss import FRESH_LOGIT_SCALE, VideoTextContrast
from linvt.image_llms.family_table import ImageLLMFamily, image_llm_family
from linvt.image_llms.image_llm_loading import (
    check_image_llm,
    check_image_llm_config,
    image_llm_source,
    load_image_llm,
    spare_video_tokenizer,
)
from linvt.rank_agreement import ALONE, RankAgreement, weights_are_sharded
from linvt.video_encoding import LinVTVideoFeatures, VideoEncodingMixin
from linvt.video_tokenizer.modeling_linvt_video import LinVTVideoModel
from linvt.video_tokenizer.modeling_red_villm import RedVillmVideoModel


VIDEO = 2  # the value of a video token in Transformers' `mm_token_type_ids`; text is 0, images are 1


@dataclass
class LinVTCausalLMOutputWithPast(CausalLMOutputWithPast):
    """
    What the image-LLM returned for a prompt with videos, and:

    Args:
        contrastive_loss (`torch.FloatTensor`, *optional*, returned with `return_contrastive_loss=True`): A scalar, no
            part of `loss`; see [`VideoTextContrast`].
        video_tokens (`torch.Tensor` of shape `(videos, num_video_tokens, channels)`).
        video_token_weights (`tuple[torch.FloatTensor]`, *optional*, returned with `output_token_weights=True`):
            Per video W of shape `(num_video_tokens, frames * tokens per frame)`; see [`LinVTVideoOutput`].
    """

    contrastive_loss: torch.Tensor | None = None
    video_tokens: torch.Tensor | None = None
    video_token_weights: tuple[torch.Tensor, ...] | None = None


class LinVTForConditionalGeneration(VideoEncodingMixin, PreTrainedModel, GenerationMixin):
    """
    An image-LLM that understands videos.

    Example:

    ```python
    >>> from linvt import LinVTForConditionalGeneration

    >>> model = LinVTForConditionalGeneration.from_image_llm("Qwen/Qwen2-VL-2B-Instruct", dtype="bfloat16")
    >>> model.save_pretrained("qwen2-vl-2b-linvt")
    ```
    """

    config_class = LinVTConfig
    config: LinVTConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _keys_to_ignore_on_load_missing = ["contrast.logit_scale"]  # only training has a use for it
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LinVTConfig, image_llm: PreTrainedModel | None = None):
        super().__init__(config)
        check_image_llm_config(config.image_llm_config)
        if image_llm is None:
            self.image_llm = AutoModelForImageTextToText.from_config(config.image_llm_config)
        else:
            self.image_llm = image_llm
        self.video_tokenizer = _video_tokenizer(config.video_tokenizer_config, self.image_llm)
        self.contrast = VideoTextContrast()
        # Both parts have initialised themselves; a trained image-LLM must not be touched again.
        with init.no_init_weights() if image_llm is not None else nullcontext():
            self.post_init()
        # Image-LLMs also name layers that they do not have, such as CLIP's for text; FSDP looks for each of them.
        self._no_split_modules &= {type(module).__name__ for module in self.modules()}

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VideoTextContrast):
            init.constant_(module.logit_scale, FRESH_LOGIT_SCALE)

    @classmethod
    def from_image_llm(
        cls,
        image_llm: str | os.PathLike | PreTrainedModel,
        video_tokenizer_config: dict | LinVTVideoConfig | RedVillmVideoConfig | None = None,
        **kwargs,
    ) -> "LinVTForConditionalGeneration":
        """
        Puts a fresh video tokenizer on a trained image-LLM.

        Args:
            image_llm (`str`, `os.PathLike` or `PreTrainedModel`): Hub id or folder of an image-LLM, or the model.
            video_tokenizer_config (`dict`, `LinVTVideoConfig` or `RedVillmVideoConfig`, *optional*): LinVT with all
                defaults if left out. The `model_type` of a dict says which it is, LinVT without one.
            kwargs: Passed to `AutoModelForImageTextToText.from_pretrained`: `dtype`, `device_map`, `revision`,
                `quantization_config`, `attn_implementation`, `trust_remote_code`, ...

        Raises:
            `ValueError`: If LinVT cannot wrap this model; the message says why.
        """
        source = None
        if isinstance(image_llm, PreTrainedModel):
            if kwargs:
                raise ValueError(f"{', '.join(kwargs)} can be given with the id of an image-LLM, not with a model.")
        else:
            source = image_llm_source(image_llm, **kwargs)
            if source is not None:
                kwargs["revision"] = source["revision"]  # the branch may move while files are loaded
            image_llm = load_image_llm(image_llm, **kwargs)
        check_image_llm(image_llm)
        config = LinVTConfig(
            image_llm_config=image_llm.config,
            video_tokenizer_config=video_tokenizer_config,
            image_llm_source=source,
        )
        config.video_tokenizer_config._attn_implementation = image_llm.config._attn_implementation
        embeddings = image_llm.get_input_embeddings().weight
        config.dtype = embeddings.dtype
        model = cls(config, image_llm=image_llm)
        model.video_tokenizer.to(device=embeddings.device, dtype=embeddings.dtype)
        model.contrast.to(device=embeddings.device, dtype=embeddings.dtype)
        model.generation_config = copy.deepcopy(image_llm.generation_config)
        return model.train(image_llm.training)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *args, config: PreTrainedConfig | str | os.PathLike | None = None, **kwargs
    ):
        """
        Loads a LinVT model; all arguments of `PreTrainedModel.from_pretrained`. A `quantization_config` quantises the
        image-LLM and spares the video tokenizer. Of a light checkpoint, the image-LLM is loaded from its own
        repository, with the same arguments.
        """
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        if isinstance(config, (str, os.PathLike)):
            config = LinVTConfig.from_pretrained(config, **hub_kwargs)
        weights = "inside" if config is None else config.image_llm_weights
        if config is None:
            fields, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub_kwargs)
            if fields.get("model_type") != LinVTConfig.model_type:
                kind = f"a {fields['model_type']!r} model" if "model_type" in fields else "no config.json of a model"
                raise ValueError(
                    f"{pretrained_model_name_or_path} holds {kind}, not a LinVT one. To put a video tokenizer on an "
                    "image-LLM use LinVTForConditionalGeneration.from_image_llm."
                )
            weights = fields.get("image_llm_weights", "inside")
        if weights != "inside":
            return load_light(cls, pretrained_model_name_or_path, *args, config=config, **kwargs)
        if pretrained_model_name_or_path is not None:
            kwargs = safetensors_only(pretrained_model_name_or_path, kwargs)
        if isinstance(kwargs.get("quantization_config"), QuantizationConfigMixin):
            kwargs["quantization_config"] = spare_video_tokenizer(kwargs["quantization_config"])
        return super().from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """As `PreTrainedModel.save_pretrained`; raises a `ValueError` for what could not be loaded again."""
        if getattr(self.image_llm, "is_quantized", False) and not getattr(self, "is_quantized", False):
            raise ValueError(
                "The image-LLM was quantised before it was wrapped, so this model cannot be saved as a whole. Wrap "
                "and save it unquantised, then give quantization_config to from_pretrained; or save only "
                "model.video_tokenizer."
            )
        self.config.image_llm_weights = "inside"
        super().save_pretrained(save_directory, **kwargs)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.image_llm.get_input_embeddings()

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        self.image_llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.image_llm.get_output_embeddings()

    def set_output_embeddings(self, value: torch.nn.Module) -> None:
        self.image_llm.set_output_embeddings(value)

    def get_decoder(self) -> torch.nn.Module:
        return self.image_llm.get_decoder()

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_milliseconds: torch.LongTensor | None = None,
        video_shot_ids: torch.LongTensor | None = None,
        instruction_turns: torch.LongTensor | None = None,
        mm_token_type_ids: torch.IntTensor | None = None,
        labels: torch.LongTensor | None = None,
        output_token_weights: bool = False,
        return_contrastive_loss: bool = False,
        **kwargs,
    ) -> ModelOutput | tuple:
        """
        With videos, or the contrastive loss, a [`LinVTCausalLMOutputWithPast`], without what the image-LLM returns.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): The prompt, with the tokens of the image-LLM's
                image placeholder where a video stands.
            pixel_values_videos, video_milliseconds, video_shot_ids: The videos of all prompts in their order; see
                [`~LinVTForConditionalGeneration.get_video_features`].
            instruction_turns (`torch.LongTensor` of shape `(batch, length)`): `i > 0` on the instruction and on the
                videos of the i-th user turn that holds a video, 0 elsewhere. TTA reads no other text (Sec. 3.2.2).
            mm_token_type_ids (`torch.IntTensor` of shape `(batch, length)`): 2 on video tokens, 1 on images, else 0.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): -100 where no loss is wanted.
            return_contrastive_loss (`bool`, *optional*, defaults to `False`): Whether to return the video-text
                contrastive loss of the answers in `labels`. All ranks must agree on it.
            kwargs: `video_frame_tokens` and `video_token_grid`, known tokens in place of `pixel_values_videos`; see
                [`~LinVTForConditionalGeneration.get_video_features`]. All other inputs of the image-LLM, such as
                `pixel_values` or the cache.
        """
        if return_contrastive_loss and labels is None:
            raise ValueError("return_contrastive_loss needs labels, which say where the answers stand.")
        learns = any(parameter.requires_grad for parameter in self.video_tokenizer.parameters())
        ranks = RankAgreement(
            sharded=weights_are_sharded(self),
            needs_graph=labels is not None and self.training and torch.is_grad_enabled() and learns,
            device=self.contrast.logit_scale.device,
        )
        inputs, features = self.get_llm_inputs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values_videos,
            video_milliseconds=video_milliseconds,
            video_shot_ids=video_shot_ids,
            instruction_turns=instruction_turns,
            mm_token_type_ids=mm_token_type_ids,
            output_token_weights=output_token_weights,
            ranks=ranks,
            **kwargs,
        )
        if features is None and not ranks.zero.requires_grad and not return_contrastive_loss:
            return self.image_llm(labels=labels, **inputs)
        return_dict = inputs.pop("return_dict", None)
        family = image_llm_family(self.image_llm)
        embeds = inputs.get("inputs_embeds")  # none without videos, where the prompt is the image-LLM's own
        if embeds is not None and labels is not None:
            inputs |= family.answer_inputs(labels)
        by_ids = embeds is not None and family.looks_up_ids
        with self._embedded(input_ids, inputs, by_ids):
            if by_ids:
                inputs["input_ids"] = input_ids
            outputs = self.image_llm(labels=labels, return_dict=True, **inputs)
        contrastive_loss = None
        if return_contrastive_loss:
            pair = (None, None) if features is None else (embeds, mm_token_type_ids == VIDEO)
            contrastive_loss = self.contrast(*pair, labels)
        # By their names in this Transformers: the cache is `past_key_values` before 5.24 and `cache` from then on.
        given = {field.name: outputs.get(field.name) for field in fields(CausalLMOutputWithPast)}
        if outputs.loss is not None:
            given["loss"] = outputs.loss + ranks.zero.to(outputs.loss.device)
        outputs = LinVTCausalLMOutputWithPast(
            **given,
            contrastive_loss=contrastive_loss,
            video_tokens=None if features is None else features.pooler_output,
            video_token_weights=None if features is None else features.token_weights,
        )
        return outputs.to_tuple() if return_dict is False else outputs

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        input_ids: torch.LongTensor | None = None,
        **kwargs,
    ):
        """
        The image-LLM's own `generate`, with all its decoding modes and arguments; it also takes the inputs of
        [`~LinVTForConditionalGeneration.forward`]. Returns the prompt and the answer, as it does.
        """
        prompt = input_ids if inputs is None else inputs
        llm_inputs, _ = self.get_llm_inputs(input_ids=prompt, **kwargs)
        llm_inputs.pop("input_ids", None)
        assisted = is_assisted(generation_config or self.generation_config, kwargs)
        by_ids = assisted or "inputs_embeds" not in signature(self.image_llm.prepare_inputs_for_generation).parameters
        own_config = self.image_llm.generation_config
        self.image_llm.generation_config = self.generation_config  # the defaults are this model's
        try:
            with self._embedded(prompt, llm_inputs, by_ids):
                # `input_ids` stay beside `inputs_embeds`: the output starts with the prompt, and penalties see it.
                return self.image_llm.generate(prompt, generation_config=generation_config, **llm_inputs)
        finally:
            self.image_llm.generation_config = own_config

    def _embedded(self, prompt: torch.Tensor, llm_inputs: dict, by_ids: bool) -> AbstractContextManager:
        """Takes `inputs_embeds` out of the inputs where the LLM shall be given ids, which it then embeds as these."""
        by_ids = by_ids or image_llm_family(self.image_llm).looks_up_ids
        if not by_ids or "inputs_embeds" not in llm_inputs:
            return nullcontext()
        is_word = prompt != image_llm_family(self.image_llm).image_token_id()
        return embedded_as(self.get_input_embeddings(), prompt, llm_inputs.pop("inputs_embeds"), is_word)

    def prepare_inputs_for_generation(self, *args, **kwargs) -> dict:
        """The image-LLM's own; `generate` is delegated to it."""
        return self.image_llm.prepare_inputs_for_generation(*args, **kwargs)

    def get_llm_inputs(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_milliseconds: torch.LongTensor | None = None,
        video_shot_ids: torch.LongTensor | None = None,
        instruction_turns: torch.LongTensor | None = None,
        mm_token_type_ids: torch.IntTensor | None = None,
        output_token_weights: bool = False,
        video_frame_tokens: torch.Tensor | None = None,
        video_token_grid: torch.Tensor | None = None,
        ranks: RankAgreement = ALONE,
        **kwargs,
    ) -> tuple[dict, LinVTVideoFeatures | None]:
        """
        Inputs of the image-LLM, and what was made of the videos. Without videos the inputs are passed on as they
        came. With videos, everything in the prompt becomes `inputs_embeds`, with `position_ids` where the image-LLM
        needs them. For the arguments see [`~LinVTForConditionalGeneration.forward`].
        """
        videos = pixel_values_videos if video_frame_tokens is None else video_frame_tokens
        if videos is None and not ranks.sharded:
            self._pass_blanks(ranks)
            given = {"input_ids": input_ids, "attention_mask": attention_mask, "mm_token_type_ids": mm_token_type_ids}
            return kwargs | {name: value for name, value in given.items() if value is not None}, None
        if videos is not None:
            self._check_video_inputs(input_ids, videos, video_milliseconds, instruction_turns, mm_token_type_ids)
        family = image_llm_family(self.image_llm)
        is_video = mm_token_type_ids == VIDEO if videos is not None else torch.zeros_like(input_ids, dtype=torch.bool)
        is_image = (input_ids == self.config.image_llm_config.image_token_id) & ~is_video
        num_image_tokens = int(is_image.sum())  # known before the encoder's work is queued, so nothing waits for it
        # What stands for an image or a video is replaced below; its id may lie outside the vocabulary.
        replaced = is_video if family.fills_images else is_image | is_video
        embeds = family.embed_words(input_ids.masked_fill(replaced, 0))
        is_video, is_image = is_video.to(embeds.device), is_image.to(embeds.device)
        features = None
        if videos is not None:
            features = self.get_video_features(
                pixel_values_videos,
                video_milliseconds,
                video_shot_ids,
                self._instruction_embeds(embeds, instruction_turns, is_video),
                output_token_weights,
                video_frame_tokens=video_frame_tokens,
                video_token_grid=video_token_grid,
                ranks=ranks,
            )
            video_tokens = features.pooler_output.to(embeds.device, embeds.dtype)
            embeds = embeds.masked_scatter(is_video[..., None], video_tokens)
        else:
            self._pass_blanks(ranks)
            # With a video the gradient passes all layers of the LLM, so it must without one.
            embeds = embeds + ranks.zero.to(embeds.device, embeds.dtype)
        image_inputs = set()
        if num_image_tokens > 0:
            ranks.announce()
            if not family.fills_images:
                embeds = self._put_images(embeds, is_image, num_image_tokens, family, kwargs)
                # The images are in the embeddings now; the image-LLM shall not look for them again.
                image_inputs = family.image_input_names(kwargs)
        ranks.finish(self._blank_image_tokens)
        inputs = {name: value for name, value in kwargs.items() if name not in image_inputs}
        inputs |= {"inputs_embeds": embeds, "attention_mask": attention_mask}
        inputs |= family.llm_inputs(input_ids, attention_mask, is_image, is_video, kwargs)
        return inputs, features

    def _put_images(
        self, embeds: torch.Tensor, is_image: torch.Tensor, num_image_tokens: int, family: ImageLLMFamily, inputs: dict
    ) -> torch.Tensor:
        with self._encoder_grad():
            images = family.image_features(inputs).to(embeds.device, embeds.dtype)
        if len(images) != num_image_tokens:
            raise ValueError(
                f"The prompt has {num_image_tokens} image tokens, but the images give {len(images)}; make the "
                "inputs with LinVTProcessor."
            )
        return embeds.masked_scatter(is_image[..., None], images)

    def _instruction_embeds(
        self, embeds: torch.Tensor, instruction_turns: torch.Tensor | None, is_video: torch.Tensor
    ) -> list[torch.Tensor] | None:
        """Per video the embeddings of the instruction of its user turn, which no gradient reaches."""
        if not self.config.video_tokenizer_config.text_conditioning:
            return None
        # Looked up on the CPU at once, as in `get_video_features`, and gathered in one go.
        turns, is_video = instruction_turns.cpu(), is_video.cpu()
        places = []
        for row, (row_turns, row_video) in enumerate(zip(turns, is_video, strict=True)):
            of_videos = row_turns[row_video].view(-1, self.config.num_video_tokens)[:, 0]
            places += [((row_turns == turn) & ~row_video).nonzero()[:, 0] + row * len(row_turns) for turn in of_videos]
        gathered = embeds.detach().flatten(0, 1)[torch.cat(places).to(embeds.device)]
        return list(gathered.split([len(place) for place in places]))

    def _check_video_inputs(
        self,
        input_ids: torch.LongTensor | None,
        videos: torch.Tensor,
        video_milliseconds: torch.Tensor | None,
        instruction_turns: torch.Tensor | None,
        mm_token_type_ids: torch.Tensor | None,
    ) -> None:
        needed = {
            "input_ids": input_ids,
            "video_milliseconds": video_milliseconds,
            "mm_token_type_ids": mm_token_type_ids,
        }
        if self.config.video_tokenizer_config.text_conditioning:
            needed["instruction_turns"] = instruction_turns
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise ValueError(f"A video is given without {', '.join(missing)}; make the inputs with LinVTProcessor.")
        num_tokens, num_videos = int((mm_token_type_ids == VIDEO).sum()), len(videos)
        if num_tokens != num_videos * self.config.num_video_tokens:
            raise ValueError(
                f"The prompt has {num_tokens} video tokens, but {num_videos} videos of {self.config.num_video_tokens} "
                f"tokens need {num_videos * self.config.num_video_tokens}. Is num_video_tokens of the processor that "
                "of the model, and is every video in the prompt?"
            )


def _video_tokenizer(config: LinVTVideoConfig | RedVillmVideoConfig, image_llm: PreTrainedModel) -> PreTrainedModel:
    if isinstance(config, RedVillmVideoConfig):
        return RedVillmVideoModel(config, image_llm)
    return LinVTVideoModel(config)


__all__ = ["LinVTCausalLMOutputWithPast", "LinVTForConditionalGeneration", "LinVTVideoFeatures"]
