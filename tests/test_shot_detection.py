"""Videos in forked processes, as `datasets.map(num_proc=...)` makes them: PyTorch may wait there for lost threads."""

import subprocess
import sys

import pytest


START = """
import multiprocessing
import numpy as np
import torch
from linvt import LinVTVideoProcessor
from linvt.processors.shots.shot_detection import load_shot_detector

def in_a_forked_process(function):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function)

torch.set_num_threads(2)
"""

SHOTS = """
def detect():
    frames = np.random.default_rng(0).integers(0, 256, (120, 27, 48, 3), dtype=np.uint8)
    frames[60:] //= 8
    shots = load_shot_detector()(iter(frames))
    first = next(shots)
    between = torch.get_num_threads()  # the caller may compute with what it has got
    return [first, *shots], between, torch.get_num_threads()

here = detect()
assert here[1:] == (2, 2)
assert in_a_forked_process(detect) == here
"""

FRAMES = """
def read():
    frames = np.random.default_rng(0).integers(0, 256, (12, 240, 320, 3), dtype=np.uint8)
    inputs = LinVTVideoProcessor()(frames, return_tensors="pt")
    return float(inputs["pixel_values_videos"].numpy().sum()), torch.get_num_threads()

here = read()
assert here[1] == 2
assert in_a_forked_process(read) == here
"""


@pytest.mark.parametrize("script", [SHOTS, FRAMES], ids=["shots", "frames"])
def test_videos_are_read_in_a_forked_process_too_and_its_threads_are_left_as_they_are(script):
    done = subprocess.run([sys.executable, "-c", START + script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
