"""How far the focus on what is asked can go: clusters of a video whose relevant tokens are known, not learnt."""

import numpy as np
import torch
from small_world.drawing import cover, pixel_axis
from small_world.fixed_tokens import passed_on
from small_world.flat_videos import FlatVideos
from small_world.questions import Question
from small_world.scenes import Video, make_video
from small_world.small_image_llm import PATCH, PIXELS
from small_world.video_data import VideoSet, picked_frames
from small_world.vision_pretraining import LEAST_SHARE
from tqdm import tqdm

from linvt.video_tokenizer.merging_aggregation import INITIAL_EMPHASIS, INITIAL_SHARPNESS, focus_of
from linvt.video_tokenizer.token_clustering import cluster_tokens, token_directions
from linvt.video_tokenizer.token_pooling import rows_in_order_of_time


NUM_TOKENS = 28


@torch.no_grad()
def told_what_is_asked(videos: VideoSet, split: str) -> FlatVideos:
    """
    Makes the video tokens of each question about a video by itself, captions not: the clusters that `start="merge"`
    would make if it had learnt exactly which frame tokens show the shapes that a question names.
    """
    made, questions = [], []
    for number, asked in enumerate(tqdm(videos.questions, desc=f"{split} videos, told what is asked")):
        video = make_video(split, number)
        shown = shown_shapes(video, videos.tokens.shape[1])
        asked = [question for question in asked if question.about != "caption"]
        relevance = torch.stack([_relevance(question, video, shown) for question in asked])
        made += _focused_clusters(videos, number, relevance)
        questions += [[question] for question in asked]
    return passed_on(made, questions)


def shown_shapes(video: Video, num_frames: int) -> torch.Tensor:
    """Which tokens of the picked frames show which shape of a video: bool `(shapes, frames, tokens per frame)`."""
    seconds, shot_ids = picked_frames(video, num_frames)
    starts = np.cumsum([0, *(shot.seconds for shot in video.shots)])
    side, axis = PIXELS // PATCH, pixel_axis(PIXELS)
    shown = []
    for number, shot in enumerate(video.shots):
        for shape in shot.shapes:
            shares = np.zeros((num_frames, side * side), dtype=np.float32)
            for frame in np.flatnonzero(np.array(shot_ids) == number):
                covered = cover(shape, (seconds[frame] - starts[number]) / shot.seconds, axis)
                shares[frame] = covered.reshape(side, PATCH, side, PATCH).mean((1, 3)).reshape(-1)
            shown.append(torch.from_numpy(shares > LEAST_SHARE))
    return torch.stack(shown)


def _relevance(question: Question, video: Video, shown: torch.Tensor) -> torch.Tensor:
    """As `TokenRelevance` gives it, `(tokens,)`: of shapes named in full, or else of a named kind or colour."""
    named = [number for number, shape in enumerate(video.shapes) if shape.name in question.text]
    words = question.text.split()
    named = named or [n for n, shape in enumerate(video.shapes) if shape.kind in words or shape.colour in words]
    relevant = shown[named].any(0).flatten().float()
    return (relevant - relevant.mean()).clamp(min=0)


def _focused_clusters(videos: VideoSet, number: int, relevance: torch.Tensor) -> list[torch.Tensor]:
    tokens, times = videos.tokens[number], videos.milliseconds[number].float()
    progress = (times - times[0]) / (times[-1] - times[0]).clamp(min=1)
    progress, shots = (values.repeat_interleave(tokens.shape[1]) for values in (progress, videos.shot_ids[number]))
    weights, time_weights = focus_of(relevance, shots.expand(len(relevance), -1))
    directions = token_directions(tokens.flatten(0, 1)).expand(len(relevance), -1, -1)
    progress = progress.expand(len(relevance), -1)
    margins, _ = cluster_tokens(directions, progress, NUM_TOKENS, weights, time_weights)
    rows = (INITIAL_EMPHASIS * relevance[:, None] - INITIAL_SHARPNESS * margins).softmax(-1)
    return list(rows_in_order_of_time(rows, progress) @ tokens.flatten(0, 1).float())
