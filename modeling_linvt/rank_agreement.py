"""Keeps sharded ranks in step when their batches hold different numbers of videos: text only here, three there.

Weights that are sharded over ranks (FSDP2, DeepSpeed ZeRO-3) are gathered layer by layer whenever a layer runs, so all
ranks must run all layers equally often and in the same order, or they wait for each other for ever. The order is:
embeddings, vision encoder on frames, video tokenizer, vision encoder on images, LLM. Before each call a rank says that
it makes one; a rank that has none left makes one on a blank input, until no rank makes any. So nothing has to be
counted in advance. A blank result enters the loss times 0: it changes no value, and gives every rank the same graph.

Without sharded weights nothing is communicated. One blank video is then needed where a batch has none and only the
video tokenizer learns: the loss would have no graph.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


def weights_are_sharded(model: PreTrainedModel) -> bool:
    """Tells whether layers of this model are gathered from several ranks when they run."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return False
    return is_deepspeed_zero3_enabled() or any(isinstance(parameter, DTensor) for parameter in model.parameters())


class RankAgreement:
    """
    One forward pass of a model on this rank.

    Args:
        sharded (`bool`): Whether ranks must run the same layers; see [`weights_are_sharded`].
        needs_graph (`bool`): Whether the loss must depend on the video tokenizer even without a video.
        device (`torch.device`): Where the backend of the process group communicates.
    """

    def __init__(self, sharded: bool, needs_graph: bool, device: torch.device):
        self.sharded = sharded
        self.needs_graph = needs_graph
        self.zero = torch.zeros((), device=device)
        """To be added to the loss."""

    def announce(self) -> None:
        """Tells the other ranks of a call of the current part; comes before every such call."""
        if self.sharded:
            self._any_rank_calls(True)

    def finish(self, blank_call: Callable[[], torch.Tensor]) -> int:
        """Ends a part: runs `blank_call` as often as other ranks still call the part, and returns how often."""
        num_blanks = 0
        while self.sharded and self._any_rank_calls(False):
            self.add_blank(blank_call())
            num_blanks += 1
        return num_blanks

    def add_blank(self, result: torch.Tensor) -> None:
        """Ties a result that nobody needs to the loss."""
        self.zero = self.zero + result.float().sum().to(self.zero.device) * 0

    def _any_rank_calls(self, calls: bool) -> bool:
        flag = torch.tensor([int(calls)], device=self.zero.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


ALONE = RankAgreement(sharded=False, needs_graph=False, device=torch.device("cpu"))
"""A single process."""


def pass_without_videos(model: PreTrainedModel, ranks: RankAgreement) -> None:
    """Runs the encoder and the video tokenizer on blanks, as often as ranks with videos run them on videos."""
    ranks.finish(lambda: blank_frame_tokens(model))
    num_blanks = ranks.finish(lambda: blank_video_tokens(model))
    if ranks.needs_graph and num_blanks == 0:
        ranks.add_blank(blank_video_tokens(model))


def blank_frame_tokens(model: PreTrainedModel) -> torch.Tensor:
    """Encodes a blank frame of a video."""
    return model.get_frame_tokens(_blank_frame(model))


def blank_video_tokens(model: PreTrainedModel) -> torch.Tensor:
    """Runs the video tokenizer on a blank video."""
    blank = model.video_tokenizer.blank_video(model.contrast.logit_scale.device, model.dtype)
    # By position: around a module that learns beside LoRA, PEFT before 0.20 puts one that takes no names alone.
    return model.video_tokenizer(*blank, return_dict=True).video_tokens


def blank_image_tokens(model: PreTrainedModel) -> torch.Tensor:
    """Encodes a blank image, as the images of a prompt are encoded."""
    with model.encoder_grad():
        return model.family.frame_tokens(_blank_frame(model)[None].to(model.dtype))


def _blank_frame(model: PreTrainedModel) -> torch.Tensor:
    return torch.zeros(1, 3, *model.family.blank_frame_size(), device=model.contrast.logit_scale.device)


__all__ = [
    "ALONE",
    "RankAgreement",
    "blank_frame_tokens",
    "blank_image_tokens",
    "blank_video_tokens",
    "pass_without_videos",
    "weights_are_sharded",
]
