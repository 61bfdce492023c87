"""What the cascade of `ShotCascade` saves: AutoShot where shots may change, against AutoShot over everything.

Two films are made of the videos of a folder, in a temporary folder, as H.264 of 640 x 360 at 25 frames per second:

- edited: their scenes as they were filmed, 2 to 8 seconds each, joined by cuts, dissolves, fades and wipes;
- a lecture: pictures of them as slides of 20 to 60 seconds, with a moving scene, the speaker, in a corner.

Both are read with 32 frames picked, by the whole network in float32 and by the cascade in turns, decoding included;
then the cascade reads an hour, the same film again and again. Shots are compared with those of the whole network, and
F1 is that of the edited film and of annotated videos, which `shot_detection.py` describes.

    python docs/benchmarks/shot_cascade.py --videos my_videos --annotated montage_640x360.json montage_cuts.json
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import torch
from tqdm import tqdm

from linvt import AutoShotModel
from linvt.processors.shots.shot_boundaries import iter_shots
from linvt.processors.shots.shot_detection import AUTOSHOT_WEIGHTS, load_shot_detector
from linvt.processors.shots.shot_evaluation import Scene, TransitionCounts, count_transitions
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_reading import read_video


sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from synthetic_shots.pictures import Footage
from synthetic_shots.transitions import make_film


HEIGHT, WIDTH, FRAMES_PER_SECOND = 360, 640, 25
SHOT_SECONDS, SLIDE_SECONDS = (2, 8), (20, 60)
SHOTS_AT_ONCE = 6  # in memory
NUM_PICKED = 32
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def read_footage(folder: Path) -> Footage:
    """The videos at half the size of the films, which memory holds; single frames and what is damaged are left out."""
    files = []
    for path in sorted(folder.iterdir()):
        try:
            video = read_video(path, 1)
        except (VideoReadError, ValueError):
            continue
        if video.total_num_frames >= SHOT_SECONDS[0] * FRAMES_PER_SECOND and video.num_lost_frames == 0:
            files.append(path)
    return Footage(files, HEIGHT // 2, WIDTH // 2)


@contextmanager
def writer(path: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """Encodes pictures `(height, width, 3)` of any size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"

        def write(picture: np.ndarray) -> None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(WIDTH, HEIGHT)))

        yield write
        container.mux(stream.encode())


def write_edited(path: Path, footage: Footage, num_frames: int) -> list[Scene]:
    """Returns the first and the last frame of each shot."""
    scenes: list[Scene] = []
    lengths = tuple(FRAMES_PER_SECOND * seconds for seconds in SHOT_SECONDS)
    with writer(path) as write, tqdm(total=num_frames, desc="edited film", leave=False) as bar:
        part = written = 0
        while written < num_frames:
            rng = np.random.default_rng([1, part])
            film = make_film(rng, footage.as_filmed, SHOTS_AT_ONCE, lengths, disturbed=False)
            for picture in film.frames.numpy():
                write(picture)
            scenes += [(written + first, written + last) for first, last in film.scenes]
            part, written = part + 1, written + len(film.frames)
            bar.update(len(film.frames))
    return scenes


def write_lecture(path: Path, footage: Footage, num_frames: int) -> None:
    rng = np.random.default_rng(2)
    # Not a film cut so fast that `Footage` did not see it.
    run = max(footage.runs, key=len)
    speaker = run[:, :, ::3, ::3].permute(0, 2, 3, 1).numpy()
    height, width = speaker.shape[1:3]
    with writer(path) as write:
        written = 0
        while written < num_frames:
            run = footage.runs[rng.integers(len(footage.runs))]
            slide = run[rng.integers(len(run))].permute(1, 2, 0).numpy().copy()
            for _ in range(int(FRAMES_PER_SECOND * rng.uniform(*SLIDE_SECONDS))):
                there = written % (2 * len(speaker))
                slide[-height:, -width:] = speaker[min(there, 2 * len(speaker) - 1 - there)]
                write(slide)
                written += 1


def write_repeated(source: Path, path: Path, times: int) -> None:
    """The same packets again and again."""
    with av.open(str(path), "w") as target:
        stream = None
        for number in range(times):
            with av.open(str(source)) as container:
                template = container.streams.video[0]
                stream = stream or target.add_stream_from_template(template)
                for packet in container.demux(template):
                    if packet.dts is not None:
                        packet.pts += number * template.duration
                        packet.dts += number * template.duration
                        packet.stream = stream
                        target.mux(packet)


