"""Sees a video and saves what the model keeps of it: the command `linvt encode`."""

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linvt_cli.cli_checks import check_new_file
from linvt_cli.cli_choices import MEMORY_SUFFIX
from linvt_cli.cli_models import SMALL_MODEL_NOTE, LoadedModel, add_model_options, check_model, load_model
from linvt_cli.cli_output import add_json_option, size_text, table
from linvt_cli.cli_part_file import PartFile
from linvt_cli.cli_seeing import (
    UNIFORM_HINT,
    WHOLE_VIDEO_NOTE,
    add_reading_options,
    check_reading,
    is_memory,
    reading_settings,
    see_video,
    stream_fps,
)


if TYPE_CHECKING:
    from linvt.video_tokenizer.video_memory import VideoMemory

SECONDS_BETWEEN_PARTS = 10.0


def add_encode_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("encode", help="see a video once, to ask about it later", description=encode.__doc__)
    command.set_defaults(check=check_encode, run=encode, show=show_encoded)
    command.add_argument("video", help="path or URL of a video")
    command.add_argument("output", help=f"new file, NAME{MEMORY_SUFFIX}, to be given to `linvt ask` as a video")
    add_model_options(command)
    add_reading_options(command)
    add_json_option(command)


def check_encode(options: argparse.Namespace) -> None:
    if is_memory(options.video):
        raise ValueError(f"{options.video} is a memory of a video already; give it to `linvt ask`.")
    check_memory_output(options.output)
    check_reading(options, [options.video])
    check_model(options)


def check_memory_output(output: str) -> None:
    """
    Refuses a place where no memory can be saved.

    Raises:
        `ValueError` or `OSError`: With the reason.
    """
    if not is_memory(output):
        raise ValueError(f"{output} is no name for a memory; let it end in {MEMORY_SUFFIX}.")
    check_new_file(output)


def encode(options: argparse.Namespace) -> dict:
    """
    Sees a video and saves a memory of it: the frame tokens that the model keeps, which stand for the video in every
    later question. With --fps, a process that was killed resumes where it was when the command is run again.
    """
    from linvt.memory_checks import check_keeps_tokens

    loaded, output = load_model(options), Path(options.output)
    check_keeps_tokens(loaded.model)
    fps, num_resumed_frames = stream_fps(loaded, options), 0
    if fps is None:
        memory: Any = see_video(loaded, options.video, options, hidden=options.json).memory
        memory.save(output)
    else:
        memory, num_resumed_frames = _encode_stream(loaded, options, fps, output)
    return {"video": options.video, "num_resumed_frames": num_resumed_frames, **about_saved(loaded, memory, output)}


def about_saved(loaded: LoadedModel, memory: "VideoMemory", output: Path) -> dict:
    """Describes a memory that was saved, for machines."""
    return {
        "model": loaded.name,
        "num_frames": memory.num_frames,
        "span_seconds": [round(seconds, 3) for seconds in memory.span_seconds],
        "num_kept_tokens": len(memory),
        "num_bytes": output.stat().st_size,
        "output": str(output),
    }


def show_encoded(result: dict) -> str:
    rows = {"note": SMALL_MODEL_NOTE} if result["model"] == "small-world" else {}
    if result["num_resumed_frames"]:
        rows["resumed"] = f"after {result['num_resumed_frames']} frames"
    return table(rows | {"video": result["video"], **saved_rows(result)})


def saved_rows(result: dict) -> dict[str, str]:
    """Describes a memory that was saved, for a person."""
    first, last = result["span_seconds"]
    return {
        "frames": f"{result['num_frames']}, from {first:.2f} to {last:.2f} s",
        "tokens": f"{result['num_kept_tokens']} kept",
        "saved": f"{result['output']}, {size_text(result['num_bytes'])}",
    }


def _encode_stream(
    loaded: LoadedModel, options: argparse.Namespace, fps: float, output: Path
) -> tuple["VideoMemory", int]:
    """
    The memory of a video that is read as a stream, and how many of its frames were not encoded anew. The whole stream
    is read in any case, since shots depend on what was before; it is the encoder that takes the time.
    """
    from linvt.progress import Progress
    from linvt.streaming_encoder import StreamingEncoder, piece_frames

    settings = reading_settings(loaded, options)
    part = _part_file(loaded, options.video, {**settings, "fps": fps}, output)
    closed = None if part is None else part.load()
    encoder, next_frame = StreamingEncoder(loaded.model, closed), 0 if closed is None else closed.next_frame
    if not encoder.by_shot and not options.json:
        sys.stderr.write(f"note: {WHOLE_VIDEO_NOTE}\n")
    if part is not None and next_frame and not options.json:
        sys.stderr.write(f"going on after {next_frame} frames, which {part.path} holds\n")
    number, saved_seconds = 0, time.monotonic()
    hint = None if options.uniform else UNIFORM_HINT
    with Progress("encoding", hidden=options.json, hint=hint) as progress:
        pieces = loaded.processor.video_processor.iter_video(
            options.video, fps=fps, on_progress=progress.reach, **settings
        )
        for piece in pieces:
            known = max(next_frame - number, 0)
            number += len(piece["video_milliseconds"])
            if number <= next_frame:
                continue
            encoder.add(**piece_frames(piece, known))
            if part is not None and time.monotonic() - saved_seconds >= SECONDS_BETWEEN_PARTS:
                part.save(encoder.closed_part())
                saved_seconds = time.monotonic()
    memory = encoder.memory()
    memory.save(output)
    if part is not None:
        part.remove()
    return memory, next_frame


def _part_file(loaded: LoadedModel, video: str, settings: dict, output: Path) -> PartFile | None:
    """The part file of a video; `None` of what can be read only once, which no other process can go on with."""
    from linvt.fingerprints import memory_fingerprints
    from linvt.processors.video.frame_pixels import PIXEL_SETTINGS
    from linvt.processors.video.live_source import resolve_live
    from linvt.training.video_identity import shot_detector_identity, video_identity

    if resolve_live(video) is not None:
        return None
    frames = loaded.processor.video_processor.frame_options(**settings)
    shots = "none looked for"
    if frames["shot_detection"] != "uniform":
        shots = f"{frames['shot_detection']}, weights {shot_detector_identity(frames['autoshot_model'])[:12]}"
    encoder, scorer = memory_fingerprints(loaded.model)
    made_of = {
        "version of linvt": version("linvt"),
        "video": f"{Path(video).name}, {video_identity(video)[:12]}",
        "encoder": encoder[:12],
        "SVR": scorer[:12],
        "device": str(loaded.model.device),
        "fps": str(settings["fps"]),
        "shot detection": shots,
        "frame size or normalisation": json.dumps({name: frames[name] for name in PIXEL_SETTINGS}),
    }
    return PartFile(output, made_of)
