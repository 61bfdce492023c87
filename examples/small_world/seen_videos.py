"""Videos that were seen once, shot by shot, of which SVR's prior has kept the best tokens: as memories."""

import torch
from small_world.flat_videos import FlatVideos
from small_world.questions import Question
from small_world.video_data import VideoSet
from tqdm import tqdm

from linvt import LinVTForConditionalGeneration
from linvt.fingerprints import memory_fingerprints
from linvt.video_tokenizer.kept_tokens import best_places
from linvt.video_tokenizer.video_memory import VideoMemory


class SeenVideos:
    """
    Sees videos with the video tokenizer of a model, before it has learnt anything, and hands out their memories in
    place of their frames.

    Args:
        videos ([`VideoSet`] or [`FlatVideos`]): V of the videos.
        model ([`LinVTForConditionalGeneration`]): Its SVR chooses.
    """

    @torch.no_grad()
    def __init__(self, videos: VideoSet | FlatVideos, model: LinVTForConditionalGeneration):
        self.questions: list[list[Question]] = videos.questions
        self.num_frames = videos.num_frames
        encoder, scorer = memory_fingerprints(model)
        top_k = model.config.video_tokenizer_config.top_k
        self.memories = []
        for number in tqdm(range(len(videos.num_frames)), desc="videos seen"):
            inputs = videos.model_inputs([number])
            seconds, grid = inputs["video_milliseconds"][None] / 1000, tuple(inputs["video_token_grid"][0].tolist())
            tokens, shots = inputs["video_frame_tokens"][None], inputs["video_shot_ids"][None]
            scored = model.video_tokenizer.score(tokens, grid, seconds, shots)
            kept = scored.select(best_places(scored.scores, top_k))
            memory = VideoMemory(
                *(values[0] for values in kept[:-1]),
                grid=grid,
                spans_seconds=(tuple(kept.span_seconds[0].tolist()),),
                num_frames=videos.num_frames[number],
                top_k=top_k,
                encoder=encoder,
                scorer=scorer,
                mergeable=model.video_tokenizer.scores_shot_by_shot,
            )
            self.memories.append(memory)

    def model_inputs(self, numbers: list[int], reads: str = "memories") -> dict:
        """Returns what the model is given of these videos, in this order."""
        if reads != "memories":
            raise ValueError(f"Of these videos memories are kept, no {reads}; expected reads='memories'.")
        return {
            "video_num_frames": torch.zeros(len(numbers), dtype=torch.long),
            "video_memories": [self.memories[number] for number in numbers],
        }
