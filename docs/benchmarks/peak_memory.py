"""Peak memory of a call, on top of what is there before it. Not a script.

On CUDA it is what PyTorch allocated. On a CPU it is the resident memory of the process as Linux counts it; Python's
libraries must be loaded and warm, so that what they keep is not counted.
"""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch


_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Bytes by which memory grew at the worst moment of `call()`. Slows down what this process allocates later."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    libc = ctypes.CDLL(None)
    # Memory that was freed but kept for reuse would hide in the growth: give it back now, and at once from now on.
    libc.mallopt(_M_MMAP_THRESHOLD, 65_536)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
    before = _resident_bytes("VmRSS")
    call()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
