import csv
import json
import socket

import av
import numpy as np
import pytest
from numbered_clips import make_clip, shown_number
from PIL import Image
from transformers import BertConfig

from linvt import AutoShotConfig, AutoShotModel
from linvt.processors.shots.contact_sheet import contact_sheet
from linvt.processors.shots.shot_detection import load_shot_detector
from linvt.processors.video.video_reading import read_video


@pytest.fixture
def found(monkeypatch):
    """`found(shots)`: makes the detector find these, as ranges of frames."""

    def set_shots(shots):
        load = "linvt.processors.shots.shot_detection.load_shot_detector"
        monkeypatch.setattr(load, lambda name: lambda frames: shots)

    return set_shots


@pytest.fixture
def drawn(monkeypatch):
    """What contact sheets were drawn of: a list of (frames, captions, heading)."""
    calls = []

    def record(*args):
        calls.append(args)
        return contact_sheet(*args)

    monkeypatch.setattr("linvt.processors.shots.contact_sheet.contact_sheet", record)
    return calls


@pytest.fixture
def nothing_is_read(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("the work began before the arguments were checked")

    monkeypatch.setattr("linvt.processors.shots.shot_detection.load_shot_detector", fail)
    monkeypatch.setattr("linvt.processors.video.video_reading.read_video", fail)


def shots_command(video, *options):
    return ("shots", video, "--autoshot", "org/weights", *options)


# What is printed


def test_table_json_and_csv_say_the_same(run, found, tmp_path):
    """Frames that are not evenly spaced in time, so that seconds cannot come from a frame rate."""
    times = [0, 100, 500, 61_000, 61_040, 3_723_456, 3_723_496]
    video = make_clip(tmp_path / "clip.mkv", 7, times)
    found([(0, 2), (2, 5), (5, 7)])
    code, output, _ = run(*shots_command(video, "--json"))
    result = json.loads(output)
    assert code == 0 and result["video"]["num_frames"] == 7
    end = result["video"]["duration_seconds"]
    assert end >= 3723.496
    expected = [(0, 2, 0.0, 0.5), (2, 5, 0.5, 3723.456), (5, 7, 3723.456, end)]
    names = ["start_frame", "end_frame", "start_seconds", "end_seconds"]
    assert result["shots"] == [dict(zip(names, shot, strict=True)) for shot in expected]

    code, output, _ = run(*shots_command(video, "--csv"))
    header, *rows = csv.reader(output.splitlines())
    assert code == 0 and header == ["shot", *names]
    assert [(int(row[0]), int(row[1]), int(row[2]), float(row[3]), float(row[4])) for row in rows] == [
        (number, *shot) for number, shot in enumerate(expected)
    ]

    code, output, _ = run(*shots_command(video))
    lines = output.splitlines()
    assert code == 0 and "3 shots" in output and lines[-4].split()[:3] == ["shot", "start", "frame"]
    for line, (number, shot) in zip(lines[-3:], enumerate(expected), strict=True):
        *frames, start_seconds, end_seconds, seconds = map(float, line.split())
        assert frames == [number, *shot[:2]]
        assert (start_seconds, end_seconds) == pytest.approx(shot[2:], abs=0.0051)
        assert seconds == pytest.approx(shot[3] - shot[2], abs=0.0051)


def test_the_shots_are_those_of_the_library(run, tmp_path):
    """With weights from a folder, random ones."""
    AutoShotModel(AutoShotConfig(threshold=0.5)).save_pretrained(tmp_path / "autoshot")
    video = make_clip(tmp_path / "clip.mp4", 30)
    code, output, _ = run("shots", video, "--autoshot", tmp_path / "autoshot", "--json")
    expected = read_video(video, 1, detect_shots=load_shot_detector(tmp_path / "autoshot"))
    shots = json.loads(output)["shots"]
    assert code == 0 and len(shots) >= 1
    assert [(shot["start_frame"], shot["end_frame"]) for shot in shots] == expected.shots_frames
    assert shots[0]["start_frame"] == 0 and shots[-1]["end_frame"] == 30


def test_csv_and_json_exclude_each_other(run, video_file, nothing_is_read):
    code, output, errors = run(*shots_command(video_file(12), "--csv", "--json"))
    assert code == 2 and output == "" and "not allowed with argument" in errors


# Contact sheets


def test_each_shot_gets_a_frame_from_its_middle(run, found, drawn, tmp_path):
    video = make_clip(tmp_path / "clip.mp4", 200)
    shots = [(0, 1), (1, 3), (3, 10), (10, 70), (70, 71), (71, 200)]
    found(shots)
    code, output, _ = run(*shots_command(video, "--contact-sheet", tmp_path / "sheet.png"))
    assert code == 0 and "6 shots" in output and f"{tmp_path}/sheet.png" in "".join(output.split())
    [(frames, captions, heading)] = drawn
    assert frames.shape == (6, 3, 180, 240) and heading == "6 shots"
    for number, ((start, end), frame) in enumerate(zip(shots, frames, strict=True)):
        assert abs(shown_number(frame) - (start + end) // 2) <= (end - start) / 4 + 0.5
        assert captions[number].split() == [
            str(number), f"0:{start / 25:05.2f}", f"{(end - start) / 25:.2f}", "s"
        ]  # fmt: skip
    with Image.open(tmp_path / "sheet.png") as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(contact_sheet(frames, captions, heading)))


@pytest.mark.parametrize("num_shots", [1, 3, 49, 67, 100, 150, 199, 200])
def test_any_number_of_shots_up_to_the_most_is_complete(run, found, drawn, tmp_path, num_shots):
    video = make_clip(tmp_path / "clip.mp4", 250)
    ends = [250 * (i + 1) // num_shots for i in range(num_shots)]
    shots = list(zip([0, *ends], ends, strict=False))
    found(shots)
    assert run(*shots_command(video, "--contact-sheet", tmp_path / "sheet.png"))[0] == 0
    [(frames, captions, _)] = drawn
    assert [int(caption.split()[0]) for caption in captions] == list(range(num_shots))
    for (start, end), frame in zip(shots, frames, strict=True):
        assert abs(shown_number(frame) - (start + end) // 2) <= (end - start) / 4 + 0.5


def test_more_shots_than_thumbnails_is_said(run, found, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("linvt_cli.cli_shots.MAX_THUMBNAILS", 3)
    video = make_clip(tmp_path / "clip.mp4", 30)
    found([(start, start + 2) for start in range(0, 30, 2)])
    options = ("--contact-sheet", tmp_path / "sheet.png")
    code, output, _ = run(*shots_command(video, *options))
    [(frames, captions, heading)] = drawn
    assert code == 0 and len(frames) == 3 and heading == "3 of 15 shots, evenly spaced"
    assert heading in " ".join(output.split()) and output.splitlines()[-1].split()[0] == "14"
    # The shots 2, 7 and 12 are the middles of three equal parts of 15.
    assert [int(caption.split()[0]) for caption in captions] == [2, 7, 12]
    assert [shown_number(frame) // 2 for frame in frames] == [2, 7, 12]
    result = json.loads(run(*shots_command(video, *options, "--json"))[1])
    assert result["contact_sheet"] == {"path": str(tmp_path / "sheet.png"), "num_shots": 3}
    assert len(result["shots"]) == 15


def test_captions_round_to_times_that_exist(run, found, drawn, tmp_path):
    video = make_clip(tmp_path / "clip.mkv", 4, [0, 59_999, 3_599_996, 36_003_450])
    found([(number, number + 1) for number in range(4)])
    assert run(*shots_command(video, "--contact-sheet", tmp_path / "sheet.png"))[0] == 0
    [(_, captions, _)] = drawn
    assert [caption.split()[1] for caption in captions] == ["0:00.00", "1:00.00", "1:00:00.00", "10:00:03.45"]


def test_a_contact_sheet_of_what_the_video_shows(run, found, drawn, tmp_path):
    """Pixels that are not square are stretched, and tall videos stay tall."""
    found([(0, 10)])
    for size, stretch, expected in (((64, 48), 3, (60, 240)), ((48, 64), None, (240, 180))):
        video = make_clip(tmp_path / "clip.mp4", 10, size=size, stretch=stretch)
        assert run(*shots_command(video, "--contact-sheet", tmp_path / "sheet.png"))[0] == 0
        assert drawn[-1][0].shape == (1, 3, *expected)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".webp"])
def test_a_contact_sheet_replaces_the_one_before(run, found, tmp_path, suffix):
    video, sheet, usual = make_clip(tmp_path / "clip.mp4", 5), tmp_path / f"sheet{suffix}", tmp_path / "usual"
    usual.touch()
    for shots in ([(0, 5)], [(0, 2), (2, 5)]):
        found(shots)
        assert run(*shots_command(video, "--contact-sheet", sheet))[0] == 0
        with Image.open(sheet) as saved:
            assert saved.width > 240 * len(shots)
        assert sheet.stat().st_mode == usual.stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", sheet.name, "usual"}


def test_a_sheet_that_cannot_be_written_leaves_the_one_before(run, found, tmp_path, monkeypatch):
    def breaks(self, path):
        path.write_bytes(b"half a pic")
        raise OSError("No space left on device")

    (tmp_path / "sheet.png").write_bytes(b"the one before")
    video = make_clip(tmp_path / "clip.mp4", 5)
    found([(0, 5)])
    monkeypatch.setattr(Image.Image, "save", breaks)
    monkeypatch.setattr("linvt.processors.shots.contact_sheet.check_picture_format", lambda path: None)
    code, output, errors = run(*shots_command(video, "--contact-sheet", tmp_path / "sheet.png"))
    assert (code, output) == (2, "") and "No space left" in errors
    assert (tmp_path / "sheet.png").read_bytes() == b"the one before"
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "sheet.png"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is not a file"),
        ("missing/sheet.png", "there is no folder"),
        ("sheet.doc", "Pillow writes no pictures named *.doc"),
        ("clip.gif", "would overwrite the video"),
    ],
)
def test_a_bad_contact_sheet_is_found_before_the_work(run, nothing_is_read, tmp_path, name, message):
    video = make_clip(tmp_path / "clip.gif", 5, codec="gif")
    code, output, errors = run(*shots_command(video, "--contact-sheet", tmp_path / name))
    assert code == 2 and output == "" and message in errors and len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [video]


def test_a_broken_video_leaves_the_sheet_before(run, found, tmp_path):
    (tmp_path / "sheet.png").write_bytes(b"the one before")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    found([(0, 1)])
    code, _, _ = run(*shots_command(tmp_path / "clip.mp4", "--contact-sheet", tmp_path / "sheet.png"))
    assert code == 2 and (tmp_path / "sheet.png").read_bytes() == b"the one before"


# Bad input


def make_sound(path):
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))


