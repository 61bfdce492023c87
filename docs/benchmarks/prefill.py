"""Time and memory up to the first token of an answer: Qwen2-VL's own way with the frames of a video, against LinVT.

Both ways run in one process on the same random-weight Qwen2-VL and the same random frames, turn by turn. The own way
puts all frame tokens into the LLM: `--baseline video` (two frames a temporal patch) or `images` (every frame alone).
Every stage is timed by calling it; inputs are prepared once, before. The ratios of one run are the result.

    python docs/benchmarks/prefill.py --shape small
    python docs/benchmarks/prefill.py --shape 7b --device cuda
"""

import argparse
import functools
import json
import os
import statistics
import sys
from pathlib import Path

import torch
import transformers
from peak_memory import peak_bytes
from prefill_stages import OWN, WAYS, Inputs, check, stage_seconds, whole_logits
from random_qwen2_vl import SHAPES, linvt_inputs, own_inputs, random_frames, random_linvt

from linvt import LinVTForConditionalGeneration


STAGES = ("vision encoder", "video tokenizer", "LLM prefill", "first token")
MEMORY = {
    "cuda": "torch.cuda.max_memory_allocated of one forward, less what was allocated before it (weights and inputs)",
    "cpu": "growth of the process's resident memory in one forward, after the timed ones",
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make(args: argparse.Namespace) -> LinVTForConditionalGeneration:
    return random_linvt(SHAPES[args.shape], args.device, getattr(torch, args.dtype), args.attention)


def inputs_of(model: LinVTForConditionalGeneration, way: str, num_frames: int, args: argparse.Namespace) -> Inputs:
    frames = random_frames(num_frames, SHAPES[args.shape], args.device, model.dtype)
    return own_inputs(model, frames, args.baseline) if way == OWN else linvt_inputs(model, frames)


def measure(model: LinVTForConditionalGeneration, args: argparse.Namespace) -> list[dict]:
    """One row per number of frames and way: tokens, median seconds of the stages, peak bytes."""
    rows = []
    for num_frames in args.frames:
        inputs = {way: inputs_of(model, way, num_frames, args) for way in WAYS}
        seconds: dict[str, list[dict]] = {way: [] for way in WAYS}
        for repeat in range(-1, args.repeats):  # the first one warms up
            for way in seconds:
                say(f"{num_frames} frames, {way}: {'warm-up' if repeat < 0 else f'{repeat + 1} of {args.repeats}'}")
                lap_seconds = stage_seconds(model, way, inputs[way])
                if repeat >= 0:
                    seconds[way].append(lap_seconds)
        for way, laps in seconds.items():
            row = {"frames": num_frames, "way": way, "tokens": inputs[way]["input_ids"].shape[1]}
            rows.append(row | {f"{stage} s": statistics.median(lap[stage] for lap in laps) for stage in STAGES})
    for row in rows:  # last: on a CPU it changes how memory is allocated
        say(f"{row['frames']} frames, {row['way']}: peak memory")
        inputs = inputs_of(model, row["way"], row["frames"], args)
        row["peak bytes"] = peak_bytes(functools.partial(whole_logits, model, row["way"], inputs), args.device)
    return rows


def ratios(rows: list[dict]) -> list[dict]:
    """Per number of frames how much faster and smaller LinVT is."""
    own_rows = {row["frames"]: row for row in rows if row["way"] == OWN}
    pairs = [(own_rows[row["frames"]], row) for row in rows if row["way"] != OWN]
    return [
        {
            "frames": own["frames"],
            "way": linvt["way"],
            "fewer tokens": own["tokens"] / linvt["tokens"],
            "vision encoder faster": own["vision encoder s"] / linvt["vision encoder s"],
            "LLM prefill faster": own["LLM prefill s"] / linvt["LLM prefill s"],
            "first token faster": own["first token s"] / linvt["first token s"],
            "less peak memory": own["peak bytes"] / linvt["peak bytes"],
            "video tokenizer's share": linvt["video tokenizer s"] / linvt["first token s"],
        }
        for own, linvt in pairs
    ]


def table(rows: list[dict]) -> str:
    """Rows as Markdown."""

    def cell(name: str, value: float | int | str) -> str:
        if name == "peak bytes":
            return f"{value / 2**20:.0f} MiB"
        if name == "video tokenizer's share":
            return f"{value:.1%}"
        if isinstance(value, float):
            return f"{value:.3f}" if name.endswith(" s") else f"{value:.2f} x"
        return str(value)

    names = [name.replace(" bytes", " memory") for name in rows[0]]
    cells = [[cell(*item) for item in row.items()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [names, ["---"] * len(names), *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--baseline", choices=("video", "images"), default="video")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="bfloat16 on CUDA, else float32")
    parser.add_argument("--attention", default="sdpa", help="attention implementation of Transformers")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch on the CPU")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    args.dtype = args.dtype or ("bfloat16" if cuda else "float32")
    torch.set_num_threads(args.threads)

    say(f"building {args.shape}")
    model = make(args)
    with torch.inference_mode():
        check(model, random_frames(min(args.frames), SHAPES[args.shape], args.device, model.dtype), args.baseline)
        rows = measure(model, args)
    facts = {
        "shape": f"{args.shape}, random weights, {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters",
        "baseline": args.baseline,
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {os.cpu_count()} cores, {args.threads} threads",
        "dtype": f"{args.dtype}, attention {args.attention}",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "repeats": f"medians of {args.repeats}",
        "peak memory": MEMORY[args.device],
    }
    print("; ".join(f"{name}: {value}" for name, value in facts.items()), table(rows), table(ratios(rows)), sep="\n\n")
    if args.json:
        args.json.write_text(json.dumps({**facts, "measured": rows, "ratios": ratios(rows)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
