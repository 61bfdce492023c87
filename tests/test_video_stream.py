"""Streams of frames, on clips in which each frame shows its own number: files, pipes, growing files, servers."""

import http.server
import io
import itertools
import math
import os
import random
import shutil
import socketserver
import threading
import weakref
from contextlib import contextmanager
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
import torch
from numbered_clips import make_clip, shown_number

from linvt import LinVTVideoProcessor
from linvt.processors import video_processing_linvt
from linvt.processors.video import timed_frames, video_stream
from linvt.processors.video.live_source import LiveSource
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_reading import read_video
from linvt.processors.video.video_stream import iter_video


def facts(frames):
    return [(frame.index, frame.seconds, shown_number(frame.picture)) for frame in frames]


def indices(frames):
    return [frame.index for frame in frames]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """200 frames at 25 per second, a keyframe every 12, B-frames, in several containers."""
    folder = tmp_path_factory.mktemp("clips")
    return {name: make_clip(folder / f"clip.{name}", bf="3") for name in ("mp4", "mkv", "ts")}


# The grid


def shown_on_grid(times, end, fps):
    """The frames shown at k / fps before the end, each once; times in seconds as fractions."""
    ticks = (Fraction(k) / fps for k in itertools.count())
    ticks = itertools.takewhile(lambda tick: tick < end, ticks)
    shown = [max(i for i, time in enumerate(times) if time <= tick) for tick in ticks]
    return sorted(set(shown))


@pytest.mark.parametrize("fps", [0.1, 1, 1.7, Fraction(30000, 1001), 7, 25, 60])
def test_frames_are_those_shown_on_a_grid_in_time(tmp_path, fps):
    rng = random.Random(0)
    times = list(itertools.accumulate(rng.choice([10, 40, 41, 200, 1900]) for _ in range(80)))  # from other than 0
    path = make_clip(tmp_path / "x.mkv", len(times), times=times)
    seconds = [Fraction(time - times[0], 1000) for time in times]
    frames = list(iter_video(path, fps=float(fps)))
    assert indices(frames) == shown_on_grid(
        seconds, seconds[-1] + Fraction(40, 1000), Fraction(fps).limit_denominator(1001)
    )
    assert [shown_number(frame.picture) for frame in frames] == indices(frames)
    assert [frame.seconds for frame in frames] == pytest.approx([float(seconds[i]) for i in indices(frames)])
    assert {frame.shot_id for frame in frames} == {0}


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts"])
def test_parts_give_together_exactly_the_whole(clips, name):
    rng = random.Random(1)
    for fps in (0.9, 4, 25):
        whole = facts(iter_video(clips[name], fps=fps))
        for _ in range(6):
            cuts = sorted(round(rng.uniform(0.6, 7.4), rng.randrange(4)) for _ in range(rng.choice([1, 3])))
            ends = zip([None, *cuts], [*cuts, None], strict=True)
            parts = [
                facts(iter_video(clips[name], fps=fps, start_seconds=a, end_seconds=b)) for a, b in ends if a != b
            ]
            assert list(itertools.chain(*parts)) == whole


OPEN_GOP = "open-gop=1:bframes=3:b-adapt=0:scenecut=0:keyint=14"  # frames follow a keyframe and are shown before it


@pytest.mark.parametrize(("name", "x264"), [("x.mp4", "bframes=3"), ("open_gop.mkv", OPEN_GOP)])
def test_what_lies_before_a_part_of_a_file_is_not_decoded(tmp_path, monkeypatch, name, x264):
    path = make_clip(tmp_path / name, **{"x264-params": x264})
    num_decoded = 0
    decode_frames = timed_frames.decode_frames

    def counting(*args, **kwargs):
        nonlocal num_decoded
        for frame in decode_frames(*args, **kwargs):
            num_decoded += 1
            yield frame

    monkeypatch.setattr(timed_frames, "decode_frames", counting)
    monkeypatch.setattr("linvt.processors.video.video_packets.decode_frames", counting)
    frames = list(iter_video(path, fps=5, start_seconds=5))
    assert indices(frames) == list(range(125, 200, 5))
    assert [shown_number(frame.picture) for frame in frames] == indices(frames)
    assert num_decoded <= 200 - 96


