"""Encodes a video piece by piece, in memory that does not grow with it, and keeps the best frame tokens."""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from linvt.fingerprints import memory_fingerprints
from linvt.frame_clips import clip_seconds, frame_clips
from linvt.memory_checks import check_keeps_tokens
from linvt.video_tokenizer.kept_tokens import best_places
from linvt.video_tokenizer.video_memory import VideoMemory


class _Clip(NamedTuple):
    """Frames that the encoder takes in together, `config.frames_per_patch` of them, or fewer before a cut."""

    frames: list[torch.Tensor]
    milliseconds: list[int]
    shot: int


class _EncodedClip(NamedTuple):
    tokens: torch.Tensor  # (tokens per frame, channels)
    seconds: torch.Tensor  # ()
    shot: int
    num_frames: int
    batch_frame: int  # number of the first frame of its batch, and
    place: int  # its place in this batch


class ClosedPart(NamedTuple):
    """
    Says where another [`StreamingEncoder`] can resume, to end with the same memory bit for bit.

    Args:
        memory ([`VideoMemory`], *optional*): That of all shots and windows that are over.
        next_frame (`int`): Number of the first frame that is to be added.
        num_skipped (`int`): Clips from there on that `memory` holds already; they are encoded again only so that the
            batches of the encoder stay the same.
    """

    memory: VideoMemory | None
    next_frame: int
    num_skipped: int


