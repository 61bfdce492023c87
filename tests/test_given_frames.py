"""Videos given as frames: files of pictures in every form, and how much of them is read."""

import base64
import http.server
import io
import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import random_video

from linvt import VideoReadError
from linvt.processors.video.given_frames import check_given_frames, read_given_frames
from linvt.processors.video.video_sources import resolve_video


FRAMES = random_video(5)
UPRIGHT, SIDEWAYS, TRANSVERSE = 1, 6, 7  # values of EXIF's orientation
ORIENTATION = 0x0112


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"{number} ä.png" for number in range(5)]
    for path, frame in zip(paths, FRAMES, strict=True):
        Image.fromarray(frame).save(path)
    return paths


def as_data_uri(path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda path: path,
        lambda path: path.as_uri(),
        as_data_uri,
        lambda path: path.read_bytes(),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: {"path": str(path), "bytes": None},
        lambda path: {"path": "moved.png", "bytes": path.read_bytes()},
        Image.open,
    ],
    ids=range(9),
)
def test_pictures_in_every_form_are_the_same_frames(paths, form):
    source = resolve_video([form(path) for path in paths])
    check_given_frames(source)
    video = read_given_frames(source, metadata={"fps": 2.0})
    assert np.array_equal(video.frames.permute(0, 2, 3, 1).numpy(), FRAMES)
    assert video.frame_seconds == [0.0, 0.5, 1.0, 1.5, 2.0] and (video.height, video.width) == FRAMES.shape[1:3]


def test_pictures_are_downloaded_like_videos(paths):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(paths[0].parent))
    handler.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        video = read_given_frames(resolve_video([f"{address}/{path.name}" for path in paths]))
        assert np.array_equal(video.frames.permute(0, 2, 3, 1).numpy(), FRAMES)
        with pytest.raises(VideoReadError, match="frame of a video, 'http.*missing.png', cannot be read: .*404"):
            read_given_frames(resolve_video([f"{address}/missing.png"]))
        server.shutdown()


def test_only_the_picked_pictures_are_read(paths):
    for number in (0, 2, 4):
        paths[number].unlink()
    video = read_given_frames(resolve_video(paths), 2)
    assert video.frame_indices == [1, 3] and video.total_num_frames == 5
    with pytest.raises(VideoReadError, match="frame of a video, '.*2 ä.png', cannot be read"):
        read_given_frames(resolve_video(paths), 1)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("no picture"), "not a picture"),
        (lambda path: Image.new("RGB", (5, 6)).save(path), "different shapes"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
    ],
)
def test_the_check_finds_what_the_reader_would_without_decoding(paths, spoil, named):
    check_given_frames(resolve_video(paths))
    spoil(paths[3])
    for look in (check_given_frames, read_given_frames):
        with pytest.raises(VideoReadError, match=named):
            look(resolve_video(paths))


def test_a_picture_that_breaks_off_is_an_error_of_the_reader(paths):
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[: len(content) // 2])
    check_given_frames(resolve_video(paths))
    with pytest.raises(VideoReadError, match="frame of a video, '.*3 ä.png', cannot be read"):
        read_given_frames(resolve_video(paths))


@pytest.mark.parametrize("orientation", [UPRIGHT, SIDEWAYS, TRANSVERSE])
def test_pictures_are_turned_upright(tmp_path, orientation):
    """As cameras of phones store them; other pictures of the video may be stored upright."""
    picture = Image.fromarray(FRAMES[0])
    stored = {UPRIGHT: picture, SIDEWAYS: picture.transpose(Image.Transpose.ROTATE_90)}
    stored[TRANSVERSE] = picture.transpose(Image.Transpose.TRANSVERSE)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored[orientation].save(tmp_path / "0.png", exif=exif)
    Image.fromarray(FRAMES[1]).save(tmp_path / "1.png")
    source = resolve_video(tmp_path)
    check_given_frames(source)
    assert np.array_equal(read_given_frames(source).frames.permute(0, 2, 3, 1).numpy(), FRAMES[:2])


def test_the_transform_makes_what_is_kept(paths):
    video = read_given_frames(resolve_video(paths), 3, transform=lambda frame: frame[:, ::4, ::4].float())
    assert video.frames.shape == (3, 3, 9, 16) and video.frames.dtype == torch.float32
    assert (video.height, video.width) == (36, 64)
