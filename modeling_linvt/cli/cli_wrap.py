"""Saves an image-LLM with a fresh video tokenizer: the command `linvt wrap`."""

import argparse
import json

from linvt_cli.cli_checks import check_folder, check_new_folder
from linvt_cli.cli_choices import DTYPES
from linvt_cli.cli_output import add_json_option, table


MERGING_NOTE = "nothing was trained; frame tokens are merged, so `linvt ask` gets answers about videos at once"


def add_wrap_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("wrap", help="make a video-LLM of an image-LLM", description=wrap.__doc__)
    command.set_defaults(check=check_wrap, run=wrap, show=show_wrapped)
    command.add_argument("image_llm", help="Hub id or folder of an image-LLM")
    command.add_argument("output", help="new folder for the LinVT model")
    command.add_argument("--dtype", default="auto", choices=DTYPES, help="default: that of the checkpoint")
    size = {"nargs": 2, "type": int, "metavar": ("HEIGHT", "WIDTH")}
    command.add_argument("--frame-size", **size, help="of a frame in pixels (default: as suits the image-LLM)")
    command.add_argument(
        "--video-tokenizer",
        type=_settings,
        metavar="JSON",
        help="settings of the video tokenizer that differ from the defaults, such as '{\"num_queries\": [32, 16, 8]}'",
    )
    add_json_option(command)


def check_wrap(options: argparse.Namespace) -> None:
    check_folder(options.image_llm)
    check_new_folder(options.output)


def wrap(options: argparse.Namespace) -> dict:
    """Puts a fresh video tokenizer on an image-LLM and saves the whole."""
    import torch
    from transformers import AutoProcessor

    from linvt.checkpoints.atomic_folder import new_folder
    from linvt.configuration.known_settings import own_settings
    from linvt.modeling_linvt import LinVTForConditionalGeneration
    from linvt.processors.processing_linvt import LinVTProcessor

    image_llm_processor = AutoProcessor.from_pretrained(options.image_llm)
    model = LinVTForConditionalGeneration.from_image_llm(
        options.image_llm, options.video_tokenizer, dtype=options.dtype
    )
    size = None if options.frame_size is None else dict(zip(("height", "width"), options.frame_size, strict=True))
    processor = LinVTProcessor.from_image_llm_processor(image_llm_processor, frame_size=size, model=model)
    size = processor.video_processor.size
    try:
        model.get_frame_tokens(torch.zeros(1, 3, size["height"], size["width"], device=model.device))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the image-LLM cannot take frames of {size['height']} x {size['width']}: {error}") from error
    with new_folder(options.output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return {
        "image_llm": str(options.image_llm),
        "model_type": model.config.image_llm_config.model_type,
        "output": str(options.output),
        "num_image_llm_parameters": model.image_llm.num_parameters(),
        "num_video_tokenizer_parameters": model.video_tokenizer.num_parameters(),
        "num_video_tokens": model.config.num_video_tokens,
        "only_merges": model.video_tokenizer.only_merges,
        "video_tokenizer": own_settings(model.config.video_tokenizer_config),
        "frame_size": dict(size),
    }


def show_wrapped(result: dict) -> str:
    size = result["frame_size"]
    note = {"note": MERGING_NOTE} if result["only_merges"] else {}
    return table(
        {
            "wrapped": f"{result['image_llm']} ({result['model_type']}, "
            f"{result['num_image_llm_parameters'] / 1e6:.1f} M parameters, unchanged)",
            "added": f"video tokenizer, {result['num_video_tokenizer_parameters'] / 1e6:.1f} M parameters, untrained; "
            f"{result['num_video_tokens']} tokens per video, frames of {size['height']} x {size['width']} pixels",
            "settings": ", ".join(f"{name} {value}" for name, value in result["video_tokenizer"].items()),
            "saved": result["output"],
            **note,
        }
    )


def _settings(text: str) -> dict:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object, such as '{{\"top_k\": 1024}}'")
    return settings
