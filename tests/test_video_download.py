"""Videos behind URLs, served by this machine: odd addresses, servers that refuse, and answers that break off."""

import http.server
import io
import threading
from urllib.parse import unquote

import av
import pytest
from tiny_families import random_video

from linvt import VideoReadError
from linvt.processors.video.video_download import ascii_url, download
from linvt.processors.video.video_reading import read_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    """A transport stream: half of one is a whole video to FFmpeg, only shorter."""
    path = tmp_path_factory.mktemp("clips") / "clip.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for frame in random_video(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


class Server(http.server.ThreadingHTTPServer):
    """Answers a path with what `answers` has for it: a function of the handler, or the content."""

    def __init__(self, answers: dict):
        self.answers = answers
        self.requests = []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        assert self.path.isascii() and " " not in self.path
        self.server.requests.append(dict(self.headers))
        answer = self.server.answers.get(unquote(self.path))
        if answer is None:
            self.send_error(404)
        elif callable(answer):
            answer(self)
        else:
            self.answer(answer, promised=len(answer))

    def answer(self, content: bytes, promised: int | None):
        self.send_response(200)
        if promised is not None:
            self.send_header("Content-Length", str(promised))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(answers: dict) -> Server:
        servers.append(Server(answers))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def downloaded(url: str) -> bytes:
    file = io.BytesIO()
    download(url, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/a b.ts", "/a b.ts"),
        ("/a%20b.ts", "/a b.ts"),
        ("/été/ß.ts", "/été/ß.ts"),
        ("/%C3%A9t%C3%A9.ts", "/été.ts"),
        ("/视频/影片.ts", "/视频/影片.ts"),
        ("/clip.ts?name=ä b&x=1%2F2#t=3", "/clip.ts?name=ä b&x=1/2"),
        ("/[1] it's (a) ~clip+.ts", "/[1] it's (a) ~clip+.ts"),
        ('/"<a>|b^`{c}.ts', '/"<a>|b^`{c}.ts'),
    ],
)
def test_addresses_are_quoted_as_far_as_they_are_not(serve, clip, written, path):
    server = serve({path: clip})
    assert downloaded(server.url + written) == clip
    assert read_video(server.url + written).total_num_frames == 40


def test_hosts_outside_ascii_have_a_name_that_servers_know():
    assert ascii_url("http://user@bücher.example:80/ä?q=é") == "http://user@xn--bcher-kva.example:80/%C3%A4?q=%C3%A9"
    assert ascii_url("HTTPS://[::1]:8080/a%20b?c=%26") == "https://[::1]:8080/a%20b?c=%26"


def test_servers_that_refuse_the_name_of_a_library(serve, clip):
    def choosy(handler):
        refused = "urllib" in handler.headers["User-Agent"].lower()
        handler.send_error(403) if refused else handler.answer(clip, len(clip))

    server = serve({"/clip.ts": choosy})
    assert downloaded(f"{server.url}/clip.ts") == clip
    assert "linvt" in server.requests[0]["User-Agent"]


@pytest.mark.parametrize("location", ["/the clip é.ts", "/the%20clip%20%C3%A9.ts"])
def test_redirects_are_followed(serve, clip, location):
    def elsewhere(handler):
        handler.send_response(302)
        handler.send_header("Location", location.encode().decode("latin-1"))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server = serve({"/short": elsewhere, "/the clip é.ts": clip})
    assert downloaded(f"{server.url}/short") == clip


def test_a_server_that_does_not_say_how_much_it_sends(serve, clip):
    server = serve({"/clip.ts": lambda handler: handler.answer(clip, None)})
    assert downloaded(f"{server.url}/clip.ts") == clip


def in_pieces(content: bytes):
    """Chunked encoding, which ends without its end."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    return answer


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_an_answer_that_breaks_off_is_no_shorter_video(serve, clip, share):
    part = clip[: int(share * len(clip))]
    server = serve(
        {"/promised.ts": lambda handler: handler.answer(part, len(clip)), "/in_pieces.ts": in_pieces(part + b" ")}
    )
    if share:
        assert read_video(part).total_num_frames <= 40  # nothing in the file itself says that it is cut off
    with pytest.raises(VideoReadError, match=f"promised.ts': .*{len(part)} of {len(clip)} bytes"):
        read_video(f"{server.url}/promised.ts")
    with pytest.raises(VideoReadError, match="in_pieces.ts': "):
        read_video(f"{server.url}/in_pieces.ts")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<!DOCTYPE html>\n<html><body>Log in, please.</body></html>", "HTML"),
        (b"\n\n<HTML lang='de'><svg></svg></HTML>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer"),
    ],
)
def test_what_lies_where_a_video_should_be_is_named(serve, tmp_path, content, found):
    server = serve({"/clip.mp4": content})
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for source in (f"{server.url}/clip.mp4", path, content):
        with pytest.raises(VideoReadError, match=f"it is a.* {found}"):
            read_video(source)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b/clip.mp4", "https://x..y/clip.mp4"])
def test_addresses_that_are_none(url):
    with pytest.raises(VideoReadError, match="Check the address"):
        read_video(url)
