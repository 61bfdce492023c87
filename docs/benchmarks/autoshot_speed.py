"""Frames per second of AutoShot: the module its authors published against ours, in float32 and in bfloat16.

All run in one process, in turns, on the same random weights and the same random clip, in windows of 100 frames of
which 50 are kept. The published code is no part of this project; it is read from a clone of wentaozhu/AutoShot:

    python docs/benchmarks/autoshot_speed.py --published AutoShot --threads 2

Before it measures, the script checks that both give the same probabilities in float32. The ratios are the result.
"""

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from linvt import AutoShotConfig, AutoShotModel
from linvt.conversion.convert_autoshot import convert_autoshot_state_dict


PUBLISHED_MODULE = "supernet_flattransf_3_8_8_8_13_12_0_16_60"
AT_MOST = 1e-5  # between probabilities in float32


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def random_clip(num_frames: int) -> torch.Tensor:
    """A new random picture every 20 frames, with noise: uint8 `(num_frames, 27, 48, 3)`."""
    pictures = torch.rand(-(-num_frames // 20), 27, 48, 3).repeat_interleave(20, dim=0)[:num_frames]
    return (255 * (0.9 * pictures + 0.1 * torch.rand(pictures.shape))).to(torch.uint8)


def published_network(folder: Path, device: str) -> nn.Module:
    """The authors' network with random weights, its normalisations set to the statistics of one window."""
    if importlib.util.find_spec("einops") is None:  # they import it, and throw away what its only call returns
        for name in ("einops", "einops.layers", "einops.layers.torch"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["einops"].rearrange = lambda x, *args, **kwargs: x
        sys.modules["einops.layers.torch"].Rearrange = object
    if device == "cpu":  # they choose the device by this alone
        torch.cuda.is_available = lambda: False
    sys.path.insert(0, str(folder))
    network = importlib.import_module(PUBLISHED_MODULE).TransNetV2Supernet().to(device)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 1.0
    network.train()(published_windows(random_clip(50))[0].to(device))
    return network.eval()


def published_windows(clip: torch.Tensor) -> list[torch.Tensor]:
    """Windows as published, `(1, 3, 100, 27, 48)` in 0..255: copies of the outermost frames before and after."""
    after = 25 + -len(clip) % 50
    padded = torch.cat([clip[:1].expand(25, -1, -1, -1), clip, clip[-1:].expand(after, -1, -1, -1)])
    starts = range(0, len(padded) - 99, 50)
    return [padded[start : start + 100].permute(3, 0, 1, 2)[None].float() for start in starts]


def published_probabilities(network: nn.Module, clip: torch.Tensor, device: str) -> torch.Tensor:
    kept = [network(window.to(device))[0][0, 25:75, 0].sigmoid() for window in published_windows(clip)]
    return torch.cat(kept)[: len(clip)].cpu()


def median_seconds(ways: dict[str, Callable[[], torch.Tensor]], repeats: int) -> dict[str, float]:
    """In turns, so that what else happens on the machine meets all of them. Calling them before has warmed them up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, way in ways.items():
            say(f"{name}: {repeat + 1} of {repeats}")
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path, required=True, help="clone of wentaozhu/AutoShot")
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch on the CPU")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # which has too few bits for the check
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", category=UserWarning, module=PUBLISHED_MODULE)

    with torch.no_grad():
        published = published_network(args.published.resolve(), args.device)
        ours = AutoShotModel(AutoShotConfig()).eval()
        ours.load_state_dict(convert_autoshot_state_dict(published.state_dict()))
        ours = ours.to(args.device)
        with tempfile.TemporaryDirectory() as folder:  # loading is what keeps the head in float32
            ours.save_pretrained(folder)
            half = AutoShotModel.from_pretrained(folder, dtype=torch.bfloat16).to(args.device)
        clip = random_clip(args.frames)
        ways = {
            "published": lambda: published_probabilities(published, clip, args.device),
            "ours, float32": lambda: ours.shot_probabilities(clip).cpu(),
            "ours, bfloat16": lambda: half.shot_probabilities(clip).cpu(),
        }
        say("checking")
        outputs = {name: way() for name, way in ways.items()}
        differences = {name: (output - outputs["published"]).abs().max().item() for name, output in outputs.items()}
        if not differences["ours, float32"] <= AT_MOST:
            say(f"Probabilities differ by {differences['ours, float32']:.1e}, which is more than {AT_MOST:.0e}.")
            return 1
        seconds = median_seconds(ways, args.repeats)

    rows = [
        {
            "network": name,
            "frames per second": args.frames / seconds[name],
            "faster": seconds["published"] / seconds[name],
            "largest difference": differences[name],
        }
        for name in ways
    ]
    cuda = args.device == "cuda"
    facts = {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {os.cpu_count()} cores, {args.threads} threads",
        "clip": f"{args.frames} frames, probabilities {outputs['published'].std():.2f} around their mean",
        "versions": f"torch {torch.__version__}",
        "repeats": f"medians of {args.repeats}",
    }
    if args.json:
        print(json.dumps({**facts, "measured": rows}, indent=1))
    else:
        print("; ".join(f"{name}: {value}" for name, value in facts.items()))
        print("\n| network | frames per second | faster | largest difference |\n|---|---|---|---|")
        for name, fps, ratio, difference in (row.values() for row in rows):
            print(f"| {name} | {fps:.0f} | {ratio:.2f} x | {difference:.0e} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
