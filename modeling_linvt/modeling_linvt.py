"""LinVT: an image-LLM, complete and untouched, with a video tokenizer between its projector and its LLM (Fig. 1a).

Text and images go straight to the image-LLM. For a video, the image-LLM encodes the frames, the video tokenizer turns
their tokens into a few video tokens, and the image-LLM reads those as `inputs_embeds` in place of an image's tokens.
"""

import copy
import os
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForImageTextToText,
    Cache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.quantization_config import QuantizationConfigMixin

from linvt.assisted_decoding import embedded_as, is_assisted
from linvt.configuration.configuration_linvt import LinVTConfig, LinVTVideoConfig
from linvt.configuration.configuration_red_villm import RedVillmVideoConfig
from linvt.contrastive_loss import FRESH_LOGIT_SCALE, VideoTextContrast
from linvt.encoder_fingerprint import encoder_fingerprint
from linvt.frame_clips import frame_clips
from linvt.given_frame_tokens import given_frame_tokens
from linvt.image_llm_families import image_llm_family
from linvt.image_llm_loading import (
    HUB_ARGUMENTS,
    check_image_llm,
    check_image_llm_config,
    load_image_llm,
    spare_video_tokenizer,
)
from linvt.modeling_linvt_video import LinVTVideoModel
from linvt.modeling_red_villm import RedVillmVideoModel
from linvt.rank_agreement import ALONE, RankAgreement, weights_are_sharded


VIDEO = 2  # the value of a video token in Transformers' `mm_token_type_ids`; text is 0, images are 1


@dataclass
class LinVTVideoFeatures(ModelOutput):
    """
    Args:
        pooler_output (`torch.Tensor` of shape `(videos, num_video_tokens, channels)`): The video tokens.
        token_weights (`tuple[torch.FloatTensor]`, *optional*): Per video W, `(num_video_tokens, frames * tokens)`
            (or clips, with `config.frames_per_patch` above 1).
        token_scores (`tuple[torch.FloatTensor]`, *optional*): Per video the significance of every frame token.
        token_grid (`tuple[int, int]`): Rows and columns of the tokens of a frame.
    """

    pooler_output: torch.Tensor
    token_weights: tuple[torch.Tensor, ...] | None = None
    token_scores: tuple[torch.Tensor, ...] | None = None
    token_grid: tuple[int, int] | None = None


