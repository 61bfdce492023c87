import subprocess
import sys


IN_A_FORKED_PROCESS = """
import multiprocessing
import numpy as np
import torch
from linvt.processors.shots.shot_detection import load_shot_detector

def detect():
    frames = np.random.default_rng(0).integers(0, 256, (60, 27, 48, 3), dtype=np.uint8)
    return list(load_shot_detector()(iter(frames)))

torch.set_num_threads(2)
here = detect()
with multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.apply(detect) == here
"""


def test_shots_are_found_in_a_forked_process_too():
    """As `datasets.map(num_proc=...)` does. PyTorch on several threads waits there for threads that do not exist."""
    done = subprocess.run([sys.executable, "-c", IN_A_FORKED_PROCESS], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
