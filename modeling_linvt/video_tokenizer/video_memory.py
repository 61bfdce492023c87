"""A video that was seen, however long: the frame tokens that SVR has kept of it. It stands wherever a video does.

Memories of parts of a video can be merged. Tokens are known by their time and place, and shots by when they start, so
nothing depends on how a video was cut into parts, or in which order these are merged.
"""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from linvt.checkpoints.atomic_file import new_file
from linvt.video_tokenizer.kept_tokens import ScoredTokens, best_places


MEMORY_SUFFIX = ".memory.safetensors"

_KEY = "linvt_video_memory"  # of the metadata in a file
_VERSION = 1
_DTYPES = {
    "tokens": (torch.float32, torch.bfloat16, torch.float16),
    "scores": (torch.float32,),
    "score_bias": (torch.float32,),
    "seconds": (torch.float32,),
    "places": (torch.int64,),
    "shots": (torch.int64,),
}


class VideoMemory:
    """
    Holds what was kept of one video.

    Args:
        tokens (`torch.Tensor` of shape `(tokens, channels)`): Rows of V, in the order of time and place.
        scores (`torch.FloatTensor` of shape `(tokens,)`): By which they were kept.
        score_bias (`torch.FloatTensor` of shape `(tokens,)`): The part of the score that TTA adds to logits.
        seconds (`torch.FloatTensor` of shape `(tokens,)`): Time of each token's frame.
        places (`torch.LongTensor` of shape `(tokens,)`): Place in the frame, `row * columns + column`.
        shots (`torch.LongTensor` of shape `(tokens,)`): When the shot of each token begins, or its window of a long
            shot, in milliseconds.
        grid (`tuple[int, int]`): Rows and columns of the tokens of a frame.
        spans_seconds (`tuple[tuple[float, float], ...]`): Times of the first and of the last frame that was seen, of
            each part that was merged.
        num_frames (`int`): Frames that were seen.
        top_k (`int`): Tokens that are kept of a video.
        encoder (`str`), scorer (`str`): Fingerprints of what made V and the scores; see `fingerprints.py`.
        mergeable (`bool`): Whether scores depend on the own shot alone, so that memories of parts can be merged.
        name (`str`, *optional*): Its name in errors.

    Raises:
        `ValueError`: If they do not fit each other.
    """

    def __init__(
        self,
        tokens: torch.Tensor,
        scores: torch.Tensor,
        score_bias: torch.Tensor,
        seconds: torch.Tensor,
        places: torch.Tensor,
        shots: torch.Tensor,
        *,
        grid: tuple[int, int],
        spans_seconds: tuple[tuple[float, float], ...],
        num_frames: int,
        top_k: int,
        encoder: str,
        scorer: str,
        mergeable: bool,
        name: str = "a memory",
    ):
        self.tokens, self.scores, self.score_bias = tokens, scores, score_bias
        self.seconds, self.places, self.shots = seconds, places, shots
        self.grid, self.spans_seconds, self.num_frames, self.top_k = grid, spans_seconds, num_frames, top_k
        self.encoder, self.scorer, self.mergeable, self.name = encoder, scorer, mergeable, name
        self._check()

    def __len__(self) -> int:
        """Counts the tokens that were kept."""
        return len(self.tokens)

    def __repr__(self) -> str:
        first, last = self.span_seconds
        return f"<VideoMemory of {self.num_frames} frames from {first:.2f} to {last:.2f} s, {len(self)} tokens>"

    @property
    def span_seconds(self) -> tuple[float, float]:
        """Returns the time of the first and of the last frame that was seen."""
        return self.spans_seconds[0][0], self.spans_seconds[-1][1]

    def to(self, device: torch.device | str) -> "VideoMemory":
        """Returns the memory on a device."""
        return self._with({name: getattr(self, name).to(device) for name in _DTYPES})

    def scored_tokens(self, device: torch.device) -> ScoredTokens:
        """Returns its tokens as the video tokenizer takes them, as a batch of one video."""
        values = {name: getattr(self, name).to(device)[None] for name in _DTYPES}
        return ScoredTokens(**values, span_seconds=torch.tensor([self.span_seconds], device=device))

    @staticmethod
    def merge(*memories: "VideoMemory") -> "VideoMemory":
        """
        Merges memories of parts of a video to that of the whole: equal to it where the parts meet at the border of a
        shot, or of a window of a long shot. They may come in any order, and be merged two by two.

        Raises:
            `ValueError`: If there is none, if they were made by different models or settings, if two of them show the
                same time, or if they cannot be merged since their scores depend on all of the video.
        """
        if not memories:
            raise ValueError("No memory was given to merge; give at least one.")
        first, *others = memories
        for memory in others:
            for setting in ("top_k", "grid", "encoder", "scorer"):
                if getattr(memory, setting) != getattr(first, setting):
                    raise ValueError(
                        f"{memory.name} and {first.name} cannot be merged: they were made with different "
                        f"{setting}s, {getattr(memory, setting)!r} and {getattr(first, setting)!r}."
                    )
            if not (memory.mergeable and first.mergeable):
                raise ValueError(
                    f"{memory.name} and {first.name} cannot be merged: their scores depend on all of the video "
                    "(temporal_attention='video'). Make them with a model of temporal_attention='shot'."
                )
        spans = sorted(span for memory in memories for span in memory.spans_seconds)
        for (_, end), (start, _) in pairwise(spans):
            if start <= end:
                raise ValueError(
                    f"Memories cannot be merged that show the same time, from {start:.3f} to {end:.3f} s. Parts of "
                    "one video follow each other; give them times of the whole, and no frame twice."
                )
        if not others:
            return first
        joined = {name: torch.cat([getattr(memory, name) for memory in memories]) for name in _DTYPES}
        order = joined["seconds"].sort(stable=True).indices  # no two of them show the same frame
        order = order[best_places(joined["scores"][order][None], first.top_k)[0]]
        return first._with(
            {name: values[order] for name, values in joined.items()},
            spans_seconds=tuple(spans),
            num_frames=sum(memory.num_frames for memory in memories),
        )

    def in_one_span(self) -> "VideoMemory":
        """Returns the memory of a video of which every part was seen, one after the other."""
        return self._with({name: getattr(self, name) for name in _DTYPES}, spans_seconds=(self.span_seconds,))

    def save(self, path: str | os.PathLike) -> None:
        """
        Writes it to a file, which appears whole or not at all.

        Raises:
            `ValueError`: If the name does not end in `.memory.safetensors`, by which a memory is known.
        """
        if not os.fspath(path).endswith(MEMORY_SUFFIX):
            raise ValueError(f"{path} is no name for a memory; let it end in {MEMORY_SUFFIX}.")
        # In one value: the order of several differs from one process to the next.
        about = {"version": _VERSION, **self._settings(), "grid": list(self.grid)}
        about.pop("name")
        tensors = {name: getattr(self, name).cpu().contiguous() for name in _DTYPES}
        with new_file(path) as part:
            save_file(tensors, part, metadata={_KEY: json.dumps(about, sort_keys=True)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "VideoMemory":
        """
        Reads a memory that was saved.

        Raises:
            `ValueError`: If the file is no memory, damaged, or of a later version.
            `FileNotFoundError`: If there is none.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no memory of a video at {path}.")
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get(_KEY, "null"))
                if not isinstance(about, dict):
                    raise ValueError(f"{path} is a safetensors file, but not a memory of a video.")
                if about.get("version") != _VERSION:
                    raise ValueError(
                        f"{path} is a memory of version {about.get('version')!r}; this linvt reads version {_VERSION}."
                    )
                # Copies: what is mapped into memory would go with the file.
                tensors = {name: file.get_tensor(name).clone() for name in _DTYPES}
            about.pop("version")
            _check_settings(about)
            spans = tuple(tuple(span) for span in about["spans_seconds"])
            about |= {"grid": tuple(about["grid"]), "spans_seconds": spans, "name": str(path)}
            memory = cls(**tensors, **about)
            memory._check_values()
            return memory
        except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no memory of a video, or is damaged: {error}.") from error

    def _settings(self) -> dict:
        names = ("grid", "spans_seconds", "num_frames", "top_k", "encoder", "scorer", "mergeable", "name")
        return {name: getattr(self, name) for name in names}

    def _with(self, tensors: dict[str, torch.Tensor], **changed: Any) -> "VideoMemory":
        return VideoMemory(**tensors, **{**self._settings(), **changed})

    def _check(self) -> None:
        number = len(self.scores) if self.scores.dim() == 1 else -1
        for name, dtypes in _DTYPES.items():
            value = getattr(self, name)
            dimensions = 2 if name == "tokens" else 1
            if value.dtype not in dtypes or value.dim() != dimensions or len(value) != number or number == 0:
                raise ValueError(
                    f"{self.name}: {name} have shape {tuple(value.shape)} and dtype {value.dtype}; expected "
                    f"{dtypes[0]} and one row for each token, of which there is at least one."
                )

    def _check_values(self) -> None:
        """Of a file, which may come from anywhere; on an accelerator each of these would wait for its work."""
        rows, columns = self.grid
        if not bool(((self.places >= 0) & (self.places < rows * columns)).all()):
            raise ValueError(f"{self.name}: a token has no place in the {rows} x {columns} places of a frame.")
        first, last = self.span_seconds
        if bool((self.seconds.diff() < 0).any()) or not first <= self.seconds[0] <= self.seconds[-1] <= last:
            raise ValueError(f"{self.name}: its tokens are not in the order of time, from {first} to {last} s.")
        numbers = (self.tokens, self.scores, self.score_bias, self.seconds)
        finite = all(bool(values.isfinite().all()) for values in numbers)
        if not finite or len(self) > self.top_k:
            raise ValueError(f"{self.name}: it has {len(self)} tokens of at most {self.top_k}, or not only numbers.")


def _check_settings(about: dict) -> None:
    """Raises `TypeError` for the first setting of a file that no memory has."""

    def are(types: type | tuple[type, ...], *values: Any) -> bool:
        return all(isinstance(value, types) and not isinstance(value, bool) for value in values)

    grid, spans = about["grid"], about["spans_seconds"]
    times = [time for span in spans for time in span] if are(list, spans) and are(list, *spans) else []
    pairs = len(times) > 0 and all(len(span) == 2 for span in spans)
    fits = {
        "grid": are(list, grid) and len(grid) == 2 and are(int, *grid) and min(grid) > 0,
        "spans_seconds": pairs and are((int, float), *times) and times == sorted(times),
        "num_frames": are(int, about["num_frames"]) and about["num_frames"] > 0,
        "top_k": are(int, about["top_k"]) and about["top_k"] > 0,
        "encoder": are(str, about["encoder"]),
        "scorer": are(str, about["scorer"]),
        "mergeable": isinstance(about["mergeable"], bool),
    }
    for name, is_right in fits.items():
        if not is_right:
            raise TypeError(f"{name} is {about[name]!r}")


__all__ = ["MEMORY_SUFFIX", "VideoMemory"]
