"""Decoded frames that may still be picked, held while a video is read for its shots, so that it is decoded once."""

from collections.abc import Iterator

from av.video.frame import VideoFrame

from linvt.processors.video.frame_selection import uniform_frame_indices


# About 580 frames of 640 x 360, 64 of 1920 x 1080. A video that needs more is visited again for what was picked.
HELD_BYTES = 192 * 2**20


class HeldFrames:
    """
    Holds frames by their number. As long as all of them fit, all are held. When they do not, what cannot be picked
    any more is let go: of a shot that has ended, `shot_frame_indices` will pick the frames in the middle of n equal
    segments, and the most that n can be only shrinks while the video gets longer and its shots more. If the rest is
    still too much (long shots, thousands of them, large pictures), nothing is held from then on.

    Args:
        num_frames (`int`, *optional*):
            Number of frames that will be picked; `None` if it depends on the length of the video.
        max_bytes (`int`, *optional*, defaults to 192 MiB):
            Memory for the decoded pictures.
    """

    def __init__(self, num_frames: int | None, max_bytes: int = HELD_BYTES):
        self.num_frames = num_frames
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_seen = 0
        self.gave_up = False
        self._frames: dict[int, VideoFrame] = {}
        self._shots: list[tuple[int, int]] = []

    def add(self, frame: VideoFrame) -> None:
        """The next frame in presentation order."""
        self.num_seen += 1
        if self.gave_up:
            return
        self._frames[self.num_seen - 1] = frame
        self.num_bytes += _num_bytes(frame)
        if self.num_bytes > self.max_bytes:
            self._let_go()

    def end_shot(self, start: int, end: int) -> None:
        """Frames `start` to `end - 1` are a shot."""
        self._shots.append((start, end))

    def take(self, indices: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Returns the held ones of these frames, each with its number, in the order of `indices`."""
        return ((index, self._frames[index]) for index in indices if index in self._frames)

    def missing(self, indices: list[int]) -> list[int]:
        """Returns the numbers of the frames that are not held."""
        return [index for index in indices if index not in self._frames]

    def clear(self) -> None:
        """Holds nothing any more."""
        self.gave_up = True
        self._frames.clear()
        self.num_bytes = 0

    def _let_go(self) -> None:
        if self.num_frames is not None:
            num_frames = self.num_frames
            candidates = {number for shot in self._shots for number in self._candidates(num_frames, *shot)}
            open_since = self._shots[-1][1] if self._shots else 0
            self._frames = {n: f for n, f in self._frames.items() if n >= open_since or n in candidates}
            self.num_bytes = sum(map(_num_bytes, self._frames.values()))
        # Without this margin the next frames would each go through all of this again.
        if self.num_bytes > 0.75 * self.max_bytes:
            self.clear()

    def _candidates(self, num_frames: int, start: int, end: int) -> Iterator[int]:
        """All that may be picked of a shot, by the shares of `spread_frames_over_shots`."""
        num_shots = len(self._shots) + 1  # and the one that goes on
        to_give = max(num_frames - num_shots, 0)
        share = to_give * (end - start - 1) // max(self.num_seen - num_shots, 1)
        most = min(2 + share if to_give else 1, end - start)
        for num_picks in range(1, most + 1):
            yield from (start + index for index in uniform_frame_indices(end - start, num_picks))


def _num_bytes(frame: VideoFrame) -> int:
    return sum(plane.buffer_size for plane in frame.planes)


__all__ = ["HeldFrames"]
