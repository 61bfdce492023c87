"""Videos of the small world as tensors: their frames are drawn once, and encoded once by the frozen image-LLM."""

import hashlib
import json
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from small_world.drawing import draw_video
from small_world.questions import Question, video_questions
from small_world.scenes import Video, make_video, scene_rng
from small_world.small_image_llm import PIXELS
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from linvt.image_llms.family_table import image_llm_family
from linvt.processors.video.frame_selection import shot_frame_indices


FRAMES_PER_SECOND = 10
GRID = (4, 4)  # rows and columns of a frame's tokens


def picked_frames(video: Video, num_frames: int) -> tuple[list[float], list[int]]:
    """
    Times and shots of the frames that a processor picks which knows the shots: spread over them, evenly inside each.
    """
    ends = [round(FRAMES_PER_SECOND * second) for second in np.cumsum([shot.seconds for shot in video.shots])]
    indices = shot_frame_indices(list(zip([0, *ends[:-1]], ends, strict=True)), num_frames)
    return [index / FRAMES_PER_SECOND for index in indices], np.searchsorted(ends, indices, side="right").tolist()


@dataclass
class VideoSet:
    """
    Args:
        frames (`torch.Tensor` of shape `(videos, frames, 3, height, width)`): The pictures, uint8.
        tokens (`torch.Tensor` of shape `(videos, frames, tokens per frame, channels)`): V.
        features (`torch.Tensor` of the same form): What the vision encoder gives to the projector.
        milliseconds (`torch.LongTensor` of shape `(videos, frames)`): Times of the frames.
        shot_ids (`torch.LongTensor` of shape `(videos, frames)`): Shots that the frames belong to.
        questions (`list[list[Question]]`): Those about each video.
    """

    frames: torch.Tensor
    tokens: torch.Tensor
    features: torch.Tensor
    milliseconds: torch.Tensor
    shot_ids: torch.Tensor
    questions: list[list[Question]]

    @classmethod
    def load_or_make(cls, folder: Path, split: str, num_videos: int, num_frames: int, image_llm: str) -> "VideoSet":
        """Reads it from `folder`, where it is made first, by one process, if it is not there for this image-LLM."""
        path = folder / f"{split}-{num_videos}-{num_frames}-{weights_hash(image_llm)}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                model = LlavaForConditionalGeneration.from_pretrained(image_llm).eval()
                processor = LlavaProcessor.from_pretrained(image_llm)
                whole = path.with_suffix(".whole")
                questions = [[asdict(question) for question in questions_about(split, n)] for n in range(num_videos)]
                tensors = _encode(model, processor, split, num_videos, num_frames)
                save_file(tensors, whole, {"questions": json.dumps(questions)})
                whole.rename(path)
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            questions = json.loads(file.metadata()["questions"])
        return cls(**tensors, questions=[[Question(**fields) for fields in asked] for asked in questions])

    @property
    def num_frames(self) -> list[int]:
        """Frames of each video."""
        return [self.milliseconds.shape[1]] * len(self.milliseconds)

    def model_inputs(self, numbers: list[int], reads: str = "tokens") -> dict[str, torch.Tensor]:
        """
        Returns what the model is given of these videos: their `"tokens"`, `"features"`, `"pooled features"`, means of
        2 x 2 places (RED-VILLM's Table 7), or `"frames"`.
        """
        milliseconds = self.milliseconds[numbers]
        inputs = {
            "video_num_frames": torch.tensor([milliseconds.shape[1]] * len(numbers)),
            "video_milliseconds": milliseconds.flatten(),
            "video_shot_ids": self.shot_ids[numbers].flatten(),
        }
        shown = getattr(self, reads.removeprefix("pooled "))[numbers].flatten(0, 1)
        if reads == "frames":
            return {"pixel_values_videos": shown, **inputs}
        rows, columns = GRID
        if reads == "pooled features":
            rows, columns = rows // 2, columns // 2
            shown = shown.unflatten(1, (rows, 2, columns, 2)).mean((2, 4)).flatten(1, 2)
        return {
            "video_frame_tokens": shown,
            "video_token_grid": torch.tensor([(rows, columns)] * len(numbers)),
            **inputs,
        }


def weights_hash(image_llm: str) -> str:
    """Eight characters that tell the weights in a folder from others."""
    return hashlib.sha256((Path(image_llm) / "model.safetensors").read_bytes()).hexdigest()[:8]


def questions_about(split: str, number: int) -> list[Question]:
    """The questions about a video, always the same."""
    return video_questions(make_video(split, number), split, scene_rng(split, "question", number))


def _draw(work: tuple[str, int, int]) -> tuple[np.ndarray, list[int], list[int]]:
    split, number, num_frames = work
    video = make_video(split, number)
    seconds, shot_ids = picked_frames(video, num_frames)
    return draw_video(video, seconds, PIXELS), [round(1000 * second) for second in seconds], shot_ids


@torch.no_grad()
def _encode(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    split: str,
    num_videos: int,
    num_frames: int,
) -> dict[str, torch.Tensor]:
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    family = image_llm_family(model)
    pictures, tokens, features, milliseconds, shot_ids = [], [], [], [], []
    work = [(split, number, num_frames) for number in range(num_videos)]
    with Pool() as pool:
        drawn = pool.imap(_draw, work, chunksize=32)
        for frames, times, shots in tqdm(drawn, total=num_videos, desc=f"{split} videos"):
            pictures.append(torch.from_numpy(frames).permute(0, 3, 1, 2))
            milliseconds.append(torch.tensor(times))
            shot_ids.append(torch.tensor(shots))
    for frames in tqdm(torch.stack(pictures).split(32), desc=f"{split} videos, encoded"):
        pixels = processor.image_processor(frames.flatten(0, 1), return_tensors="pt")["pixel_values"]
        encoded = family.encoder_features(pixels[:, None].to(model.device))
        features.append(encoded.unflatten(0, (-1, num_frames)).cpu())
        tokens.append(family.projector()(encoded).unflatten(0, (-1, num_frames)).cpu())
    return {
        "frames": torch.stack(pictures).contiguous(),
        "tokens": torch.cat(tokens),
        "features": torch.cat(features),
        "milliseconds": torch.stack(milliseconds),
        "shot_ids": torch.stack(shot_ids),
    }
