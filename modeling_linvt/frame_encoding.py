"""Encodes frames to V by the image-LLM's encoder."""

import torch
from transformers import PreTrainedModel

from linvt.configuration.configuration_linvt import LinVTConfig
from linvt.frame_clips import frame_clips
from linvt.image_llms.family_table import ImageLLMFamily, image_llm_family, projector_family
from linvt.rank_agreement import ALONE, RankAgreement


class FrameEncodingMixin:
    """Encodes frames: the part of [`LinVTForConditionalGeneration`] before the video tokenizer."""

    config: LinVTConfig
    dtype: torch.dtype
    image_llm: PreTrainedModel
    video_tokenizer: PreTrainedModel

    @property
    def family(self) -> ImageLLMFamily:
        """Returns how this image-LLM differs from others."""
        return image_llm_family(self.image_llm)

    def frame_size(self) -> dict[str, int] | None:
        """
        Returns `height` and `width` in pixels that frames have by default; `None` where the configuration of the
        image-LLM does not say, since only its image processor knows.
        """
        size = self.family.frame_size()
        return None if size is None else {"height": size[0], "width": size[1]}

    # A compiled training step would leave gradients off for good: the code around this call is compiled in pieces, and
    # a piece that begins inside of `set_grad_enabled` does not end it (PyTorch 2.14).
    @torch.compiler.disable
    def get_frame_tokens(
        self, frames: torch.Tensor, clips: torch.Tensor | None = None, ranks: RankAgreement = ALONE
    ) -> torch.Tensor:
        """
        Encodes frames to V, the image-LLM's visual tokens, `config.frames_per_batch` frames at a time. For RED-VILLM,
        whose video tokenizer has projectors of its own, to the features of the vision encoder.

        Args:
            frames (`torch.Tensor` of shape `(frames, 3, height, width)`): Normalised frames.
            clips (`torch.LongTensor` of shape `(clips, frames_per_patch)`, *optional*): Places of the frames that
                the encoder takes in together; each frame alone by default.
            ranks ([`RankAgreement`], *optional*): Told of every call of the encoder.

        Returns:
            `torch.Tensor` of shape `(clips, tokens per clip, channels)`.
        """
        if clips is None:
            clips = torch.arange(len(frames), device=frames.device)[:, None]
        before_projector = self.video_tokenizer.input_stage == "features"
        encode = projector_family(self.image_llm).encoder_features if before_projector else self.family.frame_tokens
        tokens, done = None, 0
        with self.encoder_grad():
            for batch in clips.split(max(self.config.frames_per_batch // clips.shape[1], 1)):
                ranks.announce()
                batch_tokens = encode(frames[batch].to(self.dtype))
                if not before_projector:
                    self._check_frame_tokens(batch_tokens, len(batch))
                if tokens is None:
                    # Filled batch by batch: a list that is joined at the end would need twice the memory of V.
                    tokens = batch_tokens.new_empty(len(clips), *batch_tokens.shape[1:])
                tokens[done : done + len(batch)] = batch_tokens
                done += len(batch)
        return tokens

    def encode_video(self, frames: torch.Tensor, shot_ids: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """
        Encodes one video to V, to be kept and given as `video_frame_tokens` in place of its frames.

        Args:
            frames (`torch.Tensor` of shape `(frames, 3, height, width)`): Normalised frames.
            shot_ids (`torch.LongTensor` of shape `(frames,)`): Shot of each frame.

        Returns:
            `torch.Tensor` of shape `(clips, tokens per clip, channels)`, and the rows and columns of these tokens.
        """
        tokens = self.get_frame_tokens(frames, frame_clips(shot_ids, self.config.frames_per_patch))
        return tokens, self.family.token_grid(tokens.shape[1], *frames.shape[-2:])

    def encoder_grad(self) -> torch.set_grad_enabled:
        """
        Enables gradients where the encoder learns, and disables them elsewhere: gradient checkpointing makes inputs
        require gradients, also those of a frozen encoder, which needs no graph.
        """
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.family.has_trainable_encoder())

    def _check_frame_tokens(self, tokens: torch.Tensor, num_clips: int) -> None:
        channels = self.config.video_tokenizer_config.embedding_size
        if tokens.dim() != 3 or len(tokens) != num_clips or tokens.shape[2] != channels:
            raise ValueError(
                f"{type(self.image_llm).__name__} gave visual tokens of shape {tuple(tokens.shape)} for {num_clips} "
                f"frames; expected ({num_clips}, tokens per frame, {channels}). It needs a family of its own in "
                "image_llms/family_table.py."
            )


__all__ = ["FrameEncodingMixin"]