@dataclass
class LinVTCausalLMOutputWithPast(ModelOutput):
    """
    What the image-LLM returned for a prompt with videos, and:

    Args:
        contrastive_loss (`torch.FloatTensor`, *optional*, returned with `return_contrastive_loss=True`): A scalar, no
            part of `loss`; see [`VideoTextContrast`].
        video_tokens (`torch.Tensor` of shape `(videos, num_video_tokens, channels)`).
        video_token_weights (`tuple[torch.FloatTensor]`, *optional*, returned with `output_token_weights=True`):
            Per video W of shape `(num_video_tokens, frames * tokens per frame)`; see [`LinVTVideoOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    contrastive_loss: torch.Tensor | None = None
    video_tokens: torch.Tensor | None = None
    video_token_weights: tuple[torch.Tensor, ...] | None = None


class LinVTForConditionalGeneration(PreTrainedModel, GenerationMixin):
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
    _skip_keys_device_placement = ["past_key_values"]
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
        if isinstance(image_llm, PreTrainedModel):
            if kwargs:
                raise ValueError(f"{', '.join(kwargs)} can be given with the id of an image-LLM, not with a model.")
        else:
            image_llm = load_image_llm(image_llm, **kwargs)
        check_image_llm(image_llm)
        config = LinVTConfig(image_llm_config=image_llm.config, video_tokenizer_config=video_tokenizer_config)
        config.video_tokenizer_config._attn_implementation = image_llm.config._attn_implementation
        embeddings = image_llm.get_input_embeddings().weight
        config.dtype = embeddings.dtype
        model = cls(config, image_llm=image_llm)
        model.video_tokenizer.to(device=embeddings.device, dtype=embeddings.dtype)
        model.contrast.to(device=embeddings.device, dtype=embeddings.dtype)
        model.generation_config = copy.deepcopy(image_llm.generation_config)
        return model.train(image_llm.training)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config: PreTrainedConfig | None = None, **kwargs):
        """
        Loads a LinVT model; all arguments of `PreTrainedModel.from_pretrained`. A `quantization_config` quantises the
        image-LLM and spares the video tokenizer.
        """
        if config is None:
            hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
            fields, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub_kwargs)
            if fields.get("model_type") != LinVTConfig.model_type:
                kind = f"a {fields['model_type']!r} model" if "model_type" in fields else "no config.json of a model"
                raise ValueError(
                    f"{pretrained_model_name_or_path} holds {kind}, not a LinVT one. To put a video tokenizer on an "
                    "image-LLM use LinVTForConditionalGeneration.from_image_llm."
                )
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

    def get_frame_tokens(
        self, frames: torch.Tensor, clips: torch.Tensor | None = None, ranks: RankAgreement = ALONE
    ) -> torch.Tensor:
        """
        V, the image-LLM's tokens of frames, `config.frames_per_batch` frames at a time; for RED-VILLM, whose video
        tokenizer has projectors of its own, the features of the vision encoder.

        Args:
            frames (`torch.Tensor` of shape `(frames, 3, height, width)`): Normalised frames.
            clips (`torch.LongTensor` of shape `(clips, frames_per_patch)`, *optional*): Numbers of the frames that
                the encoder takes in together; each frame alone by default.
            ranks ([`RankAgreement`], *optional*): Told of every call of the encoder.

        Returns:
            `torch.Tensor` of shape `(clips, tokens per clip, channels)`.
        """
        family = image_llm_family(self.image_llm)
        if clips is None:
            clips = torch.arange(len(frames), device=frames.device)[:, None]
        before_projector = self.video_tokenizer.reads == "features"
        encode = family.encoder_features if before_projector else family.frame_tokens
        tokens, done = None, 0
        with self._encoder_grad():
            for batch in clips.split(max(self.config.frames_per_batch // clips.shape[1], 1)):
                ranks.announce()
                batch_tokens = encode(frames[batch].to(self.dtype))
                if not before_projector:
                    self._check_frame_tokens(batch_tokens, len(batch))
                if tokens is None:
                    tokens = batch_tokens.new_empty(len(clips), *batch_tokens.shape[1:])
                tokens[done : done + len(batch)] = batch_tokens
                done += len(batch)
        return tokens

    def _encoder_grad(self) -> torch.set_grad_enabled:
        # Gradient checkpointing makes inputs require gradients, also those of a frozen encoder; it needs no graph.
        learns = torch.is_grad_enabled() and image_llm_family(self.image_llm).has_trainable_encoder()
        return torch.set_grad_enabled(learns)

    def _blank_frames(self) -> torch.Tensor:
        size = image_llm_family(self.image_llm).blank_frame_size()
        return torch.zeros(1, 3, *size, device=self.contrast.logit_scale.device)

    def _blank_frame_tokens(self) -> torch.Tensor:
        return self.get_frame_tokens(self._blank_frames())

    def _blank_video_tokens(self) -> torch.Tensor:
        blank = self.video_tokenizer.blank_video(self.contrast.logit_scale.device, self.dtype)
        return self.video_tokenizer(**blank).video_tokens

    def _blank_image_tokens(self) -> torch.Tensor:
        with self._encoder_grad():
            return image_llm_family(self.image_llm).frame_tokens(self._blank_frames()[None].to(self.dtype))

    def encode_video(self, frames: torch.Tensor, shot_ids: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """
        V of one video, to be kept and given as `video_frame_tokens` in place of its frames.

        Args:
            frames (`torch.Tensor` of shape `(frames, 3, height, width)`): Normalised frames.
            shot_ids (`torch.LongTensor` of shape `(frames,)`): Shot of each frame.

        Returns:
            `torch.Tensor` of shape `(clips, tokens per clip, channels)`, and the rows and columns of these tokens.
        """
        tokens = self.get_frame_tokens(frames, frame_clips(shot_ids, self.config.frames_per_patch))
        return tokens, image_llm_family(self.image_llm).token_grid(tokens.shape[1], *frames.shape[-2:])

    def encoder_fingerprint(self) -> str:
        """Names what V of given frames depends on: the weights and settings of the encoder. It reads all of them."""
        return encoder_fingerprint(self)

    def _check_frame_tokens(self, tokens: torch.Tensor, num_clips: int) -> None:
        channels = self.config.video_tokenizer_config.embedding_size
        if tokens.dim() != 3 or len(tokens) != num_clips or tokens.shape[2] != channels:
            raise ValueError(
                f"{type(self.image_llm).__name__} gave visual tokens of shape {tuple(tokens.shape)} for {num_clips} "
                f"frames; expected ({num_clips}, tokens per frame, {channels}). It needs a family of its own in "
                "image_llm_families.py."
            )

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None,
        video_milliseconds: torch.Tensor,
        video_shot_ids: torch.Tensor | None = None,
        instruction_embeds: list[torch.Tensor] | None = None,
        output_token_weights: bool = False,
        video_frame_tokens: torch.Tensor | None = None,
        video_token_grid: torch.Tensor | None = None,
        ranks: RankAgreement = ALONE,
    ) -> LinVTVideoFeatures:
        """
        Video tokens of videos, each of which gives what it gives alone.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(videos, frames, 3, height, width)`): Normalised frames.
                Shorter videos are padded at the end.
            video_milliseconds (`torch.LongTensor` of shape `(videos, frames)`): Time of each frame.
            video_shot_ids (`torch.LongTensor` of shape `(videos, frames)`, *optional*): Shot of each frame, -1 on
                padding. By default there is no padding, and every video is one shot.
            instruction_embeds (`list[torch.Tensor]`, *optional*): Per video the input embeddings of the instruction,
                `(text_length, channels)`.
            output_token_weights (`bool`, *optional*, defaults to `False`): Whether to return W.
            video_frame_tokens (`torch.Tensor` of shape `(videos, clips, tokens per clip, channels)`, *optional*): V of
                each video, as [`~LinVTForConditionalGeneration.encode_video`] gave it and padded at the end, in place
                of `pixel_values_videos`: the vision encoder does not run.
            video_token_grid (`torch.LongTensor` of shape `(videos, 2)`, *optional*): Rows and columns of its tokens.
            ranks ([`RankAgreement`], *optional*): Told of every call of the encoder and of the video tokenizer.
        """
        num_videos, max_frames = video_milliseconds.shape
        if video_shot_ids is None:
            video_shot_ids = torch.zeros_like(video_milliseconds)
        clips, seconds, shot_ids = [], [], []
        for video in range(num_videos):
            shots = video_shot_ids[video][video_shot_ids[video] >= 0]
            if len(shots) == 0:
                raise ValueError(f"Video {video} of {num_videos} has no frames: all its video_shot_ids are padding.")
            clips.append(frame_clips(shots, self.config.frames_per_patch))
            seconds.append(video_milliseconds[video][clips[-1]].float().mean(1) / 1000)
            shot_ids.append(shots[clips[-1][:, 0]])
        if video_frame_tokens is None:
            all_clips = torch.cat([clip + video * max_frames for video, clip in enumerate(clips)])
            tokens = self.get_frame_tokens(pixel_values_videos.flatten(0, 1), all_clips, ranks)
            tokens = tokens.split([len(clip) for clip in clips])
            grid = image_llm_family(self.image_llm).token_grid(tokens[0].shape[1], *pixel_values_videos.shape[-2:])
        else:
            if pixel_values_videos is not None or video_token_grid is None:
                raise ValueError("Give either pixel_values_videos, or video_frame_tokens with their video_token_grid.")
            num_clips = [len(clip) for clip in clips]
            tokens, grid = given_frame_tokens(self.image_llm, video_frame_tokens, video_token_grid, num_clips)
        ranks.finish(self._blank_frame_tokens)
        # The average tokens of Tab. 2 are made without parameters, wherever the frame tokens are.
        device = next((parameter.device for parameter in self.video_tokenizer.parameters()), tokens[0].device)

        outputs = [None] * num_videos
        # Videos of equal length go through the video tokenizer together: there is never a padded frame in it.
        for length in sorted({len(clip) for clip in clips}):
            group = [video for video in range(num_videos) if len(clips[video]) == length]
            texts = [None] if instruction_embeds is None else [instruction_embeds[video] for video in group]
            embeds, mask = (None, None) if texts[0] is None else _pad(texts, device)
            ranks.announce()
            output = self.video_tokenizer(
                _stack([tokens[video] for video in group]).to(device),
                grid,
                _stack([seconds[video] for video in group]).to(device),
                _stack([shot_ids[video] for video in group]).to(device),
                embeds,
                mask,
                output_token_weights=output_token_weights,
            )
            for place, video in enumerate(group):
                outputs[video] = {name: value[place] for name, value in output.items()}
        ranks.finish(self._blank_video_tokens)
        columns = {name: tuple(output[name] for output in outputs) for name in outputs[0]}
        return LinVTVideoFeatures(
            pooler_output=torch.stack(columns["video_tokens"]),
            token_weights=columns.get("token_weights"),
            token_scores=columns.get("token_scores"),
            token_grid=grid,
        )

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
                `pixel_values` or `past_key_values`.
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
        outputs = self.image_llm(labels=labels, return_dict=True, **inputs)
        contrastive_loss = None
        if return_contrastive_loss:
            pair = (None, None) if features is None else (inputs["inputs_embeds"], mm_token_type_ids == VIDEO)
            contrastive_loss = self.contrast(*pair, labels)
        outputs = LinVTCausalLMOutputWithPast(
            loss=None if outputs.loss is None else outputs.loss + ranks.zero.to(outputs.loss.device),
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
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
        embeds = llm_inputs.get("inputs_embeds")
        embedding = nullcontext()
        if embeds is not None and is_assisted(generation_config or self.generation_config, kwargs):
            del llm_inputs["inputs_embeds"]
            embedding = embedded_as(self.get_input_embeddings(), prompt, embeds)
        own_config = self.image_llm.generation_config
        self.image_llm.generation_config = self.generation_config  # the defaults are this model's
        try:
            with embedding:
                # `input_ids` stay beside `inputs_embeds`: the output starts with the prompt, and penalties see it.
                return self.image_llm.generate(prompt, generation_config=generation_config, **llm_inputs)
        finally:
            self.image_llm.generation_config = own_config

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
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_image | is_video, 0))
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
        if num_image_tokens > 0:
            ranks.announce()
            with self._encoder_grad():
                images = family.image_features(kwargs).to(embeds.device, embeds.dtype)
            if len(images) != num_image_tokens:
                raise ValueError(
                    f"The prompt has {num_image_tokens} image tokens, but the images give {len(images)}; make the "
                    "inputs with LinVTProcessor."
                )
            embeds = embeds.masked_scatter(is_image[..., None], images)
        ranks.finish(self._blank_image_tokens)
        # The images are in the embeddings now; the image-LLM shall not look for them again.
        inputs = {name: value for name, value in kwargs.items() if name not in family.image_input_names(kwargs)}
        inputs |= {"inputs_embeds": embeds, "attention_mask": attention_mask}
        position_ids = family.position_ids(input_ids, attention_mask, is_image, kwargs)
        if position_ids is not None:
            inputs["position_ids"] = position_ids
        return inputs, features

    def _pass_blanks(self, ranks: RankAgreement) -> None:
        """What a batch without videos does meanwhile."""
        ranks.finish(self._blank_frame_tokens)
        num_blanks = ranks.finish(self._blank_video_tokens)
        if ranks.needs_graph and num_blanks == 0:
            ranks.add_blank(self._blank_video_tokens())

    def _instruction_embeds(
        self, embeds: torch.Tensor, instruction_turns: torch.Tensor | None, is_video: torch.Tensor
    ) -> list[torch.Tensor] | None:
        """Per video the embeddings of the instruction of its user turn, which no gradient reaches."""
        if not self.config.video_tokenizer_config.text_conditioning:
            return None
        per_video = []
        instruction_turns = instruction_turns.to(embeds.device)
        for row_embeds, row_turns, row_video in zip(embeds.detach(), instruction_turns, is_video, strict=True):
            turns = row_turns[row_video].view(-1, self.config.num_video_tokens)[:, 0]
            per_video += [row_embeds[(row_turns == turn) & ~row_video] for turn in turns]
        return per_video

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


def _stack(parts: list[torch.Tensor]) -> torch.Tensor:
    """`torch.stack`, without a copy of a single part: V of a long video takes gigabytes."""
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def _pad(texts: list[torch.Tensor], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of different length as one tensor and the mask of what is real."""
    lengths = torch.tensor([len(text) for text in texts], device=device)
    padded = pad_sequence(texts, batch_first=True).to(device)
    return padded, torch.arange(padded.shape[1], device=device) < lengths[:, None]


__all__ = ["LinVTCausalLMOutputWithPast", "LinVTForConditionalGeneration", "LinVTVideoFeatures"]
