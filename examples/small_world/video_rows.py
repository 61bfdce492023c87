"""Questions about videos, and about pictures among them, as batches for `LinVTForConditionalGeneration`.

It does what `VideoChatCollator` does with a `FrameTokenCache`, with all videos in memory: the tables need many short
runs, in which reading files would take longer than learning.
"""

from dataclasses import dataclass

import numpy as np
import torch
from small_world.drawing import draw_shot
from small_world.encoding import encode_chat
from small_world.flat_videos import FlatVideos
from small_world.questions import Question, album_questions, image_questions
from small_world.scenes import Shot, make_album, make_picture, scene_rng
from small_world.seen_videos import SeenVideos
from small_world.small_image_llm import PIXELS
from small_world.video_data import VideoSet
from transformers import LlavaProcessor

from linvt.configuration.input_values import IGNORED_LABEL


TOKENS_PER_PICTURE = 16


@dataclass(frozen=True)
class Row:
    question: Question
    video: int | None = None  # number in the set; else the question is about
    picture: int | None = None  # the picture of this number, or
    album: int | None = None  # the album of this number; or about nothing at all

    def pictures(self, split: str) -> list[tuple[Shot, float]]:
        """The pictures that it is about, as shots and how much of each has passed."""
        if self.picture is not None:
            return [(make_picture(split, self.picture), 0.0)]
        return [] if self.album is None else make_album(split, self.album)


def video_rows(asked: list[list[Question]]) -> list[Row]:
    """
    Makes a row of each of the questions about each video; captions of every fourth video only, since an LLM that is
    frozen cannot learn to list.
    """
    return [
        Row(question, video=number)
        for number, questions in enumerate(asked)
        for question in questions
        if question.about != "caption" or number % 4 == 0
    ]


def picture_rows(split: str, num_pictures: int) -> list[Row]:
    """One question about each picture."""
    rows = []
    for number in range(num_pictures):
        rng = scene_rng(split, "question", 10**6 + number)
        questions = image_questions(make_picture(split, number), split, rng)
        rows.append(Row(questions[int(rng.integers(len(questions)))], picture=number))
    return rows


def album_rows(split: str, num_albums: int) -> list[Row]:
    """One question about each album."""
    rows = []
    for number in range(num_albums):
        rng = scene_rng(split, "question", 2 * 10**6 + number)
        questions = album_questions(make_album(split, number), split, rng)
        if questions:
            rows.append(Row(questions[int(rng.integers(len(questions)))], album=number))
    return rows


@dataclass
class RowCollator:
    """
    Args:
        rows (`list[Row]`): What the numbers in a batch stand for.
        num_video_tokens (`int`, *optional*): Video tokens of each video, 0 for a model that is not shown them. As many
            as the videos have frames by default, for what `fixed_tokens` made.
        reads (`str`): What of the videos the model is given: `"tokens"`, `"features"` or `"frames"` of a
            [`VideoSet`], or `"memories"`.
    """

    rows: list[Row]
    split: str
    videos: VideoSet | FlatVideos | SeenVideos | None
    processor: LlavaProcessor
    num_video_tokens: int | None
    reads: str = "tokens"

    @property
    def shows_videos(self) -> bool:
        """Whether the model is shown the videos that it is asked about."""
        return self.num_video_tokens is None or self.num_video_tokens > 0

    @property
    def most_video_tokens(self) -> int:
        """The most tokens that a video of these rows has in the prompt."""
        return max(map(self.num_video_tokens_of, self.rows))

    def num_video_tokens_of(self, row: Row) -> int:
        """Counts the video tokens of the prompt of a row."""
        if row.video is None or not self.shows_videos:
            return 0
        return self.videos.num_frames[row.video] if self.num_video_tokens is None else self.num_video_tokens

    def __call__(self, numbers: list[dict]) -> dict[str, torch.Tensor]:
        rows = [self.rows[number["row"]] for number in numbers]
        pictures = [row.pictures(self.split) for row in rows]
        chats = [
            encode_chat(self.processor.tokenizer, self._visual_tokens(row, len(shown)), [row.question])
            for row, shown in zip(rows, pictures, strict=True)
        ]
        length = max(len(chat.input_ids) for chat in chats)

        def pad(values: list[list[int]], value: int) -> torch.Tensor:
            return torch.tensor([row + [value] * (length - len(row)) for row in values])

        input_ids = pad([chat.input_ids for chat in chats], self.processor.tokenizer.pad_token_id)
        is_visual = input_ids == self.processor.image_token_id
        about_video = torch.tensor([row.video is not None for row in rows])[:, None]
        batch = {
            "input_ids": input_ids,
            "attention_mask": pad([[1] * len(chat.input_ids) for chat in chats], 0),
            "labels": pad([chat.labels for chat in chats], IGNORED_LABEL),
            "mm_token_type_ids": is_visual * torch.where(about_video, 2, 1),
            "instruction_turns": pad([chat.instruction for chat in chats], 0) * about_video,
        }
        shown = [row.video for row in rows if row.video is not None and self.shows_videos]
        if shown:
            batch |= self.videos.model_inputs(shown, self.reads)
            if "pixel_values_videos" in batch:
                batch["pixel_values_videos"] = self._pixels(batch["pixel_values_videos"])
        if any(pictures):
            drawn = np.stack([draw_shot(shot, moment, PIXELS) for shown in pictures for shot, moment in shown])
            batch["pixel_values"] = self._pixels(torch.from_numpy(drawn).permute(0, 3, 1, 2))
        return batch

    def _pixels(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]

    def _visual_tokens(self, row: Row, num_pictures: int) -> list[int]:
        if row.video is not None and self.shows_videos:
            return [self.num_video_tokens_of(row)]
        return [TOKENS_PER_PICTURE] * num_pictures
