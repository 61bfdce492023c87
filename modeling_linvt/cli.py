"""The `linvt` command: ask a question about a video, wrap an image-LLM, list the shots of a video.

Exit codes: 0 done, 2 bad input (one line on standard error says what and what to do), 130 interrupted, 1 anything
else.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoProcessor
from transformers.generation import BaseStreamer
from transformers.utils import logging

from linvt.frame_clips import frame_clips
from linvt.modeling_linvt import LinVTForConditionalGeneration
from linvt.processors.convert_autoshot import convert_autoshot_checkpoint
from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.shot_detection import load_shot_detector
from linvt.processors.video_reading import SampledVideo, read_video
from linvt.tiny_models import tiny_linvt


RANDOM_WEIGHTS = "no --model given, so a tiny model with random weights answers: its text means nothing"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.set_verbosity_error()
    if options.json or not sys.stderr.isatty():
        logging.disable_progress_bar()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every character of an answer
    try:
        result = options.run(options)
    except (ValueError, OSError) as error:
        print(f"linvt {options.command}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"linvt {options.command}: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(result, indent=2, ensure_ascii=False) if options.json else options.show(result))
    return 0


def ask(options: argparse.Namespace) -> dict:
    """Answers a question about a video."""
    device = _device(options.device)
    if options.autoshot is not None:
        _check_folder(options.autoshot)
    if options.model is None:
        model, processor = tiny_linvt()
        model.to(device)
    else:
        _check_folder(options.model)
        model = LinVTForConditionalGeneration.from_pretrained(options.model, dtype="auto", device_map=device)
        processor = LinVTProcessor.from_pretrained(options.model)
    content = [{"type": "video", "video": options.video}, {"type": "text", "text": options.question}]
    settings = {"num_frames": options.num_frames, "autoshot_model": options.autoshot}
    settings = {name: value for name, value in settings.items() if value is not None}
    if options.autoshot is not None:
        settings["shot_detection"] = "autoshot"
    with _Bar("reading", options) as on_progress:
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"return_metadata": True, "on_progress": on_progress, **settings},
        )
    video: SampledVideo = inputs.pop("video_metadata")[0]
    inputs = inputs.to(model.device)
    clips = frame_clips(inputs["video_shot_ids"][0], model.config.frames_per_patch)
    tokens_per_clip = model.get_frame_tokens(inputs["pixel_values_videos"][0], clips[:1]).shape[1]
    with _Bar("answering", options) as on_progress:
        streamer = _CountTokens(on_progress, options.max_new_tokens)
        limits = {"max_new_tokens": options.max_new_tokens, "do_sample": False}
        output = model.generate(**inputs, **limits, streamer=streamer)
    prompt_tokens = inputs["input_ids"].shape[1]
    return {
        "video": _about(options.video, video),
        "frames": [
            {"index": index, "seconds": round(seconds, 3), "shot": shot}
            for index, seconds, shot in zip(video.frame_indices, video.frame_seconds, video.shot_ids, strict=True)
        ],
        "num_frame_tokens": tokens_per_clip * len(clips),
        "num_video_tokens": processor.num_video_tokens,
        "num_prompt_tokens": prompt_tokens,
        "random_weights": options.model is None,
        "text": processor.decode(output[0, prompt_tokens:], skip_special_tokens=True),
    }


def show_answer(result: dict) -> str:
    num_frames = len(result["frames"])
    note = {"note": RANDOM_WEIGHTS} if result["random_weights"] else {}
    times = " ".join(f"{frame['seconds']:.2f}" for frame in result["frames"])
    # A model may write anything, also what a terminal takes for a command.
    text = "".join(character if character.isprintable() else " " for character in result["text"])
    return _table(
        {
            **note,
            "video": _describe(result["video"]),
            "frames": f"{num_frames} of {result['video']['num_frames']}, at {times} s",
            "tokens": f"{result['num_frame_tokens']} of the frames -> {result['num_video_tokens']} of the video; "
            f"{result['num_prompt_tokens']} into the LLM with the text",
            "text": text.strip() or "(empty)",
        }
    )


def wrap(options: argparse.Namespace) -> dict:
    """Puts a fresh video tokenizer on an image-LLM and saves the whole."""
    output = Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists already; give the name of a new folder.")
    _check_folder(options.image_llm)
    image_llm_processor = AutoProcessor.from_pretrained(options.image_llm)
    model = LinVTForConditionalGeneration.from_image_llm(options.image_llm, dtype=options.dtype)
    size = None if options.frame_size is None else dict(zip(("height", "width"), options.frame_size, strict=True))
    processor = LinVTProcessor.from_image_llm_processor(image_llm_processor, model.config.num_video_tokens, size)
    size = processor.video_processor.size
    try:
        model.get_frame_tokens(torch.zeros(1, 3, size["height"], size["width"], device=model.device))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the image-LLM cannot take frames of {size['height']} x {size['width']}: {error}") from error
    output.parent.mkdir(parents=True, exist_ok=True)
    # Written beside the goal and moved there when it is whole, so that a broken run leaves nothing that loads.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as staging:
        complete = Path(staging) / output.name
        model.save_pretrained(complete)
        processor.save_pretrained(complete)
        if output.exists():
            output.rmdir()
        complete.rename(output)
    return {
        "image_llm": str(options.image_llm),
        "model_type": model.config.image_llm_config.model_type,
        "output": str(output),
        "num_image_llm_parameters": model.image_llm.num_parameters(),
        "num_video_tokenizer_parameters": model.video_tokenizer.num_parameters(),
        "num_video_tokens": model.config.num_video_tokens,
        "frame_size": dict(processor.video_processor.size),
    }


def show_wrapped(result: dict) -> str:
    size = result["frame_size"]
    return _table(
        {
            "wrapped": f"{result['image_llm']} ({result['model_type']}, "
            f"{result['num_image_llm_parameters'] / 1e6:.1f} M parameters, unchanged)",
            "added": f"video tokenizer, {result['num_video_tokenizer_parameters'] / 1e6:.1f} M parameters, untrained; "
            f"{result['num_video_tokens']} tokens per video, frames of {size['height']} x {size['width']} pixels",
            "saved": result["output"],
        }
    )


def convert(options: argparse.Namespace) -> dict:
    """Converts the checkpoint that the AutoShot authors published, ckpt_0_200_0.pth, to AutoShot weights of ours."""
    convert_autoshot_checkpoint(options.source, options.output)
    return {"source": options.source, "output": options.output, "kind": "autoshot"}


def show_converted(result: dict) -> str:
    return _table({"converted": f"{result['source']} ({result['kind']})", "saved": result["output"]})


def shots(options: argparse.Namespace) -> dict:
    """Lists the shots of a video."""
    if options.autoshot is None:
        raise ValueError("finding shots needs trained AutoShot weights; give their Hub id or folder as --autoshot.")
    _check_folder(options.autoshot)
    detect_shots = load_shot_detector(options.autoshot)
    with _Bar("reading", options) as on_progress:
        video = read_video(options.video, num_frames=1, detect_shots=detect_shots, on_progress=on_progress)
    return {
        "video": _about(options.video, video),
        "shots": [
            {"start_seconds": round(start, 3), "end_seconds": round(end, 3)} for start, end in video.shots_seconds
        ],
    }


def show_shots(result: dict) -> str:
    lines = [f"{'shot':>5} {'start s':>10} {'end s':>10} {'seconds':>10}"]
    for number, shot in enumerate(result["shots"]):
        start, end = shot["start_seconds"], shot["end_seconds"]
        lines.append(f"{number:>5} {start:>10.2f} {end:>10.2f} {end - start:>10.2f}")
    return "\n".join([_table({"video": _describe(result["video"])}), *lines])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="linvt", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"linvt {version('linvt')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    command = commands.add_parser("ask", help="answer a question about a video", description=ask.__doc__)
    command.add_argument("video", help="path or URL of a video")
    command.add_argument("question")
    command.add_argument("--model", help="Hub id or folder of a LinVT model (default: a tiny one without training)")
    command.add_argument("--num-frames", type=int, help="frames to look at (default: that of the model's processor)")
    command.add_argument("--max-new-tokens", type=int, default=64, help="longest answer, in tokens (default: 64)")
    command.add_argument("--device", help="where the model runs, such as cuda (default: the CPU)")
    command.set_defaults(run=ask, show=show_answer)
    _add_common(command, "spread the frames over the shots that these AutoShot weights find (Hub id or folder)")

    command = commands.add_parser("wrap", help="make a video-LLM of an image-LLM", description=wrap.__doc__)
    command.add_argument("image_llm", help="Hub id or folder of an image-LLM")
    command.add_argument("output", help="new folder for the LinVT model")
    dtypes = ("auto", "float32", "bfloat16", "float16")
    command.add_argument("--dtype", default="auto", choices=dtypes, help="default: that of the checkpoint")
    size = {"nargs": 2, "type": int, "metavar": ("HEIGHT", "WIDTH")}
    command.add_argument("--frame-size", **size, help="of a frame in pixels (default: that of the image-LLM's images)")
    command.set_defaults(run=wrap, show=show_wrapped)
    _add_common(command)

    command = commands.add_parser("convert", help="convert published AutoShot weights", description=convert.__doc__)
    command.add_argument("source", help="checkpoint file")
    command.add_argument("output", help="new folder for the weights, to be given as --autoshot")
    command.set_defaults(run=convert, show=show_converted)
    _add_common(command)

    command = commands.add_parser("shots", help="list the shots of a video", description=shots.__doc__)
    command.add_argument("video", help="path or URL of a video")
    command.set_defaults(run=shots, show=show_shots)
    _add_common(command, "Hub id or folder of trained AutoShot weights")
    return parser


def _add_common(command: argparse.ArgumentParser, autoshot_help: str | None = None) -> None:
    if autoshot_help is not None:
        command.add_argument("--autoshot", metavar="WEIGHTS", help=autoshot_help)
    command.add_argument("--json", action="store_true", help="print the result for machines")


class _CountTokens(BaseStreamer):
    """Tells how much of the longest answer is written."""

    def __init__(self, on_progress: Callable[[float], None], max_new_tokens: int):
        self.on_progress, self.max_new_tokens, self.written = on_progress, max_new_tokens, -1  # first comes the prompt

    def put(self, value) -> None:
        self.written += 1
        self.on_progress(self.written / self.max_new_tokens)

    def end(self) -> None:
        pass


class _Bar:
    """A progress bar on standard error, where a person looks at it."""

    def __init__(self, task: str, options: argparse.Namespace):
        hidden = options.json or not sys.stderr.isatty()
        self.bar = tqdm(
            total=100, desc=task, unit="%", leave=False, disable=hidden, bar_format="{desc} {bar} {n:.0f}%"
        )

    def __enter__(self):
        return lambda fraction: self.bar.update(100 * fraction - self.bar.n)

    def __exit__(self, *error) -> None:
        self.bar.close()


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the model cannot run on {name!r}: {error}") from error
    return device


def _check_folder(name: str) -> None:
    """A path that is not there would be taken for a Hub id, and the error would speak of that."""
    if (name.startswith((".", "~", os.sep)) or name.count("/") > 1) and not Path(name).is_dir():
        raise ValueError(f"there is no folder {name}; give that of a saved model or the id of one on the Hub.")


def _about(source: str, video: SampledVideo) -> dict:
    return {
        "source": source,
        "duration_seconds": round(video.duration_seconds, 3),
        "num_frames": video.total_num_frames,
        "num_lost_frames": video.num_lost_frames,
        "width": video.width,
        "height": video.height,
    }


def _describe(about: dict) -> str:
    lost = f", {about['num_lost_frames']} frames lost" if about["num_lost_frames"] else ""
    return f"{about['source']}, {about['duration_seconds']:.2f} s, {about['width']} x {about['height']}{lost}"


def _table(rows: dict[str, str]) -> str:
    """Rows with a title each, wrapped to the width of the terminal."""
    width, indent = min(shutil.get_terminal_size().columns, 100), max(map(len, rows)) + 2
    return "\n".join(
        textwrap.fill(text, width, initial_indent=title.ljust(indent), subsequent_indent=" " * indent)
        for title, text in rows.items()
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
