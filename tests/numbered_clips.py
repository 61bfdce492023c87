"""
Clips in which each frame shows its own number, so that a wrong frame cannot pass for the right one.

The number stands in eight vertical bars, black for 0 and white for 1, the highest bit on the left.
"""

import os
from fractions import Fraction

import av
import numpy as np


WIDTH, HEIGHT = 64, 48


def numbered_picture(number, width=WIDTH, height=HEIGHT):
    bits = [(number >> bit) & 1 for bit in range(7, -1, -1)]
    row = np.repeat(np.array(bits, dtype=np.uint8) * 255, width // 8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def shown_number(picture):
    """The number in a picture of shape (height, width, 3) or (3, height, width), read in the middle of each bar."""
    picture = np.asarray(picture)
    picture = picture if picture.shape[-1] == 3 else picture.transpose(1, 2, 0)
    row = picture[picture.shape[0] // 2].mean(axis=-1)
    bar = len(row) / 8
    return sum(int(row[int((i + 0.5) * bar)] > 127) << (7 - i) for i in range(8))


def add_video(container, numbers, times, codec="libx264", turns=0, size=(WIDTH, HEIGHT), stretch=None, **options):
    """Encodes pictures of `numbers` that are shown at `times` (milliseconds)."""
    stream = container.add_stream(codec, rate=25)
    picture = np.rot90(numbered_picture(0, *size), turns)
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = {"gif": "gray"}.get(codec, "yuv420p")
    stream.options = {"g": "12", **options}
    if stretch is not None:
        stream.codec_context.sample_aspect_ratio = stretch
    # Milliseconds per tick: not all codecs and containers can say when exactly a frame is shown.
    per_tick = 40 if codec in ("mpeg4", "mpeg2video", "gif", "libvpx") or container.format.name == "avi" else 1
    stream.codec_context.time_base = Fraction(per_tick, 1000)
    for number, time in zip(numbers, times, strict=True):
        picture = np.ascontiguousarray(np.rot90(numbered_picture(number, *size), turns))
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = time // per_tick, Fraction(per_tick, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def add_silence(container, stream):
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.int16), format="s16", layout="mono")
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def make_clip(path, num_frames=200, times=None, container_options=None, format=None, **kwargs):
    with av.open(os.fspath(path), "w", format=format, options=container_options or {}) as container:
        add_video(container, range(num_frames), times or range(0, 40 * num_frames, 40), **kwargs)
    return path
