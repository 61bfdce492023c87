"""Video tokens that do not depend on what is learnt or asked: made once, and given to the LLM as they are."""

from collections.abc import Callable

import torch
from small_world.flat_videos import FlatVideos
from small_world.questions import Question
from small_world.video_data import VideoSet
from tqdm import tqdm


TOKENS_AT_ONCE = 2**15  # of V; the distances of all pairs of them fit into memory

# With one token per video token, what makes means of even windows passes them on.
PASSES_ON = {"num_queries": [1], "pooling_windows": [1], "multi_scale": "single"}
PASSES_ON |= {"start": "merge", "use_svr": False, "use_tta": False, "text_conditioning": False}


@torch.no_grad()
def fixed_tokens(videos: VideoSet | FlatVideos, make: Callable[..., torch.Tensor]) -> FlatVideos:
    """
    Makes the video tokens of all videos.

    Args:
        make (`Callable`): Called with V of videos of one length, `(videos, frames, tokens per frame, channels)`, rows
            and columns of a frame's tokens, times of the frames in seconds and their shots, both `(videos, frames)`;
            returns video tokens, `(videos, video tokens, channels)`.

    Returns:
        [`FlatVideos`], in which each video token stands as a frame of one token.
    """
    made: dict[int, torch.Tensor] = {}
    lengths = sorted(set(videos.num_frames))
    with tqdm(total=len(videos.num_frames), desc="video tokens") as progress:
        for length in lengths:
            numbers = [number for number, frames in enumerate(videos.num_frames) if frames == length]
            at_once = max(TOKENS_AT_ONCE // (length * 16), 1)
            for some in (numbers[start : start + at_once] for start in range(0, len(numbers), at_once)):
                inputs = videos.model_inputs(some)
                tokens, times, shots = (
                    inputs[name].unflatten(0, (len(some), length))
                    for name in ("video_frame_tokens", "video_milliseconds", "video_shot_ids")
                )
                grid = tuple(inputs["video_token_grid"][0].tolist())
                made |= zip(some, make(tokens, grid, times / 1000, shots), strict=True)
                progress.update(len(some))
    return passed_on([made[number] for number in range(len(made))], videos.questions)


def asked_frames(videos: FlatVideos, split: str) -> FlatVideos:
    """
    Shows of each question about a long video the frames alone that tell the answer: what an image-LLM knows that needs
    no video tokenizer. Each question is a video of its own, so they stand in the same order.

    Returns:
        [`FlatVideos`] of the tokens of a frame in the middle of each shot that is asked about, of all frames of the
        shot in which something moves.
    """
    tokens, questions = [], []
    for number, place in enumerate(videos.places):
        shots, of_video = videos.shot_ids[place], videos.tokens[place].float()
        for question in videos.questions[number]:
            told_by = sorted(question.shots)[:1] if question.about == "position" else sorted(question.shots)
            frames = [(shots == shot).nonzero()[:, 0] for shot in told_by or [0]]
            if question.about != "motion":
                frames = [of_shot[len(of_shot) // 2, None] for of_shot in frames]
            tokens.append(of_video[torch.cat(frames)].flatten(0, 1))
            questions.append([question])
    return passed_on(tokens, questions)


def passed_on(tokens: list[torch.Tensor], questions: list[list[Question]]) -> FlatVideos:
    """Videos whose frames have one token each: a video token."""
    num_tokens = [len(some) for some in tokens]
    return FlatVideos(
        tokens=torch.cat(tokens)[:, None],
        milliseconds=torch.cat([1000 * torch.arange(number) for number in num_tokens]),
        shot_ids=torch.zeros(sum(num_tokens), dtype=torch.long),
        num_frames=num_tokens,
        grid=(1, 1),
        questions=questions,
    )
