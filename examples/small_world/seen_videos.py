"""Videos that were seen once, shot by shot, of which SVR's prior has kept the best tokens: as memories."""

import torch
from small_world.flat_videos import FlatVideos
from small_world.questions import Question
from small_world.video_data import VideoSet
from tqdm import tqdm

from linvt import LinVTForConditionalGeneration
from linvt.fingerprints import memory_fingerprints
from linvt.streaming_encoder import keep_best


class SeenVideos:
    """
    Sees videos with the video tokenizer of a model, before it has learnt anything, and hands out their memories in
    place of their frames.

    Args:
        videos ([`VideoSet`] or [`FlatVideos`]): V of the videos.
        model ([`LinVTForConditionalGeneration`]): Its SVR chooses.
    """

    def __init__(self, videos: VideoSet | FlatVideos, model: LinVTForConditionalGeneration):
        self.questions: list[list[Question]] = videos.questions
        self.num_frames = videos.num_frames
        self.memories, fingerprints = [], memory_fingerprints(model)
        for number in tqdm(range(len(videos.num_frames)), desc="videos seen"):
            inputs = videos.model_inputs([number])
            grid = tuple(inputs["video_token_grid"][0].tolist())
            seconds, shots = inputs["video_milliseconds"] / 1000, inputs["video_shot_ids"]
            about = (grid, seconds, shots, videos.num_frames[number], fingerprints)
            self.memories.append(keep_best(model, inputs["video_frame_tokens"], *about))

    def model_inputs(self, numbers: list[int], reads: str = "memories") -> dict:
        """Returns what the model is given of these videos, in this order."""
        if reads != "memories":
            raise ValueError(f"Of these videos memories are kept, no {reads}; expected reads='memories'.")
        return {
            "video_num_frames": torch.zeros(len(numbers), dtype=torch.long),
            "video_memories": [self.memories[number] for number in numbers],
        }
