"""Keeps AutoShot weights with the checkpoint of a video processor: loaded, saved and named with it."""

import os
from typing import Any

from transformers.video_processing_utils import BaseVideoProcessor

from linvt.processors.shots.autoshot_files import (
    AUTOSHOT_IN_CHECKPOINT,
    copy_autoshot,
    find_autoshot,
    find_autoshot_of_checkpoint,
)


class AutoShotVideoProcessor(BaseVideoProcessor):
    """
    Loads and saves a video processor together with its AutoShot weights, where `autoshot_model` says that they lie in
    its checkpoint (`AUTOSHOT_IN_CHECKPOINT`).
    """

    autoshot_model: str | os.PathLike | None = None
    autoshot_folder: str | None = None  # where the weights are that came with the checkpoint; never saved

    @classmethod
    def get_video_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict, dict]:
        """As in `BaseVideoProcessor`; also finds AutoShot weights that travel with the checkpoint."""
        fields, unused = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        if fields.get("autoshot_model") == AUTOSHOT_IN_CHECKPOINT and "autoshot_model" not in kwargs:
            hub_kwargs = {name: value for name, value in kwargs.items() if name not in unused and name[0] != "_"}
            folder = find_autoshot_of_checkpoint(pretrained_model_name_or_path, **hub_kwargs)
            fields = {**fields, "autoshot_folder": str(folder)}
        return fields, unused

    def bundle_autoshot(self) -> None:
        """Makes `save_pretrained` save the AutoShot weights that this processor uses, beside its settings."""
        if self.autoshot_model != AUTOSHOT_IN_CHECKPOINT:
            self.autoshot_folder = str(find_autoshot(self.autoshot_model))
            self.autoshot_model = AUTOSHOT_IN_CHECKPOINT

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> list[str]:
        """As `BaseVideoProcessor.save_pretrained`; weights of AutoShot that came with the checkpoint go along."""
        self.save_autoshot(save_directory)
        return super().save_pretrained(save_directory, **kwargs)

    def save_autoshot(self, save_directory: str | os.PathLike) -> None:
        """Saves AutoShot weights that came with the checkpoint; those from elsewhere stay there."""
        if self.autoshot_model == AUTOSHOT_IN_CHECKPOINT:
            copy_autoshot(self.autoshot_of_checkpoint(), save_directory)

    def autoshot_of_checkpoint(self) -> str:
        """
        Returns the folder of the AutoShot weights that came with the checkpoint.

        Raises:
            `ValueError`: If none came.
        """
        if self.autoshot_folder is None:
            raise ValueError(
                f"autoshot_model is {AUTOSHOT_IN_CHECKPOINT!r}, the weights of the checkpoint, but this processor was "
                "not loaded from one that has some; give a folder or Hub id of AutoShot weights."
            )
        return self.autoshot_folder

    def to_dict(self) -> dict:
        return {name: value for name, value in super().to_dict().items() if name != "autoshot_folder"}


__all__ = ["AutoShotVideoProcessor"]
