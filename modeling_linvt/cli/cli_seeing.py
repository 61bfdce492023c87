"""Sees a video once, to be asked about as often as one likes: from its file, a stream, or a memory of it."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from linvt_cli.cli_checks import check_folder, check_video
from linvt_cli.cli_choices import MEMORY_SUFFIX
from linvt_cli.cli_models import LoadedModel
from linvt_cli.cli_output import about_video, describe_video


if TYPE_CHECKING:
    from linvt.video_tokenizer.video_memory import VideoMemory

WHOLE_VIDEO_NOTE = (
    "what this model keeps depends on all of the video, so memory grows with it; train one with "
    "temporal_attention='shot' for long videos"
)
UNIFORM_HINT = "--uniform is much faster: it takes evenly spaced frames and does not look for shots"
SHOTS_LEFT_OUT = "evenly spaced, since finding shots takes long here: --shots does"
MAX_LISTED_FRAMES = 16  # of more, the times of the first and the last are printed


@dataclass
class SeenVideo:
    """
    Holds what a model needs of a video to be asked about it.

    Args:
        source (`str`): Where it came from.
        memory ([`VideoMemory`], *optional*): What the model has kept of it.
        frame_tokens (`dict`, *optional*): V and what goes with it, of a model that keeps no tokens.
        about (`dict`, *optional*): The video for machines, where its file was read as a whole; see `about_video`.
        frames (`list[dict]`, *optional*): `seconds` and `shot` of each frame, and `index` where it is known; `None`
            of a memory that was given, which no longer knows.
        num_frame_tokens (`int`, *optional*): Tokens of these frames; `None` likewise.
        shots_left_out (`bool`): Whether shots were not looked for, though the user did not ask for that.
    """

    source: str
    memory: "VideoMemory | None" = None
    frame_tokens: dict[str, Any] = field(default_factory=dict)
    about: dict | None = None
    frames: list[dict] | None = None
    num_frame_tokens: int | None = None
    shots_left_out: bool = False

    @property
    def num_kept_tokens(self) -> int | None:
        """Counts the frame tokens that video tokens are made of."""
        return self.num_frame_tokens if self.memory is None else len(self.memory)

    def for_machines(self) -> dict:
        """Describes it for `--json`."""
        span = [] if self.memory is None else [round(seconds, 3) for seconds in self.memory.span_seconds]
        return {
            **(self.about or {"source": self.source}),
            "span_seconds": span or None,
            "num_seen_frames": len(self.frames or ()) if self.memory is None else self.memory.num_frames,
            "num_frame_tokens": self.num_frame_tokens,
            "num_kept_tokens": self.num_kept_tokens,
            "shots_left_out": self.shots_left_out,
            "frames": self.frames,
        }

    def rows(self) -> dict[str, str]:
        """Describes it for a person, as rows of a table."""
        if self.about is not None and self.frames is not None:
            frames = f"{len(self.frames)} of {self.about['num_frames']}, {_times(self.frames)}"
            frames += f"; {SHOTS_LEFT_OUT}" if self.shots_left_out else ""
            return {"video": describe_video(self.about), "frames": frames}
        if self.frames is not None:
            return {"video": self.source, "frames": f"{len(self.frames)}, {_times(self.frames)}"}
        first, last = self.memory.span_seconds
        return {"memory": self.source, "frames": f"{self.memory.num_frames}, from {first:.2f} to {last:.2f} s"}


def add_reading_options(command: argparse.ArgumentParser) -> None:
    number = command.add_mutually_exclusive_group()
    number.add_argument("--num-frames", type=int, help="frames to look at (default: as the model's processor says)")
    number.add_argument(
        "--fps", type=float, help="frames to look at per second, in memory that does not grow with the video"
    )
    add_shot_options(command)


def add_shot_options(command: argparse.ArgumentParser) -> None:
    spread = command.add_mutually_exclusive_group()
    spread.add_argument("--autoshot", metavar="WEIGHTS", help="find shots with these weights (Hub id or folder)")
    spread.add_argument("--shots", action="store_true", help="look for shots, however long that takes")
    spread.add_argument(
        "--uniform", action="store_true", help="do not look for shots, which is faster, for long videos by far"
    )


def check_reading(options: argparse.Namespace, sources: list[str]) -> None:
    """
    Refuses sources and options by which nothing can be read.

    Raises:
        `FileNotFoundError`: If there is no such file or folder.
        `ValueError`: If options say how to read videos, and all that is given are memories, which were read before.
    """
    for source in sources:
        check_video(source)
    check_shot_options(options)
    names = ("num_frames", "fps", "autoshot", "shots", "uniform")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, False)]
    if given and sources and all(map(is_memory, sources)):
        raise ValueError(
            f"{', '.join(given)} cannot be chosen for a memory, whose frames were seen before; leave it out, or give "
            "the video."
        )


def check_shot_options(options: argparse.Namespace) -> None:
    if options.autoshot is not None:
        check_folder(options.autoshot)


def is_memory(source: str) -> bool:
    """Tells by its name whether a source is a memory of a video."""
    return source.endswith(MEMORY_SUFFIX)


def reading_settings(loaded: LoadedModel, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings of the video processor that options ask for."""
    settings: dict[str, Any] = {"autoshot_model": options.autoshot, "device": loaded.model.device}
    if options.autoshot is not None or options.shots or options.uniform:
        settings["shot_detection"] = "uniform" if options.uniform else "autoshot"
    return {name: value for name, value in settings.items() if value is not None}


