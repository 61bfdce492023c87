"""Checkpoints in the format in which image-LLMs were published, to folders that Transformers loads.

One file per base, whose kind is listed here; `convert.py` does the rest.
"""

from linvt.conversion.checkpoint_kinds import CheckpointKind


KINDS: tuple[CheckpointKind, ...] = ()

__all__ = ["KINDS"]
