"""The key of a video is the same for all forms of the same content, and another one for other content."""

import base64
import io
import os

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import random_video

from linvt import VideoReadError
from linvt.training.video_identity import video_identity


FRAMES = random_video(3)


@pytest.fixture
def picture_paths(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def test_forms_of_one_video_have_one_key(video_file, picture_paths):
    path = video_file(6)
    content = path.read_bytes()
    uri = "data:video/mp4;base64," + base64.b64encode(content).decode()
    groups = [
        [path, str(path), path.as_uri(), {"path": str(path), "bytes": None}, os.path.relpath(path)],
        [content, bytearray(content), memoryview(content), uri, io.BytesIO(content), {"path": "x", "bytes": content}],
        [FRAMES, list(FRAMES), torch.from_numpy(FRAMES)],
        [picture_paths[0].parent, picture_paths, [path.as_uri() for path in picture_paths]],
        [[path.read_bytes() for path in picture_paths]],
        [[Image.fromarray(frame) for frame in FRAMES]],
        ["http://127.0.0.1/a.mp4", {"path": "http://127.0.0.1/a.mp4"}],
        ["http://127.0.0.1/b.mp4"],
        [FRAMES[:2]],
        [FRAMES[::-1]],
    ]
    keys = [{video_identity(video) for video in group} for group in groups]
    assert all(len(found) == 1 for found in keys), [len(found) for found in keys]
    assert len(set.union(*keys)) == len(groups)


def test_a_changed_video_has_another_key(video_file, picture_paths):
    path = video_file(6)
    before = [video_identity(path), video_identity(picture_paths[0].parent)]
    path.write_bytes(path.read_bytes() + b" ")
    picture_paths[1].write_bytes(picture_paths[1].read_bytes() + b" ")
    after = [video_identity(path), video_identity(picture_paths[0].parent)]
    assert not set(before) & set(after)
    picture_paths[2].rename(picture_paths[2].with_name("10.png"))
    assert video_identity(picture_paths[0].parent) != after[1]


def test_an_open_file_is_left_readable():
    file = io.BytesIO(b"content of a video")
    assert video_identity(file) == video_identity(b"content of a video") == video_identity(file)
    assert not file.closed


def test_what_has_no_key(tmp_path):
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as pipe, open(write_end, "wb"), pytest.raises(VideoReadError, match="only once"):
        video_identity(pipe)
    with pytest.raises(VideoReadError, match="no_such.mp4"):
        video_identity(tmp_path / "no_such.mp4")
    with pytest.raises(TypeError, match="int"):
        video_identity(3)
    with pytest.raises(VideoReadError, match="shape"):
        video_identity(np.zeros((4, 4), np.uint8))
