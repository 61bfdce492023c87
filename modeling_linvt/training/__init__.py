"""Trains on video chats: rows, their checks, batches, cached frame tokens, the trainer and its two stages.

What a training needs is imported from here: `from linvt.training import VideoSFTTrainer, freeze_for_alignment`.
"""

from typing import TYPE_CHECKING, Any

from linvt.training.frame_token_cache import FrameTokenCache
from linvt.training.row_checks import check_rows, keep_good_rows
from linvt.training.training_rows import BadRowError, number_rows
from linvt.training.training_stages import freeze_for_alignment, lora_for_instruction, merge_adapter
from linvt.training.video_chat_collator import VideoChatCollator


if TYPE_CHECKING:
    from linvt.training.video_sft_trainer import VideoSFTTrainer


def __getattr__(name: str) -> Any:
    """Imports the trainer when it is asked for: it alone needs TRL."""
    if name != "VideoSFTTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from linvt.training.video_sft_trainer import VideoSFTTrainer

    return VideoSFTTrainer


__all__ = [
    "BadRowError",
    "FrameTokenCache",
    "VideoChatCollator",
    "VideoSFTTrainer",
    "check_rows",
    "freeze_for_alignment",
    "keep_good_rows",
    "lora_for_instruction",
    "merge_adapter",
    "number_rows",
]
