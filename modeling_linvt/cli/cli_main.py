"""Asks about videos, sees them to be asked later, and makes and shares models: the command `linvt`.

Exit codes: 0 done, 2 bad input (one line on standard error says what and what to do), 130 interrupted, 1 anything
else.

Each command has a `check`, which looks at arguments and local paths, and a `run`, which does the work. Only `run`
and what it calls import PyTorch and Transformers, inside functions: that takes seconds, which neither `--help` nor
a typing error should cost.
"""

import argparse
import io
import os
import sys
from importlib.metadata import version

from linvt_cli.cli_ask import add_ask_command
from linvt_cli.cli_chat import add_chat_command
from linvt_cli.cli_convert import add_convert_command
from linvt_cli.cli_encode import add_encode_command
from linvt_cli.cli_hub import add_hub_commands
from linvt_cli.cli_output import json_text
from linvt_cli.cli_shots import add_shots_command
from linvt_cli.cli_watch import add_watch_command
from linvt_cli.cli_wrap import add_wrap_command


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every character of an answer
    try:
        options.check(options)
        result = _run(options)
        if result is not None:  # of a command that has not printed by itself, answer by answer
            print(json_text(result) if options.json else options.show(result), flush=True)
    except BrokenPipeError:  # whoever reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"linvt {options.command}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"linvt {options.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="linvt", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"linvt {version('linvt')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add_ask_command(commands)
    add_encode_command(commands)
    add_chat_command(commands)
    add_watch_command(commands)
    add_wrap_command(commands)
    add_convert_command(commands)
    add_shots_command(commands)
    add_hub_commands(commands)
    return parser


def _run(options: argparse.Namespace) -> dict | None:
    """
    Runs a command whose arguments are checked.

    Raises:
        `OSError`: For all that the user can mend, a lost connection included; its text is what to tell.
    """
    from huggingface_hub import logging as hub_logging
    from safetensors import SafetensorError
    from transformers.utils import logging

    from linvt.hub.lost_connection import HTTPError, lost_connection

    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    if options.json or not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        return options.run(options)
    except BrokenPipeError:
        raise
    except SafetensorError as error:  # a damaged file, or a full disk
        raise OSError(f"weights cannot be read or written: {error}.") from error
    except (ValueError, OSError, HTTPError) as error:
        raise OSError(lost_connection(error) or str(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
