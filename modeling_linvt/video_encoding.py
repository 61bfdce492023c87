"""The way of a video through the model: frames to V by the image-LLM's encoder, V to video tokens.

Here is also what ranks do meanwhile whose batches hold fewer videos; see `rank_agreement.py`.
"""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from linvt.configuration.configuration_linvt import LinVTConfig
from linvt.contrastive_loss import VideoTextContrast
from linvt.frame_clips import frame_clips
from linvt.given_frame_tokens import given_frame_tokens
from linvt.image_llms.family_table import image_llm_family, projector_family
from linvt.rank_agreement import ALONE, RankAgreement


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


class VideoEncodingMixin:
    """Methods of [`LinVTForConditionalGeneration`] that turn videos into video tokens."""

    config: LinVTConfig
    dtype: torch.dtype
    image_llm: PreTrainedModel
    video_tokenizer: PreTrainedModel
    contrast: VideoTextContrast

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
        # Which frames are real decides shapes, so it is looked up on the CPU, once: asked for video by video, an
        # accelerator would have to finish its work each time.
        milliseconds, all_shots = video_milliseconds.cpu(), video_shot_ids.cpu()
        clips, seconds, shot_ids = [], [], []
        for video in range(num_videos):
            shots = all_shots[video][all_shots[video] >= 0]
            if len(shots) == 0:
                raise ValueError(f"Video {video} of {num_videos} has no frames: all its video_shot_ids are padding.")
            clips.append(frame_clips(shots, self.config.frames_per_patch))
            seconds.append(milliseconds[video][clips[-1]].float().mean(1) / 1000)
            shot_ids.append(shots[clips[-1][:, 0]])
        if video_frame_tokens is None:
            all_clips = torch.cat([clip + video * max_frames for video, clip in enumerate(clips)])
            all_clips = all_clips.to(pixel_values_videos.device)
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

        # Videos of equal length go through the video tokenizer together: there is never a padded frame in it.
        groups: dict[int, list[int]] = {}
        for video in sorted(range(num_videos), key=lambda video: len(clips[video])):
            groups.setdefault(len(clips[video]), []).append(video)
        outputs = []
        for group in groups.values():
            texts = [None] if instruction_embeds is None else [instruction_embeds[video] for video in group]
            embeds, mask = (None, None) if texts[0] is None else _pad(texts, device)
            ranks.announce()
            outputs.append(
                self.video_tokenizer(
                    _stack([tokens[video] for video in group]).to(device),
                    grid,
                    _stack([seconds[video] for video in group]).to(device),
                    _stack([shot_ids[video] for video in group]).to(device),
                    embeds,
                    mask,
                    output_token_weights=output_token_weights,
                )
            )
        ranks.finish(self._blank_video_tokens)
        order = sorted(range(num_videos), key=sum(groups.values(), []).__getitem__)  # back to that of the prompts
        per_video = {}
        for name in ("token_weights", "token_scores"):
            if outputs[0].get(name) is not None:
                rows = [row for output in outputs for row in output[name]]
                per_video[name] = tuple(rows[place] for place in order)
        video_tokens = outputs[0].video_tokens
        if len(outputs) > 1:
            video_tokens = torch.cat([output.video_tokens for output in outputs])[order]
        return LinVTVideoFeatures(pooler_output=video_tokens, token_grid=grid, **per_video)

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
        encode = projector_family(self.image_llm).encoder_features if before_projector else family.frame_tokens
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

    def _pass_blanks(self, ranks: RankAgreement) -> None:
        """What a batch without videos does meanwhile."""
        ranks.finish(self._blank_frame_tokens)
        num_blanks = ranks.finish(self._blank_video_tokens)
        if ranks.needs_graph and num_blanks == 0:
            ranks.add_blank(self._blank_video_tokens())

    def _check_frame_tokens(self, tokens: torch.Tensor, num_clips: int) -> None:
        channels = self.config.video_tokenizer_config.embedding_size
        if tokens.dim() != 3 or len(tokens) != num_clips or tokens.shape[2] != channels:
            raise ValueError(
                f"{type(self.image_llm).__name__} gave visual tokens of shape {tuple(tokens.shape)} for {num_clips} "
                f"frames; expected ({num_clips}, tokens per frame, {channels}). It needs a family of its own in "
                "image_llm_families.py."
            )

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
        # By position: around a module that learns beside LoRA, PEFT before 0.20 puts one that takes no names alone.
        return self.video_tokenizer(*blank).video_tokens

    def _blank_image_tokens(self) -> torch.Tensor:
        with self._encoder_grad():
            return image_llm_family(self.image_llm).frame_tokens(self._blank_frames()[None].to(self.dtype))


def _stack(parts: list[torch.Tensor]) -> torch.Tensor:
    """`torch.stack`, without a copy of a single part: V of a long video takes gigabytes."""
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def _pad(texts: list[torch.Tensor], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of different length as one tensor and the mask of what is real."""
    lengths = torch.tensor([len(text) for text in texts], device=device)
    padded = pad_sequence(texts, batch_first=True).to(device)
    return padded, torch.arange(padded.shape[1], device=device) < lengths[:, None]


__all__ = ["LinVTVideoFeatures", "VideoEncodingMixin"]
