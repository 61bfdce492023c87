"""AutoShot against the detectors of PySceneDetect, on films with known transitions, all in one run.

The films are cut together from the videos of a folder, none of which the weights may have been trained on or their
threshold chosen with, and encoded as H.264; annotated videos can be added. A transition counts as found by the rule of
`linvt.processors.shots.shot_evaluation`. F1 of cuts and of gradual transitions each take all false alarms as theirs.
Frames per second include decoding; the detectors take turns, file by file. Exit code 1 unless AutoShot's F1 is above
that of the better other detector and it misses no cut that this one finds. pip install scenedetect opencv-python-
headless python docs/benchmarks/shot_detection.py --videos my_videos [--annotated montage.json ...] An annotation is a
JSON file with the name of a video beside it and its shots, first and last frame of each: `{"file": "montage.mp4",
"shots": [{"start": 0, "end": 74}, ...]}`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, detect
from tqdm import tqdm

from linvt.processors.shots.shot_detection import load_shot_detector
from linvt.processors.shots.shot_evaluation import Scene, TransitionCounts, match_transitions
from linvt.processors.video.video_reading import read_video


sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from synthetic_shots.pictures import Footage
from synthetic_shots.transitions import make_film


HEIGHT, WIDTH, FRAMES_PER_SECOND = 180, 320, 25
SHOTS_PER_FILM, SHOT_FRAMES = 14, (12, 150)


@dataclass
class Score:
    """What a detector did with all files."""

    cuts: TransitionCounts = TransitionCounts()
    gradual: TransitionCounts = TransitionCounts()
    together: TransitionCounts = TransitionCounts()
    seconds: float = 0.0
    found_cuts: set[tuple[Path, int]] = field(default_factory=set)

    def add(self, video: Path, annotated: list[Scene], predicted: list[Scene], seconds: float) -> None:
        found = {truth for truth, _ in match_transitions(annotated, predicted)}
        truths = range(len(annotated) - 1)
        cuts = {i for i in truths if annotated[i + 1][0] == annotated[i][1] + 1}
        false_alarms = len(predicted) - 1 - len(found)
        self.cuts += TransitionCounts(len(found & cuts), false_alarms, len(cuts - found))
        self.gradual += TransitionCounts(len(found - cuts), false_alarms, len(set(truths) - cuts - found))
        self.together += TransitionCounts(len(found), false_alarms, len(set(truths) - found))
        self.found_cuts |= {(video, annotated[i][1]) for i in found & cuts}
        self.seconds += seconds


def write_films(videos: Path, folder: Path, num_films: int, seed: int) -> dict[Path, list[Scene]]:
    """Films of the videos as they were filmed, nothing disturbed."""
    footage = Footage(sorted(videos.iterdir()), HEIGHT, WIDTH)
    films = {}
    for number in tqdm(range(num_films), desc="writing films", leave=False):
        film = make_film(
            np.random.default_rng([seed, number]), footage.as_filmed, SHOTS_PER_FILM, SHOT_FRAMES, disturbed=False
        )
        path = folder / f"film_{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for picture in film.frames.numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        films[path] = film.scenes
    return films


def read_annotation(path: Path) -> tuple[Path, list[Scene]]:
    annotation = json.loads(path.read_text())
    return path.parent / annotation["file"], [(shot["start"], shot["end"]) for shot in annotation["shots"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="folder of videos that were not used in training")
    parser.add_argument("--annotated", type=Path, nargs="*", default=[], help="JSON files with shots of real videos")
    parser.add_argument("--autoshot", help="Hub id or folder of weights (default: those of the package)")
    parser.add_argument("--films", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    detect_shots = load_shot_detector(options.autoshot)

    def autoshot(path: Path) -> list[Scene]:
        video = read_video(path, num_frames=1, detect_shots=detect_shots)
        return [(start, end - 1) for start, end in video.shots_frames]

    def pyscenedetect(detector_class: type) -> Callable[[Path], list[Scene]]:
        def find(path: Path) -> list[Scene]:
            scenes = detect(str(path), detector_class(), start_in_scene=True)
            return [(start.frame_num, end.frame_num - 1) for start, end in scenes]

        return find

    detectors = {
        "AutoShot": autoshot,
        "PySceneDetect Content": pyscenedetect(ContentDetector),
        "PySceneDetect Adaptive": pyscenedetect(AdaptiveDetector),
    }
    scores = {name: Score() for name in detectors}
    with tempfile.TemporaryDirectory() as folder:
        films = {}
        if options.videos is not None:
            films = write_films(options.videos, Path(folder), options.films, options.seed)
        films |= dict(read_annotation(path) for path in options.annotated)
        num_frames = sum(scenes[-1][1] + 1 for scenes in films.values())
        for path, scenes in tqdm(films.items(), desc="detecting", leave=False):
            for name, find in detectors.items():
                start = time.perf_counter()
                found = find(path)
                scores[name].add(path, scenes, found, time.perf_counter() - start)
    ours, *others = scores.values()
    best = max(others, key=lambda score: score.together.f1)
    lost = len(best.found_cuts - ours.found_cuts)
    report(scores, num_frames, lost, options.json)
    return int(ours.together.f1 <= best.together.f1 or lost > 0)


def report(scores: dict[str, Score], num_frames: int, lost: int, as_json: bool) -> None:
    kinds = ("cuts", "gradual", "together")
    figures = {
        name: {kind: {x: getattr(getattr(score, kind), x) for x in ("f1", "precision", "recall")} for kind in kinds}
        | {"frames_per_second": num_frames / score.seconds}
        for name, score in scores.items()
    }
    if as_json:
        print(json.dumps({"num_frames": num_frames, "detectors": figures, "num_lost_cuts": lost}, indent=2))
        return
    totals = next(iter(scores.values()))
    counts = [c.true_positives + c.false_negatives for c in (totals.cuts, totals.gradual)]
    print(f"{num_frames} frames, {counts[0]} cuts, {counts[1]} gradual transitions\n")
    print("| detector | F1, cuts | F1, gradual | F1, together | precision | recall | frames per second |")
    print("|---|---|---|---|---|---|---|")
    for name, f in figures.items():
        f1 = " | ".join(f"{f[kind]['f1']:.3f}" for kind in kinds)
        both = f["together"]
        print(f"| {name} | {f1} | {both['precision']:.3f} | {both['recall']:.3f} | {f['frames_per_second']:.0f} |")
    print(f"\nCuts that the better detector of PySceneDetect finds and AutoShot misses: {lost}")


if __name__ == "__main__":
    sys.exit(main())
