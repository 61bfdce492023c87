"""Draws `shapes.mp4`, the clip that the README asks about: three shots, in each a shape that moves.

python examples/make_clip.py examples/shapes.mp4
"""

import sys
from fractions import Fraction

import av
import numpy as np


WIDTH, HEIGHT, FPS, SECONDS_PER_SHOT = 160, 120, 10, 2
# Colour of the shape, colour of the background, whether it is round, start and end as fractions of the frame.
SHOTS = [
    ((220, 40, 40), (235, 235, 225), False, (0.1, 0.5), (0.9, 0.5)),
    ((40, 70, 220), (30, 40, 30), True, (0.5, 0.1), (0.5, 0.9)),
    ((40, 160, 70), (250, 220, 120), False, (0.9, 0.9), (0.1, 0.1)),
]


def draw(colour, background, is_round: bool, x: float, y: float) -> np.ndarray:
    """One frame, uint8 of shape `(HEIGHT, WIDTH, 3)`."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    right, down = columns - x * WIDTH, rows - y * HEIGHT
    inside = right**2 + down**2 < 15**2 if is_round else (abs(right) < 14) & (abs(down) < 14)
    return np.where(inside[..., None], colour, background).astype(np.uint8)


def main(path: str) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("h264", rate=FPS, options={"crf": "23", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        number = 0
        for colour, background, is_round, start, end in SHOTS:
            for step in np.linspace(0, 1, FPS * SECONDS_PER_SHOT):
                x, y = (1 - step) * np.array(start) + step * np.array(end)
                frame = av.VideoFrame.from_ndarray(draw(colour, background, is_round, x, y), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode())
    print(f"{path}: {number} frames, {number / FPS:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
