"""What stands for a video: forms that give the same frames, folders of pictures, and what is refused by its name."""

import io
from collections import UserDict

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import random_video
from transformers.video_utils import VideoMetadata

from linvt import LinVTVideoProcessor, VideoReadError
from linvt.processors.video.source_files import SourceFile
from linvt.processors.video.video_reading import read_video
from linvt.processors.video.video_sources import SourceFrames, flatten_videos, resolve_video


FRAMES = random_video(4)


def names_in(folder) -> list[str]:
    return [file.content.name for file in resolve_video(folder).frames]


def save_pictures(folder, names) -> None:
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, random_video(len(names)), strict=True):
        Image.fromarray(frame).save(folder / name)


# One video


def test_a_resolved_video_stays_as_it_is():
    for video in ("clip.mp4", FRAMES, b"bytes"):
        source = resolve_video(video)
        assert resolve_video(source) is source


@pytest.mark.parametrize(
    "video",
    [
        FRAMES,
        FRAMES.transpose(0, 3, 1, 2),
        torch.from_numpy(FRAMES),
        list(FRAMES),
        tuple(FRAMES),
        [Image.fromarray(frame) for frame in FRAMES],
        [FRAMES[0], torch.from_numpy(FRAMES[1]), Image.fromarray(FRAMES[2]), FRAMES[3].transpose(2, 0, 1)],
    ],
    ids=range(7),
)
def test_forms_of_frames_give_the_same_pixels(video):
    pixels = LinVTVideoProcessor(size=28)(resolve_video(video), return_tensors="pt")["pixel_values_videos"]
    expected = LinVTVideoProcessor(size=28)(FRAMES, return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(pixels, expected)


@pytest.mark.parametrize(
    ("video", "named"),
    [
        (None, "given as NoneType"),
        (7, "given as int"),
        (2.5, "given as float"),
        ({1, 2}, "given as set"),
        (iter([FRAMES]), "given as list_iterator"),
        (Image.new("RGB", (8, 8)), "given as Image"),
        ([FRAMES[0], None], "Frame 1 of a video was given as NoneType"),
        ([[FRAMES[0]]], "Frame 0 of a video was given as list"),
        (io.StringIO("text"), "binary mode"),
    ],
)
def test_other_types_are_refused_by_their_name(video, named):
    with pytest.raises(TypeError, match=named):
        resolve_video(video)


@pytest.mark.parametrize(
    ("video", "named"),
    [
        ([], "without frames"),
        (FRAMES[:0], "without frames"),
        (FRAMES[0], r"shape \(36, 64, 3\)"),
        (FRAMES[None], r"shape \(1, 4, 36, 64, 3\)"),
        (FRAMES.astype(np.float32), "float32"),
        (torch.zeros(2, 3, 8, 8), "float32"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"shape \(8, 8, 4\)"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"shape \(8, 8, 1\)"),
        ([FRAMES[0], FRAMES[0, :30]], "different shapes"),
        ([Image.new("RGB", (8, 9)), Image.new("RGB", (9, 8))], "different shapes"),
        ((FRAMES, VideoMetadata(total_num_frames=4)), "video_metadata="),
        ({"path": None, "bytes": None}, "dict"),
        ({"video": "clip.mp4"}, "'video'"),
        (UserDict(url="clip.mp4"), "'url'"),
        ("gopher://clip.mp4", "gopher://"),
    ],
)
def test_what_cannot_be_a_video_is_refused_by_its_name(video, named):
    with pytest.raises(VideoReadError, match=named):
        resolve_video(video)


def test_a_huge_video_is_no_part_of_its_error():
    for video in (np.zeros((400, 100, 100, 4), np.uint8), ["x" * 100_000], [bytes(100_000), None]):
        with pytest.raises((VideoReadError, TypeError)) as raised:
            resolve_video(video)
        assert len(str(raised.value)) < 600


# Folders


def test_a_folder_of_pictures_is_a_video_in_natural_order(tmp_path):
    names = ["frame9.png", "frame10.png", "frame11.JPG", "frame100.bmp", "frame_2_10.png", "frame_2_9.png"]
    save_pictures(tmp_path / "frames", names)
    (tmp_path / "frames" / ".DS_Store").write_text("what a system leaves")
    expected = ["frame9.png", "frame10.png", "frame11.JPG", "frame100.bmp", "frame_2_9.png", "frame_2_10.png"]
    for folder in (tmp_path / "frames", str(tmp_path / "frames"), (tmp_path / "frames").as_uri()):
        assert names_in(folder) == expected


def test_numbers_sort_by_their_value_wherever_they_stand(tmp_path):
    names = [f"{scene}-{number}.png" for scene in (1, 2, 10) for number in (0, 3, 20, 100)]
    save_pictures(tmp_path / "frames", sorted(names))
    assert names_in(tmp_path / "frames") == names


def test_a_folder_is_read_like_the_list_of_its_files(tmp_path):
    folder = tmp_path / "frames"
    save_pictures(folder, [f"{number}.png" for number in range(8, 13)])
    read = LinVTVideoProcessor(size=28, num_frames=3)
    files = [str(folder / f"{number}.png") for number in range(8, 13)]
    got, expected = read(folder, return_tensors="pt"), read([[files]], return_tensors="pt")
    assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize("odd", ["notes.txt", "clip.mp4", "Thumbs.db", "frames.zip"])
def test_odd_files_in_a_folder_are_named(tmp_path, odd):
    folder = tmp_path / "frames"
    save_pictures(folder, ["1.png"])
    (folder / odd).write_text("no picture")
    with pytest.raises(VideoReadError, match=f"frames'.*'{odd}'"):
        resolve_video(folder)


def test_folders_in_a_folder_and_empty_ones(tmp_path):
    with pytest.raises(VideoReadError, match="no files"):
        resolve_video(tmp_path)
    save_pictures(tmp_path / "inside.png", ["1.png"])
    with pytest.raises(VideoReadError, match="'inside.png'"):
        resolve_video(tmp_path)


def test_a_folder_is_no_file_for_the_reader_of_files(tmp_path):
    save_pictures(tmp_path / "frames", ["1.png"])
    with pytest.raises(VideoReadError, match="frames': these are pictures"):
        read_video(tmp_path / "frames")


# Several videos


def test_several_videos_are_told_from_one():
    two = np.stack([FRAMES, FRAMES])
    picture = Image.fromarray(FRAMES[0])
    assert [video.shape for video in flatten_videos(two)] == [FRAMES.shape] * 2
    assert [video.shape for video in flatten_videos(torch.from_numpy(two))] == [FRAMES.shape] * 2
    assert len(flatten_videos([FRAMES, FRAMES, FRAMES])) == 3
    assert flatten_videos([["a.mp4"], [], ["b.mp4", "c.mp4"]]) == ["a.mp4", "b.mp4", "c.mp4"]
    assert flatten_videos([[picture] * 3, []]) == [[picture] * 3, []]  # two videos, the second without frames
    for one in (FRAMES, "a.mp4", b"bytes", {"path": "a.mp4"}, [picture] * 3, list(FRAMES)):
        (video,) = flatten_videos(one)
        assert video is one
    assert flatten_videos(["a.mp4", b"b"]) == flatten_videos([["a.mp4"], [b"b"]]) == ["a.mp4", b"b"]
    assert flatten_videos([[picture] * 3, [picture] * 2]) == [[picture] * 3, [picture] * 2]
    assert flatten_videos([[["1.png", "2.png"]], ["a.mp4"]]) == [["1.png", "2.png"], "a.mp4"]
    assert flatten_videos(np.array(["a.mp4", "b.mp4"])) == ["a.mp4", "b.mp4"]
    assert flatten_videos(np.array(["a.mp4", b"b"], dtype=object)) == ["a.mp4", b"b"]


def test_videos_in_one_array_are_read_one_by_one():
    read = LinVTVideoProcessor(size=28)
    other = random_video(4, seed=1)
    got = read(np.stack([FRAMES, other]), return_tensors="pt")["pixel_values_videos"]
    expected = [read(video, return_tensors="pt")["pixel_values_videos"] for video in (FRAMES, other)]
    assert torch.equal(got, torch.cat(expected))


def test_names_in_an_array_are_a_list_of_names(tmp_path):
    save_pictures(tmp_path / "frames", ["1.png", "2.png"])
    names = np.array([str(tmp_path / "frames" / name) for name in ("1.png", "2.png")])
    source = resolve_video(names)
    assert isinstance(source, SourceFrames) and all(isinstance(frame, SourceFile) for frame in source.frames)
