"""One file in all its forms: each gives the same bytes, and what is no form of a file is one short error."""

import base64
import io
import os
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch

from linvt.processors.video.source_files import describe_source, rereadable, resolve_file
from linvt.processors.video.video_container import VideoReadError


CONTENT = bytes(range(256)) * 3


def content_of(source) -> bytes:
    with rereadable(resolve_file(source)) as content:
        if isinstance(content, Path):
            return content.read_bytes()
        if isinstance(content, bytes):
            return content
        content.seek(0)
        return content.read()


class Pipe(io.RawIOBase):
    """Can be read once and not be sought in."""

    def __init__(self, content: bytes):
        self.content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self.content.readinto(buffer)


def as_data_uri(content: bytes, start: str = "data:video/mp4;base64,") -> str:
    return start + base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "form",
    [
        os.fspath,
        Path,
        lambda path: f"file://{path}",
        lambda path: f"FILE://localhost{path}",
        lambda path: f"file:{path}",
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: Pipe(path.read_bytes()),
        lambda path: as_data_uri(path.read_bytes()),
        lambda path: {"path": os.fspath(path)},
        lambda path: {"path": os.fspath(path), "bytes": None},
        lambda path: {"path": None, "bytes": path.read_bytes()},
        lambda path: {"path": "where/it/once/was.mp4", "bytes": path.read_bytes()},
        lambda path: {"path": f"file://{path}"},
    ],
)
def test_every_form_gives_the_same_bytes(tmp_path, form):
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    assert content_of(form(path)) == CONTENT


@pytest.mark.parametrize(
    "name", ["a b.mp4", "ä ö.mp4", "映画.mp4", "100%.mp4", "50%20.mp4", "what?.mp4", "#1.mp4", "'.mp4"]
)
def test_file_urls_are_percent_decoded(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(CONTENT)
    assert content_of(path.as_uri()) == CONTENT  # the standard library's
    if "%" not in name:  # as people write them
        assert content_of(f"file://{path}") == CONTENT


@pytest.mark.parametrize("url", ["file://server/share/clip.mp4", "file://clip.mp4", "file:clip.mp4"])
def test_a_file_url_is_of_this_machine_and_absolute(url):
    with pytest.raises(VideoReadError, match="file URL has an absolute path on this machine"):
        resolve_file(url)


@pytest.mark.parametrize(
    "uri",
    [
        as_data_uri(CONTENT),
        as_data_uri(CONTENT, "data:;base64,"),
        as_data_uri(CONTENT, "data:video/mp4;codecs=avc1;BASE64,").replace("BASE64", "base64"),
        "data:video/mp4;base64," + quote(base64.b64encode(CONTENT)),
        "data:video/mp4;base64," + base64.encodebytes(CONTENT).decode(),
        "data:application/octet-stream," + quote(CONTENT),
        "data:,plain%20text",
    ],
    ids=range(7),
)
def test_data_uris_hold_what_the_standard_library_finds_in_them(uri):
    with urllib.request.urlopen("".join(uri.split())) as response:  # it takes no line breaks
        assert content_of(uri) == response.read()


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("s3://bucket/clip.mp4", "s3://"),
        ("hf://datasets/a/b/clip.mp4", "hf://"),
        ("ftp://server/clip.mp4", "ftp://"),
        ("", "the path is empty"),
        ("data:video/mp4;base64", "no comma"),
        ("data:video/mp4;base64,AAA", "base64"),
        ("data:video/mp4;base64,???=", "base64"),
        ({}, "neither of them"),
        ({"path": None, "bytes": None}, "neither of them"),
        ({"array": [1], "path": "clip.mp4"}, "'array', 'path'"),
    ],
)
def test_what_is_no_file_is_refused_by_its_name(source, named):
    with pytest.raises(VideoReadError, match=named):
        resolve_file(source)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (io.StringIO("text"), "binary mode"),
        ({"path": 3}, "'path' is of type int"),
        ({"bytes": "clip.mp4"}, "'bytes' is of type str"),
    ],
)
def test_wrong_types_are_type_errors(source, named):
    with pytest.raises(TypeError, match=named):
        resolve_file(source)


@pytest.mark.parametrize("other", [None, 3, 2.5, [b""], object(), np.zeros(3), torch.zeros(3)])
def test_other_objects_are_no_files(other):
    assert resolve_file(other) is None


LONG = 300_000


@pytest.mark.parametrize(
    "source",
    [
        as_data_uri(bytes(LONG)),
        "data:video/mp4;base64," + "?" * LONG,
        "data:" + "A" * LONG,
        "A" * LONG,
        "dir/" * LONG + "clip.mp4",
        f"http://127.0.0.1/{'a' * LONG}",
        bytes(LONG),
        bytearray(LONG),
        {"path": None, "bytes": bytes(LONG)},
        {"path": "A" * LONG},
        np.zeros((50, 50, 50, 3), np.uint8),
        torch.zeros(50, 50, 50, 3),
        [bytes(LONG)] * 3,
        object(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_names_are_short_whatever_they_stand_for(source):
    assert 0 < len(describe_source(source)) < 150
    try:
        file = resolve_file(source)
    except (VideoReadError, TypeError) as error:
        assert_short(error)
    else:
        assert file is None or (len(file.name) < 150 and len(repr(file)) < 200)


def assert_short(error: BaseException | None) -> None:
    """Neither an error nor what it came of keeps a video alive."""
    while error is not None:
        held = [str(error), *map(repr, error.args), repr(getattr(error, "filename", ""))]
        assert max(map(len, held)) < 600, [text[:100] for text in held]
        error = error.__cause__ or error.__context__


def test_a_name_shows_where_a_path_starts_and_ends():
    name = describe_source("/videos/" + "deep/" * 100 + "the_clip.mp4")
    assert name.startswith("'/videos/deep/") and "the_clip.mp4'" in name and "520 characters" in name
    assert describe_source(Path("a.mp4")) == describe_source({"path": "a.mp4", "bytes": b"x"}) == "'a.mp4'"
    assert describe_source({"path": None, "bytes": b"abc"}) == describe_source(memoryview(b"abc")) == "<3 bytes>"
