"""Rows of tables: how one is described, and those of the papers' tables, in miniature.

Table numbers are LinVT's, "R" those of RED-VILLM. All start from random weights, as in the papers; `world_rows.py` has
those that start from merging.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from small_world.flat_videos import FlatVideos


NUM_FRAMES, TOKENS_PER_FRAME = 16, 16

# Three scales whose queries are in the published proportions: 28 video tokens of 256 frame tokens, 128 of them kept. A
# frame has 16 tokens only, and a window of 16, as by default, would be all of it.
LINVT = {
    "start": "random",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_layers": 2,
    "num_attention_heads": 4,
    "top_k": 128,
    "num_queries": [16, 8, 4],
    "pooling_windows": [1, 2, 4],
    "initializer_range": 0.1,  # that of 1024 channels, 0.02, would leave 64 all but silent
}
ONE_SCALE = {"num_queries": [28], "pooling_windows": [1], "multi_scale": "single"}
PLAIN_MEANS = {**LINVT, **ONE_SCALE, "use_svr": False, "use_tta": False, "text_conditioning": False}
RED_VILLM = {"model_type": "red_villm_video", "num_frames": NUM_FRAMES, "num_frame_tokens": TOKENS_PER_FRAME}


@dataclass(frozen=True)
class Variant:
    """
    Args:
        tables (`tuple[str, ...]`): Tables that have this row.
        video_tokenizer (`dict`, *optional*): Its configuration; `None` for a model that is not shown the video.
        seeds (`int`): Runs, with seeds from 0.
        num_frames (`int`): Frames of a video of the small world.
        fresh_projector (`bool`): Whether the image-LLM's projector starts from random weights, and learns.
        aligns (`bool`): Whether a first stage trains the video tokenizer alone, with the LLM as it is. Without one
            the video tokenizer never learns, so its video tokens are made once.
        tunes_llm (`bool`): Whether LoRA on the LLM learns in a second stage, or from the start if there is no first.
        tunes_tokenizer (`bool`): Whether the video tokenizer goes on learning beside LoRA.
        video_captions (`bool`): Whether captions of videos are asked for while the LLM learns, in the words in which
            captions of pictures are.
        aligned_share (`float`, *optional*): Share of the steps that the first stage has; that of the options if left
            out.
        world (`str`): The world of the videos, `"small"` or `"long"`.
        last_first (`bool`): Whether video tokens that never change are given to the LLM in reverse order, which tells
            what the place in the video does from what the place in the prompt does.
        told (`Callable`, *optional*): Makes of the videos of a split what the LLM is given of each question, knowing
            its answer's place; see `asked_frames` and `told_what_is_asked`.
        baseline (`Callable`, *optional*): Makes W in place of the video tokenizer; see `baselines.py`.
        reads (`str`, *optional*): What the video tokenizer is given; see `VideoSet.model_inputs`; or `"memories"` of
            videos that were seen before anything was learnt, so that SVR stays as it is.
        max_test_videos (`int`, *optional*): For a row that needs hours for all: how many videos it is asked about.
    """

    tables: tuple[str, ...]
    video_tokenizer: dict | None = field(default_factory=dict)
    seeds: int = 1
    num_frames: int = NUM_FRAMES
    fresh_projector: bool = False
    aligns: bool = True
    tunes_llm: bool = True
    tunes_tokenizer: bool = True
    video_captions: bool = True
    aligned_share: float | None = None
    world: str = "small"
    last_first: bool = False
    told: Callable[..., FlatVideos] | None = None
    baseline: Callable[..., torch.Tensor] | None = None
    reads: str | None = None
    max_test_videos: int | None = None


def _linvt(*tables: str, **changes) -> Variant:
    return Variant(tables, {**LINVT, **changes})


def _red_villm(*tables: str, num_frames: int = NUM_FRAMES, reads: str | None = None, **changes) -> Variant:
    # Its recipe has one stage, in which the LLM stays as it is.
    config = {**RED_VILLM, "num_frames": num_frames, **changes}
    return Variant(tables, config, num_frames=num_frames, tunes_llm=False, reads=reads)


PAPER_ROWS = {
    "question only": Variant(("0",), None, seeds=3, aligns=False),
    "average tokens": Variant(("2",), {**PLAIN_MEANS, "num_queries": [NUM_FRAMES]}, seeds=3, aligns=False),
    "SVR": Variant(("2",), {**LINVT, "use_tta": False, "text_conditioning": False}, seeds=3),
    "TTA": Variant(("2",), {**LINVT, **ONE_SCALE, "use_svr": False}, seeds=3),
    "LinVT": Variant(("2", "3", "4", "5", "6", "12"), LINVT, seeds=3),
    "projector from random weights": Variant(("3",), LINVT, fresh_projector=True),
    "single": _linvt("4", **ONE_SCALE),
    "multi_a": _linvt("4", multi_scale="multi_a"),
    "multi_b": _linvt("4", multi_scale="multi_b"),
    "without text": _linvt("5", text_conditioning=False),
    "all frame tokens": Variant(("6",), {**PLAIN_MEANS, "num_queries": [NUM_FRAMES * TOKENS_PER_FRAME]}, aligns=False),
    "4 layers": _linvt("12", num_layers=4),
    "1 layer": _linvt("12", num_layers=1),
    "queries doubled": _linvt("12", num_queries=[32, 16, 8]),
    "queries halved": _linvt("12", num_queries=[8, 4, 2]),
    "k doubled": _linvt("12", top_k=256),
    "k halved": _linvt("12", top_k=64),
    "RED-VILLM": _red_villm("R4", "R5", "R6", "R7"),
    "RED-VILLM, no temporal module": _red_villm("R3", "R4", temporal_module=False),
    "RED-VILLM, temporal pooling": _red_villm("R3", temporal_module=False, pooling="temporal"),
    "RED-VILLM, spatial pooling": _red_villm("R3", temporal_module=False, pooling="spatial"),
    "RED-VILLM, random temporal module": _red_villm("R5", temporal_module_init="random"),
    "RED-VILLM, additional MLP": _red_villm("R5", additional_mlp=True),
    "RED-VILLM, 8 frames": _red_villm("R6", num_frames=8),
    "RED-VILLM, 32 frames": _red_villm("R6", num_frames=32),
    "RED-VILLM, 4 spatial tokens": _red_villm("R7", num_frame_tokens=4, reads="pooled features"),
}
