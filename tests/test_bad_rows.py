"""Rows that cannot be trained on are named with their number and the reason, before training and during it."""

import base64
import io
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, random_video, user_turn
from torch.utils.data import DataLoader

from linvt.training import row_checks
from linvt.training.row_checks import check_rows, keep_good_rows
from linvt.training.training_rows import BadRowError, RowVideos, number_rows
from linvt.training.video_chat_collator import STAND_IN, VideoChatCollator


ANSWER = {"role": "assistant", "content": "A cat."}
PLACE, ASKED = {"type": "video"}, {"type": "text", "text": "What is it?"}


def row_of(*parts, answer=ANSWER, **columns) -> dict:
    return {"messages": [{"role": "user", "content": [*parts, ASKED]}, answer], **columns}


GOOD = row_of({"type": "video", "video": random_video(4)})

BAD_ROWS = {
    "no_video": (row_of(PLACE), "message 0 has a place for a video and there is none"),
    "no_second_video": (row_of(PLACE, PLACE, videos=["a.mp4"]), "place for a video .* the column 'videos' has 1"),
    "more_videos": (row_of(PLACE, videos=["a.mp4", "b.mp4"]), "'videos' has 2, but .* empty places .* for 1 of them"),
    "videos_without_place": (row_of(videos=["a.mp4"]), "'videos' has 1, but .* for 0 of them"),
    "two_videos_in_one_place": (row_of({**PLACE, "video": "a.mp4", "path": "b.mp4"}), r"named 2 times \(video, path"),
    "more_images": (row_of(images=[Image.new("RGB", (8, 8))]), "'images' has 1, but"),
    "no_file": (row_of({**PLACE, "video": "no_such.mp4"}), "'no_such.mp4': there is no such file"),
    "no_frame_file": (row_of({**PLACE, "video": ["no_such.png"]}), "no_such.png"),
    "no_image_file": (row_of({"type": "image", "image": "no_such.png"}), "no_such.png"),
    "no_video_content": (row_of({**PLACE, "video": b"no video"}), "8 bytes.*not a video that FFmpeg knows"),
    "empty_answer": (row_of(answer={"role": "assistant", "content": " \n"}), "answer in message 1 is empty"),
    "no_parts_in_answer": (row_of(answer={"role": "assistant", "content": []}), "answer in message 1 is empty"),
    "no_answer": ({"messages": user_turn("Hello?")}, "no answer to learn"),
    "answer_only_in_prompt": ({"prompt": [ANSWER], "completion": user_turn("Hm.")}, "no answer to learn"),
    "video_in_answer": (row_of(answer={"role": "assistant", "content": [PLACE]}), "role 'assistant' holds more than"),
    "other_columns": ({"text": "Hello."}, r"has the columns \['text'\]; expected 'messages', or 'prompt' and"),
    "no_messages": ({"messages": "Hello."}, "given as str; expected a list of messages"),
    "part_without_text": (row_of({"type": "text"}), "message 0 has the part {'type': 'text'}"),
    "part_without_type": (row_of({"text": "Hm."}), "has no 'type'"),
    "column_without_place": (row_of(video="a.mp4"), "'video' has 1, but .* for 0 of them"),
    "image_column_without_place": (row_of(image=Image.new("RGB", (8, 8))), "'image' has 1, but .* for 0 of them"),
    "one_video_and_several": (row_of(PLACE, video="a.mp4", videos=["b.mp4"]), "both columns, 'video' and 'videos'"),
    "no_list_of_videos": (row_of(PLACE, videos="a.mp4"), "column 'videos' holds str"),
    "video_of_no_type": (row_of({**PLACE, "video": 7}), "given as int"),
    "no_frames": (row_of({**PLACE, "video": []}), "without frames"),
    "frame_of_no_type": (row_of({**PLACE, "video": [3]}), "Frame 0 of a video was given as int"),
    "float_frames": (row_of({**PLACE, "video": random_video(3) / 255}), "float64"),
    "frames_of_two_sizes": (row_of({**PLACE, "video": [random_video(1)[0], random_video(1, width=32)[0]]}), "shapes"),
    "empty_dict": (row_of({**PLACE, "video": {"path": None, "bytes": None}}), "dict"),
    "dict_without_file": (row_of({**PLACE, "video": {"path": "no_such.mp4", "bytes": None}}), "no_such.mp4"),
    "dict_of_no_video": (row_of({**PLACE, "video": {"path": None, "bytes": b"no video"}}), "8 bytes"),
    "uri_of_no_video": (row_of({**PLACE, "video": "data:video/mp4;base64,AAAA"}), "data:video/mp4"),
    "uri_of_no_base64": (row_of({**PLACE, "video": "data:video/mp4;base64,AAA"}), "base64"),
    "unknown_scheme": (row_of({**PLACE, "video": "s3://bucket/a.mp4"}), "s3://"),
    "no_file_behind_url": (row_of({**PLACE, "video": "file:///no_such.mp4"}), "no_such.mp4"),
    "empty_name": (row_of({**PLACE, "video": ""}), "the path is empty"),
    "folder_without_pictures": (row_of({**PLACE, "video": str(Path(__file__).parent)}), "tests'"),
    "image_of_no_type": (row_of({"type": "image", "image": {"path": "a.png"}}), "image.*dict"),
    "base64_of_no_picture": (row_of({"type": "image", "base64": "AAAA" * 1000}), "image, 'AAAA"),
    "placeholder_in_text": (row_of({"type": "text", "text": "<image>"}), "0 images and videos, but its prompt has 1"),
}
each_bad_row = pytest.mark.parametrize("name", BAD_ROWS)


