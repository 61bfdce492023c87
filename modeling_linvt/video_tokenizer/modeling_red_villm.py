"""RED-VILLM's video tokens, a baseline for LinVT: features of the frames are averaged over time and over space, and
copies of the image-LLM's projector align the means with its language model.

It stands where LinVT's video tokenizer stands, with the same call, but it reads what the vision encoder gives, before
the projector. The projector is not linear, so video tokens are no averages of frame tokens and there is no W.

Section and table numbers are those of "From Image to Video, what do we need in multimodal LLMs?" (Huang et al., 2024).
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import can_return_tuple

from linvt.configuration.configuration_red_villm import RedVillmVideoConfig
from linvt.image_llms.family_table import projector_family
from linvt.video_tokenizer.layer_states import refuse_layer_states
from linvt.video_tokenizer.modeling_linvt_video import LinVTVideoOutput


class RedVillmVideoModel(PreTrainedModel):
    """
    The alignment module for videos and the temporal module, which are all that learns (Sec. 3.4). The paper trains the
    image-LLM's own alignment module; here it is a copy, so that images are understood as before.

    Args:
        config (`RedVillmVideoConfig`): Its configuration.
        image_llm (`PreTrainedModel`): The image-LLM whose projector is copied; it is not kept. `from_pretrained` takes
            it too, `RedVillmVideoModel.from_pretrained(path, image_llm=image_llm)`.

    Raises:
        `ValueError`: If there is no image-LLM, or none whose projector can be copied.
    """

    config_class = RedVillmVideoConfig
    config: RedVillmVideoConfig
    base_model_prefix = "video_tokenizer"
    main_input_name = "frame_features"
    input_stage = "features"
    only_merges = False  # it makes video tokens with copies of the projector, trained or not
    # It has no attention, so any implementation that the image-LLM runs with is right.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: RedVillmVideoConfig, image_llm: PreTrainedModel | None = None):
        super().__init__(config)
        if image_llm is None:
            raise ValueError(
                "RedVillmVideoModel is made of copies of an image-LLM's projector; give image_llm, or load the whole "
                "model with LinVTForConditionalGeneration.from_pretrained."
            )
        family = projector_family(image_llm)
        self.alignment_module = family.fresh_projector()
        self.temporal_module = family.fresh_projector() if config.temporal_module else None
        size = config.embedding_size
        self.additional_mlp = _mlp(size) if config.additional_mlp else None  # type: ignore[arg-type]  # LinVTConfig sets it
        self.post_init()
        _copy_weights(family.projector(), self.alignment_module)
        if self.temporal_module is not None and config.temporal_module_init == "projector":
            _copy_weights(family.projector(), self.temporal_module)

    @can_return_tuple
    @refuse_layer_states
    def forward(
        self,
        frame_features: torch.Tensor,
        grid: tuple[int, int] | None = None,
        frame_seconds: torch.Tensor | None = None,
        shot_ids: torch.Tensor | None = None,
        instruction_embeds: torch.Tensor | None = None,
        instruction_mask: torch.Tensor | None = None,
        output_token_weights: bool = False,
        num_video_tokens: int | None = None,
    ) -> LinVTVideoOutput:
        """
        Args:
            frame_features (`torch.Tensor` of shape `(videos, frames, tokens per frame, channels of the encoder)`):
                What the vision encoder gives to the projector. Of a video with fewer frames than `num_frames`, frames
                give several temporal features, evenly, as if they had been sampled several times.
            grid, frame_seconds, shot_ids, instruction_embeds, instruction_mask: Read by LinVT only.
            output_token_weights (`bool`, *optional*, defaults to `False`): Must be `False`: there is no W.
            num_video_tokens (`int`, *optional*): Must be that of the configuration.

        Returns:
            [`LinVTVideoOutput`] with `video_tokens` of shape `(videos, num_video_tokens, embedding_size)`.

        Raises:
            `ValueError`: If W is asked for, or if a video has more frames, or a frame another number of
                tokens, than the configuration says.
        """
        if output_token_weights:
            raise ValueError(
                "output_token_weights is True, but RED-VILLM's video tokens are no weighted averages of frame tokens: "
                "they come out of a projector, which is not linear. Leave it out."
            )
        self._check_sizes(*frame_features.shape[1:3])
        if num_video_tokens is not None:
            self.config.check_num_video_tokens(num_video_tokens)
        # The temporal features t are the T means over space, as in Eq. 2, Sec. 4.3 and Sec. 4.4; Sec. 3.2 alone has t
        # and z the other way round.
        tokens = []
        if self.config.pooling != "temporal":
            align = self._align if self.temporal_module is None else self.temporal_module
            times = torch.arange(self.config.num_frames, device=frame_features.device)
            times = times * frame_features.shape[1] // self.config.num_frames
            tokens.append(align(frame_features.mean(2)[:, times].to(self.dtype)))  # (videos, T, channels)
        if self.config.pooling != "spatial":
            tokens.append(self._align(frame_features.mean(1).to(self.dtype)))  # (videos, N, channels)
        return LinVTVideoOutput(video_tokens=torch.cat(tokens, dim=1))  # Eq. 3: [Q_t, Q_z]

    def blank_video(self, device: torch.device, dtype: torch.dtype) -> tuple:
        """Inputs of `forward` that all its weights take part in; see `rank_agreement.py`."""
        channels = next(self.alignment_module.parameters()).shape[-1]  # of a norm or of a linear layer: what it takes
        shape = (1, self.config.num_frames, self.config.num_frame_tokens, channels)
        return (torch.zeros(shape, device=device, dtype=dtype),)

    def _align(self, features: torch.Tensor) -> torch.Tensor:
        aligned = self.alignment_module(features)
        return aligned if self.additional_mlp is None else self.additional_mlp(aligned)

    def _check_sizes(self, num_frames: int, num_frame_tokens: int) -> None:
        config = self.config
        if config.pooling != "temporal" and num_frames > config.num_frames:
            raise ValueError(
                f"A video has {num_frames} frames, but RED-VILLM makes a token of each and num_frames is "
                f"{config.num_frames}; set num_frames={config.num_frames} in the processor."
            )
        if config.pooling != "spatial" and num_frame_tokens != config.num_frame_tokens:
            raise ValueError(
                f"A frame of this size has {num_frame_tokens} tokens, but num_frame_tokens is "
                f"{config.num_frame_tokens}; set num_frame_tokens={num_frame_tokens} when the image-LLM is wrapped, "
                "or change the frame size of the processor."
            )


def _mlp(channels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))


def _copy_weights(projector: nn.Module, module: nn.Module) -> None:
    if any(parameter.is_meta for parameter in module.parameters()):
        return  # `from_pretrained` builds on the meta device and loads the weights afterwards
    try:
        module.load_state_dict(projector.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "The weights of the image-LLM's projector cannot be copied: they are quantised, offloaded or spread over "
            f"processes ({error}). Wrap the image-LLM where its weights are whole and save the model."
        ) from error


__all__ = ["RedVillmVideoModel"]
