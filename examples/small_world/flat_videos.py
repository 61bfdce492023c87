"""Frame tokens of videos of any lengths, as batches for the model: one video after the other, and counts of frames."""

from dataclasses import dataclass

import torch
from small_world.questions import Question


@dataclass
class FlatVideos:
    """
    Holds V of many videos.

    Args:
        tokens (`torch.Tensor` of shape `(frames of all videos, tokens per frame, channels)`): V. A batch is float32,
            whatever the dtype of storage.
        milliseconds (`torch.LongTensor` of shape `(frames of all videos,)`): Times of the frames.
        shot_ids (`torch.LongTensor` of the same shape): Shots that the frames belong to.
        num_frames (`list[int]`): Frames of each video.
        grid (`tuple[int, int]`): Rows and columns of a frame's tokens.
        questions (`list[list[Question]]`): Those about each video.
    """

    tokens: torch.Tensor
    milliseconds: torch.Tensor
    shot_ids: torch.Tensor
    num_frames: list[int]
    grid: tuple[int, int]
    questions: list[list[Question]]

    def __post_init__(self):
        ends = torch.tensor(self.num_frames).cumsum(0).tolist()
        self.places = [slice(end - number, end) for end, number in zip(ends, self.num_frames, strict=True)]

    def model_inputs(self, numbers: list[int], reads: str = "tokens") -> dict[str, torch.Tensor]:
        """Returns what the model is given of these videos, in this order."""
        if reads != "tokens":
            raise ValueError(f"Of these videos the tokens are kept, no {reads}; expected reads='tokens'.")
        places = [self.places[number] for number in numbers]
        return {
            "video_frame_tokens": torch.cat([self.tokens[place] for place in places]).float(),
            "video_token_grid": torch.tensor([self.grid] * len(places)),
            "video_num_frames": torch.tensor([self.num_frames[number] for number in numbers]),
            "video_milliseconds": torch.cat([self.milliseconds[place] for place in places]),
            "video_shot_ids": torch.cat([self.shot_ids[place] for place in places]),
        }
