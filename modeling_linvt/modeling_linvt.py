"""LinVT: an image-LLM, complete and untouched, with a video tokenizer between its projector and its LLM (Fig. 1a).

Text and images go straight to the image-LLM. For a video, the image-LLM encodes the frames, the video tokenizer turns
their tokens into a few video tokens, and the image-LLM reads those as `inputs_embeds` in place of an image's tokens.
"""

import copy
import os
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.quantization_config import QuantizationConfigMixin

from linvt.assisted_decoding import embedded_as, reads_prompt_again
from linvt.backbone import LinVTBackbone
from linvt.checkpoints.adapter_folder import base_of_adapter
from linvt.checkpoints.light_checkpoint import load_light
from linvt.checkpoints.safe_weights import HUB_ARGUMENTS, safetensors_only
from linvt.configuration.configuration_linvt import LinVTConfig, LinVTVideoConfig
from linvt.configuration.configuration_red_villm import RedVillmVideoConfig
from linvt.contrastive_loss import FRESH_LOGIT_SCALE, VideoTextContrast
from linvt.forward_signature import forward_with_inputs
from linvt.image_llms.image_llm_loading import image_llm_source, load_image_llm, spare_video_tokenizer
from linvt.image_llms.image_llm_support import check_image_llm, check_image_llm_config
from linvt.late_interaction import LateInteractionContrast
from linvt.llm_inputs import LLMInputsMixin
from linvt.model_outputs import add_video_outputs
from linvt.part_initialization import PartInitializationMixin
from linvt.prompt_padding import pad_left
from linvt.rank_agreement import RankAgreement, weights_are_sharded
from linvt.video_inputs import VideoInputs
from linvt.video_tokenizer.modeling_linvt_video import LinVTVideoModel
from linvt.video_tokenizer.modeling_red_villm import RedVillmVideoModel


