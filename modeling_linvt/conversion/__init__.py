"""Converts image-LLMs from the format of their publication to folders that Transformers loads.

One file per base, whose kind is listed here; `convert.py` does the rest.
"""

from linvt.conversion.aquila_vl_checkpoint import AquilaVLCheckpoint
from linvt.conversion.checkpoint_kinds import CheckpointKind
from linvt.conversion.internvl2_checkpoint import InternVL2Checkpoint
from linvt.conversion.mipha_checkpoint import MiphaCheckpoint
from linvt.conversion.molmo_checkpoint import MolmoCheckpoint
from linvt.conversion.qwen_vl_checkpoint import QwenVLCheckpoint
from linvt.conversion.xgen_mm_checkpoint import XGenMMCheckpoint


KINDS: tuple[CheckpointKind, ...] = (
    AquilaVLCheckpoint(),
    InternVL2Checkpoint(),
    MiphaCheckpoint(),
    MolmoCheckpoint(),
    QwenVLCheckpoint(),
    XGenMMCheckpoint(),
)

__all__ = ["KINDS"]
