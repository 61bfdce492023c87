"""The commands `linvt export` and `linvt push`: a model as a folder in one of three formats, and onto the Hub."""

import argparse
import tempfile
from pathlib import Path

from linvt.hub.export import FORMATS, Exported, export_model
from linvt.hub.push import check_destination, push_folder
from linvt_cli.cli_output import ProgressBar, add_json_option, check_folder, table


MODEL = "Hub id or folder of a LinVT model, or what examples/train_instruction.py has written"


def add_hub_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("export", help="write a model for the Hub", description=export.__doc__)
    command.set_defaults(run=export, show=show_exported)
    command.add_argument("model", help=MODEL)
    command.add_argument("output", help="new folder")
    _add_format_options(command)
    command.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    command.add_argument("--repo-id", metavar="NAME", help="name that it will have on the Hub, for its card")
    add_json_option(command)

    command = commands.add_parser("push", help="put a model onto the Hub", description=push.__doc__)
    command.set_defaults(run=push, show=show_pushed)
    command.add_argument("model", help=MODEL)
    command.add_argument("repo_id", help="name on the Hub, such as NAMESPACE/NAME or, for your own, NAME")
    _add_format_options(command)
    command.add_argument("--private", action="store_true", help="make the repository a private one")
    command.add_argument(
        "--revision", help="branch to add a commit to, made if it is new; without it the repository must be new"
    )
    command.add_argument("--dry-run", action="store_true", help="list what would go, and send nothing")
    add_json_option(command)


def export(options: argparse.Namespace) -> dict:
    """Writes a model as a folder for the Hub: with all weights, without those of the image-LLM, or with its code."""
    exported = _export(options, options.output, revision=options.revision, repo_id=options.repo_id)
    return {"model": options.model, "output": options.output, **_about(exported)}


def show_exported(result: dict) -> str:
    rows = {"exported": f"{result['model']}, {result['format']}", **_rows(result), "saved": result["output"]}
    return "\n".join([table(rows), *_list(result["files"])])


def push(options: argparse.Namespace) -> dict:
    """Exports a model and sends it to the Hub in one commit. It is written to a temporary folder first (TMPDIR)."""
    # What is wrong with the name or the token is found before the model is exported, which may take minutes.
    destination = check_destination(options.repo_id, private=options.private, revision=options.revision)
    with tempfile.TemporaryDirectory(prefix="linvt-push-") as staging:
        folder = Path(staging) / destination.repo_id.split("/")[1]
        exported = _export(options, folder, repo_id=destination.repo_id)
        result = {
            "model": options.model,
            "repo_id": destination.repo_id,
            "revision": destination.revision,
            "new_repository": not destination.repository_exists,
            "dry_run": options.dry_run,
            **_about(exported),
            "removed": list(destination.stale_files(exported.files)),
        }
        if options.dry_run:
            return result
        pushed = push_folder(folder, options.repo_id, private=options.private, revision=options.revision)
    return {**result, "removed": list(pushed.removed), "url": pushed.url, "commit": pushed.commit}


def show_pushed(result: dict) -> str:
    kind = "a new repository" if result["new_repository"] else "a repository that is there"
    rows = {
        "would push" if result["dry_run"] else "pushed": f"{result['model']}, {result['format']}",
        "to": f"{result['repo_id']}, {kind}, branch {result['revision']}",
        **_rows(result),
    }
    if result["removed"]:
        rows["removes" if result["dry_run"] else "removed"] = ", ".join(result["removed"])
    if not result["dry_run"]:
        rows |= {"commit": result["commit"], "page": result["url"]}
    return "\n".join([table(rows), *_list(result["files"])])


def _add_format_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format",
        default=FORMATS[0],
        choices=FORMATS,
        help="all weights (full, the default); only those that are not in the image-LLM's own repository (light); or "
        "all weights and the code, for where linvt is not installed (self-contained)",
    )
    command.add_argument("--license", help="for the card (default: that of the image-LLM)")


def _export(options: argparse.Namespace, output: str | Path, **settings) -> Exported:
    check_folder(options.model)
    with ProgressBar("exporting", options) as on_progress:
        return export_model(
            options.model, output, options.format, license=options.license, on_progress=on_progress, **settings
        )


def _about(exported: Exported) -> dict:
    files = dict(sorted(exported.files.items()))
    about = {"format": exported.format, "num_bytes": sum(files.values()), "files": files}
    return {**about, "left_out": list(exported.left_out)}


def _rows(result: dict) -> dict[str, str]:
    rows = {"files": f"{len(result['files'])}, {_size(result['num_bytes'])}"}
    if result["left_out"]:
        rows["left out"] = f"{', '.join(result['left_out'])}, since pickles may run code when they are read"
    return rows


def _list(files: dict[str, int]) -> list[str]:
    return [f"{_size(num_bytes):>10}  {path}" for path, num_bytes in files.items()]


def _size(num_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} B"