class LinVTForConditionalGeneration(LLMInputsMixin, PartInitializationMixin, PreTrainedModel, GenerationMixin):
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
        # Transformers finds them in the image-LLM, PEFT 0.18 looks for them in the outermost model alone.
        tied = self.image_llm._tied_weights_keys or {}
        self._tied_weights_keys = {f"image_llm.{name}": f"image_llm.{source}" for name, source in tied.items()}
        part = config.video_tokenizer_config
        self.video_tokenizer = _video_tokenizer(part, self.image_llm)  # type: ignore[arg-type]  # no dict any more
        learns_relevance = part.learns_relevance
        self.contrast = LateInteractionContrast() if learns_relevance else VideoTextContrast()
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
        elif isinstance(module, LateInteractionContrast):
            init.zeros_(module.logit_scale)

    @classmethod
    def from_image_llm(
        cls,
        image_llm: str | os.PathLike | PreTrainedModel,
        video_tokenizer_config: dict | LinVTVideoConfig | RedVillmVideoConfig | None = None,
        **kwargs: Any,
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
        config.dtype = image_llm.get_input_embeddings().weight.dtype
        model = cls(config, image_llm=image_llm)
        model.place_added_parts()
        model.generation_config = copy.deepcopy(image_llm.generation_config)
        return model.train(image_llm.training)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        config: PreTrainedConfig | str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> "LinVTForConditionalGeneration":
        """
        Loads a LinVT model; all arguments of `PreTrainedModel.from_pretrained`. A `quantization_config` quantises the
        image-LLM and spares the video tokenizer. Of a light checkpoint, the image-LLM is loaded from its own
        repository, with the same arguments. Of an adapter of PEFT, the model that it names is loaded, and then the
        adapter into it.
        """
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        if isinstance(config, (str, os.PathLike)):
            config = LinVTConfig.from_pretrained(config, **hub_kwargs)
        source: Any = pretrained_model_name_or_path  # None at most where all weights are given
        weights = "inside" if config is None else config.image_llm_weights
        if config is None:
            fields, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub_kwargs)
            base = None if "model_type" in fields else base_of_adapter(source, hub_kwargs)
            if base is not None:
                kwargs = {name: value for name, value in kwargs.items() if name not in ("revision", "subfolder")}
                kwargs["adapter_kwargs"] = {**hub_kwargs, "_adapter_model_path": str(pretrained_model_name_or_path)}
                try:
                    return cls.from_pretrained(base, *args, **kwargs)
                except ImportError as error:  # Transformers 5.17 asks PEFT before 0.19 for what it does not have
                    raise ImportError(
                        f"Transformers cannot load {pretrained_model_name_or_path} with this PEFT ({error}); pip "
                        "install -U peft, or load the adapter with peft.PeftModel.from_pretrained(model, adapter)."
                    ) from error
            if fields.get("model_type") != LinVTConfig.model_type:
                kind = f"a {fields['model_type']!r} model" if "model_type" in fields else "no config.json of a model"
                raise ValueError(
                    f"{pretrained_model_name_or_path} holds {kind}, not a LinVT one. To put a video tokenizer on an "
                    "image-LLM use `linvt wrap`, or LinVTForConditionalGeneration.from_image_llm."
                )
            weights = fields.get("image_llm_weights", "inside")
        if weights != "inside":
            if args:
                raise TypeError(f"{source} is a light checkpoint, which takes arguments by name, not {args}.")
            # Typed as Transformers types its own: with output_loading_info it is a tuple.
            return load_light(cls, source, config=config, **kwargs)  # type: ignore[return-value]  # see above
        if pretrained_model_name_or_path is not None:
            kwargs = safetensors_only(pretrained_model_name_or_path, kwargs)
        if isinstance(kwargs.get("quantization_config"), QuantizationConfigMixin):
            kwargs["quantization_config"] = spare_video_tokenizer(kwargs["quantization_config"])
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)
        # Loading makes every weight learn, but this one does only where the contrastive loss is asked for.
        (loaded[0] if isinstance(loaded, tuple) else loaded).contrast.requires_grad_(False)
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """As `PreTrainedModel.save_pretrained`; raises a `ValueError` for what could not be loaded again."""
        if getattr(self.image_llm, "is_quantized", False) and not getattr(self, "is_quantized", False):
            raise ValueError(
                "The image-LLM was quantised before it was wrapped, so this model cannot be saved as a whole. Wrap "
                "and save it unquantised, then give quantization_config to from_pretrained; or save only "
                "model.video_tokenizer."
            )
        self.config.image_llm_weights = "inside"
        super().save_pretrained(save_directory, **kwargs)

    def place_added_parts(self) -> None:
        """Moves the video tokenizer to where the image-LLM embeds words, in the dtype of these embeddings."""
        embeddings = self.get_input_embeddings().weight
        # Offloaded weights are on the meta device, where fresh ones would be lost.
        device = torch.device("cpu") if embeddings.is_meta else embeddings.device
        for part in (self.video_tokenizer, self.contrast):
            part.to(device=device, dtype=embeddings.dtype)
        if hasattr(self.image_llm, "hf_device_map"):  # set where Accelerate has placed its parts
            places = {f"image_llm.{name}".rstrip("."): place for name, place in self.image_llm.hf_device_map.items()}
            self.hf_device_map = {**places, "video_tokenizer": device, "contrast": device}

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

    def get_encoder(self, modality: str | None = None) -> torch.nn.Module:
        return self.image_llm.get_encoder(modality=modality)

    @property
    def base_model(self) -> LinVTBackbone:
        """Returns this model without its head, for trainers that apply the head themselves."""
        return LinVTBackbone(self)

    @property
    def generation_config(self) -> GenerationConfig | None:
        """Returns the defaults of `generate`, which are the image-LLM's own too, since its `generate` runs."""
        return self.image_llm.generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig | None) -> None:
        if "image_llm" in self._modules:  # the base class sets one before there is an image-LLM, which has its own
            self.image_llm.generation_config = value

    @forward_with_inputs(VideoInputs.names())
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        instruction_turns: torch.LongTensor | None = None,
        mm_token_type_ids: torch.IntTensor | None = None,
        labels: torch.LongTensor | None = None,
        output_token_weights: bool = False,
        return_contrastive_loss: bool = False,
        **kwargs: Any,
    ) -> ModelOutput | tuple:
        """
        Runs the image-LLM on prompts of text, images and videos.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): The prompt, with the tokens of the image-LLM's
                image placeholder where a video stands.
            instruction_turns (`torch.LongTensor` of shape `(batch, length)`): `i > 0` on the instruction and on the
                videos of the i-th user turn that holds a video, 0 elsewhere. TTA reads no other text (Sec. 3.2.2).
            mm_token_type_ids (`torch.IntTensor` of shape `(batch, length)`): 2 on video tokens, 1 on images, else 0.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): -100 where no loss is wanted.
            output_token_weights (`bool`, *optional*, defaults to `False`): Whether to return W of each video.
            return_contrastive_loss (`bool`, *optional*, defaults to `False`): Whether to return the video-text
                contrastive loss of the answers in `labels`. All ranks must agree on it.
            kwargs: The videos of all prompts in their order, as the fields of [`VideoInputs`] by name, and all other
                inputs of the image-LLM, such as `pixel_values` or the cache.

        Returns:
            What the image-LLM returns; with videos, or the contrastive loss, also a [`LinVTCausalLMOutputWithPast`].

        Raises:
            `ValueError`: If videos, images and prompts do not fit each other.
        """
        if return_contrastive_loss and labels is None:
            raise ValueError("return_contrastive_loss needs labels, which say where the answers stand.")
        ranks = self.rank_agreement(input_ids, trains=labels is not None)
        inputs, features = self.get_llm_inputs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            instruction_turns=instruction_turns,
            mm_token_type_ids=mm_token_type_ids,
            output_token_weights=output_token_weights,
            ranks=ranks,
            **kwargs,
        )
        if features is None and not ranks.zero.requires_grad and not return_contrastive_loss:
            return self.image_llm(labels=labels, **inputs)
        return_dict = inputs.pop("return_dict", None)
        embeds = inputs.get("inputs_embeds")  # none without videos, where the prompt is the image-LLM's own
        if embeds is not None and labels is not None:
            inputs |= self.family.answer_inputs(labels)
        with self.embedded_prompt(input_ids, inputs):
            outputs = self.image_llm(labels=labels, return_dict=True, **inputs)
        added = {}
        if return_contrastive_loss:
            texts = (input_ids, mm_token_type_ids, instruction_turns, labels)
            added["contrastive_loss"] = self.contrast(*self.contrastive_pairs(features, embeds, *texts))
        if outputs.loss is not None:
            added["loss"] = outputs.loss + ranks.zero.to(outputs.loss.device)
        if features is not None:
            added |= {"video_tokens": features.pooler_output, "video_token_weights": features.token_weights}
        outputs = add_video_outputs(outputs, **added)
        return outputs.to_tuple() if return_dict is False else outputs

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        input_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> ModelOutput | torch.LongTensor:
        """
        Runs the image-LLM's own `generate`, with all its decoding modes and arguments but `prefill_chunk_size`; it
        also takes the inputs of [`~LinVTForConditionalGeneration.forward`].

        Returns:
            The prompt and the answer, as it does. Prompts with videos that are padded on the right come back padded
            on the left, as a language model goes on from the last place.
        """
        prompt = input_ids if inputs is None else inputs
        defaults = generation_config or self.generation_config
        if any(kwargs.get(name) is not None for name in VideoInputs.names()):
            if kwargs.get("prefill_chunk_size", defaults.prefill_chunk_size) is not None:
                raise ValueError(
                    "prefill_chunk_size cuts prompts by their ids, but videos stand in them as embeddings; leave it "
                    "out."
                )
            prompt, kwargs = pad_left(prompt, kwargs)
        llm_inputs, _ = self.get_llm_inputs(input_ids=prompt, **kwargs)
        llm_inputs.pop("input_ids", None)
        by_ids = "inputs_embeds" not in signature(self.image_llm.prepare_inputs_for_generation).parameters
        with self.embedded_prompt(prompt, llm_inputs, by_ids=by_ids or reads_prompt_again(defaults, kwargs)):
            # `input_ids` stay beside `inputs_embeds`: the output starts with the prompt, and penalties see it.
            llm_inputs.pop("input_ids", None)
            return self.image_llm.generate(prompt, generation_config=generation_config, **llm_inputs)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict:
        """Calls the image-LLM's own; `generate` is delegated to it."""
        return self.image_llm.prepare_inputs_for_generation(*args, **kwargs)

    def embedded_prompt(
        self, prompt: torch.Tensor | None, llm_inputs: dict, by_ids: bool = False
    ) -> AbstractContextManager:
        """
        Prepares a call of the image-LLM. Where it must be given ids, `inputs_embeds` give way to them, and its
        embedding layer gives these embeddings until the context ends.
        """
        if "inputs_embeds" not in llm_inputs or not (by_ids or self.family.needs_input_ids):
            return nullcontext()
        llm_inputs["input_ids"] = prompt
        is_word = prompt != self.family.image_token_id()
        return embedded_as(self.get_input_embeddings(), prompt, llm_inputs.pop("inputs_embeds"), is_word)

    def rank_agreement(self, input_ids: torch.Tensor | None, trains: bool) -> RankAgreement:
        """Begins a forward pass beside other ranks; `trains` where its loss will be computed."""
        learns = any(parameter.requires_grad for parameter in self.video_tokenizer.parameters())
        return RankAgreement(
            sharded=weights_are_sharded(self),
            needs_graph=trains and self.training and torch.is_grad_enabled() and learns,
            device=torch.device("cpu") if input_ids is None else input_ids.device,
        )


def _video_tokenizer(config: LinVTVideoConfig | RedVillmVideoConfig, image_llm: PreTrainedModel) -> PreTrainedModel:
    if isinstance(config, RedVillmVideoConfig):
        return RedVillmVideoModel(config, image_llm)
    return LinVTVideoModel(config)


__all__ = ["LinVTForConditionalGeneration"]