@each_bad_row
def test_bad_rows_are_named_in_training(make_linvt, name):
    _, processor = make_linvt("llava")
    row, reason = BAD_ROWS[name]
    with pytest.raises(BadRowError, match=f"Row 7: .*{reason}") as raised:
        VideoChatCollator(processor)([GOOD, {**row, "row_number": 7}])
    assert raised.value.row_number == 7


@each_bad_row
def test_bad_rows_are_named_before_training(make_linvt, name):
    _, processor = make_linvt("llava")
    row, reason = BAD_ROWS[name]
    bad = check_rows([GOOD, row, GOOD], processor)
    assert list(bad) == [1]
    with pytest.raises(BadRowError, match=f"Row 1: .*{reason}"):
        raise bad[1]


def test_all_bad_rows_are_left_out_at_once(make_linvt, caplog):
    _, processor = make_linvt("llava")
    rows = number_rows([GOOD, *(row for row, _ in BAD_ROWS.values()), GOOD])
    shuffled = rows[1:] + rows[:1]
    with pytest.raises(BadRowError, match=rf"{len(BAD_ROWS)} of {len(rows)} rows are bad:\n  Row 1: .*\n  Row 2: "):
        keep_good_rows(shuffled, processor)
    good = keep_good_rows(shuffled, processor, skip_bad_rows=True)
    assert [row["row_number"] for row in good] == [len(rows) - 1, 0]
    assert "Row 1: " in caplog.text and "They are left out." in caplog.text
    with pytest.raises(BadRowError, match="1 of 1 rows are bad"):
        keep_good_rows(rows[1:2], processor, skip_bad_rows=True)


def test_bad_rows_are_left_out_of_a_batch(make_linvt, caplog):
    _, processor = make_linvt("llava")
    bad = [{**row, "row_number": 10 + place} for place, (row, _) in enumerate(BAD_ROWS.values())]
    collator = VideoChatCollator(processor, skip_bad_rows=True)
    expected = VideoChatCollator(processor)([GOOD, GOOD])
    for _ in range(2):
        batch = collator([*bad[:3], GOOD, *bad[3:], GOOD])
        assert batch.keys() == expected.keys() and all(torch.equal(batch[name], expected[name]) for name in batch)
    assert sorted(collator.skipped) == [row["row_number"] for row in bad]
    assert caplog.text.count("Row 12: ") == 1  # said once, though it came twice


def test_a_batch_of_bad_rows_can_be_trained_on(make_linvt):
    """Its loss is finite, so that no rank stops and no weight is spoilt."""
    model, processor = make_linvt("llava")
    collator = VideoChatCollator(processor, skip_bad_rows=True)
    batch = collator([BAD_ROWS["no_video"][0], BAD_ROWS["no_file"][0]])
    expected = VideoChatCollator(processor)([STAND_IN])
    assert batch.keys() == expected.keys() and all(torch.equal(batch[name], expected[name]) for name in batch)
    assert list(collator.skipped) == [0, 1] and model(**batch).loss.isfinite()
    collator([BAD_ROWS["no_video"][0]])
    assert list(collator.skipped) == [0, 1, 2]