def largest_distance(shots: list[tuple[int, int]], others: list[tuple[int, int]]) -> int:
    """Frames from a border of shots to the nearest of the others, and the other way round, where that is most."""
    starts, other_starts = (np.array([start for start, _ in each]) for each in (shots, others))
    distances = np.abs(starts[:, None] - other_starts)
    return int(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos")
    parser.add_argument("--annotated", type=Path, nargs="*", default=[], help="JSON files with shots of videos")
    parser.add_argument("--minutes", type=float, default=5, help="of film for the whole network (default: 5)")
    parser.add_argument("--repeats", type=int, default=12, help="of the film, to make an hour of it (default: 12)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="CPU time, where others use the machine too")
    options = parser.parse_args()
    clock = CLOCKS[options.clock]

    network = AutoShotModel.from_pretrained(AUTOSHOT_WEIGHTS, dtype=torch.float32).eval()
    detector = load_shot_detector()
    windows: Counter[str] = Counter()
    for name, model in (("float32", detector._cascade.network), ("bfloat16", detector._cascade.half)):
        if model is not None:
            count_windows(model, name, windows)

    def whole(frames: Iterator[np.ndarray]) -> Iterator[tuple[int, int]]:
        return iter_shots(network.iter_shot_probabilities(frames), network.config.threshold)

    def decoding(frames: Iterator[np.ndarray]) -> list[tuple[int, int]]:
        return [(0, sum(1 for _ in frames))]

    def read(path: Path, detect_shots: Callable) -> tuple[float, list[tuple[int, int]]]:
        windows.clear()
        start = clock()
        shots = read_video(path, NUM_PICKED, transform=lambda frame: frame[:, ::2, ::2], detect_shots=detect_shots)
        return clock() - start, shots.shots_frames

    threads = torch.get_num_threads()
    print(f"{os.cpu_count()} cores, {threads} threads, torch {torch.__version__}, {options.clock} time\n")
    print("| film | frames | decoding s | whole s | cascade s | faster | shots, whole | shots, cascade | apart |")
    print("|---|---|---|---|---|---|---|---|---|")
    scores = {"whole": TransitionCounts(), "cascade": TransitionCounts()}
    notes = []

    def compare(name: str, path: Path, scenes: list[Scene] | None) -> None:
        seconds, shots = zip(*(read(path, detect) for detect in (decoding, whole, detector)), strict=True)
        number = shots[0][-1][1]
        notes.append(f"{name}: of {-(-number // 50)} windows {dict(windows)}")
        print(
            f"| {name} | {number} | {seconds[0]:.1f} | {seconds[1]:.1f} | {seconds[2]:.1f} | "
            f"{seconds[1] / seconds[2]:.2f} x | {len(shots[1])} | {len(shots[2])} | "
            f"{largest_distance(shots[1], shots[2])} |",
            flush=True,
        )
        if scenes is not None:
            for way, found in zip(scores, shots[1:], strict=True):
                scores[way] += count_transitions(scenes, [(start, end - 1) for start, end in found])

    with tempfile.TemporaryDirectory() as folder:
        footage = read_footage(options.videos)
        num_frames = round(options.minutes * 60 * FRAMES_PER_SECOND)
        films = {"edited": Path(folder) / "edited.mp4", "lecture": Path(folder) / "lecture.mp4"}
        scenes = write_edited(films["edited"], footage, num_frames)
        write_lecture(films["lecture"], footage, num_frames)
        del footage
        for name, path in films.items():
            compare(name, path, scenes if name == "edited" else None)
        for path in options.annotated:
            annotation = json.loads(path.read_text())
            annotated = [(shot["start"], shot["end"]) for shot in annotation["shots"]]
            compare(annotation["file"], path.parent / annotation["file"], annotated)
        for name, path in films.items() if options.repeats > 1 else ():
            hour = Path(folder) / f"{name}_repeated.mp4"
            write_repeated(path, hour, options.repeats)
            (decoded, _), (seconds, shots) = read(hour, decoding), read(hour, detector)
            row = f"{shots[-1][1]} | {decoded:.1f} | - | {seconds:.1f} | - | - | {len(shots)} | -"
            print(f"| {name}, {options.repeats} times | {row} |", flush=True)
    f1 = ", ".join(f"{way} {counts.f1:.4f}" for way, counts in scores.items())
    print(f"\nF1 of the films with known shots: {f1}")
    print("Windows that the cascade ran: " + "; ".join(notes))
    return 0


def count_windows(model: AutoShotModel, name: str, windows: Counter[str]) -> None:
    prepare = model.window_probabilities

    def prepare_counted() -> Callable[[int, torch.Tensor], torch.Tensor]:
        run = prepare()

        def counted(number: int, window: torch.Tensor) -> torch.Tensor:
            windows[name] += 1
            return run(number, window)

        return counted

    model.window_probabilities = prepare_counted  # type: ignore[method-assign]  # only to count


if __name__ == "__main__":
    sys.exit(main())
