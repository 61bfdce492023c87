"""What reading a video costs beyond decoding it and running the network: time, and memory by length.

Time: `read_video` with shots and 32 picked frames of 336 x 336, against decoding all frames with PyAV and nothing else
plus the network on frames that lie ready, in turns. Memory: peak of a process that reads a file of one minute and of
one that reads a file of one hour, both written here. Exit code 1 above 1.15 times the time or 1.2 times the memory.

    python docs/benchmarks/video_reading.py --videos some.mp4 [...] [--repeats 3]
    python docs/benchmarks/video_reading.py --memory [--fps 5]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from torchvision.transforms import v2
from tqdm import tqdm

from linvt.processors.shots.shot_detection import load_shot_detector
from linvt.processors.video.video_container import open_video
from linvt.processors.video.video_packets import PacketLog, decode_frames, read_packets
from linvt.processors.video.video_pictures import FramePictures
from linvt.processors.video.video_reading import read_video


NUM_FRAMES, SIZE = 32, [336, 336]
MOST_TIME, MOST_MEMORY = 1.15, 1.2


def decoded(path: Path) -> Iterator[av.VideoFrame]:
    with open_video(path, str(path)) as (container, stream):
        yield from decode_frames(stream, read_packets(container, stream, PacketLog(), strict=True), strict=True)


def read(path: Path) -> None:
    resize = v2.Resize(SIZE, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    read_video(path, NUM_FRAMES, transform=resize, detect_shots=load_shot_detector())


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def time_ratio(path: Path, repeats: int) -> float:
    """Prints a row of the table."""
    pictures = FramePictures(str(path), None)
    thumbnails = [pictures.thumbnail(frame) for frame in decoded(path)]
    detect_shots = load_shot_detector()
    parts = {
        "decoding": lambda: sum(1 for _ in decoded(path)),
        "network": lambda: list(detect_shots(iter(thumbnails))),
        "read_video": lambda: read(path),
    }
    times = {name: [] for name in parts}
    for _ in tqdm(range(repeats), desc=path.name, leave=False):
        for name, run in parts.items():
            times[name].append(seconds(run))
    ratios = [whole / (decoding + network) for decoding, network, whole in zip(*times.values(), strict=True)]
    share = statistics.median(times["decoding"]) / statistics.median(times["network"])
    ratio = statistics.median(ratios)
    print(f"| {path.name} | {len(thumbnails)} | {share:.2f} | {ratio:.2f} |")
    return ratio


def write_video(path: Path, duration_seconds: int, fps: int) -> None:
    """A pattern that drifts and changes every ten seconds."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for number in range(duration_seconds * fps):
            if number % (10 * fps) == 0:
                pattern = np.kron(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8), np.ones((40, 40, 1), np.uint8))
            picture = np.roll(pattern, number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def memory_ratio(fps: int) -> float:
    """Prints the table."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, duration_seconds in tqdm({"one minute": 60, "one hour": 3600}.items(), leave=False):
            path = Path(folder) / f"{duration_seconds}.mp4"
            write_video(path, duration_seconds, fps)
            command = [sys.executable, __file__, "--read-one", str(path)]
            peaks[name] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ratio = peaks["one hour"] / peaks["one minute"]
    print(f"640 x 360, {fps} frames per second; peak memory of the process, one minute = 1\n")
    print("| one minute | one hour |\n|---|---|")
    print(f"| 1 ({peaks['one minute'] / 2**10:.0f} MiB) | {ratio:.2f} |")
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="compare the memory of a minute and of an hour")
    parser.add_argument("--fps", type=int, default=5, help="of the files whose memory is compared")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--read-one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.read_one is not None:
        read(options.read_one)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return 0
    too_much = False
    if options.videos:
        print("| video | frames | decoding / network | read_video / (decoding + network) |\n|---|---|---|---|")
        too_much = max(time_ratio(path, options.repeats) for path in options.videos) > MOST_TIME
    if options.memory:
        too_much |= memory_ratio(options.fps) > MOST_MEMORY
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main())