def test_rows_that_are_too_long(make_linvt, caplog):
    _, processor = make_linvt("llava")
    wordy = row_of({"type": "text", "text": "Look. " * 40}, row_number=5)
    length = VideoChatCollator(processor)([GOOD])["input_ids"].shape[1]
    assert not check_rows([GOOD], processor, max_length=length)
    (error,) = check_rows([GOOD], processor, max_length=length - 1).values()
    assert error.reason == f"it has {length} tokens, and max_length is {length - 1}."
    with pytest.raises(BadRowError, match=rf"Row 5: it has \d+ tokens, and max_length is {length}"):
        VideoChatCollator(processor, max_length=length)([GOOD, wordy])
    collator = VideoChatCollator(processor, max_length=length, skip_bad_rows=True)
    expected = VideoChatCollator(processor)([GOOD])
    batch = collator([wordy, GOOD])
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert torch.equal(collator([wordy])["input_ids"], VideoChatCollator(processor)([STAND_IN])["input_ids"])


def test_videos_that_are_too_long(make_linvt, video_file):
    _, processor = make_linvt("llava")
    row = row_of({"type": "video", "video": str(video_file(20, fps=10))})
    assert not check_rows([row], processor, max_video_seconds=2.1)
    with pytest.raises(BadRowError, match=r"Row 0: .*clip_20_0.mp4' is 2.0 s long, and max_video_seconds is 1.5"):
        keep_good_rows([row], processor, max_video_seconds=1.5)


def test_damage_that_only_decoding_shows(make_linvt, video_file):
    """The index of the file is whole, so it opens; none of its pictures is."""
    _, processor = make_linvt("llava")
    path = video_file(20)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    row = row_of({"type": "video", "video": str(path)}, row_number=3)
    assert not check_rows([row], processor)
    with pytest.raises(BadRowError, match="Row 3: .*Cannot read a video"):
        VideoChatCollator(processor)([row])


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_rows_are_checked_beside_each_other(make_linvt, num_workers):
    """As many as several workers share, and the random numbers of a training are those without a check."""
    _, processor = make_linvt("llava")
    places = [0, 1, 40, 64, 99]
    rows = [BAD_ROWS["empty_answer"][0] if place in places else row_of() for place in range(100)]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    bad = check_rows(number_rows(rows)[50:] + rows[:50], processor, num_workers=num_workers)
    assert torch.equal(torch.rand(3), expected)
    assert {place: error.row_number for place, error in bad.items()} == {14: 64, 49: 99, 50: 50, 51: 51, 90: 90}
    assert list(bad) == sorted(bad) and all("answer in message 1 is empty" in error.reason for error in bad.values())


@pytest.mark.parametrize("num_rows", [1, 7])
def test_ranks_share_the_check_and_its_result(make_linvt, monkeypatch, num_rows):
    _, processor = make_linvt("llava")
    read: list[int] = []

    class Rows(list):
        def __getitem__(self, place):
            read.append(place)
            return super().__getitem__(place)

    shares: list[list] = []
    results: list[dict] = []
    for gathered in (False, True):
        for rank in range(3):
            state = SimpleNamespace(process_index=rank, num_processes=3)
            monkeypatch.setattr("linvt.training.row_checks.PartialState", lambda state=state: state)
            gather = (lambda mine: sum(shares, [])) if gathered else (lambda mine: shares.append(mine) or mine)
            monkeypatch.setattr("linvt.training.row_checks.gather_object", gather)
            results.append(check_rows(Rows([BAD_ROWS["empty_answer"][0]] * num_rows), processor))
        if not gathered:
            assert sorted(read) == list(range(num_rows))  # each by one rank
    assert all(list(result) == list(range(num_rows)) for result in results[3:])


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_counted_without_writing_them_all(make_linvt, family):
    """Of several videos in several turns, against the batch that is trained on."""
    _, processor = make_linvt(family)
    first, second = random_video(3), random_video(2, 1)
    chat = [*user_turn(first, "What?", second), ANSWER, *user_turn("And", first, "?"), ANSWER]
    length = VideoChatCollator(processor)([{"messages": chat}])["input_ids"].shape[1]
    assert length > 3 * processor.num_video_tokens
    assert not check_rows([{"messages": chat}], processor, max_length=length)
    (error,) = check_rows([{"messages": chat}], processor, max_length=length - 1).values()
    assert f"has {length} tokens" in error.reason