class StreamingEncoder:
    """
    Sees a video piece by piece: encodes its frames in full batches, scores every shot (or window of a long one) as
    soon as it is over, and keeps the `top_k` best tokens. What it holds does not depend on the length of the video;
    only where scores depend on all of it (learnt ones of `temporal_attention="video"`), V is held as a whole.

    Args:
        model ([`LinVTForConditionalGeneration`]): With SVR, which is what chooses.
        closed ([`ClosedPart`], *optional*): Where another one has stopped, to resume there.

    Raises:
        `ValueError`: If its video tokenizer keeps no tokens, as RED-VILLM or one without SVR.
    """

    def __init__(self, model: PreTrainedModel, closed: ClosedPart | None = None):
        check_keeps_tokens(model)
        self.model = model
        self.by_shot = model.video_tokenizer.scores_shot_by_shot
        self._fingerprints = memory_fingerprints(model)
        closed = ClosedPart(None, 0, 0) if closed is None else closed
        self._closed, self._num_frames, self._num_skipped = closed
        self._grid: tuple[int, int] | None = None
        self._frame_size: tuple | None = None
        self._last_milliseconds: int | None = None
        self._clips: list[_Clip] = []  # not yet encoded; the last one may be short of frames
        self._window: list[_EncodedClip] = []  # of the shot that goes on

    @torch.no_grad()
    def add(
        self,
        pixel_values_videos: torch.Tensor,
        video_milliseconds: torch.Tensor,
        video_shot_ids: torch.Tensor | None = None,
    ) -> None:
        """
        Adds the next frames of the video.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(frames, 3, height, width)`): Normalised frames.
            video_milliseconds (`torch.LongTensor` of shape `(frames,)`): When they are shown, ascending.
            video_shot_ids (`torch.LongTensor` of shape `(frames,)`, *optional*): Shots that they belong to; one shot
                by default.

        Raises:
            `ValueError`: If there are not as many times or shots as frames, if times do not ascend, or if frames have
                another size than those before.
        """
        number = len(pixel_values_videos)
        shots = torch.zeros(number, dtype=torch.long) if video_shot_ids is None else video_shot_ids
        if video_milliseconds.shape != (number,) or shots.shape != (number,):
            raise ValueError(
                f"{number} frames came with times of shape {tuple(video_milliseconds.shape)} and shots of shape "
                f"{tuple(shots.shape)}; expected one of each per frame."
            )
        size = tuple(pixel_values_videos.shape[1:])
        self._frame_size = self._frame_size or size
        if size != self._frame_size:
            raise ValueError(
                f"Frames of shape {size} came after frames of shape {self._frame_size} of the same video."
            )
        for frame, time, shot in zip(pixel_values_videos, video_milliseconds.tolist(), shots.tolist(), strict=True):
            if self._last_milliseconds is not None and time <= self._last_milliseconds:
                raise ValueError(
                    f"A frame at {time} ms came after one at {self._last_milliseconds} ms; times have to ascend."
                )
            self._last_milliseconds = time
            self._add_frame(frame, time, shot)

    @torch.no_grad()
    def memory(self) -> VideoMemory:
        """
        Returns the memory of what was seen so far, as if the video ended here, on the CPU. More frames may follow.

        Raises:
            `ValueError`: If no frame was seen.
        """
        rest = copy.copy(self)
        rest._clips, rest._window = list(self._clips), list(self._window)
        rest._encode()
        rest._close_window()
        if rest._closed is None:
            raise ValueError("No frame of the video was seen, so there is nothing to remember.")
        return rest._closed.to("cpu")

    def closed_part(self) -> ClosedPart:
        """Returns where to resume after the last shot or window that is over, to be saved while a video is seen."""
        memory = None if self._closed is None else self._closed.to("cpu")
        if self._window:
            return ClosedPart(memory, self._window[0].batch_frame, self._window[0].place)
        return ClosedPart(memory, self._num_frames - sum(len(clip.frames) for clip in self._clips), self._num_skipped)

    def _add_frame(self, frame: torch.Tensor, milliseconds: int, shot: int) -> None:
        per_patch = self.model.config.frames_per_patch
        last = self._clips[-1] if self._clips else None
        if last is not None and last.shot == shot and len(last.frames) < per_patch:
            self._clips[-1] = _Clip([*last.frames, frame], [*last.milliseconds, milliseconds], shot)
        else:
            if len(self._clips) == max(self.model.config.frames_per_batch // per_patch, 1):
                self._encode()
            self._clips.append(_Clip([frame], [milliseconds], shot))
        self._num_frames += 1

    def _encode(self) -> None:
        """Encodes the clips that wait, and closes the shots and windows that they end."""
        clips, self._clips = self._clips, []
        if not clips:
            return
        model, per_patch = self.model, self.model.config.frames_per_patch
        batch_frame = self._num_frames - sum(len(clip.frames) for clip in clips)
        frames = torch.stack([frame for clip in clips for frame in clip.frames]).to(model.device)
        # Each clip as a shot of its own: a short one repeats its last frame, here as where a video is given at once.
        numbers = torch.tensor([number for number, clip in enumerate(clips) for _ in clip.frames])
        places = frame_clips(numbers, per_patch)
        seconds = clip_seconds(torch.tensor([time for clip in clips for time in clip.milliseconds]), places)
        tokens = model.get_frame_tokens(frames, places.to(frames.device))
        self._grid = model.family.token_grid(tokens.shape[1], *frames.shape[-2:])
        for place, clip in enumerate(clips):
            if self._num_skipped > 0:
                self._num_skipped -= 1
                continue
            begins = bool(self._window) and clip.shot != self._window[-1].shot
            is_full = len(self._window) == model.config.video_tokenizer_config.max_shot_frames
            if self.by_shot and (begins or is_full):
                self._close_window()
            about = (clip.shot, len(clip.frames), batch_frame, place)
            self._window.append(_EncodedClip(tokens[place], seconds[place], *about))

    def _close_window(self) -> None:
        """Scores the tokens of the window, and keeps the best of these and of those before."""
        window, self._window = self._window, []
        if not window:
            return
        tokens = torch.stack([encoded.tokens for encoded in window])
        seconds = torch.stack([encoded.seconds for encoded in window])
        shots = torch.tensor([encoded.shot for encoded in window])
        num_frames = sum(encoded.num_frames for encoded in window)
        about = (self._grid or (1, 1), seconds, shots, num_frames, self._fingerprints)
        memory = keep_best(self.model, tokens, *about)
        if self._closed is not None:
            memory = VideoMemory.merge(self._closed.to(memory.tokens.device), memory).in_one_span()
        self._closed = memory


def piece_frames(piece: Mapping[str, torch.Tensor], start: int = 0) -> dict[str, torch.Tensor]:
    """
    Returns the frames of a piece, as [`StreamingEncoder.add`] takes them.

    Args:
        piece (`Mapping[str, torch.Tensor]`): As [`LinVTVideoProcessor.iter_video`] gives it.
        start (`int`, *optional*, defaults to 0): Frames of the piece to leave out, from its first on.

    Raises:
        `TypeError`: If it is something else, such as the path of a video.
        `ValueError`: If it holds several videos.
    """
    if not isinstance(piece, Mapping) or not {"pixel_values_videos", "video_milliseconds"} <= piece.keys():
        found = f"{type(piece).__name__} of {[*piece]}" if isinstance(piece, Mapping) else type(piece).__name__
        raise TypeError(
            f"A piece of a video is a {found}; expected a mapping with pixel_values_videos and video_milliseconds. "
            "Give see(processor.video_processor.iter_video(VIDEO, fps=1.0)), or "
            "see([processor.video_processor(VIDEO)])."
        )
    num_videos = len(piece.get("video_num_frames", (0,)))
    if num_videos != 1:
        raise ValueError(f"A piece holds {num_videos} videos; a memory is of one video.")
    names = ("pixel_values_videos", "video_milliseconds", "video_shot_ids")
    return {name: piece[name][start:] for name in names if name in piece}


@torch.no_grad()
def keep_best(
    model: PreTrainedModel,
    frame_tokens: torch.Tensor,
    grid: tuple[int, int],
    frame_seconds: torch.Tensor,
    shot_ids: torch.Tensor,
    num_frames: int,
    fingerprints: tuple[str, str],
) -> VideoMemory:
    """
    Keeps the best tokens of a video, or of a part of it that holds whole windows.

    Args:
        frame_tokens (`torch.Tensor` of shape `(clips, tokens per clip, channels)`): V.
        grid (`tuple[int, int]`): Rows and columns of the tokens of a clip.
        frame_seconds (`torch.Tensor` of shape `(clips,)`): Time of each clip.
        shot_ids (`torch.LongTensor` of shape `(clips,)`): Shot of each clip.
        num_frames (`int`): Frames that these clips show.
        fingerprints (`tuple[str, str]`): Those of the model, as `memory_fingerprints` gives them.
    """
    tokenizer, (encoder, scorer) = model.video_tokenizer, fingerprints
    device = model.video_tokenizer_device(frame_tokens.device)
    tokens, seconds, shots = (values.to(device)[None] for values in (frame_tokens, frame_seconds, shot_ids))
    scored = tokenizer.score(tokens, grid, seconds, shots)
    # Numbers of windows would depend on where the part begins in the video; when they begin does not.
    starts = scored.seconds.take_along_dim(torch.searchsorted(scored.shots, scored.shots), 1)
    scored = scored._replace(shots=(1000 * starts.double()).round().long())
    kept = scored.select(best_places(scored.scores, tokenizer.config.top_k))
    first, last = kept.span_seconds[0].tolist()
    return VideoMemory(
        *(values[0] for values in kept[:-1]),
        grid=grid,
        spans_seconds=((first, last),),
        num_frames=num_frames,
        top_k=tokenizer.config.top_k,
        encoder=encoder,
        scorer=scorer,
        mergeable=tokenizer.scores_shot_by_shot,
    )


__all__ = ["ClosedPart", "StreamingEncoder", "keep_best", "piece_frames"]
