"""Converts published weights to a folder that Transformers loads: the command `linvt convert`."""

import argparse
from pathlib import Path

from linvt_cli.cli_checks import check_folder, check_new_folder
from linvt_cli.cli_choices import DTYPES, KINDS
from linvt_cli.cli_output import add_json_option, table


def add_convert_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("convert", help="convert published weights", description=convert.__doc__)
    command.set_defaults(check=check_convert, run=convert, show=show_converted)
    command.add_argument("source", help="Hub id or folder of an image-LLM, or the file ckpt_0_200_0.pth of AutoShot")
    command.add_argument("output", help="new folder, to be given to `linvt wrap`, or as --autoshot")
    command.add_argument("--kind", choices=KINDS, help="format of the image-LLM (default: it is recognised)")
    command.add_argument("--revision", help="branch, tag or commit on the Hub")
    command.add_argument("--dtype", default="auto", choices=DTYPES, help="default: that of the checkpoint")
    add_json_option(command)


def check_convert(options: argparse.Namespace) -> None:
    if not _is_autoshot(options.source):
        check_folder(options.source)
    elif options.kind or options.revision or options.dtype != "auto":
        raise ValueError("a checkpoint file is one of AutoShot, which takes no --kind, --revision or --dtype.")
    elif not Path(options.source).is_file():
        raise FileNotFoundError(f"there is no file {options.source}.")
    check_new_folder(options.output)


def convert(options: argparse.Namespace) -> dict:
    """Converts weights as they were published: an image-LLM for Transformers, or the checkpoint file of AutoShot."""
    if _is_autoshot(options.source):
        from linvt.conversion.convert_autoshot import convert_autoshot_checkpoint

        convert_autoshot_checkpoint(options.source, options.output)
        return {"source": options.source, "output": options.output, "kind": "autoshot"}
    import torch

    from linvt.conversion.convert import convert_checkpoint
    from linvt.progress import Progress

    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    with Progress("converting", hidden=options.json) as on_progress:
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


def _is_autoshot(source: str) -> bool:
    return Path(source).is_file() or Path(source).suffix in (".pt", ".pth")
