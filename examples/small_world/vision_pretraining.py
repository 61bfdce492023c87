"""
First stage of the small image-LLM: its vision encoder learns to say which shape each patch of a picture shows, and
which patch of the picture it is.

Image-LLMs begin with a trained vision encoder; from random weights, through a language model, this one takes many
times as long to tell a ring from a circle, and a corner from another.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from small_world.drawing import cover, draw_shot, pixel_axis
from small_world.scenes import COLOURS, KINDS, Shot, make_picture
from small_world.small_image_llm import PATCH, PIXELS
from torch import nn
from torch.utils.data import Dataset
from transformers import CLIPVisionModel, LlavaProcessor


LEAST_SHARE = 0.1  # of a patch that a shape must cover to be what it shows


def patch_labels(shot: Shot) -> tuple[np.ndarray, np.ndarray]:
    """Number of the colour and of the kind that each patch shows at the beginning of a shot, from 1; 0 for none."""
    side = PIXELS // PATCH
    colours, kinds = np.zeros(side**2, dtype=np.int64), np.zeros(side**2, dtype=np.int64)
    most = np.full(side**2, LEAST_SHARE)
    for shape in shot.shapes:
        covered = cover(shape, 0.0, pixel_axis(PIXELS))
        share = covered.reshape(side, PATCH, side, PATCH).mean((1, 3)).reshape(-1)
        colours[share > most] = 1 + COLOURS.index(shape.colour)
        kinds[share > most] = 1 + KINDS.index(shape.kind)
        most = np.maximum(most, share)
    return colours, kinds


class LabelledPictures(Dataset):
    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shot = make_picture("train", number)
        return draw_shot(shot, 0, PIXELS), *patch_labels(shot)


@dataclass
class CollateLabelled:
    processor: LlavaProcessor

    def __call__(self, rows: list[tuple]) -> dict[str, torch.Tensor]:
        pictures, colours, kinds = (torch.from_numpy(np.stack(parts)) for parts in zip(*rows, strict=True))
        pixels = self.processor.image_processor(pictures.permute(0, 3, 1, 2), return_tensors="pt")["pixel_values"]
        places = torch.arange(colours.shape[1]).expand_as(colours)
        return {"pixel_values": pixels, "colours": colours, "kinds": kinds, "places": places}


class PatchClassifier(nn.Module):
    """A vision encoder with three heads, which are thrown away afterwards."""

    def __init__(self, encoder: CLIPVisionModel):
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(
            {
                "colours": nn.Linear(encoder.config.hidden_size, 1 + len(COLOURS)),
                "kinds": nn.Linear(encoder.config.hidden_size, 1 + len(KINDS)),
                "places": nn.Linear(encoder.config.hidden_size, (PIXELS // PATCH) ** 2),
            }
        )

    def forward(self, pixel_values: torch.Tensor, **labels: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.encoder(pixel_values).last_hidden_state[:, 1:]
        losses = [F.cross_entropy(head(features).transpose(1, 2), labels[name]) for name, head in self.heads.items()]
        return {"loss": sum(losses)}
