"""Draws `shapes.mp4`, the clip that the README asks about: a video of the small world, with three shots.

python examples/make_clip.py examples/shapes.mp4
"""

import sys
from fractions import Fraction

import av
from small_world.drawing import draw_video
from small_world.scenes import Shape, Shot, Video


SIZE, FRAMES_PER_SECOND = 160, 10
CLIP = Video(
    (
        Shot((Shape("red", "square", (0.2, 0.3), (0.8, 0.3), 0.13, "right"),), 2.0, background=11),
        Shot(
            (
                Shape("blue", "circle", (0.3, 0.2), (0.3, 0.8), 0.13, "bottom"),
                Shape("yellow", "ring", (0.72, 0.25), (0.72, 0.25), 0.13),
            ),
            2.0,
            background=12,
        ),
        Shot((Shape("green", "triangle", (0.75, 0.7), (0.75, 0.7), 0.14, later_colour="white"),), 2.0, background=13),
    ),
    number=-1,
)


def main(path: str) -> None:
    times = [number / FRAMES_PER_SECOND for number in range(round(CLIP.seconds * FRAMES_PER_SECOND))]
    with av.open(path, "w") as container:
        stream = container.add_stream("h264", rate=FRAMES_PER_SECOND, options={"crf": "18", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for number, picture in enumerate(draw_video(CLIP, times, SIZE)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    print(f"{path}: {len(times)} frames, {CLIP.seconds:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