def test_a_keyframe_that_is_not_where_it_should_be_is_not_used(clips, monkeypatch):
    """Then all is decoded from the start, which is always right."""
    find = timed_frames._keyframe_before

    def wrong(*args):
        keyframe = find(*args)
        keyframe.pts += 1
        return keyframe

    expected = facts(iter_video(clips["mp4"], fps=5, start_seconds=5))
    monkeypatch.setattr(timed_frames, "_keyframe_before", wrong)
    assert facts(iter_video(clips["mp4"], fps=5, start_seconds=5)) == expected


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("plain.mp4", {}),
        ("turned.mp4", {"turns": 1}),
        ("wide.mkv", {"stretch": Fraction(16, 11)}),
        ("odd.webm", {"codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "16"}),
        ("raw.h264", {}),
        ("x.gif", {"codec": "gif"}),
        ("x.avi", {"codec": "mpeg4", "bf": "2"}),
        ("x.mpg", {"codec": "mpeg2video", "bf": "2"}),
        ("x.flv", {"bf": "3"}),
    ],
)
def test_frames_are_those_of_read_video(tmp_path, name, kwargs):
    path = make_clip(tmp_path / name, 90, **kwargs)
    video = read_video(path)
    frames = list(iter_video(path, fps=25))
    assert indices(frames) == video.frame_indices
    assert [frame.seconds for frame in frames] == video.frame_seconds
    assert torch.equal(torch.stack([frame.picture for frame in frames]), video.frames)
    assert frames[0].picture.dtype == torch.uint8


@pytest.mark.parametrize("form", [bytes, str, io.BytesIO])
def test_files_in_other_forms(clips, form):
    content = clips["mp4"].read_bytes()
    source = str(clips["mp4"]) if form is str else form(content)
    assert indices(iter_video(source, fps=1)) == list(range(0, 200, 25))


# Memory and shots


def test_memory_does_not_grow_with_the_video(tmp_path):
    alive: set[int] = set()
    most_alive = {}

    def watched(number, of):
        alive.add(number)
        weakref.finalize(of, alive.discard, number)
        return of

    def starts_later(thumbnails):  # it knows after 20 frames
        for number, _ in enumerate(thumbnails):
            if number >= 20:
                yield False
        yield from [False] * 20

    for num_frames in (100, 250):
        path = make_clip(tmp_path / f"{num_frames}.mp4", num_frames)
        numbers = itertools.count()
        frames = iter_video(
            path,
            fps=25,
            transform=lambda picture, numbers=numbers: watched(next(numbers), picture.clone()),
            detect_shot_starts=starts_later,
        )
        num_given = most_alive[num_frames] = 0
        for _ in frames:
            num_given += 1
            most_alive[num_frames] = max(most_alive[num_frames], len(alive))
        assert num_given == num_frames
    assert most_alive[100] == most_alive[250] <= 24


def test_packets_leave_nothing_behind(clips):
    with timed_frames.open_timed_frames(video_stream.resolve_video_file(clips["mp4"]), Fraction(0), 1) as video:
        assert len(list(video)) == 200
        assert video._log.timestamps == [] and video._log.keyframes == []


@pytest.mark.parametrize("delay", [0, 1, 30, 199, 500])
def test_shots_count_up_where_the_detector_says(clips, delay):
    starts = {0, 7, 8, 120, 199}
    seen = []

    def detect(thumbnails):
        waiting = 0
        for number, thumbnail in enumerate(thumbnails):
            assert thumbnail.shape == (27, 48, 3) and thumbnail.dtype == np.uint8
            seen.append(shown_number(thumbnail))
            waiting += 1
            if waiting > delay:
                yield number - delay in starts
                waiting -= 1
        yield from (number in starts for number in range(200 - waiting, 200))

    frames = list(iter_video(clips["mp4"], fps=5, detect_shot_starts=detect))
    assert seen == list(range(200))
    assert indices(frames) == list(range(0, 200, 5))
    assert [frame.shot_id for frame in frames] == [
        sum(0 < start <= frame.index for start in starts) for frame in frames
    ]


