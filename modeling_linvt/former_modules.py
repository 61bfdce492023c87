"""Imports modules by the names that they had before version 0.1: what documents and examples named keeps working."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


FORMER_MODULES = {
    "linvt.processors.frame_token_cache": "linvt.training.frame_token_cache",
    "linvt.processors.row_checks": "linvt.training.row_checks",
    "linvt.processors.shot_detection": "linvt.processors.shots.shot_detection",
    "linvt.processors.training_rows": "linvt.training.training_rows",
    "linvt.processors.video_chat_collator": "linvt.training.video_chat_collator",
    "linvt.processors.video_reading": "linvt.processors.video.video_reading",
    "linvt.training_stages": "linvt.training.training_stages",
    "linvt.video_sft_trainer": "linvt.training.video_sft_trainer",
}
"""Former names and the present ones. An entry goes with version 0.2."""


class FormerModuleFinder(MetaPathFinder, Loader):
    """Finds the modules of `FORMER_MODULES`; what is imported is the present module itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in FORMER_MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        present = FORMER_MODULES[name]
        warnings.warn(f"{name} is now {present}; the former name goes with linvt 0.2.", FutureWarning, stacklevel=2)
        sys.modules[name] = importlib.import_module(present)


def find_former_modules() -> None:
    """Makes the former names importable in this process; a second call changes nothing."""
    if not any(isinstance(finder, FormerModuleFinder) for finder in sys.meta_path):
        sys.meta_path.append(FormerModuleFinder())


__all__ = ["FORMER_MODULES", "find_former_modules"]
