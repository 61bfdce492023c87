"""The first token of an answer, stage by stage, in Qwen2-VL's own way and with LinVT. Not a script; see prefill.py."""

import time
from collections.abc import Callable

import torch
from random_qwen2_vl import TEXT, VIDEO, linvt_inputs, own_inputs, patchify

from linvt import LinVTForConditionalGeneration
from linvt.frame_clips import frame_clips
from linvt.image_llms.family_table import image_llm_family


OWN, LINVT, PAIRS = "own", "LinVT", "LinVT, 2 frames a patch"
Inputs = dict[str, torch.Tensor]
Lap = Callable[[str], None]
"""Called with the name of the stage that just ended."""


def own_logits(model: LinVTForConditionalGeneration, inputs: Inputs, lap: Lap) -> torch.Tensor:
    """Logits of the first token with all frame tokens in the LLM."""
    llm, ids, types = model.image_llm, inputs["input_ids"], inputs["mm_token_type_ids"]
    visual = {name: value for name, value in inputs.items() if "pixel" in name or "grid" in name}
    grids = {name: value for name, value in visual.items() if "grid" in name}
    get_features = llm.get_image_features if "pixel_values" in inputs else llm.get_video_features
    features = torch.cat(get_features(**visual, return_dict=True).pooler_output)
    lap("vision encoder")
    embeds = llm.get_input_embeddings()(ids).masked_scatter(types[..., None] > 0, features)
    return _prefill(model, embeds, llm.model.get_rope_index(ids, types, **grids)[0], lap)


def linvt_logits(model: LinVTForConditionalGeneration, inputs: Inputs, lap: Lap) -> torch.Tensor:
    """Logits of the first token with the video tokens in the LLM."""
    family = image_llm_family(model.image_llm)
    ids, is_video = inputs["input_ids"], inputs["mm_token_type_ids"] == VIDEO
    frames = inputs["pixel_values_videos"]
    clips = frame_clips(inputs["video_shot_ids"], model.config.frames_per_patch)
    frame_tokens = model.get_frame_tokens(frames, clips)
    lap("vision encoder")
    embeds = model.get_input_embeddings()(ids)
    video_tokens = model.video_tokenizer(
        frame_tokens[None],
        family.token_grid(frame_tokens.shape[1], *frames.shape[-2:]),
        inputs["video_milliseconds"][clips].float().mean(1)[None] / 1000,
        inputs["video_shot_ids"][clips[:, 0]][None],
        embeds[(inputs["instruction_turns"] > 0) & ~is_video][None],
    ).video_tokens
    lap("video tokenizer")
    embeds = embeds.masked_scatter(is_video[..., None], video_tokens)
    return _prefill(model, embeds, family.count_positions(ids, None, torch.zeros_like(is_video), {})[0], lap)


def _prefill(
    model: LinVTForConditionalGeneration, embeds: torch.Tensor, positions: torch.Tensor, lap: Lap
) -> torch.Tensor:
    lap("embeddings and positions")
    outputs = model.image_llm(inputs_embeds=embeds, position_ids=positions, use_cache=True, logits_to_keep=1)
    lap("LLM prefill")
    return outputs.logits


def whole_logits(model: LinVTForConditionalGeneration, way: str, inputs: Inputs) -> torch.Tensor:
    """The same logits by the public call."""
    choose(model, way)
    return (model.image_llm if way == OWN else model)(**inputs, use_cache=True, logits_to_keep=1).logits


WAYS = {OWN: own_logits, LINVT: linvt_logits, PAIRS: linvt_logits}


def choose(model: LinVTForConditionalGeneration, way: str) -> None:
    """Whether Qwen2-VL's encoder takes in frames one by one or, as its own video path does, in pairs."""
    model.config.frames_per_patch = 2 if way == PAIRS else 1


def stage_seconds(model: LinVTForConditionalGeneration, way: str, inputs: Inputs) -> dict[str, float]:
    """Seconds of each stage; "first token" is all of them, from the pixels to the id of the first token."""
    on_cuda, seconds = model.device.type == "cuda", {"video tokenizer": 0.0}

    def now() -> float:
        if on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def lap(stage: str) -> None:
        seconds[stage] = now() - start - sum(seconds.values())

    choose(model, way)
    start = now()
    WAYS[way](model, inputs, lap)[0, -1].argmax().item()
    seconds["first token"] = now() - start
    return seconds


def check(model: LinVTForConditionalGeneration, frames: torch.Tensor, baseline: str) -> None:
    """Asserts that the stages are those of the public calls, and that both ways see the same frames."""
    own, linvt = own_inputs(model, frames, baseline), linvt_inputs(model, frames)
    for way, inputs in ((OWN, own), (LINVT, linvt), (PAIRS, linvt)):
        choose(model, way)
        _check_equal(WAYS[way](model, inputs, lambda stage: None), whole_logits(model, way, inputs))
    words = int((linvt["mm_token_type_ids"] == TEXT).sum())
    assert linvt["input_ids"].shape[1] == words + model.config.num_video_tokens

    frame_tokens = model.get_frame_tokens(frames)
    vision = model.image_llm.config.vision_config
    grid = torch.tensor([[len(frames), *[frames.shape[-1] // vision.patch_size] * 2]], device=frames.device)
    still = patchify(frames.repeat_interleave(2, 0), vision)  # each frame twice: a video that stands still
    still_tokens = model.image_llm.get_video_features(still, grid, return_dict=True).pooler_output
    _check_equal(frame_tokens.flatten(0, 1), torch.cat(still_tokens))
    pictures = len(frames) if baseline == "images" else (len(frames) + 1) // 2
    assert int((own["mm_token_type_ids"] != TEXT).sum()) == pictures * frame_tokens.shape[1]


def _check_equal(value: torch.Tensor, expected: torch.Tensor) -> None:
    difference = ((value - expected).float().norm() / expected.float().norm()).item()
    assert difference < (1e-4 if value.dtype == torch.float32 else 0.03), f"relative difference {difference}"