def test_each_frame_comes_as_soon_as_its_shot_is_known(clips):
    num_seen = 0

    def detect(thumbnails):
        nonlocal num_seen
        for number, _ in enumerate(thumbnails):
            num_seen += 1
            if number >= 10:
                yield False
        yield from [False] * 10

    for frame in itertools.islice(iter_video(clips["mp4"], fps=5, detect_shot_starts=detect), 30):
        assert num_seen == frame.index + 11


@pytest.mark.parametrize(("num_answers", "problem"), [(199, "fewer answers"), (201, "more than 200 answers")])
def test_detectors_have_to_answer_once_per_frame(clips, num_answers, problem):
    def detect(thumbnails):
        for _ in zip(thumbnails, range(num_answers), strict=False):
            yield False
        yield from [False] * (num_answers - 200)

    with pytest.raises(ValueError, match=f"detect_shot_starts gave {problem}"):
        list(iter_video(clips["mp4"], fps=5, detect_shot_starts=detect))


def test_detectors_have_to_answer_before_the_end(clips, monkeypatch):
    monkeypatch.setattr(video_stream, "MAX_DELAY_FRAMES", 100)
    with pytest.raises(ValueError, match="detect_shot_starts has not answered for 100 frames"):
        list(iter_video(clips["mp4"], fps=5, detect_shot_starts=lambda seen: [False for _ in seen]))


# Live sources


class Sender:
    """Sends the pieces of a video, each when it is let, to a growing file, through a pipe or as a server."""

    def __init__(self, pieces, promised=None):
        self.pieces, self.promised = pieces, promised
        self.allowed = [threading.Event() for _ in pieces]
        self.stopped = threading.Event()

    def allow(self, piece):
        self.allowed[piece].set()

    def send(self, write, then_end=True):
        for allowed, piece in zip(self.allowed, self.pieces, strict=True):
            while not allowed.wait(0.01):
                if self.stopped.is_set():
                    return
            write(piece)
        if not then_end:
            self.stopped.wait()


@contextmanager
def growing_file(sender, tmp_path, ends):
    path = tmp_path / "growing.video"
    with path.open("wb", buffering=0) as file:
        thread = threading.Thread(target=sender.send, args=(file.write,))
        thread.start()
        yield LiveSource(path)
        sender.stopped.set()
        thread.join()


@contextmanager
def named_pipe(sender, tmp_path, ends):
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write():
        with path.open("wb", buffering=0) as file:
            sender.send(file.write, ends)

    thread = threading.Thread(target=write)
    thread.start()
    yield path
    sender.stopped.set()
    thread.join()


@contextmanager
def anonymous_pipe(sender, tmp_path, ends):
    ours, theirs = os.pipe()

    def write():
        with os.fdopen(theirs, "wb", buffering=0) as file:
            sender.send(file.write, ends)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(ours, "rb") as file:
        yield file
        sender.stopped.set()
        thread.join()


@contextmanager
def server(sender, tmp_path, ends):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if sender.promised is not None:
                self.send_header("Content-Length", str(sender.promised))
            self.end_headers()
            sender.send(self.wfile.write, ends)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever).start()
        yield LiveSource(f"http://127.0.0.1:{listening.server_port}/live")
        sender.stopped.set()
        listening.shutdown()


LIVE = [growing_file, named_pipe, anonymous_pipe, server]
LONG = 20.0  # seconds after which a test fails that would wait for ever
SHORT = 1.0


