"""`shot_detection="auto"`: shots where nobody waits long for them, and one line where not."""

import os

import pytest
import torch
from tiny_families import write_video

from linvt import LinVTVideoProcessor
from linvt.processors.shots import automatic_shots
from linvt.processors.shots.automatic_shots import ACCELERATOR_FRAMES, CPU_FRAMES, choose_shot_detection
from linvt.processors.video.source_files import resolve_file
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_reading import read_video


NUM_FRAMES = 30


@pytest.fixture(params=["mp4", "mkv", "gif"])
def clip(request, tmp_path):
    """Two still pictures; the number of frames is stated, or follows from duration and rate."""
    frames = torch.zeros(NUM_FRAMES, 64, 96, 3, dtype=torch.uint8)
    frames[:, :, ::2] = 60
    frames[NUM_FRAMES // 2 :, ::2] = 230
    path = write_video(tmp_path / "clip.mp4", frames.numpy(), fps=10)
    return path if request.param == "mp4" else copied(path, tmp_path / f"clip.{request.param}")


def copied(source, path):
    """The same frames in another container, encoded anew where that has no H.264."""
    import av

    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        if path.suffix == ".gif":
            stream = new.add_stream("gif", rate=10)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb8"
            for frame in old.decode(video=0):
                new.mux(stream.encode(frame.reformat(format="rgb8")))
            new.mux(stream.encode())
        else:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(old.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
    return path


def choice(path, device=None):
    return choose_shot_detection(resolve_file(path), device)


def test_the_stated_length_decides(clip, monkeypatch):
    assert choice(clip) == choice(clip, "cpu") == choice(clip, torch.device("cuda", 1)) == "autoshot"
    monkeypatch.setattr(automatic_shots, "CPU_FRAMES", NUM_FRAMES)
    assert choice(clip) == "autoshot"
    monkeypatch.setattr(automatic_shots, "CPU_FRAMES", NUM_FRAMES - 1)
    assert choice(clip) == choice(clip, "cpu") == choice(clip, torch.device("cpu")) == "uniform"
    assert choice(clip, "cuda") == choice(clip, torch.device("meta")) == "autoshot"
    monkeypatch.setattr(automatic_shots, "ACCELERATOR_FRAMES", NUM_FRAMES - 1)
    assert choice(clip, "cuda") == "uniform"
    assert CPU_FRAMES < 25 * 60 * 60 <= ACCELERATOR_FRAMES  # an hour of film


def test_of_unknown_length_none_is_assumed(clip, monkeypatch):
    monkeypatch.setattr(automatic_shots, "stated_frames", lambda stream: None)
    assert choice(clip) == choice(clip, "cuda") == "uniform"


def test_a_file_without_a_video_is_the_usual_error(tmp_path):
    (tmp_path / "note.txt").write_text("no video")
    with pytest.raises(VideoReadError, match=r"note\.txt"):
        LinVTVideoProcessor(num_frames=2)(str(tmp_path / "note.txt"))
    with pytest.raises(VideoReadError, match="missing.mp4"):
        LinVTVideoProcessor(num_frames=2)(str(tmp_path / "missing.mp4"))


def test_long_videos_are_read_evenly_and_it_is_said_once_with_the_way_out(clip, monkeypatch, caplog):
    processor = LinVTVideoProcessor(num_frames=3, size={"height": 28, "width": 28})
    options = {"return_tensors": "pt", "return_metadata": True}
    short = processor(clip, **options)["video_metadata"][0]
    assert short.looked_for_shots and not caplog.records
    monkeypatch.setattr(automatic_shots, "CPU_FRAMES", NUM_FRAMES - 1)
    automatic_shots.logger.warning_once.cache_clear()
    long = processor([clip, clip], **options)["video_metadata"]
    [record] = caplog.records
    text = record.getMessage()
    assert "evenly spaced" in text and "shot_detection='autoshot'" in text and "\n" not in text
    evenly = read_video(clip, 3)
    for video in long:
        assert not video.looked_for_shots and video.frame_indices == evenly.frame_indices
    forced = processor(clip, shot_detection="autoshot", **options)["video_metadata"][0]
    assert forced.looked_for_shots and forced.shots_frames == short.shots_frames
    never = processor(clip, shot_detection="uniform", **options)["video_metadata"][0]
    assert not never.looked_for_shots and len(caplog.records) == 1


def test_what_can_be_read_once_is_read_once(clip):
    processor = LinVTVideoProcessor(num_frames=3, size={"height": 28, "width": 28})
    expected = processor(clip, return_tensors="pt")
    reading, writing = os.pipe()
    os.write(writing, open(clip, "rb").read()[: 2**16])  # a pipe holds 64 KiB
    os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:
        found = processor(pipe, return_tensors="pt")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_detector_runs_on_the_device_of_the_processor(clip, monkeypatch):
    devices = []

    def load(name, device):
        devices.append(device)
        return lambda frames: [(0, sum(1 for _ in frames))]

    monkeypatch.setattr("linvt.processors.video_processing_linvt.load_shot_detector", load)
    for device in (None, "cpu", torch.device("meta")):
        LinVTVideoProcessor(num_frames=2)(clip, device=device)
    assert devices == [None, "cpu", torch.device("meta")]


def test_a_saved_processor_keeps_what_it_saved(tmp_path):
    for choice in ("auto", "autoshot", "uniform"):
        LinVTVideoProcessor(shot_detection=choice).save_pretrained(tmp_path / choice)
        assert LinVTVideoProcessor.from_pretrained(tmp_path / choice).shot_detection == choice
    assert LinVTVideoProcessor().shot_detection == "auto"
