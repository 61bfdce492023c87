"""The `linvt` command: ask about a video, list its shots, wrap, convert, export and push models.

Exit codes: 0 done, 2 bad input (one line on standard error says what and what to do), 130 interrupted, 1 anything
else.
"""

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from huggingface_hub import logging as hub_logging
from transformers import AutoProcessor, PreTrainedTokenizerBase
from transformers.generation import BaseStreamer
from transformers.utils import logging

import linvt
from linvt.conversion import KINDS
from linvt.conversion.convert import convert_checkpoint
from linvt.conversion.convert_autoshot import convert_autoshot_checkpoint
from linvt.frame_clips import frame_clips
from linvt.hub.export import load_whole
from linvt.hub.lost_connection import HTTPError, lost_connection
from linvt.modeling_linvt import LinVTForConditionalGeneration
from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.video.sampled_video import SampledVideo
from linvt_cli.cli_hub import add_hub_commands
from linvt_cli.cli_output import ProgressBar, about_video, add_json_option, check_folder, describe_video, table
from linvt_cli.cli_shots import add_shots_command


SMALL_MODEL = Path(linvt.__file__).with_name("small_world_model")
SMALL_MODEL_NOTE = "no --model given, so the small model of the package answers, which knows coloured shapes only"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    if options.json or not sys.stderr.isatty():
        logging.disable_progress_bar()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every character of an answer
    try:
        result = options.run(options)
    except (ValueError, OSError, HTTPError) as error:
        print(f"linvt {options.command}: {_one_line(lost_connection(error) or error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"linvt {options.command}: interrupted", file=sys.stderr)
        return 130
    try:
        print(json.dumps(result, indent=2, ensure_ascii=False) if options.json else options.show(result), flush=True)
    except BrokenPipeError:  # whoever reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def ask(options: argparse.Namespace) -> dict:
    """Answers a question about a video."""
    device = _device(options.device)
    if options.autoshot is not None:
        check_folder(options.autoshot)
    if options.model is not None:
        check_folder(options.model)
    name = SMALL_MODEL if options.model is None else options.model
    model = load_whole(name, dtype="auto", device_map=device)
    processor = LinVTProcessor.from_pretrained(name)
    content = [{"type": "video", "video": options.video}, {"type": "text", "text": options.question}]
    settings = {"num_frames": options.num_frames, "autoshot_model": options.autoshot}
    settings = {name: value for name, value in settings.items() if value is not None}
    if options.autoshot is not None or options.uniform:
        settings["shot_detection"] = "uniform" if options.uniform else "autoshot"
    with ProgressBar("reading", options) as on_progress:
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
    clips = frame_clips(inputs["video_shot_ids"], model.config.frames_per_patch)
    tokens_per_clip = model.get_frame_tokens(inputs["pixel_values_videos"], clips[:1]).shape[1]
    with ProgressBar("answering", options) as on_progress:
        streamer = _CountTokens(on_progress, options.max_new_tokens)
        limits = {"max_new_tokens": options.max_new_tokens, "do_sample": False}
        output = model.generate(**inputs, **limits, streamer=streamer)
    prompt_tokens = inputs["input_ids"].shape[1]
    return {
        "video": about_video(options.video, video),
        "frames": [
            {"index": index, "seconds": round(seconds, 3), "shot": shot}
            for index, seconds, shot in zip(video.frame_indices, video.frame_seconds, video.shot_ids, strict=True)
        ],
        "num_frame_tokens": tokens_per_clip * len(clips),
        "num_video_tokens": processor.num_video_tokens,
        "num_prompt_tokens": prompt_tokens,
        "model": "small-world" if options.model is None else str(options.model),
        "unknown_words": _unknown_words(options.question, processor.tokenizer),
        "text": processor.decode(output[0, prompt_tokens:], skip_special_tokens=True),
    }


def show_answer(result: dict) -> str:
    num_frames = len(result["frames"])
    notes = [SMALL_MODEL_NOTE] if result["model"] == "small-world" else []
    if result["unknown_words"]:
        notes.append(f"it does not know the words {', '.join(result['unknown_words'])}")
    note = {"note": "; ".join(notes)} if notes else {}
    times = " ".join(f"{frame['seconds']:.2f}" for frame in result["frames"])
    # A model may write anything, also what a terminal takes for a command.
    text = "".join(character if character.isprintable() else " " for character in result["text"])
    return table(
        {
            **note,
            "video": describe_video(result["video"]),
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
    check_folder(options.image_llm)
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
    return table(
        {
            "wrapped": f"{result['image_llm']} ({result['model_type']}, "
            f"{result['num_image_llm_parameters'] / 1e6:.1f} M parameters, unchanged)",
            "added": f"video tokenizer, {result['num_video_tokenizer_parameters'] / 1e6:.1f} M parameters, untrained; "
            f"{result['num_video_tokens']} tokens per video, frames of {size['height']} x {size['width']} pixels",
            "saved": result["output"],
        }
    )


def convert(options: argparse.Namespace) -> dict:
    """Converts weights as they were published: an image-LLM for Transformers, or the checkpoint file of AutoShot."""
    if Path(options.source).is_file() or Path(options.source).suffix in (".pt", ".pth"):
        if options.kind or options.revision or options.dtype != "auto":
            raise ValueError("a checkpoint file is one of AutoShot, which takes no --kind, --revision or --dtype.")
        convert_autoshot_checkpoint(options.source, options.output)
        return {"source": options.source, "output": options.output, "kind": "autoshot"}
    check_folder(options.source)
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    with ProgressBar("converting", options) as on_progress:
        converted = convert_checkpoint(
            options.source, options.output, options.kind, options.revision, dtype, on_progress
        )
    return {
        "source": options.source,
        "output": options.output,
        "kind": converted.kind,
        "model_type": converted.config.model_type,
        "num_parameters": converted.num_parameters,
        "has_processor": converted.has_processor,
    }


def show_converted(result: dict) -> str:
    rows = {"converted": f"{result['source']} ({result['kind']})", "saved": result["output"]}
    if "num_parameters" in result:
        rows["model"] = f"{result['model_type']}, {result['num_parameters'] / 1e6:.1f} M parameters"
        if not result["has_processor"]:
            rows["note"] = f"{result['source']} holds no tokenizer, so no processor was written"
    return table(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="linvt", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"linvt {version('linvt')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    command = commands.add_parser("ask", help="answer a question about a video", description=ask.__doc__)
    command.add_argument("video", help="path or URL of a video")
    command.add_argument("question")
    command.add_argument("--model", help="Hub id or folder of a LinVT model (default: the small one of the package)")
    command.add_argument("--num-frames", type=int, help="frames to look at (default: that of the model's processor)")
    spread = command.add_mutually_exclusive_group()
    spread.add_argument("--autoshot", metavar="WEIGHTS", help="find shots with these weights (Hub id or folder)")
    spread.add_argument(
        "--uniform", action="store_true", help="do not look for shots, which is faster, for long videos by far"
    )
    command.add_argument("--max-new-tokens", type=int, default=64, help="longest answer, in tokens (default: 64)")
    command.add_argument("--device", help="where the model runs, such as cuda (default: the CPU)")
    command.set_defaults(run=ask, show=show_answer)
    add_json_option(command)

    command = commands.add_parser("wrap", help="make a video-LLM of an image-LLM", description=wrap.__doc__)
    command.add_argument("image_llm", help="Hub id or folder of an image-LLM")
    command.add_argument("output", help="new folder for the LinVT model")
    dtypes = ("auto", "float32", "bfloat16", "float16")
    command.add_argument("--dtype", default="auto", choices=dtypes, help="default: that of the checkpoint")
    size = {"nargs": 2, "type": int, "metavar": ("HEIGHT", "WIDTH")}
    command.add_argument("--frame-size", **size, help="of a frame in pixels (default: that of the image-LLM's images)")
    command.set_defaults(run=wrap, show=show_wrapped)
    add_json_option(command)

    command = commands.add_parser("convert", help="convert published weights", description=convert.__doc__)
    command.add_argument("source", help="Hub id or folder of an image-LLM, or the file ckpt_0_200_0.pth of AutoShot")
    command.add_argument("output", help="new folder, to be given to `linvt wrap`, or as --autoshot")
    kinds = [kind.name for kind in KINDS]
    command.add_argument("--kind", choices=kinds, help="format of the image-LLM (default: it is recognised)")
    command.add_argument("--revision", help="branch, tag or commit on the Hub")
    command.add_argument("--dtype", default="auto", choices=dtypes, help="default: that of the checkpoint")
    command.set_defaults(run=convert, show=show_converted)
    add_json_option(command)

    add_shots_command(commands)
    add_hub_commands(commands)
    return parser


class _CountTokens(BaseStreamer):
    """Tells how much of the longest answer is written."""

    def __init__(self, on_progress: Callable[[float], None], max_new_tokens: int):
        self.on_progress, self.max_new_tokens, self.written = on_progress, max_new_tokens, -1  # first comes the prompt

    def put(self, value) -> None:
        self.written += 1
        self.on_progress(self.written / self.max_new_tokens)

    def end(self) -> None:
        pass


def _unknown_words(text: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Words that the model sees as one and the same unknown word; most tokenizers know all."""
    encoding = tokenizer(text, return_offsets_mapping=True)
    spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
    return [text[start:end] for token, (start, end) in spans if token == tokenizer.unk_token_id and end > start]


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the model cannot run on {name!r}: {error}") from error
    return device


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
