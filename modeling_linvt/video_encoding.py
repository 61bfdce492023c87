"""Encodes videos to video tokens: their frames to V, and V, or what is kept of it, by the video tokenizer."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import can_return_tuple

from linvt.frame_clips import clip_seconds
from linvt.frame_encoding import FrameEncodingMixin
from linvt.memory_checks import check_memory
from linvt.model_outputs import LinVTVideoFeatures
from linvt.rank_agreement import ALONE, RankAgreement, blank_frame_tokens, blank_video_tokens
from linvt.streaming_encoder import StreamingEncoder, piece_frames
from linvt.video_inputs import VideoInputs
from linvt.video_tokenizer.kept_tokens import ScoredTokens
from linvt.video_tokenizer.video_memory import VideoMemory


class _Group(NamedTuple):
    """Videos that go through the video tokenizer together, by number, and its inputs: of frames, or of memories."""

    numbers: list[int]
    grid: tuple[int, int]
    frame_tokens: torch.Tensor | None = None
    frame_seconds: torch.Tensor | None = None
    shot_ids: torch.Tensor | None = None
    kept_tokens: ScoredTokens | None = None


class VideoEncodingMixin(FrameEncodingMixin):
    """The encoding half of [`LinVTForConditionalGeneration`]."""

    get_input_embeddings: Callable[[], torch.nn.Module]

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        video_num_frames: torch.Tensor | None = None,
        video_milliseconds: torch.Tensor | None = None,
        video_shot_ids: torch.Tensor | None = None,
        video_frame_tokens: torch.Tensor | None = None,
        video_token_grid: torch.Tensor | None = None,
        video_memories: list[VideoMemory | None] | None = None,
        instruction_embeds: list[torch.Tensor] | None = None,
        num_video_tokens: int | None = None,
        output_token_weights: bool = False,
    ) -> LinVTVideoFeatures:
        """
        Encodes videos, each as if it were alone.

        Args:
            pixel_values_videos, video_num_frames, video_milliseconds, video_shot_ids, video_frame_tokens,
                video_token_grid, video_memories: See [`VideoInputs`].
            instruction_embeds (`list[torch.Tensor]`, *optional*): Per video the input embeddings of the instruction,
                `(text_length, channels)`.
            num_video_tokens (`int`, *optional*): Tokens to make of each video; those of the configuration by default,
                and always with `start="random"`.
            output_token_weights (`bool`, *optional*, defaults to `False`): Whether to return W.
        """
        videos = VideoInputs(
            pixel_values_videos,
            video_num_frames,
            video_milliseconds,
            video_shot_ids,
            video_frame_tokens,
            video_token_grid,
            video_memories,
        )
        clips = videos.clips(self.config.frames_per_patch)
        tokens, grid = self._frame_tokens_of_videos(videos, clips)
        asked = (instruction_embeds, num_video_tokens, output_token_weights)
        features = self._tokenize(videos, clips, tokens, grid, *asked)
        features.last_hidden_state = tokens
        return features

    def encode_videos(
        self,
        videos: VideoInputs,
        instruction_embeds: list[torch.Tensor] | None,
        num_video_tokens: int,
        output_token_weights: bool,
        ranks: RankAgreement,
    ) -> LinVTVideoFeatures:
        """Encodes videos as [`~LinVTForConditionalGeneration.get_video_features`] does, without keeping V."""
        clips = videos.clips(self.config.frames_per_patch)
        tokens, grid = self._frame_tokens_of_videos(videos, clips, ranks)
        ranks.finish(lambda: blank_frame_tokens(self))
        asked = (instruction_embeds, num_video_tokens, output_token_weights)
        features = self._tokenize(videos, clips, tokens, grid, *asked, ranks)
        ranks.finish(lambda: blank_video_tokens(self))
        return features

    def see(self, pieces: Iterable[Mapping[str, torch.Tensor]]) -> VideoMemory:
        """
        Sees one video, and returns its memory: the tokens that SVR keeps, which stand for it in any later prompt.
        What is held in the process does not grow with the length of the video; see [`StreamingEncoder`].

        Args:
            pieces (`Iterable[Mapping]`): Its frames in order, in pieces of any size, as
                [`LinVTVideoProcessor.iter_video`] gives them, or as the only piece what the processor returns of one
                video: `pixel_values_videos`, `video_milliseconds` and `video_shot_ids`.

        Raises:
            `TypeError`: If it is given something else, such as the path of a video.
            `ValueError`: If the pieces are not those of one video, in order, or the model keeps no tokens.

        Example:

        ```python
        >>> memory = model.see(processor.video_processor.iter_video("lecture.mp4", fps=1.0))
        >>> memory.save("lecture.memory.safetensors")
        ```
        """
        encoder = StreamingEncoder(self)
        for piece in pieces:
            encoder.add(**piece_frames(piece))
        return encoder.memory()

    def _frame_tokens_of_videos(
        self, videos: VideoInputs, clips: list[torch.Tensor], ranks: RankAgreement = ALONE
    ) -> tuple[torch.Tensor | None, tuple[int, int]]:
        """V of all videos, one after the other, and its grid; `None` where all are memories."""
        if not clips:
            return None, (1, 1)
        if videos.video_frame_tokens is None:
            frames = videos.pixel_values_videos
            tokens = self.get_frame_tokens(frames, torch.cat(clips).to(frames.device), ranks)
            return tokens, self.family.token_grid(tokens.shape[1], *frames.shape[-2:])
        if torch.is_grad_enabled() and self.family.has_trainable_encoder():
            raise ValueError(
                "video_frame_tokens are given, but the vision encoder or the projector learns, so they would not "
                "stay what it gives; freeze both (model.image_llm.requires_grad_(False)), or give pixel_values_videos."
            )
        return videos.given_tokens(clips)

    def _tokenize(
        self,
        videos: VideoInputs,
        clips: list[torch.Tensor],
        tokens: torch.Tensor | None,
        grid: tuple[int, int],
        instruction_embeds: list[torch.Tensor] | None,
        num_video_tokens: int | None,
        output_token_weights: bool,
        ranks: RankAgreement = ALONE,
    ) -> LinVTVideoFeatures:
        """Video tokens of V, and of memories."""
        groups: list[_Group] = []
        if tokens is not None:
            groups += self._groups_of_frames(videos, clips, tokens, grid)
        groups += self._groups_of_memories(videos.memories)
        outputs, order = [], []
        for group in groups:
            frame_tokens, kept_tokens = group.frame_tokens, group.kept_tokens
            embeds, mask = None, None
            if instruction_embeds is not None:
                device = (frame_tokens if kept_tokens is None else kept_tokens.tokens).device
                embeds, mask = pad_texts([instruction_embeds[video] for video in group.numbers], device)
            asked: dict[str, Any] = {
                "output_token_weights": output_token_weights,
                "num_video_tokens": num_video_tokens,
            }
            if kept_tokens is not None:  # of which RED-VILLM knows nothing
                asked["kept_tokens"] = kept_tokens
            ranks.announce()
            inputs = (frame_tokens, group.grid, group.frame_seconds, group.shot_ids, embeds, mask)
            # Returns no tuple, whatever its own configuration says.
            outputs.append(self.video_tokenizer(*inputs, **asked, return_dict=True))
            order += group.numbers
        back = [order.index(video) for video in range(len(videos))]  # to the order of the prompts
        video_tokens = outputs[0].video_tokens
        if len(outputs) > 1:
            video_tokens = torch.cat([output.video_tokens for output in outputs])[back]
        features = LinVTVideoFeatures(pooler_output=video_tokens, token_grid=groups[0].grid)
        for name in ("token_weights", "token_scores", "relevance_keys"):
            rows = []
            for output, group in zip(outputs, groups, strict=True):
                rows += [None] * len(group.numbers) if output.get(name) is None else list(output[name])
            if any(row is not None for row in rows):  # of a memory, SVR gives no scores any more
                features[name] = tuple(rows[place] for place in back)
        return features

    def _groups_of_frames(
        self, videos: VideoInputs, clips: list[torch.Tensor], tokens: torch.Tensor, grid: tuple[int, int]
    ) -> Iterator[_Group]:
        """Videos of equal length, which go through the video tokenizer together, without padding, and its inputs."""
        numbers = [number for number, memory in enumerate(videos.memories) if memory is None]
        lengths = [len(clip) for clip in clips]
        device = self.video_tokenizer_device(tokens.device)
        milliseconds, shot_ids = videos.video_milliseconds.cpu(), videos.video_shot_ids
        seconds = [clip_seconds(milliseconds, clip) for clip in clips]
        # Clips never cross a cut: the shot of a clip is that of its first frame.
        shots = None if shot_ids is None else [shot_ids.cpu()[clip[:, 0]] for clip in clips]
        per_video = tokens.split(lengths)
        for length in sorted(set(lengths)):
            group = [place for place in range(len(clips)) if lengths[place] == length]
            yield _Group(
                [numbers[place] for place in group],
                grid,
                _stack([per_video[place] for place in group]).to(device),
                _stack([seconds[place] for place in group]).to(device),
                None if shots is None else _stack([shots[place] for place in group]).to(device),
            )

    def _groups_of_memories(self, memories: list[VideoMemory | None]) -> Iterator[_Group]:
        """The same of memories with equally many tokens."""
        device = self.video_tokenizer_device(self.get_input_embeddings().weight.device)
        groups: dict[tuple, list[tuple[int, ScoredTokens]]] = {}
        for number, memory in enumerate(memories):
            if memory is not None:
                check_memory(self, memory)
                groups.setdefault((len(memory), memory.grid), []).append((number, memory.scored_tokens(device)))
        for (_, grid), group in groups.items():
            parts = zip(*(scored for _, scored in group), strict=True)
            kept = ScoredTokens(*(torch.cat(values) for values in parts))
            yield _Group([number for number, _ in group], grid, kept_tokens=kept)

    def video_tokenizer_device(self, device: torch.device) -> torch.device:
        """
        Returns the device of its weights. Where there are none (the average tokens of Tab. 2), or Accelerate keeps
        them elsewhere and brings them and their inputs together (the meta device stands for that), it is `device`.
        """
        devices = (parameter.device for parameter in self.video_tokenizer.parameters())
        return next((place for place in devices if place.type != "meta"), device)


# Called with tensors of several ranks, it would be compiled with shapes as variables, for which PyTorch 2.9 needs
# setuptools, which it does not require.
@torch.compiler.disable
def _stack(parts: list[torch.Tensor]) -> torch.Tensor:
    """`torch.stack`, without a copy of a single part: V of a long video takes gigabytes."""
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def pad_texts(texts: list[torch.Tensor], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of different length as one tensor, and a mask of the non-padding positions."""
    lengths = torch.tensor([len(text) for text in texts], device=device)
    padded = pad_sequence(texts, batch_first=True).to(device)
    return padded, torch.arange(padded.shape[1], device=device) < lengths[:, None]


__all__ = ["VideoEncodingMixin", "pad_texts"]
