"""
Damaged videos, thousands of them, all made here: each gives frames or one `VideoReadError`, and no other exception,
no crash and no hang.

A crash would end pytest itself, so the cases run in processes of their own. A case is a function of its format and
its seed: `python tests/test_video_fuzz.py FIRST LAST FORMAT...` runs those with FIRST <= seed < LAST.
"""

import faulthandler
import logging
import math
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
import torch
from warm_processes import run_script

from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_reading import read_video


WIDTH, HEIGHT, NUM_FRAMES = 80, 64, 30  # SVT-AV1 before 3.0 takes no picture of less than 64 rows

# What x264 writes must not depend on what was in memory before, as with its default it does.
X264 = {"x264-params": "mbtree=0"}
X265 = {"x265-params": "log-level=none:pools=none:frame-threads=1"}

# Container, encoder, options of the encoder, options of the container.
FORMATS: dict[str, tuple[str, str, dict, dict]] = {
    "mp4": ("mp4", "libx264", {"bf": "3", **X264}, {}),
    "mp4_index_first": ("mp4", "libx264", {"bf": "3", **X264}, {"movflags": "faststart"}),
    "mp4_fragments": ("mp4", "libx264", {"bf": "0", **X264}, {"movflags": "frag_keyframe+empty_moov"}),
    "mov": ("mov", "mpeg4", {"bf": "2"}, {}),
    "mkv": ("matroska", "libx264", {"bf": "3", "x264-params": "mbtree=0:open-gop=1"}, {}),
    "mkv_hevc": ("matroska", "libx265", {"bf": "3", **X265}, {}),
    "mp4_av1": ("mp4", "libsvtav1", {"preset": "12", "b": "0", "crf": "35"}, {}),  # by bitrate, no two are alike
    "webm_vp8": ("webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "8"}, {}),
    "webm_vp9": ("webm", "libvpx-vp9", {"lag-in-frames": "8"}, {}),
    "ts": ("mpegts", "libx264", {"bf": "3", **X264}, {}),
    "mpg": ("mpeg", "mpeg2video", {"bf": "2"}, {}),
    "avi": ("avi", "mpeg4", {"bf": "2"}, {}),
    "flv": ("flv", "flv", {}, {}),
    "ogg": ("ogg", "libvpx", {}, {}),
    "wmv": ("asf", "wmv2", {}, {}),
    "gif": ("gif", "gif", {}, {}),
    "raw_h264": ("h264", "libx264", {"bf": "3", **X264}, {}),
}

# 2805 cases, 15 of each kind of damage in each format.
NUM_SEEDS = 165

# Each with some of the formats.
NUM_PROCESSES = 6

# A case takes milliseconds, a few of them seconds; a machine with other work can stop for a minute.
SECONDS_PER_CASE = 300


# The cases


def make_clip(name: str, folder: Path) -> bytes:
    """A clip of two scenes, the same bytes each time; where it is common, with sound beside it."""
    container_format, codec, options, container_options = FORMATS[name]
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8) for _ in range(2)]
    scenes = [scene.repeat(8, axis=0).repeat(8, axis=1) for scene in scenes]
    bit_exact = {"fflags": "+bitexact", **container_options}
    with av.open(str(folder / name), "w", format=container_format, options=bit_exact) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "10", "threads": "1", **options})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        has_sound = container_format in ("mp4", "matroska", "mpegts", "avi")
        sound = container.add_stream("aac" if container_format != "avi" else "mp2", rate=16000) if has_sound else None
        for number in range(NUM_FRAMES):
            picture = np.roll(scenes[number >= NUM_FRAMES // 2], 3 * number, axis=1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.int16), format="s16", layout="mono")
            silence.sample_rate = 16000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    if codec == "libsvtav1" and sys.platform == "linux":  # of root's processes it makes ones that all others wait for
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return (folder / name).read_bytes()


def flip_bits(rng: random.Random, content: bytes, first: int, last: int, number: int | None = None) -> bytes:
    damaged = bytearray(content)
    for _ in range(number or rng.choice([1, 2, 5, 20])):
        damaged[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def pieces(rng: random.Random, content: bytes, number: int) -> list[bytes]:
    """The content cut at random places into this number of pieces, none of them empty."""
    cuts = [0, *sorted(rng.sample(range(1, len(content)), number - 1)), len(content)]
    return [content[start:end] for start, end in zip(cuts[:-1], cuts[1:], strict=True)]


def cut_off(rng: random.Random, content: bytes) -> bytes:
    return pieces(rng, content, 2)[0]


def flip_bits_anywhere(rng: random.Random, content: bytes) -> bytes:
    return flip_bits(rng, content, 0, len(content))


def flip_bits_in_the_head(rng: random.Random, content: bytes) -> bytes:
    return flip_bits(rng, content, 0, min(600, len(content)))


def flip_bits_in_the_tail(rng: random.Random, content: bytes) -> bytes:
    """Where an mp4 file has its index."""
    return flip_bits(rng, content, max(0, len(content) - 1500), len(content))


def flip_a_bit_of_the_parameters(rng: random.Random, content: bytes) -> bytes:
    """Of HEVC's picture parameters, for some of which FFmpeg's decoder waits for ever if it has several threads."""
    start = max(content.find(b"\x44\x01"), 0)  # other codecs: of the first bytes of the file
    return flip_bits(rng, content, start + 2, start + 6, number=1)


def overwrite_many_bytes(rng: random.Random, content: bytes) -> bytes:
    share = rng.choice([0.002, 0.02, 0.2])
    return bytes(rng.randrange(256) if rng.random() < share else byte for byte in content)


def overwrite_a_range(rng: random.Random, content: bytes) -> bytes:
    before, range_, behind = pieces(rng, content, 3)
    length = min(len(range_), rng.choice([4, 100, 2000]))
    garbage = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    return before + garbage + range_[length:] + behind


def remove_a_piece(rng: random.Random, content: bytes) -> bytes:
    before, piece, behind = pieces(rng, content, 3)
    return before + piece[rng.choice([1, 188, 2000]) :] + behind


def repeat_a_piece(rng: random.Random, content: bytes) -> bytes:
    before, piece, behind = pieces(rng, content, 3)
    return before + piece * rng.choice([2, 3, 10]) + behind


def swap_two_pieces(rng: random.Random, content: bytes) -> bytes:
    before, first, between, second, behind = pieces(rng, content, 5)
    return before + second + between + first + behind


def garbage_behind_the_head(rng: random.Random, content: bytes) -> bytes:
    head = content[: rng.choice([0, 4, 12, 100, 600])]
    return head + rng.randbytes(rng.choice([1, 50, len(content)]))


DAMAGES: list[Callable[[random.Random, bytes], bytes]] = [
    cut_off,
    flip_bits_anywhere,
    flip_bits_in_the_head,
    flip_bits_in_the_tail,
    flip_a_bit_of_the_parameters,
    overwrite_many_bytes,
    overwrite_a_range,
    remove_a_piece,
    repeat_a_piece,
    swap_two_pieces,
    garbage_behind_the_head,
]


def check_case(content: bytes, name: str, seed: int, folder: Path) -> bool:
    """Reads the damaged video of this seed and checks what comes. Returns whether it gave frames."""
    rng = random.Random(f"{name} {seed}")
    source = DAMAGES[seed % len(DAMAGES)](rng, content)
    if rng.random() < 0.3:
        (folder / "damaged").write_bytes(source)
        source = folder / "damaged"
    num_seen = None

    def halves(frames: Iterator[np.ndarray]) -> list[tuple[int, int]]:
        nonlocal num_seen
        num_seen = sum(frame.shape == (27, 48, 3) for frame in frames)
        return [(0, num_seen)] if num_seen == 1 else [(0, num_seen // 2), (num_seen // 2, num_seen)]

    try:
        video = read_video(source, 4, detect_shots=halves if rng.random() < 0.4 else None)
    except VideoReadError as error:
        assert str(error).startswith("Cannot read a video from ") and "\n" not in str(error)
        return False
    num_frames = min(4, video.total_num_frames)
    assert num_frames >= 1 and num_seen in (None, video.total_num_frames)
    assert video.frames.shape[:2] == (num_frames, 3) and video.frames.dtype == torch.uint8
    assert video.width >= 1 and video.height >= 1 and video.frames.numel() > 0
    assert len(video.frame_indices) == len(video.frame_seconds) == len(video.shot_ids) == num_frames
    assert video.frame_indices == sorted(set(video.frame_indices)) and video.frame_indices[0] >= 0
    assert video.frame_indices[-1] < video.total_num_frames
    assert video.frame_seconds == sorted(video.frame_seconds) and video.frame_seconds[0] >= 0
    assert math.isfinite(video.duration_seconds) and video.duration_seconds >= video.frame_seconds[-1]
    assert math.isfinite(video.fps) and video.fps > 0 and video.num_lost_frames >= 0
    return True


def run_cases(first: int, last: int, names: list[str]) -> None:
    """Prints each case before it runs, and behind the last one of a format how many of them gave frames."""
    logging.disable()  # thousands of true warnings about damage
    # As some programs have it, old versions of torchvision among them: decoding threads then wait for Python's lock
    # wherever they report damage.
    av.logging.set_level(av.logging.ERROR)
    faulthandler.enable()  # a crash says where
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            content = make_clip(name, Path(folder))
            num_read = 0
            for seed in range(first, last):
                print(name, seed, flush=True)  # noqa: T201
                faulthandler.dump_traceback_later(SECONDS_PER_CASE, exit=True)
                num_read += check_case(content, name, seed, Path(folder))
            print(name, "gave frames:", num_read)  # noqa: T201


# The tests


@pytest.mark.parametrize("name", FORMATS)
def test_the_whole_clip_can_be_read(name, tmp_path):
    """Else its damage would be tested on nothing."""
    content = make_clip(name, tmp_path)
    assert content == make_clip(name, tmp_path)
    video = read_video(content, 4)
    assert video.frames.shape == (4, 3, HEIGHT, WIDTH) and video.total_num_frames == NUM_FRAMES


@pytest.mark.parametrize("names", [list(FORMATS)[i::NUM_PROCESSES] for i in range(NUM_PROCESSES)], ids="+".join)
def test_damage_gives_frames_or_one_error(names):
    done = run_script(Path(__file__), 0, NUM_SEEDS, *names)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"exit code {done.returncode} in case {lines[-1:]}:\n{done.stderr[-6000:]}"
    for name in names:
        num_read = int(lines[lines.index(f"{name} {NUM_SEEDS - 1}") + 1].removeprefix(f"{name} gave frames: "))
        # Most of the kinds of damage leave something, and garbage behind the first bytes rarely does.
        assert NUM_SEEDS // 4 < num_read < NUM_SEEDS


if __name__ == "__main__":
    run_cases(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
