"""Rows of streams are numbered and checked as they come, by the data set library's streams and by PyTorch's."""

import copy
import pickle

import datasets
import pytest
import torch
from tiny_families import VARIANTS, random_video, user_turn, write_video
from torch.utils.data import DataLoader, IterableDataset
from training_runs import row, settings

from linvt.training import BadRowError, VideoSFTTrainer, check_rows, freeze_for_alignment, keep_good_rows, number_rows
from linvt.training.row_streams import is_stream
from linvt.training.training_rows import RowVideos


class Stream(IterableDataset):
    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


class Feed:
    """A stream of nobody's."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def of_datasets(rows: list[dict]) -> datasets.IterableDataset:
    return datasets.IterableDataset.from_generator(lambda: iter(rows))


def with_features(rows: list[dict]) -> datasets.IterableDataset:
    return datasets.Dataset.from_list(rows).to_iterable_dataset()


each_kind = pytest.mark.parametrize("stream_of", [of_datasets, with_features, Stream, Feed])


@pytest.fixture
def rows(tmp_path) -> list[dict]:
    """Good and bad ones; some with a video, of which the fifth row's is not there."""
    video = write_video(tmp_path / "clip.mp4", random_video(6))
    return [
        row("What?", "A cat.", video),
        row("Hello?", ""),
        row("Hello?", "Hi."),
        row("Who?", "Two.", video),
        row("Why?", "So.", tmp_path / "no_such.mp4"),
        row("And now?", "Nothing."),
    ]


def plain(found: list[dict]) -> list[dict]:
    return [{name: value for name, value in each.items() if name != "row_number"} for each in found]


@each_kind
def test_rows_are_numbered_as_they_come(rows, stream_of):
    stream = number_rows(stream_of(rows))
    for _ in range(2):  # two epochs
        found = list(stream)
        assert [each["row_number"] for each in found] == list(range(6)) and plain(found) == rows
    of_library = [isinstance(each, datasets.IterableDataset) for each in (stream, stream_of(rows))]
    assert of_library[0] == of_library[1] and is_stream(stream)  # trainers treat the library's otherwise
    shifted = [{**each, "row_number": 10 + number} for number, each in enumerate(rows)]
    assert [each["row_number"] for each in number_rows(stream_of(shifted))] == list(range(10, 16))


@each_kind
def test_bad_rows_of_a_stream_are_left_out_and_counted(make_linvt, rows, stream_of, caplog):
    _, processor = make_linvt("llava")
    stream = keep_good_rows(stream_of(rows), processor, skip_bad_rows=True)
    assert not caplog.records  # nothing is read yet
    for _ in range(2):
        assert plain(list(stream)) == [rows[number] for number in (0, 2, 3, 5)]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # once, though there were two epochs
    assert "Row 1: " in said[0] and "empty" in said[0] and "(1 so far)" in said[0]
    assert "Row 4: " in said[1] and "no_such.mp4" in said[1] and "(2 so far)" in said[1]


@each_kind
def test_a_bad_row_of_a_stream_is_an_error_when_it_comes(make_linvt, rows, stream_of):
    _, processor = make_linvt("llava")
    found = iter(keep_good_rows(stream_of(rows), processor))
    assert plain([next(found)]) == rows[:1]
    with pytest.raises(BadRowError, match="Row 1: .*empty") as raised:
        next(found)
    assert raised.value.row_number == 1


def test_limits_hold_for_streams(make_linvt, rows, caplog):
    _, processor = make_linvt("llava")
    wordy = row("Look. " * 100, "Yes.")
    stream = keep_good_rows(Stream([rows[0], wordy]), processor, skip_bad_rows=True, max_length=200)
    assert plain(list(stream)) == rows[:1] and "max_length is 200" in caplog.text
    assert list(keep_good_rows(Stream(rows[:1]), processor, skip_bad_rows=True, max_video_seconds=0.01)) == []


def test_streams_go_to_dataloader_workers(make_linvt, rows):
    _, processor = make_linvt("llava")
    for stream_of in (of_datasets, Stream):
        stream = keep_good_rows(stream_of(rows), processor, skip_bad_rows=True)
        loader = DataLoader(stream, batch_size=None, num_workers=1)
        assert plain(list(loader)) == [rows[number] for number in (0, 2, 3, 5)]
    assert plain(list(pickle.loads(pickle.dumps(stream)))) == [rows[number] for number in (0, 2, 3, 5)]


def test_a_stream_is_trained_on(make_linvt, rows, tmp_path):
    """As the same rows are that are there as a whole."""
    model, processor = make_linvt("llava", **VARIANTS["tta_only"])  # SVR draws tokens in training
    good = keep_good_rows(datasets.Dataset.from_list(rows), processor, skip_bad_rows=True)
    losses = []
    for kept in (good, keep_good_rows(of_datasets(rows), processor, skip_bad_rows=True)):
        trainer = VideoSFTTrainer(
            freeze_for_alignment(copy.deepcopy(model)),
            settings(tmp_path, 2, save_strategy="no", train_sampling_strategy="sequential"),
            train_dataset=kept,
            processing_class=processor,
        )
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 2 and losses[0] == losses[1]


@each_kind
def test_what_needs_all_rows_names_the_stream(make_linvt, rows, stream_of):
    _, processor = make_linvt("llava")
    stream = stream_of(rows)
    with pytest.raises(ValueError, match=f"{type(stream).__name__}.*keep_good_rows"):
        check_rows(stream, processor)
    with pytest.raises(ValueError, match="num_workers"):
        keep_good_rows(stream, processor, num_workers=2)
    with pytest.raises(ValueError, match=f"{type(stream).__name__}.*cache"):
        RowVideos(stream)


def test_lists_and_tables_are_no_streams(rows):
    assert not is_stream(rows) and not is_stream(datasets.Dataset.from_list(rows))


def test_videos_in_rows_of_a_stream_stay_what_they_are(make_linvt):
    frames = random_video(4)
    chat = {"messages": [*user_turn(frames, "What?"), {"role": "assistant", "content": "A cat."}]}
    _, processor = make_linvt("llava")
    for stream in (Stream([chat]), datasets.IterableDataset.from_generator(lambda: iter([chat]))):
        (kept,) = keep_good_rows(stream, processor)
        assert torch.equal(torch.as_tensor(kept["messages"][0]["content"][0]["video"]), torch.as_tensor(frames))
