"""CPU time of what the command line does before it imports PyTorch, beside that import: `python command_line.py`."""

import os
import statistics
import subprocess
import sys


REPEATS = 5

COMMANDS = {
    "import linvt": ("-c", "import linvt"),
    "linvt --help": ("-m", "linvt_cli.cli_main", "--help"),
    "linvt ask --help": ("-m", "linvt_cli.cli_main", "ask", "--help"),
    "linvt ask missing.mp4 QUESTION": ("-m", "linvt_cli.cli_main", "ask", "missing.mp4", "What happens?"),
}


def cpu_seconds(*arguments: str) -> float:
    """User and system time of a Python process."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(1 + REPEATS):  # the first round, in which files come from the disk, is left out
        for name, arguments in COMMANDS.items():
            seconds[name].append(cpu_seconds(*arguments))
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    print("| | CPU time as a part of `import linvt` | CPU seconds |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| `{name}` | {median / medians['import linvt']:.3f} | {median:.2f} |")


if __name__ == "__main__":
    main()