def stream_fps(loaded: LoadedModel, options: argparse.Namespace) -> float | None:
    """Returns the frames per second of a video that is to be read as a stream; `None` if it is read as a whole."""
    if options.num_frames is not None:
        return None
    return loaded.processor.video_processor.fps if options.fps is None else options.fps


def see_video(loaded: LoadedModel, source: str, options: argparse.Namespace, *, hidden: bool) -> SeenVideo:
    """
    Sees a video, or loads the memory of one.

    Args:
        hidden (`bool`): Whether no progress is shown.

    Raises:
        `ValueError`: If the memory is of another model.
        [`VideoReadError`]: If the video cannot be read.
    """
    from linvt.processors.video.video_sources import resolve_video
    from linvt.progress import Progress

    if is_memory(source):
        from linvt.memory_checks import check_memory

        memory: Any = resolve_video(source)
        check_memory(loaded.model, memory)
        return SeenVideo(source, memory)
    settings = reading_settings(loaded, options)
    video_processor, fps = loaded.processor.video_processor, stream_fps(loaded, options)
    hint = None if options.uniform else UNIFORM_HINT
    with Progress("reading", hidden=hidden, hint=hint) as progress:
        settings["on_progress"] = progress.reach
        if fps is not None:
            return see_pieces(loaded, source, video_processor.iter_video(source, fps=fps, **settings))
        read: Any = video_processor(source, num_frames=options.num_frames, return_metadata=True, **settings)
    [video] = read.pop("video_metadata")
    seen = see_pieces(loaded, source, [read])
    seen.about, seen.shots_left_out = about_video(source, video), not (video.looked_for_shots or options.uniform)
    numbered = zip(video.frame_indices, seen.frames or (), strict=True)
    seen.frames = [{"index": index, **frame} for index, frame in numbered]
    return seen


def see_pieces(loaded: LoadedModel, source: str, pieces: Iterable[Mapping[str, Any]]) -> SeenVideo:
    """Sees a video in pieces, as `iter_video` gives them; V is kept by models that choose no tokens of it."""
    import torch

    from linvt.frame_clips import frame_clips
    from linvt.memory_checks import keeps_tokens

    frames: list[dict] = []

    def noted() -> Iterator[Mapping[str, Any]]:
        for piece in pieces:
            times, shots = piece["video_milliseconds"].tolist(), piece["video_shot_ids"].tolist()
            frames.extend({"seconds": time / 1000, "shot": shot} for time, shot in zip(times, shots, strict=True))
            yield piece

    if keeps_tokens(loaded.model):
        memory: Any = loaded.model.see(noted())
        seen, (rows, columns) = SeenVideo(source, memory), memory.grid
    else:
        frame_tokens = _keep_all([*noted()], loaded)
        seen, (rows, columns) = SeenVideo(source, None, frame_tokens), frame_tokens["video_token_grid"][0].tolist()
    clips = frame_clips(torch.tensor([frame["shot"] for frame in frames]), loaded.model.config.frames_per_patch)
    seen.frames, seen.num_frame_tokens = frames, len(clips) * rows * columns
    return seen


def _keep_all(pieces: list[Mapping[str, Any]], loaded: LoadedModel) -> dict[str, Any]:
    """V of a video, as the fields of [`VideoInputs`]."""
    import torch

    video = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    with torch.no_grad():
        tokens, grid = loaded.model.encode_video(video.pop("pixel_values_videos"), video["video_shot_ids"])
    video["video_num_frames"] = video["video_num_frames"].sum()[None]
    return {**video, "video_frame_tokens": tokens, "video_token_grid": torch.tensor([grid])}


def _times(frames: list[dict]) -> str:
    times = [f"{frame['seconds']:.2f}" for frame in frames]
    return f"at {' '.join(times)} s" if len(times) <= MAX_LISTED_FRAMES else f"from {times[0]} to {times[-1]} s"
