"""Functions and scripts in processes of their own, forked from a server that has imported what takes long to import.

A fresh interpreter spends more seconds on importing PyTorch, Transformers and TRL than most tests need for the rest.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch


_WARM = multiprocessing.get_context("forkserver")
# Installed modules, since the server is not told where tests/ is.
_WARM.set_forkserver_preload(["linvt.training.video_sft_trainer", "datasets", "accelerate.commands.launch"])
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def start(function, *arguments) -> multiprocessing.process.BaseProcess:
    """Starts `function(*arguments)`; the function must be one that can be imported."""
    process = _WARM.Process(target=function, args=arguments)
    with patch.dict(os.environ, _ENVIRONMENT):  # with the first process starts the server, whose environment all have
        process.start()
    return process


def run_script(
    script: Path, *arguments, launcher: str | None = None, timeout_seconds: float = 900
) -> subprocess.CompletedProcess:
    """
    Runs a script as `python SCRIPT ARGUMENTS` does; with a launcher, the name of a file of `examples/accelerate/`, on
    two processes as `accelerate launch` does.
    """
    with TemporaryDirectory() as folder:
        command = [str(script), *map(str, arguments)]
        process = start(_run_script, Path(folder), command, launcher)
        process.join(timeout_seconds)
        if process.is_alive():  # with all the processes that it has started
            os.killpg(process.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout_seconds)
        printed = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(command, process.exitcode, *printed)


def _run_script(folder: Path, command: list[str], launcher: str | None) -> None:
    os.setsid()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with (folder / name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = command
    if launcher is None:
        runpy.run_path(command[0], run_name="__main__")
    else:
        _launch(launcher, command)


def _launch(config: str, command: list[str]) -> None:
    """Two processes; what the file says of GPUs and of their precision does not fit a CPU."""
    from accelerate.commands.launch import main

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    file = Path(__file__).parents[1] / "examples" / "accelerate" / config
    options = ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", port]
    sys.argv = ["accelerate-launch", "--config_file", str(file), *options, *command]
    os.environ |= {"PET_RUN_PATH": "1", "PET_START_METHOD": "fork"}  # torchrun forks them from this process
    main()
