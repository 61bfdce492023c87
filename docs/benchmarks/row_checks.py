"""How fast rows are checked before a training: rows per CPU second, in this process or in workers beside it.

Rows are invented conversations about copies of one short clip, with the tokenizer and the template of the small model
that comes with the package. Each figure is the median of the repeats, after a check that is not counted. CPU seconds
are those of all processes together: that there are as many rows per CPU second in several workers as in one process
says that free cores share the work.

    python docs/benchmarks/row_checks.py [--rows 2000] [--workers 0 2] [--repeats 3]
"""

import argparse
import resource
import shutil
import statistics
import tempfile
from pathlib import Path

from transformers.utils import logging

import linvt
from linvt import LinVTProcessor
from linvt.training import check_rows


CLIP = Path(__file__).parents[2] / "examples" / "shapes.mp4"
SMALL_MODEL = Path(linvt.__file__).with_name("small_world_model")
MAX_LENGTH = 4096


def row(number: int, video: Path | None) -> dict:
    place = [] if video is None else [{"type": "video", "video": str(video)}]
    question = {"type": "text", "text": f"What colour is shape {number}, and where does it move after that?"}
    answer = "It is blue at first and moves to the right, and then it is red and moves up. " * 3
    return {
        "messages": [{"role": "user", "content": [*place, question]}, {"role": "assistant", "content": answer.strip()}]
    }


def cpu_seconds() -> float:
    """Of this process, and of the workers that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def rows_per_cpu_second(rows: list[dict], processor: LinVTProcessor, num_workers: int, repeats: int) -> float:
    rates = []
    for _ in range(repeats + 1):
        start = cpu_seconds()
        bad = check_rows(rows, processor, max_length=MAX_LENGTH, num_workers=num_workers)
        rates.append(len(rows) / (cpu_seconds() - start))
        if bad:
            raise SystemExit(f"{len(bad)} rows are bad, such as {next(iter(bad.values()))}")
    return statistics.median(rates[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    logging.set_verbosity_error()
    processor = LinVTProcessor.from_pretrained(SMALL_MODEL)
    with tempfile.TemporaryDirectory() as folder:
        videos = [Path(folder) / f"{number}.mp4" for number in range(options.rows)]
        for video in videos:
            shutil.copyfile(CLIP, video)
        kinds = {
            "text alone": [row(number, None) for number in range(options.rows)],
            "a video each": [row(number, video) for number, video in enumerate(videos)],
            "10 rows about each video": [row(number, videos[number // 10]) for number in range(options.rows)],
        }
        print(f"| rows per CPU second, {options.rows} rows | ", end="")
        print(" | ".join(f"{number} workers" for number in options.workers) + " |")
        print("|---|" + "---|" * len(options.workers))
        for kind, rows in kinds.items():
            rates = [rows_per_cpu_second(rows, processor, number, options.repeats) for number in options.workers]
            print(f"| {kind} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |")


if __name__ == "__main__":
    main()