NO_HOST = "http://127.0.0.1:1/cat.png"  # nothing listens there; what HTTP clients raise is no OSError


@pytest.mark.parametrize("part", ["image", "frame", "video"])
def test_what_only_a_download_shows_to_be_bad(make_linvt, part):
    _, processor = make_linvt("llava")
    content = {"type": "image", "image": NO_HOST} if part == "image" else {**PLACE, "video": [NO_HOST]}
    row = row_of({**PLACE, "video": NO_HOST} if part == "video" else content, row_number=4)
    assert not check_rows([row], processor)
    with pytest.raises(BadRowError, match=f"Row 4: .*an? {part}.*(cannot be read|refused)"):
        VideoChatCollator(processor)([GOOD, row])
    collator = VideoChatCollator(processor, skip_bad_rows=True)
    assert len(collator([row, GOOD])["input_ids"]) == 1 and list(collator.skipped) == [4]


def test_frames_that_are_too_large_to_be_true(make_linvt, tmp_path, monkeypatch):
    _, processor = make_linvt("llava")
    name = str(tmp_path / "large.png")
    Image.new("RGB", (64, 64)).save(name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    row = row_of({**PLACE, "video": [name]}, row_number=4)
    for call in (lambda: VideoChatCollator(processor)([GOOD, row]), lambda: keep_good_rows([row], processor)):
        with pytest.raises(BadRowError, match="Row 4: a frame of a video, .* cannot be read"):
            call()


@pytest.fixture
def good_sources(video_file, tmp_path):
    path = video_file(6)
    content = path.read_bytes()
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(random_video(3)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    names = [str(name) for name in sorted(folder.iterdir())]
    return {
        "path": path,
        "name": str(path),
        "file URL": path.as_uri(),
        "data URI": "data:video/mp4;base64," + base64.b64encode(content).decode(),
        "bytes": content,
        "bytearray": bytearray(content),
        "open file": io.BytesIO(content),
        "path of a data set": {"path": str(path), "bytes": None},
        "bytes of a data set": {"path": "moved.mp4", "bytes": content},
        "array": random_video(3),
        "folder": str(folder),
        "names": names,
        "file URLs": [Path(name).as_uri() for name in names],
        "bytes of pictures": [{"path": None, "bytes": Path(name).read_bytes()} for name in names],
    }


def test_what_the_check_calls_good_is_read(make_linvt, good_sources):
    _, processor = make_linvt("llava")
    for name, source in good_sources.items():
        for row in (row_of({**PLACE, "video": source}), row_of(PLACE, videos=[source]), row_of(PLACE, video=source)):
            assert not check_rows([row], processor), name
            assert "pixel_values_videos" in VideoChatCollator(processor)([row]), name


def test_a_column_of_one_is_read_like_a_column_of_several(make_linvt, video_file):
    _, processor = make_linvt("llava")
    path, picture = str(video_file(6)), Image.fromarray(random_video(1)[0])
    parts = [PLACE, {"type": "image"}]
    expected = VideoChatCollator(processor)([row_of(*parts, videos=[path], images=[picture])])
    for columns in ({}, {"videos": [], "images": None}):
        got = VideoChatCollator(processor)([row_of(*parts, video=path, image=picture, **columns)])
        assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)


def test_videos_as_data_sets_hold_them(make_linvt, video_file):
    """Undecoded, by path and by content; Arrow gives every part the keys of all parts."""
    datasets = pytest.importorskip("datasets")
    _, processor = make_linvt("llava")
    path, text = video_file(6), datasets.Value("string")
    asked = [{"type": "video", "text": None}, {"type": "text", "text": "What is it?"}]
    answer = [{"type": "text", "text": "A cat."}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    videos = [[{"path": str(path), "bytes": None}], [{"path": "moved.mp4", "bytes": path.read_bytes()}]]
    features = {
        "videos": datasets.List(datasets.Video(decode=False)),
        "messages": datasets.List({"role": text, "content": datasets.List({"type": text, "text": text})}),
    }
    rows = {"videos": videos, "messages": [messages] * 2}
    rows = datasets.Dataset.from_dict(rows, datasets.Features(features))
    assert rows[1]["videos"][0]["bytes"] and not check_rows(rows, processor)
    batch = VideoChatCollator(processor)([rows[0], rows[1]])
    expected = VideoChatCollator(processor)([row_of({**PLACE, "video": str(path)})] * 2)
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_errors_of_rows_are_short(make_linvt):
    _, processor = make_linvt("llava")
    long = "A" * 400_000
    for part in (
        {**PLACE, "video": "data:video/mp4;base64," + long},
        {**PLACE, "video": long},
        {**PLACE, "video": bytes(400_000)},
        {"type": "text", "video": bytes(400_000)},
        {"type": "image", "image": long},
        {"type": "image", "url": "data:image/png;base64," + long},
    ):
        row = row_of(part)
        (error,) = check_rows([row], processor).values()
        with pytest.raises(BadRowError) as raised:
            VideoChatCollator(processor)([row])
        chain = [error, raised.value]
        while chain:
            one = chain.pop()
            assert max(map(len, [str(one), *map(str, one.args)])) < 800
            chain += [cause for cause in (one.__cause__ or one.__context__,) if cause is not None]


def test_wrong_settings_are_no_fault_of_a_row(make_linvt, video_file):
    """Else every row would be skipped in turn."""
    _, processor = make_linvt("llava")
    collator = VideoChatCollator(processor, skip_bad_rows=True, processor_kwargs={"shot_detection": "transnet"})
    with pytest.raises(ValueError, match="shot_detection is 'transnet'"):
        collator([row_of({"type": "video", "video": str(video_file(6))})])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_error_of_a_dataloader_names_the_row(make_linvt, num_workers):
    _, processor = make_linvt("llava")
    rows = number_rows([BAD_ROWS["no_file"][0], BAD_ROWS["no_video"][0]])
    loader = DataLoader(rows[1:], collate_fn=VideoChatCollator(processor), num_workers=num_workers)
    with pytest.raises(BadRowError, match="Row 1: message 0 has a place"):
        next(iter(loader))
    error = pickle.loads(pickle.dumps(BadRowError("broken", 4)))
    assert isinstance(error, BadRowError) and "broken" in str(error)


def test_rows_of_a_dataset_keep_their_numbers():
    datasets = pytest.importorskip("datasets")
    rows = [{"messages": [{"role": "user", "content": str(number)}, ANSWER]} for number in range(20)]
    dataset = number_rows(datasets.Dataset.from_list(rows))
    shuffled = dataset.shuffle(seed=1)
    assert [row["messages"][0]["content"] for row in shuffled] == [str(row["row_number"]) for row in shuffled]
    assert sorted(shuffled["row_number"]) == list(range(20)) != list(shuffled["row_number"])
    assert number_rows(shuffled) is shuffled


def test_videos_of_rows():
    rows = [row_of(PLACE, PLACE, videos=["a.mp4", "b.mp4"]), row_of(), row_of({**PLACE, "path": "c.mp4"})]
    assert list(RowVideos(rows)) == [["a.mp4", "b.mp4"], [], ["c.mp4"]]


def test_a_video_of_several_rows_is_opened_once(make_linvt, video_file, monkeypatch):
    """But a bad one is an error of each of its rows, and another check opens all again."""
    _, processor = make_linvt("llava")
    good, bad = str(video_file(6)), str(video_file(7))
    rows = [row_of({**PLACE, "video": video}) for video in (good, bad, good, bad, good)]
    opened: list[str] = []
    open_video = row_checks.open_video
    monkeypatch.setattr(row_checks, "open_video", lambda *args: opened.append(str(args[0])) or open_video(*args))
    assert not check_rows(rows, processor) and opened == [good, bad]
    Path(bad).write_bytes(b"no video")
    assert list(check_rows(rows, processor)) == [1, 3] and opened[2:] == [good, bad, bad]