def unused_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/clip.mp4"


@pytest.mark.parametrize("command", ["shots", "ask"])
@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("sound.wav", make_sound, "no video stream (found: audio)"),
        ("text.txt", lambda path: path.write_text("These are words.\n" * 99), "not a video"),
        ("image.png", lambda path: Image.new("RGB", (64, 48)).save(path), "it is an image"),
        ("folder", lambda path: path.mkdir(), "it is a directory"),
        ("empty.mp4", lambda path: path.touch(), "it is empty (0 bytes)"),
        (None, unused_address, "Connection refused"),
    ],
)
def test_what_is_no_video_is_one_line_and_exit_code_2(run, found, tmp_path, command, name, make, message):
    found([(0, 1)])
    video = tmp_path / name if name is not None else make()
    if name is not None:
        make(video)
    code, output, errors = run(*(shots_command(video) if command == "shots" else ("ask", video, "What happens?")))
    assert code == 2 and output == "" and message in errors and len(errors.splitlines()) == 1
    assert errors.startswith(f"linvt {command}: Cannot read a video from ") and str(video) in errors


def test_bad_weights_are_one_line_and_exit_code_2(run, video_file, tmp_path):
    BertConfig().save_pretrained(tmp_path / "bert")
    for arguments, message in (
        (("--autoshot", tmp_path / "bert"), "holds a 'bert' model"),
        (("--autoshot", tmp_path / "nothing"), "there is no folder"),
    ):
        code, output, errors = run("shots", video_file(12), *arguments)
        assert code == 2 and output == "" and message in errors and len(errors.splitlines()) == 1
