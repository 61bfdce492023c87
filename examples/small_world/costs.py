"""Measures what videos of growing length cost: seconds to answer, and bytes to hold until the next question."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from small_world.long_scenes import FRAMES_PER_SHOT
from small_world.video_data import GRID
from small_world.world_rows import KEPT, LINVT_FROM_MERGING
from transformers import LlavaForConditionalGeneration

from linvt import LinVTVideoConfig, LinVTVideoModel


FRAMES = (64, 128, 256, 512, 1024)
NUM_TRIES = 3  # of which the quickest counts, since others use the processor too
COSTS_FILE = "costs.json"


@torch.no_grad()
def measure_costs(image_llm: str, file: Path) -> None:
    """
    Writes seconds and bytes per video for the LLM that reads all tokens, for TTA on all tokens, and for LinVT.

    The LLM holds keys and values of all tokens, TTA holds V, and LinVT what it keeps of it. Seconds are those of the
    first question: of LinVT, SVR and TTA; of the LLM that reads all tokens, its prefill.
    """
    model = LlavaForConditionalGeneration.from_pretrained(image_llm).eval()
    channels, num_layers = model.config.text_config.hidden_size, model.config.text_config.num_hidden_layers
    parts = {
        "TTA on all tokens": _video_tokenizer(channels, use_svr=False),
        f"LinVT, {KEPT['long']} tokens kept": _video_tokenizer(
            channels, top_k=KEPT["long"], temporal_attention="shot"
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("all tokens in the LLM", *parts)}
    held = {name: [] for name in seconds}
    per_frame = GRID[0] * GRID[1]
    for num_frames in FRAMES:
        tokens = torch.randn(1, num_frames, per_frame, channels, generator=torch.Generator().manual_seed(0))
        times, shots = torch.arange(num_frames)[None].float(), (torch.arange(num_frames) // FRAMES_PER_SHOT)[None]
        seconds["all tokens in the LLM"].append(
            _quickest(model.model.language_model, inputs_embeds=tokens.flatten(1, 2))
        )
        held["all tokens in the LLM"].append(2 * num_layers * channels * 4 * num_frames * per_frame)
        for name, part in parts.items():
            seconds[name].append(_quickest(part, tokens, GRID, times, shots))
            kept = part.config.top_k if part.config.use_svr else num_frames * per_frame
            held[name].append(min(kept, num_frames * per_frame) * channels * 4)
    file.write_text(json.dumps({"frames": FRAMES, "seconds": seconds, "bytes": held}, indent=1))


def _video_tokenizer(channels: int, **changes) -> LinVTVideoModel:
    config = {**LINVT_FROM_MERGING, "embedding_size": channels, **changes}
    return LinVTVideoModel(LinVTVideoConfig(**config)).eval()


def _quickest(call: Callable, *inputs, **named) -> float:
    tries = []
    for _ in range(NUM_TRIES):
        started = time.perf_counter()
        call(*inputs, **named)
        tries.append(time.perf_counter() - started)
    return min(tries)
