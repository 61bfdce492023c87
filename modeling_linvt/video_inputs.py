"""The videos of a batch as the model takes them: the frames of all videos in a row, and how many each video has."""

from dataclasses import dataclass, fields
from typing import Any

import torch

from linvt.frame_clips import frame_clips
from linvt.video_tokenizer.video_memory import VideoMemory


_MADE_BY = "make the inputs with LinVTProcessor"


@dataclass
class VideoInputs:
    """
    Carries the videos of a batch, in the order of the prompts, and checks that they belong together.

    Args:
        pixel_values_videos (`torch.Tensor` of shape `(frames, 3, height, width)`, *optional*): Normalised frames of
            all videos, one video after the other.
        video_num_frames (`torch.LongTensor` of shape `(videos,)`): Number of frames of each video; 0 of a memory.
        video_milliseconds (`torch.LongTensor` of shape `(frames,)`): Time of each frame, in milliseconds from the
            start of its video.
        video_shot_ids (`torch.LongTensor` of shape `(frames,)`, *optional*): Shot of each frame. By default every
            video is one shot.
        video_frame_tokens (`torch.Tensor` of shape `(clips, tokens per clip, channels)`, *optional*): V of all
            videos, as [`~LinVTForConditionalGeneration.encode_video`] gives it, in place of `pixel_values_videos`: the
            vision encoder does not run.
        video_token_grid (`torch.LongTensor` of shape `(videos, 2)`, *optional*): Rows and columns of the tokens of a
            clip, needed with `video_frame_tokens`; the same for all videos.
        video_memories (`list[VideoMemory | None]`, *optional*): Memories of videos that were seen before, and `None`
            for the videos whose frames, or V, are given.

    Raises:
        `ValueError`: If one is missing, or their shapes do not fit each other.
    """

    pixel_values_videos: torch.Tensor | None = None
    video_num_frames: torch.Tensor | None = None
    video_milliseconds: torch.Tensor | None = None
    video_shot_ids: torch.Tensor | None = None
    video_frame_tokens: torch.Tensor | None = None
    video_token_grid: torch.Tensor | None = None
    video_memories: list[VideoMemory | None] | None = None

    def __post_init__(self):
        counts: Any = self.video_num_frames
        if counts is None:
            raise ValueError(f"A video is given without video_num_frames; {_MADE_BY}.")
        least = 1 if self.video_memories is None else 0
        if counts.dim() != 1 or counts.is_floating_point() or len(counts) == 0 or int(counts.min()) < least:
            raise ValueError(
                f"video_num_frames is {_told(counts)}; expected one count of frames per video, above 0, or 0 for one "
                "whose memory is given."
            )
        # Counts, times and shots decide shapes, so they are looked up on the CPU, once: asked for video by video, an
        # accelerator would have to finish its work each time.
        self.num_frames: list[int] = counts.tolist()
        self.memories: list[VideoMemory | None] = _checked_memories(self.video_memories) or [None] * len(counts)
        if [memory is not None for memory in self.memories] != [number == 0 for number in self.num_frames]:
            raise ValueError(
                f"video_memories has {len(self.memories)} entries that do not fit the video_num_frames "
                f"{self.num_frames}; expected a memory where there are 0 frames, and None elsewhere."
            )
        if not any(self.num_frames):
            of_frames = set(self.names()) - {"video_num_frames", "video_memories"}
            stray = sorted(name for name in of_frames if getattr(self, name) is not None)
            if stray:
                raise ValueError(f"{', '.join(stray)} given, but by video_num_frames every video is a memory.")
            return
        if (self.pixel_values_videos is None) == (self.video_frame_tokens is None):
            raise ValueError("Give either pixel_values_videos, or video_frame_tokens with their video_token_grid.")
        needed = ["video_milliseconds"]
        needed += ["video_token_grid"] if self.video_frame_tokens is not None else []
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"A video is given without {', '.join(missing)}; {_MADE_BY}.")
        self._check_flat("video_milliseconds", 1)
        self._check_flat("video_shot_ids", 1)
        self._check_flat("pixel_values_videos", 4)
        if self.video_frame_tokens is not None and self.video_frame_tokens.dim() != 3:
            raise ValueError(
                f"video_frame_tokens have shape {tuple(self.video_frame_tokens.shape)}; expected (clips of all "
                "videos, tokens per clip, channels)."
            )

    @classmethod
    def names(cls) -> list[str]:
        """Lists the names under which a model takes them."""
        return [field.name for field in fields(cls)]

    @classmethod
    def pop_from(cls, inputs: dict) -> "VideoInputs | None":
        """Takes the videos out of model inputs; `None` if there are none."""
        videos = {name: inputs.pop(name, None) for name in cls.names()}
        given = [name for name, value in videos.items() if value is not None]
        return cls(**videos) if given else None

    def __len__(self) -> int:
        """Counts the videos."""
        return len(self.num_frames)

    def clips(self, frames_per_patch: int) -> list[torch.Tensor]:
        """
        Returns for each video with frames their places in the row, `(clips, frames_per_patch)`, on the CPU.
        """
        clips, start = [], 0
        shot_ids = None if self.video_shot_ids is None else self.video_shot_ids.cpu()
        for number in filter(None, self.num_frames):
            shots = torch.zeros(number, dtype=torch.long) if shot_ids is None else shot_ids[start : start + number]
            clips.append(start + frame_clips(shots, frames_per_patch))
            start += number
        return clips

    def given_tokens(self, clips: list[torch.Tensor]) -> tuple[torch.Tensor, tuple[int, int]]:
        """
        Returns V that was made before, `(clips, tokens per clip, channels)`, and its rows and columns.

        Raises:
            `ValueError`: If it does not fit these clips, or the grids of the videos differ.
        """
        token_grid: Any = self.video_token_grid
        grids = set(map(tuple, token_grid.tolist()))
        if len(grids) != 1 or len(token_grid) != len(clips):
            raise ValueError(
                f"video_token_grid is {token_grid.tolist()} for {len(clips)} videos; expected one pair of "
                "rows and columns per video, the same for all."
            )
        ((rows, columns),) = grids
        expected = (sum(map(len, clips)), rows * columns)
        if self.video_frame_tokens.shape[:2] != expected:
            raise ValueError(
                f"video_frame_tokens have shape {tuple(self.video_frame_tokens.shape)}; expected ({expected[0]}, "
                f"{expected[1]}, channels) for videos of {[len(clip) for clip in clips]} clips with {rows} x "
                f"{columns} tokens. Were they made with another frames_per_patch?"
            )
        return self.video_frame_tokens, (rows, columns)

    def _check_flat(self, name: str, dimensions: int) -> None:
        value, total = getattr(self, name), sum(self.num_frames)
        if value is not None and (value.dim() != dimensions or len(value) != total):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, but video_num_frames {self.num_frames} says that the videos "
                f"have {total} frames, one after the other; {_MADE_BY}."
            )


def _checked_memories(memories: Any) -> list[VideoMemory | None]:
    for memory in memories if isinstance(memories, (list, tuple)) else [memories]:
        if memory is not None and not isinstance(memory, VideoMemory):
            raise TypeError(f"video_memories hold a {type(memory).__name__}; expected VideoMemory; {_MADE_BY}.")
    if not isinstance(memories, (list, tuple, type(None))):
        raise TypeError(f"video_memories is a {type(memories).__name__}; expected a list, with one entry per video.")
    return list(memories or ())


def _told(value: torch.Tensor) -> str:
    return f"{value.tolist()}" if value.numel() < 20 else f"of shape {tuple(value.shape)} and dtype {value.dtype}"


__all__ = ["VideoInputs"]
