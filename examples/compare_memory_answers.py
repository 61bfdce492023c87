"""
Asks a LinVT model of the small world every question of the test videos twice, about the video and about its memory,
and counts the answers that differ: where greedy decoding begins to differ at any word, right or wrong.

    python examples/compare_memory_answers.py --image_llm docs/small_world_runs/image_llm --output asked [--model ...]

The model is that of the package by default; with `--merging` it is the image-LLM, wrapped and untrained. Exit code 1
if an answer differs.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from small_world.seen_videos import SeenVideos
from small_world.video_data import VideoSet
from small_world.video_rows import RowCollator, video_rows
from small_world.world_rows import LINVT_FROM_MERGING
from tqdm import tqdm
from transformers import AutoProcessor, HfArgumentParser

from linvt import LinVTForConditionalGeneration
from linvt.configuration.input_values import IGNORED_LABEL
from linvt_cli.cli_models import SMALL_MODEL


@dataclass
class Options:
    image_llm: str  # folder of the image-LLM of the small world, whose vision encoder the model has
    output: str  # folder for drawn and encoded videos
    model: str = str(SMALL_MODEL)
    merging: bool = False  # ask the image-LLM, wrapped, in place of a model
    test_videos: int = 1000
    num_frames: int = 16
    batch_size: int = 256


@torch.no_grad()
def main(options: Options) -> int:
    if options.merging:
        model = LinVTForConditionalGeneration.from_image_llm(options.image_llm, LINVT_FROM_MERGING).eval()
    else:
        model = LinVTForConditionalGeneration.from_pretrained(options.model).eval()
    processor = AutoProcessor.from_pretrained(options.image_llm)
    folder, number = Path(options.output) / "videos", options.test_videos
    videos = VideoSet.load_or_make(folder, "test", number, options.num_frames, options.image_llm)
    rows = video_rows(videos.questions)
    asked = {
        "tokens": RowCollator(rows, "test", videos, processor, model.config.num_video_tokens, "tokens"),
        "memories": RowCollator(
            rows, "test", SeenVideos(videos, model), processor, model.config.num_video_tokens, "memories"
        ),
    }
    differ = largest = 0
    for start in tqdm(range(0, len(rows), options.batch_size), desc="questions"):
        numbers = [{"row": row} for row in range(start, min(start + options.batch_size, len(rows)))]
        predicted = {}
        for reads, collator in asked.items():
            batch = collator(numbers)
            predicted[reads] = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        answers = batch["labels"][:, 1:] != IGNORED_LABEL
        words = [logits.argmax(-1)[:, :-1] for logits in predicted.values()]
        differ += int(((words[0] != words[1]) & answers).any(1).sum())
        largest = max(largest, float((predicted["tokens"] - predicted["memories"])[:, :-1][answers].abs().max()))
    print(f"{len(rows)} questions about {number} videos; {differ} answers differ; logits by {largest:.1e} at most")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main(*HfArgumentParser(Options).parse_args_into_dataclasses()))
