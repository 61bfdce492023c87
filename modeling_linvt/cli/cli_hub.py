"""Writes a model for the Hub and sends it there: the commands `linvt export` and `linvt push`."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linvt_cli.cli_checks import check_folder, check_new_folder
from linvt_cli.cli_choices import FORMATS
from linvt_cli.cli_output import add_json_option, size_text, table


if TYPE_CHECKING:
    from linvt.hub.export import Exported
    from linvt.hub.push import Destination


MODEL = "Hub id or folder of a LinVT model, or what examples/train_instruction.py has written"


def add_hub_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("export", help="write a model for the Hub", description=export.__doc__)
    command.set_defaults(check=check_export, run=export, show=show_exported)
    command.add_argument("model", help=MODEL)
    command.add_argument("output", help="new folder")
    _add_format_options(command)
    command.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    command.add_argument("--repo-id", metavar="NAME", help="name that it will have on the Hub, for its card")
    add_json_option(command)

    command = commands.add_parser("push", help="put a model onto the Hub", description=push.__doc__)
    command.set_defaults(check=check_push, run=push, show=show_pushed)
    command.add_argument("model", help=MODEL)
    command.add_argument("repo_id", help="name on the Hub, such as NAMESPACE/NAME or, for your own, NAME")
    _add_format_options(command)
    command.add_argument("--private", action="store_true", help="make the repository a private one")
    command.add_argument(
        "--revision", help="branch to add a commit to, made if it is new; without it the repository must be new"
    )
    command.add_argument("--dry-run", action="store_true", help="list what would go and send nothing; needs no token")
    add_json_option(command)


def check_export(options: argparse.Namespace) -> None:
    check_folder(options.model)
    check_new_folder(options.output)


def export(options: argparse.Namespace) -> dict:
    """Writes a model as a folder for the Hub: with all weights, without those of the image-LLM, or with its code."""
    exported = _export(options, options.output, revision=options.revision, repo_id=options.repo_id)
    return {"model": options.model, "output": options.output, **_about(exported)}


def show_exported(result: dict) -> str:
    rows = {"exported": f"{result['model']}, {result['format']}", **_rows(result), "saved": result["output"]}
    return "\n".join([table(rows), *_list(result["files"])])


def check_push(options: argparse.Namespace) -> None:
    check_folder(options.model)


def push(options: argparse.Namespace) -> dict:
    """Exports a model and sends it to the Hub in one commit. It is written to a temporary folder first (TMPDIR)."""
    if options.dry_run:
        return _dry_run(options)
    from linvt.hub.push import check_destination, push_folder

    # What is wrong with the name or the token is found before the model is exported, which may take minutes.
    destination = check_destination(options.repo_id, private=options.private, revision=options.revision)
    with _staging(destination.repo_id) as folder:
        exported = _export(options, folder, repo_id=destination.repo_id)
        pushed = push_folder(folder, options.repo_id, private=options.private, revision=options.revision)
    return {
        **_about_push(options, exported, destination),
        "removed": list(pushed.removed),
        "url": pushed.url,
        "commit": pushed.commit,
    }


def _dry_run(options: argparse.Namespace) -> dict:
    """Lists what a push would send, also without a token or a connection: the destination is checked last."""
    from huggingface_hub.utils import validate_repo_id

    from linvt.hub.lost_connection import HTTPError, lost_connection
    from linvt.hub.push import check_destination

    validate_repo_id(options.repo_id)
    with _staging(options.repo_id) as folder:
        exported = _export(options, folder, repo_id=options.repo_id)
    try:
        destination = check_destination(options.repo_id, private=options.private, revision=options.revision)
    except (ValueError, OSError, HTTPError) as error:
        return {**_about_push(options, exported, None), "warning": lost_connection(error) or str(error)}
    return _about_push(options, exported, destination)


def show_pushed(result: dict) -> str:
    kinds = {None: "", True: "a new repository, ", False: "a repository that is there, "}
    rows = {
        "would push" if result["dry_run"] else "pushed": f"{result['model']}, {result['format']}",
        "to": f"{result['repo_id']}, {kinds[result['new_repository']]}branch {result['revision']}",
        **_rows(result),
    }
    if result["removed"]:
        rows["removes" if result["dry_run"] else "removed"] = ", ".join(result["removed"])
    if "warning" in result:
        rows["warning"] = result["warning"]
    if not result["dry_run"]:
        rows |= {"commit": result["commit"], "page": result["url"]}
    return "\n".join([table(rows), *_list(result["files"])])


@contextmanager
def _staging(repo_id: str) -> Iterator[Path]:
    """Gives the path of a temporary folder with the name of the repository, which the card takes over."""
    with tempfile.TemporaryDirectory(prefix="linvt-push-") as staging:
        yield Path(staging) / repo_id.split("/")[-1]


def _about_push(options: argparse.Namespace, exported: "Exported", destination: "Destination | None") -> dict:
    """Returns what is pushed and where to; `destination` is `None` where the Hub could not be asked."""
    where = {"repo_id": options.repo_id, "revision": options.revision or "main", "new_repository": None, "removed": []}
    if destination is not None:
        where = {
            "repo_id": destination.repo_id,
            "revision": destination.revision,
            "new_repository": not destination.repository_exists,
            "removed": list(destination.stale_files(exported.files)),
        }
    return {"model": options.model, "dry_run": options.dry_run, **where, **_about(exported)}


def _add_format_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format",
        default=FORMATS[0],
        choices=FORMATS,
        help="all weights (full, the default); only those that are not in the image-LLM's own repository (light); or "
        "all weights and the code, for where linvt is not installed (self-contained)",
    )
    command.add_argument("--license", help="for the card (default: that of the image-LLM)")


def _export(options: argparse.Namespace, output: str | Path, **settings: Any) -> "Exported":
    from linvt.hub.export import export_model
    from linvt.progress import Progress

    with Progress("exporting", hidden=options.json) as progress:
        return export_model(
            options.model, output, options.format, license=options.license, on_progress=progress.reach, **settings
        )


def _about(exported: "Exported") -> dict:
    files = dict(sorted(exported.files.items()))
    about = {"format": exported.format, "num_bytes": sum(files.values()), "files": files}
    return {**about, "left_out": list(exported.left_out)}


def _rows(result: dict) -> dict[str, str]:
    rows = {"files": f"{len(result['files'])}, {size_text(result['num_bytes'])}"}
    if result["left_out"]:
        rows["left out"] = f"{', '.join(result['left_out'])}, since pickles may run code when they are read"
    return rows


def _list(files: dict[str, int]) -> list[str]:
    return [f"{size_text(num_bytes):>10}  {path}" for path, num_bytes in files.items()]
