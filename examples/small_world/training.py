"""Trains and evaluates one variant of the video tokenizer in the small world."""

import json
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import get_peft_model
from small_world.accuracy import accuracy
from small_world.variants import Variant
from small_world.video_data import VideoSet
from small_world.video_rows import RowCollator, picture_rows, video_rows
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from linvt import LinVTForConditionalGeneration
from linvt.training_stages import freeze_for_alignment, lora_for_instruction
from linvt.video_sft_trainer import VideoSFTTrainer


class ProjectingTrainer(VideoSFTTrainer):
    """For a projector that learns: the cache holds what comes before it."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if "video_frame_tokens" in inputs:
            inputs = {**inputs, "video_frame_tokens": self.projector(inputs["video_frame_tokens"])}
        return super().compute_loss(model, inputs, *args, **kwargs)