@pytest.mark.parametrize("name", ["ts", "mkv"])
@pytest.mark.parametrize("live", LIVE)
def test_frames_are_had_while_the_source_grows(clips, tmp_path, live, name):
    content = clips[name].read_bytes()
    sender = Sender([content[: len(content) * 2 // 3], content[len(content) * 2 // 3 :]])
    with live(sender, tmp_path, ends=True) as source:
        frames = iter_video(source, fps=5, stall_seconds=LONG)
        sender.allow(0)
        first = list(itertools.islice(frames, 15))  # the rest is not there yet
        assert indices(first) == list(range(0, 75, 5))
        sender.allow(1)
        # The last ones come when it is certain that there are no more.
        assert indices(itertools.islice(frames, 20)) == list(range(75, 175, 5))
        frames.close()


def one_line(caplog):
    (record,) = (record for record in caplog.records if record.name.startswith("linvt"))
    assert "\n" not in record.getMessage()
    return record.getMessage()


@pytest.mark.parametrize("live", LIVE)
def test_a_source_that_stalls_ends_in_one_line(clips, tmp_path, caplog, live):
    content = clips["ts"].read_bytes()
    sender = Sender([content[: len(content) // 2]])
    sender.allow(0)
    with live(sender, tmp_path, ends=False) as source:
        frames = list(iter_video(source, fps=5, stall_seconds=SHORT))
    assert len(frames) > 15
    # The last frames before the break can lack others that are shown before them.
    assert indices(frames[:-2]) == list(range(0, 5 * len(frames) - 10, 5))
    assert "gave nothing for 1 s after " in one_line(caplog)


@pytest.mark.parametrize("live", LIVE)
def test_a_source_that_gives_nothing_is_one_error(tmp_path, live):
    with live(Sender([b""]), tmp_path, ends=False) as source:
        with pytest.raises(VideoReadError, match="Cannot read a video from .*: it gave nothing for 1 s"):
            list(iter_video(source, fps=5, stall_seconds=SHORT))


@pytest.mark.parametrize("live", [named_pipe, anonymous_pipe, server])
def test_a_source_that_is_empty_is_one_error(tmp_path, live):
    sender = Sender([b""])
    sender.allow(0)
    with live(sender, tmp_path, ends=True) as source:
        with pytest.raises(VideoReadError, match=r"it is empty \(0 bytes\)"):
            list(iter_video(source, fps=5, stall_seconds=LONG))


@pytest.mark.parametrize("live", [named_pipe, anonymous_pipe, server])
def test_a_source_that_ends_says_so(clips, tmp_path, caplog, live):
    sender = Sender([clips["ts"].read_bytes()])
    sender.allow(0)
    with live(sender, tmp_path, ends=True) as source:
        assert len(list(iter_video(source, fps=5, stall_seconds=LONG))) == 40
    assert "ended after 8.0 s; it gave 200 frames." in one_line(caplog)


def test_a_server_that_breaks_off_is_said_to(clips, tmp_path, caplog):
    content = clips["ts"].read_bytes()
    sender = Sender([content[: len(content) // 2]], promised=len(content))
    sender.allow(0)
    with server(sender, tmp_path, ends=True) as source:
        assert len(list(iter_video(source, fps=5, stall_seconds=LONG))) > 15
    assert f"broke off ({len(content) - len(content) // 2} bytes that the server promised are missing)" in one_line(
        caplog
    )


def test_a_file_that_is_begun_anew_is_said_to_be(clips, tmp_path, caplog):
    path = shutil.copy(clips["ts"], tmp_path / "log.ts")
    frames = iter_video(LiveSource(path), fps=5, stall_seconds=LONG)
    assert next(frames).index == 0
    os.truncate(path, 10)
    assert indices(frames)[:10] == list(range(5, 55, 5))  # what had been read before is not lost
    assert "became shorter" in one_line(caplog)


def test_streams_are_read_as_they_come_without_being_called_live(clips):
    """One that cannot be sought in, and knows no file descriptor."""

    class Stream:
        def __init__(self, content):
            self.read = io.BytesIO(content).read

        def seekable(self):
            return False

    assert indices(iter_video(Stream(clips["mkv"].read_bytes()), fps=1)) == list(range(0, 200, 25))


def test_standard_input(clips, monkeypatch):
    with clips["ts"].open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert indices(iter_video(LiveSource("-"), fps=1)) == list(range(0, 200, 25))


@pytest.mark.parametrize("as_live", [False, True])
def test_clocks_that_begin_anew_are_continued(clips, caplog, as_live):
    content = clips["ts"].read_bytes() * 2
    source = LiveSource(io.BytesIO(content)) if as_live else content
    frames = list(iter_video(source, fps=5))
    assert [frame.index for frame in frames] == list(range(0, 400, 5))
    assert [frame.seconds for frame in frames] == pytest.approx([index / 25 for index in indices(frames)])
    assert [shown_number(frame.picture) for frame in frames] == [*range(0, 200, 5)] * 2
    assert caplog.text.count("began anew after 8.0 s") == 1


def test_a_stream_that_is_joined_in_the_middle_begins_at_a_keyframe(clips):
    content = clips["ts"].read_bytes()
    frames = list(iter_video(LiveSource(io.BytesIO(content[len(content) // 3 :])), fps=25))
    first = shown_number(frames[0].picture)
    assert first > 0 and frames[0].seconds == 0
    assert [first + frame.index for frame in frames] == [shown_number(frame.picture) for frame in frames]
    assert len(frames) == 200 - first


def test_a_playlist_is_received_by_ffmpeg_and_opens_no_files(tmp_path, caplog):
    make_clip(
        tmp_path / "list.m3u8",
        format="hls",
        container_options={"hls_time": "2", "hls_list_size": "0", "hls_segment_filename": str(tmp_path / "part%d.ts")},
    )
    playlist = (tmp_path / "list.m3u8").read_text()
    # These segments are on this machine, which a server has no business to say.
    (tmp_path / "files.m3u8").write_text(playlist.replace("part", f"file://{tmp_path}/part"))
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=tmp_path)) as listening:
        threading.Thread(target=listening.serve_forever).start()
        url = f"http://127.0.0.1:{listening.server_port}"
        try:
            assert indices(iter_video(LiveSource(f"{url}/list.m3u8"), fps=1)) == list(range(0, 200, 25))
            with pytest.raises(VideoReadError, match="files.m3u8"):
                list(iter_video(LiveSource(f"{url}/files.m3u8"), fps=1))
            # One to which nothing is added.
            (tmp_path / "live.m3u8").write_text(playlist.replace("#EXT-X-ENDLIST", ""))
            caplog.clear()
            assert len(list(iter_video(LiveSource(f"{url}/live.m3u8"), fps=1, stall_seconds=SHORT))) > 4
            assert "gave nothing for 1 s after " in one_line(caplog)
        finally:
            listening.shutdown()
    with pytest.raises(VideoReadError, match="it is a playlist"):
        list(iter_video(LiveSource(tmp_path / "list.m3u8"), fps=1, stall_seconds=SHORT))


RTSP_ANSWERS = {
    "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN", ""),
    "DESCRIBE": (
        "Content-Type: application/sdp",
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
        "a=rtpmap:96 H264/90000\r\na=control:track0\r\n",
    ),
    "SETUP": ("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1", ""),
    "PLAY": ("Session: 1", ""),
}


class SilentCamera(socketserver.StreamRequestHandler):
    """Speaks RTSP, and never sends a picture."""

    def handle(self):
        while request := [line.decode() for line in iter(self.rfile.readline, b"\r\n") if line]:
            method = request[0].split()[0]
            header, content = RTSP_ANSWERS.get(method, ("Session: 1", ""))
            number = next(line for line in request if line.startswith("CSeq"))
            answer = f"RTSP/1.0 200 OK\r\n{number}{header}\r\nContent-Length: {len(content)}\r\n\r\n{content}"
            self.wfile.write(answer.encode())
            if method == "PLAY":
                self.rfile.read()  # until FFmpeg gives up


class SilentServer(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(4096):
            pass


@pytest.mark.parametrize(
    ("scheme", "handler"),
    [("rtsp", SilentCamera), ("rtsp", SilentServer), ("rtmp", SilentServer), ("tcp", SilentServer)],
)
def test_a_server_of_another_protocol_that_gives_nothing_is_one_error(scheme, handler):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever).start()
        try:
            with pytest.raises(VideoReadError, match=f"'{scheme}://127.0.0.1:.*: it gave nothing for 1 s"):
                list(iter_video(f"{scheme}://127.0.0.1:{listening.server_address[1]}/x", fps=1, stall_seconds=SHORT))
        finally:
            listening.shutdown()


def test_an_mp4_file_with_its_index_at_the_end_cannot_come_as_it_is(tmp_path):
    path = make_clip(tmp_path / "x.mp4", 250, qp="0", size=(320, 240), g="1")
    with pytest.raises(VideoReadError, match="An mp4 file with its index at the end"):
        list(iter_video(LiveSource(io.BytesIO(path.read_bytes())), fps=1))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (LiveSource("foo://x"), "foo:// is not supported; known are http://, https://, rtmp://"),
        (LiveSource("/dev/video77", format="v4l2"), "FFmpeg cannot open it"),
        (LiveSource("/dev/null"), "neither a file nor a pipe"),
        (LiveSource("/nowhere.ts"), "No such file"),
        (LiveSource(io.BytesIO(b"<html>Log in</html>")), "HTML"),
        (LiveSource(io.BytesIO(bytes(range(256)) * 9)), "not a video that FFmpeg knows"),
        ("rtsp://user:secret@127.0.0.1:9/x", "FFmpeg cannot open it"),
        ("foo://x", "foo:// is not supported"),
        ([np.zeros((8, 8, 3), np.uint8)], "these are pictures"),
    ],
)
def test_what_cannot_be_streamed_is_one_error(source, found):
    with pytest.raises(VideoReadError, match=found) as error:
        list(iter_video(source, fps=1, stall_seconds=LONG))
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_live_source_is_no_whole_video():
    with pytest.raises(VideoReadError, match="LiveSource"):
        read_video(LiveSource("rtsp://127.0.0.1/x"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": None}, "fps is None"),
        ({"start_seconds": -1}, "start_seconds is -1"),
        ({"end_seconds": math.nan}, "end_seconds is nan"),
        ({"start_seconds": 2, "end_seconds": 2}, "end_seconds is 2"),
        ({"stall_seconds": 0}, "stall_seconds is 0"),
    ],
)
def test_settings_that_do_not_fit(clips, settings, message):
    with pytest.raises(ValueError, match=message):
        iter_video(clips["mp4"], **{"fps": 1, **settings})


def test_a_part_behind_the_end(clips):
    with pytest.raises(VideoReadError, match=r"clip.mp4' ends after 8.0 s, before start_seconds=9\."):
        list(iter_video(clips["mp4"], fps=1, start_seconds=9))


# Damage


@pytest.mark.parametrize("name", ["holes.mp4", "holes.mkv"])
def test_frames_of_a_damaged_file_keep_their_own_times(tmp_path, caplog, name):
    """Three packets of a video without B-frames are overwritten; a keyframe comes every 12 frames."""
    content = bytearray(make_clip(tmp_path / name, 120, bf="0").read_bytes())
    with av.open(io.BytesIO(content)) as container:
        packets = [(packet.pos, bytes(packet)) for packet in container.demux(video=0) if packet.size]
    for position, packet in packets[60:63]:
        position = content.index(packet, position)
        content[position : position + len(packet)] = b"\xff" * len(packet)
    frames = list(iter_video(bytes(content), fps=25))
    assert 105 <= len(frames) < 120
    assert indices(frames) == list(range(len(frames)))  # of those that decode
    shown = {round(25 * frame.seconds): shown_number(frame.picture) for frame in frames}
    assert list(shown) == sorted(shown) and len(shown) == len(frames)
    assert all(shown[number] == number for number in [*range(60), *range(72, 120)])
    assert f"is damaged: {120 - len(frames)} of 120 frames are lost" in one_line(caplog)


def test_a_truncated_file_is_said_to_be(clips, caplog):
    content = clips["mkv"].read_bytes()
    frames = list(iter_video(content[: len(content) // 2], fps=25))
    assert 60 < len(frames) < 140
    assert all(round(25 * frame.seconds) == shown_number(frame.picture) for frame in frames)
    assert "states a duration of 8.0 s" in one_line(caplog)
    caplog.clear()
    list(iter_video(content, fps=25, end_seconds=2))
    assert caplog.text == ""


def test_frames_that_come_out_of_order_are_left_out(clips, monkeypatch, caplog):
    decode_frames = timed_frames.decode_frames

    def swapped(*args, **kwargs):
        frames = list(decode_frames(*args, **kwargs))
        frames[50], frames[51] = frames[51], frames[50]
        return iter(frames)

    monkeypatch.setattr(timed_frames, "decode_frames", swapped)
    frames = list(iter_video(clips["mp4"], fps=25))
    assert [shown_number(frame.picture) for frame in frames] == [number for number in range(200) if number != 50]
    assert "1 of 200 frames are lost" in caplog.text


def test_progress_goes_up_to_one(clips):
    for part in ({}, {"start_seconds": 4}, {"start_seconds": 1.5, "end_seconds": 3}):
        fractions = []
        list(iter_video(clips["mp4"], fps=5, on_progress=fractions.append, **part))
        assert fractions == sorted(set(fractions)) and fractions[-1] == 1 and fractions[0] < 0.1
        assert len(fractions) > 30


# The processor


@pytest.fixture
def processor():
    return LinVTVideoProcessor(size={"height": 24, "width": 32}, shot_detection="uniform")


@pytest.mark.parametrize("frames_per_piece", [1, 7, 16, 100])
def test_pieces_are_what_preprocess_gives(clips, processor, frames_per_piece):
    expected = processor(clips["mp4"], do_sample_frames=False)
    pieces = list(processor.iter_video(clips["mp4"], fps=5, frames_per_piece=frames_per_piece))
    assert [int(piece["video_num_frames"]) for piece in pieces[:-1]] == [frames_per_piece] * (len(pieces) - 1)
    assert sum(int(piece["video_num_frames"]) for piece in pieces) == 40
    for piece in pieces:
        assert piece.keys() == expected.keys()
        assert {name: value.dtype for name, value in piece.items()} == {n: v.dtype for n, v in expected.items()}
    for name in ("pixel_values_videos", "video_milliseconds", "video_shot_ids"):
        together = torch.cat([piece[name] for piece in pieces])
        assert torch.equal(together, expected[name][::5]), name


def test_shots_go_on_from_piece_to_piece(clips, processor, monkeypatch):
    class Detector:
        def starts(self, thumbnails):
            return (number % 60 == 0 for number, _ in enumerate(thumbnails))

    monkeypatch.setattr(video_processing_linvt, "load_shot_detector", lambda *args, **kwargs: Detector())
    pieces = processor.iter_video(clips["mp4"], fps=2.5, frames_per_piece=3, shot_detection="autoshot")
    assert [piece["video_shot_ids"].tolist() for piece in pieces] == [
        [0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1], [2, 2, 2], [2, 2, 2], [3, 3],
    ]  # fmt: skip


def test_parts_and_settings_of_the_processor(clips, processor):
    (piece,) = processor.iter_video(clips["ts"], start_seconds=3, end_seconds=5, size=8, do_normalize=False)
    assert piece["video_milliseconds"].tolist() == [3000, 4000]
    assert piece["pixel_values_videos"].shape == (2, 3, 8, 8)
    assert 0 <= piece["pixel_values_videos"].min() and piece["pixel_values_videos"].max() <= 1


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"num_frames": 4}, "num_frames"),
        ({"do_sample_frames": False}, "do_sample_frames"),
        ({"frames_per_piece": 0}, "frames_per_piece"),
        ({"return_tensors": "np"}, "return_tensors"),
        ({"video_metadata": [{}]}, "video_metadata"),
        ({"fps": -1}, "fps"),
    ],
)
def test_settings_that_a_stream_cannot_have(clips, processor, settings, name):
    with pytest.raises(ValueError, match=name):
        processor.iter_video(clips["mp4"], **settings)
