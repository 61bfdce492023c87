"""Videos of the long world, drawn and encoded once by the frozen image-LLM, and kept in files of a hundred."""

import hashlib
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from small_world.drawing import draw_video
from small_world.flat_videos import FlatVideos
from small_world.long_questions import long_questions
from small_world.long_scenes import FRAMES_PER_SHOT, make_long_video
from small_world.small_image_llm import PIXELS
from small_world.video_data import GRID, picked_frames, weights_hash
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from linvt.image_llms.family_table import image_llm_family


VIDEOS_PER_FILE = 100  # 44 MB; what a process that is stopped loses


def load_or_make_long_videos(folder: Path, split: str, num_videos: int, image_llm: str) -> FlatVideos:
    """Reads the first videos of a split from `folder`; what is missing there is made first, by one process."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [_file(folder, split, start, image_llm) for start in range(0, num_videos, VIDEOS_PER_FILE)]
    with FileLock(folder / f"long-{split}.lock"):
        missing = [number for number, file in enumerate(files) if not file.exists()]
        if missing:
            _make([(split, number * VIDEOS_PER_FILE, files[number]) for number in missing], image_llm)
    parts = [load_file(file) for file in files]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    num_frames = whole.pop("num_frames")[:num_videos].tolist()
    return FlatVideos(
        **{name: tensor[: sum(num_frames)] for name, tensor in whole.items()},
        num_frames=num_frames,
        grid=GRID,
        questions=[long_questions(split, number) for number in range(num_videos)],
    )


def _file(folder: Path, split: str, start: int, image_llm: str) -> Path:
    """Names a file by all that its content depends on: after a change of the world none is found."""
    scenes = repr([make_long_video(split, start + number) for number in range(3)])
    world = hashlib.sha256(scenes.encode()).hexdigest()[:8]
    return folder / f"long-{split}-{start}-{world}-{weights_hash(image_llm)}.safetensors"


@torch.no_grad()
def _make(work: list[tuple[str, int, Path]], image_llm: str) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(image_llm).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    image_processor = LlavaProcessor.from_pretrained(image_llm).image_processor
    family = image_llm_family(model)
    numbers = [(split, start + number) for split, start, _ in work for number in range(VIDEOS_PER_FILE)]
    with Pool() as pool:
        drawn = iter(tqdm(pool.imap(_draw, numbers, chunksize=4), total=len(numbers), desc="long videos"))
        for _, _, file in work:
            videos = []
            for _ in range(VIDEOS_PER_FILE):
                frames, seconds, shot_ids = next(drawn)
                pixels = image_processor(torch.from_numpy(frames).permute(0, 3, 1, 2), return_tensors="pt")
                tokens = family.frame_tokens(pixels["pixel_values"][:, None].to(model.device))
                videos.append(
                    {
                        "tokens": tokens.half().cpu(),
                        "milliseconds": torch.tensor([round(1000 * second) for second in seconds]),
                        "shot_ids": torch.tensor(shot_ids),
                        "num_frames": torch.tensor([len(frames)]),
                    }
                )
            whole = file.with_suffix(".whole")
            save_file({name: torch.cat([video[name] for video in videos]) for name in videos[0]}, whole)
            whole.rename(file)


def _draw(work: tuple[str, int]) -> tuple[np.ndarray, list[float], list[int]]:
    video = make_long_video(*work)
    seconds, shot_ids = picked_frames(video, FRAMES_PER_SHOT * len(video.shots))
    return draw_video(video, seconds, PIXELS), seconds, shot_ids
