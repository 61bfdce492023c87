"""Draws scenes of the small world, at any size: edges are as soft as a camera of that size would see them."""

from functools import lru_cache

import numpy as np
from small_world.scenes import Shape, Shot, Video


RGB = {
    "red": (210, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 205, 50),
    "purple": (160, 60, 190),
    "white": (245, 245, 245),
}


def draw_shot(shot: Shot, progress: float, size: int) -> np.ndarray:
    """A frame of a shot, `progress` of it having passed: uint8 of shape `(size, size, 3)`."""
    axis = pixel_axis(size)
    picture = _background(shot.background, size).copy()
    for shape in shot.shapes:
        _draw_shape(picture, shape, progress, axis)
    return (picture + 0.5).clip(0, 255).astype(np.uint8)


def pixel_axis(size: int) -> np.ndarray:
    """Centres of the pixels of a row or column, as fractions of the picture."""
    return (np.arange(size, dtype=np.float32) + 0.5) / size


def draw_video(video: Video, seconds: list[float], size: int) -> np.ndarray:
    """The frames of a video at these times: uint8 of shape `(frames, size, size, 3)`."""
    ends = np.cumsum([shot.seconds for shot in video.shots])
    frames = []
    for second in seconds:
        number = min(int(np.searchsorted(ends, second, side="right")), len(ends) - 1)
        shot = video.shots[number]
        frames.append(draw_shot(shot, (second - (ends[number] - shot.seconds)) / shot.seconds, size))
    return np.stack(frames)


@lru_cache(maxsize=64)
def _background(seed: int, size: int) -> np.ndarray:
    """Two dull tones in waves, stripes or a chequered pattern, with a little noise."""
    rng = np.random.default_rng(seed)
    tones = rng.uniform(20, 130) + rng.uniform(-18, 18, (2, 3))
    tones[1] += rng.uniform(-35, 35)
    frequency, phase = rng.uniform(-5, 5, (2, 2)), rng.uniform(0, 1, 2)
    x, y = pixel_axis(size)[None, :], pixel_axis(size)[:, None]
    first, second = (np.sin(2 * np.pi * (f[0] * x + f[1] * y + p)) for f, p in zip(frequency, phase, strict=True))
    wave = {0: first, 1: first * second, 2: np.tanh(4 * first)}[int(rng.integers(3))]
    blend = (0.5 + 0.5 * wave)[..., None].astype(np.float32)
    noise = rng.normal(0, 4, (*blend.shape[:2], 1))
    return (tones[0] * (1 - blend) + tones[1] * blend + noise).astype(np.float32)


def cover(shape: Shape, progress: float, axis: np.ndarray) -> np.ndarray:
    """How much of each pixel a shape covers, 0 to 1, of shape `(size, size)`."""
    x = axis[None, :] - np.float32(shape.start[0] + (shape.end[0] - shape.start[0]) * progress)
    y = axis[:, None] - np.float32(shape.start[1] + (shape.end[1] - shape.start[1]) * progress)
    # Its edge crosses a pixel within half a pixel of distance zero.
    return (0.5 - _distance(shape.kind, x, y, shape.radius) * len(axis)).clip(0, 1)


def _draw_shape(picture: np.ndarray, shape: Shape, progress: float, axis: np.ndarray) -> None:
    covered = cover(shape, progress, axis)[..., None]
    colour = shape.later_colour if shape.later_colour is not None and progress >= 0.5 else shape.colour
    picture += covered * (np.array(RGB[colour], dtype=np.float32) - picture)


def _distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to the edge of a shape about the origin, negative inside."""
    if kind == "circle":
        return np.hypot(x, y) - radius
    if kind == "ring":
        return abs(np.hypot(x, y) - 0.78 * radius) - 0.25 * radius
    if kind == "square":
        return np.maximum(abs(x), abs(y)) - 0.87 * radius
    if kind == "triangle":
        return np.maximum(0.866 * abs(x) - 0.5 * y, y) - 0.55 * radius
    if kind == "cross":
        one = np.maximum(abs(x) - 1.05 * radius, abs(y) - 0.32 * radius)
        other = np.maximum(abs(x) - 0.32 * radius, abs(y) - 1.05 * radius)
        return np.minimum(one, other)
    raise ValueError(f"There is no shape {kind!r} in the small world.")
