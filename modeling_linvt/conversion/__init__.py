"""Checkpoints in the format in which image-LLMs were published, to folders that Transformers loads.

One file per base, whose kind is listed here; `convert.py` does the rest.
"""

from linvt.conversion.checkpoint_kinds import CheckpointKind
from linvt.conversion.xgen_mm_checkpoint import XGenMMCheckpoint


KINDS: tuple[CheckpointKind, ...] = (XGenMMCheckpoint(),)

__all__ = ["KINDS"]
