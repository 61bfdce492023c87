"""Checkpoints in the format in which image-LLMs were published, to folders that Transformers loads.

One file per base, whose kind is listed here; `convert.py` does the rest.
"""

from linvt.conversion.checkpoint_kinds import CheckpointKind
from linvt.conversion.internvl2_checkpoint import InternVL2Checkpoint


KINDS: tuple[CheckpointKind, ...] = (InternVL2Checkpoint(),)

__all__ = ["KINDS"]
