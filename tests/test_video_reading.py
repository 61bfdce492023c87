"""Reading videos, on clips in which each frame shows its own number."""

import http.server
import io
import itertools
import os
import random
import re
import socket
import threading
import weakref
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
import torch
from numbered_clips import HEIGHT, WIDTH, add_silence, make_clip, numbered_picture, shown_number
from PIL import Image

from linvt.processors.video import video_container, video_download, video_packets, video_reading, video_timeline
from linvt.processors.video.frame_selection import shot_frame_indices, uniform_frame_indices
from linvt.processors.video.held_frames import HeldFrames
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_reading import read_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """200 frames at 25 per second, a keyframe every 12, B-frames."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def one_shot(frames):
    return [(0, sum(1 for _ in frames))]


def numbers_of(video):
    return [shown_number(frame) for frame in video.frames]


# The right frames at the right times


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("x.mp4", "libx264", {"bf": "3"}),
        ("open_gop.mp4", "libx264", {"x264-params": "open-gop=1:bframes=3"}),
        ("no_keyframes.mp4", "libx264", {"x264-params": "intra-refresh=1"}),
        ("x.mkv", "libx264", {"bf": "3"}),
        ("x.ts", "libx264", {"bf": "3"}),
        ("x.flv", "libx264", {"bf": "3"}),
        ("x.avi", "mpeg4", {"bf": "2"}),
        ("x264.avi", "libx264", {"bf": "3"}),
        ("x.mpg", "mpeg2video", {"bf": "2"}),
        ("x.vob", "mpeg2video", {"bf": "2"}),
        ("x.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
        ("x.gif", "gif", {}),
        ("x.h264", "libx264", {"bf": "3"}),
    ],
)
def test_each_format_gives_exactly_the_picked_frames(tmp_path, name, codec, options):
    path = make_clip(tmp_path / name, codec=codec, **options)
    for num_frames, detect_shots in itertools.product([1, 3, 7, 64], [None, one_shot]):
        video = read_video(path, num_frames, detect_shots=detect_shots)
        expected = uniform_frame_indices(200, num_frames)
        assert video.total_num_frames == 200
        assert video.frame_indices == expected
        assert numbers_of(video) == expected
        # VOB stores no timestamp with most frames, and FFmpeg's guess is one frame off in places.
        tolerance = 0.0401 if name == "x.vob" else 0.0011
        assert video.frame_seconds == pytest.approx([i / 25 for i in expected], abs=tolerance)
        assert video.duration_seconds == pytest.approx(8.0, abs=0.011)
        assert video.fps == pytest.approx(25.0, rel=2e-3)
        assert video.num_lost_frames == 0
        assert (video.width, video.height) == (WIDTH, HEIGHT)
        assert video.frames.shape == (num_frames, 3, HEIGHT, WIDTH) and video.frames.dtype == torch.uint8


def test_pictures_are_those_of_plain_decoding(clip):
    with av.open(os.fspath(clip)) as container:
        reference = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    video = read_video(clip, 5)
    for index, frame in zip(video.frame_indices, video.frames, strict=True):
        assert np.array_equal(frame.permute(1, 2, 0).numpy(), reference[index])


@pytest.mark.parametrize(("name", "x264"), [("x.mp4", "bframes=3"), ("open_gop.mkv", "open-gop=1:bframes=3")])
def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch, name, x264):
    path = make_clip(tmp_path / name, **{"x264-params": x264})
    decoded = []
    decode_frames = video_packets.decode_frames

    def counting(stream, packets, *, strict, log=None):
        for frame in decode_frames(stream, packets, strict=strict):
            decoded.append(frame.pts)
            yield frame

    for module in (video_packets, video_timeline):
        monkeypatch.setattr(module, "decode_frames", counting)
    read_video(path, 2)  # frames 50 and 150, with a keyframe every 12
    assert len(decoded) <= 4 * 12


def test_a_frame_with_another_time_than_expected_is_never_taken(clip):
    for wrong in (0, 49, 50):
        with video_container.open_video(clip, "clip") as (container, stream):
            timeline = video_timeline.timeline_of_packets(container, stream)
        timeline.keyframes.clear()
        timeline.timestamps[wrong] += 1
        with video_container.open_video(clip, "clip") as (container, stream):
            with pytest.raises(video_packets.UnreliableVideoError):
                list(video_timeline.fetch_frames(container, stream, timeline, [50], strict=True))


def test_what_an_edit_list_cuts_off_is_not_shown(tmp_path):
    """mp4 files keep the frames before the first keyframe that is shown, marked as cut off."""
    path = make_clip(
        tmp_path / "edited.mp4", 60, range(-400, 2000, 40), container_options={"avoid_negative_ts": "disabled"}
    )
    for detect_shots in (None, one_shot):
        video = read_video(path, 5, detect_shots=detect_shots)
        assert video.total_num_frames == 50
        assert numbers_of(video) == [10 + index for index in video.frame_indices]
        assert video.frame_seconds == pytest.approx([index / 25 for index in video.frame_indices])
        assert video.num_lost_frames == 0


def test_pyav_failing_behind_the_last_packet_is_the_end(clip):
    """PyAV 18.1 raises IndexError at the end of a file in which another stream began midway."""

    class Container:
        def demux(self, stream):
            yield from itertools.islice(container.demux(stream), 3)
            raise IndexError("list index out of range")

    with video_container.open_video(clip, "clip") as (container, stream):
        packets = video_packets.read_packets(Container(), stream, video_packets.PacketLog(), strict=True)
        assert len(list(packets)) == 3


def test_times_come_from_timestamps(tmp_path):
    rng = random.Random(0)
    times = [2500]  # the first frame is not at 0
    while len(times) < 100:
        times.append(times[-1] + rng.choice([20, 40, 40, 400]))
    video = read_video(make_clip(tmp_path / "vfr.mkv", 100, times), 10)
    assert numbers_of(video) == video.frame_indices == uniform_frame_indices(100, 10)
    assert video.frame_seconds == pytest.approx([(times[i] - 2500) / 1000 for i in video.frame_indices])
    assert video.duration_seconds == pytest.approx((times[-1] - 2500) / 1000, abs=0.4)


def test_without_timestamps_the_stated_rate_is_used_and_said(tmp_path, caplog):
    video = read_video(make_clip(tmp_path / "raw.h264", 50), 5)
    assert video.frame_seconds == pytest.approx([i / 25 for i in uniform_frame_indices(50, 5)])
    assert "raw.h264' has no usable timestamps: times come from its stated rate of 25 frames" in caplog.text


@pytest.mark.parametrize(
    # The first four numbers of the display matrix: x' = a x + c y, y' = b x + d y, with y downwards.
    ("matrix", "turns_to_store"),
    [((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)],
    ids=["shown_90_clockwise", "shown_180", "shown_90_counterclockwise"],
)
def test_rotated_videos_come_upright(tmp_path, matrix, turns_to_store):
    path = make_clip(tmp_path / "turned.mp4", 20, turns=turns_to_store)
    content = path.read_bytes()
    a, b, c, d = (value.to_bytes(4, "big", signed=True) for value in (np.array(matrix) * 65536).tolist())
    zero, one = bytes(4), (65536).to_bytes(4, "big")
    unity, turned = one + 3 * zero + one, a + b + zero + c + d
    track_header = content.index(b"tkhd")
    path.write_bytes(content[:track_header] + content[track_header:].replace(unity, turned, 1))

    seen = []
    video = read_video(path, 4, detect_shots=lambda frames: [(0, len(seen))] if seen.extend(frames) is None else [])
    assert numbers_of(video) == video.frame_indices == uniform_frame_indices(20, 4)
    assert (video.width, video.height) == (WIDTH, HEIGHT)
    assert [shown_number(frame) for frame in seen] == list(range(20))


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    video = read_video(make_clip(tmp_path / "wide.mp4", 10, stretch=Fraction(3, 2)), 3)
    assert video.frames.shape == (3, 3, 48, 96)
    assert (video.width, video.height) == (64, 48)
    assert numbers_of(video) == video.frame_indices


def test_the_best_of_several_streams_is_read(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(os.fspath(path), "w") as container:
        small, large = (container.add_stream("mpeg4", rate=25) for _ in range(2))
        for stream, (width, height) in ((small, (32, 24)), (large, (WIDTH, HEIGHT))):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        large.disposition = av.stream.Disposition.default.value
        for i in range(10):
            for stream in (small, large):
                picture = numbered_picture(i, stream.width, stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in (small, large):
            container.mux(stream.encode(None))
    assert read_video(path, 2).frames.shape == (2, 3, HEIGHT, WIDTH)


# Arguments


@pytest.mark.parametrize("total", [1, 2, 5])
def test_short_videos_give_all_their_frames(tmp_path, total):
    video = read_video(make_clip(tmp_path / "short.mp4", total), 8)
    assert numbers_of(video) == video.frame_indices == list(range(total))
    assert video.duration_seconds == pytest.approx(total / 25)


def test_number_of_frames_by_rate_or_all(clip):
    assert len(read_video(clip, fps=2.0).frames) == 16
    assert len(read_video(clip, 3, fps=2.0).frames) == 3
    assert len(read_video(clip, fps=0.001).frames) == 1
    assert numbers_of(read_video(clip)) == list(range(200))


def test_every_kind_of_source_gives_the_same(clip):
    class Pipe(io.RawIOBase):
        def __init__(self, content):
            self.content = io.BytesIO(content)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.content.readinto(buffer)

    content = clip.read_bytes()
    with open(clip, "rb") as file:
        file.seek(1000)  # the place where the caller left the file does not matter
        for source in (os.fspath(clip), content, io.BytesIO(content), Pipe(content), file):
            assert numbers_of(read_video(source, 4)) == uniform_frame_indices(200, 4)
        assert not file.closed


@pytest.mark.parametrize("name", ["50 % of %03d 'quotes' ü.mp4", "video.txt", "noextension", "http:.mp4"])
def test_names_do_not_matter(clip, tmp_path, name):
    (tmp_path / name).write_bytes(clip.read_bytes())
    assert len(read_video(tmp_path / name, 2).frames) == 2


def test_transform_makes_what_is_kept_and_full_pictures_are_freed(clip):
    alive = []

    def transform(picture):
        assert picture.shape == (3, HEIGHT, WIDTH) and picture.dtype == torch.uint8
        assert sum(reference() is not None for reference in alive) <= 1  # at most the one before
        alive.append(weakref.ref(picture))
        return picture[:, ::8, ::8].float() / 255

    video = read_video(clip, 30, transform=transform)
    assert video.frames.shape == (30, 3, 6, 8) and video.frames.dtype == torch.float32
    assert len(alive) == 30


def test_transform_must_keep_one_shape(clip):
    widths = iter([8, 9, 10])
    with pytest.raises(ValueError, match=r"transform returned shapes \(3, 48, 8\) and \(3, 48, 9\)"):
        read_video(clip, 3, transform=lambda picture: picture[..., : next(widths)])


def test_detector_sees_all_frames_and_frames_are_spread_over_its_shots(clip):
    seen = []
    shots = [(0, 10), (10, 11), (11, 150), (150, 200)]

    def detect_shots(frames):
        for frame in frames:
            assert frame.shape == (27, 48, 3) and frame.dtype == np.uint8
            seen.append(shown_number(frame))
        return shots

    video = read_video(clip, 9, detect_shots=detect_shots)
    assert seen == list(range(200))
    assert numbers_of(video) == video.frame_indices == shot_frame_indices(shots, 9)
    assert [start for start, _ in video.shots_seconds] == pytest.approx([0.0, 0.4, 0.44, 6.0])
    assert [end for _, end in video.shots_seconds] == pytest.approx([0.4, 0.44, 6.0, 8.0])
    assert set(video.shot_ids) == {0, 1, 2, 3}
    for index, shot in zip(video.frame_indices, video.shot_ids, strict=True):
        assert shots[shot][0] <= index < shots[shot][1]


def shots_as_they_end(frames):
    """Shots of 25 frames, each given 10 frames after its end, as a network with a window does."""
    for number, _ in enumerate(frames):
        if number >= 34 and (number - 34) % 25 == 0:
            yield (number - 34, number - 9)
    yield (175, 200)


@pytest.mark.parametrize(("held_frames", "visits"), [(200, 1), (80, 1), (20, 2), (0, 2)])
def test_a_video_is_decoded_once_if_what_may_be_picked_fits_into_memory(clip, monkeypatch, held_frames, visits):
    opened = []
    open_video = video_container.open_video
    monkeypatch.setattr(video_reading, "open_video", lambda *args: opened.append(args) or open_video(*args))
    with av.open(str(clip)) as container:
        frame_bytes = sum(plane.buffer_size for plane in next(container.decode(video=0)).planes)
    monkeypatch.setattr(video_reading, "HeldFrames", partial(HeldFrames, max_bytes=held_frames * frame_bytes))
    video = read_video(clip, 11, detect_shots=shots_as_they_end)
    assert len(opened) == visits
    shots = [(start, start + 25) for start in range(0, 200, 25)]
    assert video.shots_frames == shots
    assert numbers_of(video) == video.frame_indices == shot_frame_indices(shots, 11)


def test_detector_may_stop_early(clip):
    video = read_video(clip, 4, detect_shots=lambda frames: [(0, 5), (5, 200)] if next(frames) is not None else [])
    assert video.total_num_frames == 200 and len(video.frames) == 4


@pytest.mark.parametrize("shots", [[], [(0, 201)], [(0, 5), (4, 10)]])
def test_detector_must_return_ranges_of_the_video(clip, shots):
    with pytest.raises(ValueError, match="detect_shots returned|Invalid shot"):
        read_video(clip, 4, detect_shots=lambda frames: shots)


@pytest.mark.parametrize("detect_shots", [None, one_shot])
def test_progress_ascends_to_one(clip, detect_shots):
    fractions = []
    read_video(clip, 8, detect_shots=detect_shots, on_progress=fractions.append)
    assert fractions == sorted(set(fractions)) and 0 < fractions[0] and fractions[-1] == 1
    # Every picked frame is reported, after the first pass where there is one.
    assert len([fraction for fraction in fractions if detect_shots is None or fraction > 0.8]) >= 8


def test_wrong_arguments(clip):
    with pytest.raises(ValueError, match="num_frames is 0, expected at least 1"):
        read_video(clip, 0)
    with pytest.raises(ValueError, match="fps is -1, expected a number above 0"):
        read_video(clip, fps=-1)
    with pytest.raises(TypeError, match="given as int"):
        read_video(3, 4)
    with pytest.raises(TypeError, match="binary mode"):
        read_video(io.StringIO("text"), 4)


# What is not a video


def make_audio(path, with_cover=False):
    with av.open(os.fspath(path), "w") as container:
        audio = container.add_stream("mp3" if path.suffix == ".mp3" else "aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1) if with_cover else None
        if with_cover:
            cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic.value
            container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_picture(7), format="rgb24")))
            container.mux(cover.encode(None))
        add_silence(container, audio)


def make_image(path):
    if path.suffix not in Image.registered_extensions():
        pytest.skip(f"this Pillow writes no {path.suffix}")  # AVIF from 11.3
    Image.fromarray(numbered_picture(5)).save(path)


NOT_VIDEOS = [
    ("missing.mp4", lambda path: None, "there is no such file"),
    ("folder", lambda path: path.mkdir(), "it is a directory"),
    ("pipe", lambda path: os.mkfifo(path), "it is not a regular file"),
    ("zero.mp4", lambda path: path.touch(), r"it is empty \(0 bytes\)"),
    ("text.mp4", lambda path: path.write_text("hello"), "not a video that FFmpeg knows"),
    ("text.txt", lambda path: path.write_text("hello world\n" * 500), "not a video that FFmpeg knows"),
    ("random.mp4", lambda path: path.write_bytes(random.Random(0).randbytes(5000)), "not a video that FFmpeg knows"),
    ("sound.m4a", make_audio, r"no video stream \(found: audio\)"),
    ("cover.mp3", lambda path: make_audio(path, with_cover=True), r"no video stream \(found: audio with cover art\)"),
    ("image.png", make_image, "it is an image"),
    ("image.jpg", make_image, "it is an image"),
    ("image.webp", make_image, "it is an image"),
    ("image.avif", make_image, "it is an image"),
    ("list.ffconcat", lambda path: path.write_text("ffconcat version 1.0\nfile clip.mp4\n"), "not a video"),
    ("list.m3u8", lambda path: path.write_text("#EXTM3U\n#EXTINF:9,\nclip.ts\n#EXT-X-ENDLIST\n"), "not a video"),
]


@pytest.mark.parametrize(("name", "make", "message"), NOT_VIDEOS, ids=[name for name, _, _ in NOT_VIDEOS])
def test_what_is_not_a_video_is_refused_with_its_name_and_the_reason(tmp_path, monkeypatch, name, make, message):
    monkeypatch.chdir(tmp_path)  # where a playlist would look for its clips
    path = tmp_path / name
    make_clip(tmp_path / "clip.mp4", 5)
    make_clip(tmp_path / "clip.ts", 5)
    make(path)
    with pytest.raises(VideoReadError, match=f"^Cannot read a video from '.*{re.escape(name)}': .*{message}") as error:
        read_video(path, 4)
    assert "\n" not in str(error.value)


def test_a_null_byte_in_a_path_is_no_crash():
    with pytest.raises(VideoReadError, match="null byte"):
        read_video("video\0.mp4", 4)


def test_a_codec_that_nothing_decodes(tmp_path, clip):
    path = tmp_path / "unknown.mp4"
    path.write_bytes(clip.read_bytes().replace(b"avc1", b"xyz1"))
    with pytest.raises(VideoReadError, match="there is no decoder for its video stream"):
        read_video(path, 4)


# Damaged videos


def test_a_truncated_file_without_its_index(clip):
    content = clip.read_bytes()
    with pytest.raises(VideoReadError, match="<[0-9]+ bytes>: it begins like an mp4 file.*truncated"):
        read_video(content[: len(content) // 2], 4)


@pytest.mark.parametrize("detect_shots", [None, one_shot])
def test_a_truncated_file_gives_the_frames_it_has(tmp_path, caplog, detect_shots):
    path = make_clip(tmp_path / "cut.mp4", container_options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    video = read_video(path, 6, detect_shots=detect_shots)
    assert 20 < video.total_num_frames < 180
    assert video.total_num_frames + video.num_lost_frames == 200
    assert numbers_of(video) == video.frame_indices
    assert f"is damaged: {video.num_lost_frames} of 200 frames are lost" in caplog.text


def test_a_truncated_matroska_file_is_said_to_be(tmp_path, caplog):
    path = make_clip(tmp_path / "cut.mkv")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    video = read_video(path, 6)
    assert 20 < video.total_num_frames < 180
    assert "cut.mkv' states a duration of 8.0 s, but its frames end after" in caplog.text


@pytest.mark.parametrize("detect_shots", [None, one_shot])
def test_frames_behind_the_damage_are_found(tmp_path, caplog, detect_shots):
    """Three packets of a video without B-frames are overwritten: the frames that decode keep their true times."""
    path = make_clip(tmp_path / "holes.mp4", 120, bf="0")
    content = bytearray(path.read_bytes())
    with av.open(os.fspath(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for pos, size in packets[60:63]:
        content[pos : pos + size] = b"\xff" * size
    path.write_bytes(content)
    video = read_video(path, 120, detect_shots=detect_shots)
    assert 117 <= video.total_num_frames + video.num_lost_frames <= 120 and video.num_lost_frames >= 1
    assert "is damaged" in caplog.text
    # A keyframe comes every 12 frames: all is well again from number 72 on.
    shown = dict(zip([round(seconds * 25) for seconds in video.frame_seconds], numbers_of(video), strict=True))
    assert all(shown[number] == number for number in [*range(60), *range(72, 120)])


def test_a_file_that_changes_under_the_reader_is_an_error(clip, monkeypatch):
    def never_sure(*args, **kwargs):
        raise video_packets.UnreliableVideoError

    monkeypatch.setattr(video_reading, "fetch_frames", never_sure)
    monkeypatch.setattr(video_reading, "HeldFrames", partial(HeldFrames, max_bytes=0))
    with pytest.raises(VideoReadError, match="it decodes differently each time"):
        read_video(clip, 4)


# URLs, all of them of this machine


@pytest.fixture
def server(clip):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/clip.mp4":
                return self.send_error(404)
            content = clip.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_url_is_read(server):
    assert numbers_of(read_video(f"{server}/clip.mp4", 4)) == uniform_frame_indices(200, 4)


def test_a_url_that_does_not_exist(server):
    with pytest.raises(VideoReadError, match="'http.*/other.mp4': .*404.*Check the address"):
        read_video(f"{server}/other.mp4", 4)


def test_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(video_download, "URL_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/clip.mp4"
        with pytest.raises(VideoReadError, match="Check the address and the connection"):
            read_video(url, 4)
    with pytest.raises(VideoReadError, match="Connection refused. Check the address and the connection"):
        read_video(url, 4)
