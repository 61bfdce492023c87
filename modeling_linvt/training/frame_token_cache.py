"""On-disk cache of the frame tokens (V) of a training set.

The vision encoder and the projector are frozen while the video tokenizer learns, so they give the same V of a video in
every epoch, and reading and encoding it is most of the work of a step. One safetensors file per video, named by a hash
of all that V depends on; so a changed video, other frames, another model or other conventions of linvt have files of
other names, and old ones are never taken for new ones. They may be deleted at any time.
"""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers.utils import logging

from linvt.checkpoints.atomic_file import new_file
from linvt.fingerprints import encoder_fingerprint
from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.shots.automatic_shots import is_cpu
from linvt.processors.video.source_files import SourceFile, describe_source
from linvt.progress import Progress
from linvt.training.chat_prompts import read_video_inputs, resolve_row_video
from linvt.training.training_rows import BadRowError, RowVideos
from linvt.training.video_identity import shot_detector_identity, video_identity


logger = logging.get_logger(__name__)

CONVENTIONS = 1
"""
Goes up by one whenever linvt makes other V, times or shots of the same video with the same weights and settings: where
a family of image-LLMs, the picking or the resizing of frames changes. `tests/test_frame_token_cache.py` reminds of it.
Files of other conventions are not found, so they are made again.
"""

FORMAT = f"linvt-frame-tokens-2, conventions {CONVENTIONS}"

# Arguments of the video processor that say how it works, not what comes out.
_WITHOUT_INFLUENCE = {"on_progress", "return_metadata", "return_tensors", "device"}


class FrameTokenCacheError(RuntimeError):
    """The cache lacks the tokens of a video, or they are damaged. Rows are not skipped for it: they are not bad."""


class FrameTokenCache:
    """
    Keeps the frame tokens of videos in files and gives them to a collator in place of frames.

    Args:
        folder (`str` or `os.PathLike`): Where the files are; made if it is not there. Caches of several models and
            settings may share it.
        model ([`LinVTForConditionalGeneration`]): The model, with its weights whole: made before FSDP or ZeRO-3 shards
            them. A pickled cache, as dataloader workers may get it, is without the model and can only load.
        processor ([`LinVTProcessor`]): That of the model.
        autocast_dtype (`torch.dtype`, *optional*): That of mixed precision, with which the encoder would run in the
            training that V is for; by rounding alone V is another without.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: Any,
        processor: LinVTProcessor,
        autocast_dtype: torch.dtype | None = None,
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = model
        self.processor = processor
        self.autocast_dtype = autocast_dtype
        self.encoder_fingerprint = encoder_fingerprint(model)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "model": None}

    def build(self, dataset: Any, num_workers: int = 0, processor_kwargs: dict | None = None) -> None:
        """
        Encodes all videos of a data set that the cache lacks. A build that was interrupted resumes where it was. Of
        several ranks each encodes its share, and the caller lets them wait for each other.

        A video that cannot be read is kept too, as the reason why, with a warning. Rows that are bad for other reasons
        are skipped here and reported during training.

        Args:
            dataset (`datasets.Dataset` or `list[dict]`): Rows of TRL's conversational forms.
            num_workers (`int`, *optional*, defaults to 0): Processes that read videos, beside this one that encodes.
            processor_kwargs (`dict`, *optional*): Those of the collator.
        """
        video_kwargs = self.processor.split_kwargs(processor_kwargs or {}).videos
        missing = _MissingVideos(self, dataset, video_kwargs)
        # With a generator of its own: by default a loader draws from the one that the training draws from.
        loader = DataLoader(missing, batch_size=None, num_workers=num_workers, generator=torch.Generator())
        is_other_rank = PartialState().process_index > 0
        with Progress("Encoding videos", len(missing), "video", hidden=is_other_rank) as progress:
            for path, inputs in loader:
                self._keep(path, inputs)
                progress.advance()

    def _keep(self, path: Path, inputs: dict[str, torch.Tensor] | str) -> None:
        """Writes V of a video, or why it cannot be read."""
        if isinstance(inputs, str):
            logger.warning(f"{inputs} Its rows cannot be trained on.")
            self._save(path, {}, {"reason": inputs})
            return
        tokens, grid = self._encode(inputs.pop("pixel_values_videos"), inputs["video_shot_ids"])
        tensors = {"video_frame_tokens": tokens.cpu(), "video_token_grid": torch.tensor([grid]), **inputs}
        self._save(path, tensors, {})

    @torch.no_grad()
    def _encode(self, frames: torch.Tensor, shot_ids: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()  # without dropout
        device, dtype = self.model.device, self.autocast_dtype
        try:
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                return self.model.encode_video(frames.to(device), shot_ids.to(device))
        finally:
            for module, training in modes:
                module.training = training

    def load(self, video: Any, **video_kwargs: Any) -> dict[str, torch.Tensor]:
        """
        Reads the inputs of the model for one video.

        Args:
            video: As in the row.
            video_kwargs: Arguments of the video processor.

        Returns:
            `dict[str, torch.Tensor]`: The fields of [`VideoInputs`] for one video, with `video_frame_tokens` in the
            dtype of the encoder in place of frames.

        Raises:
            [`BadRowError`]: If the video could not be read, now or when the cache was built.
            [`FrameTokenCacheError`]: If the cache has no file for it, or a damaged or misplaced one.
        """
        path = self.path(video, **video_kwargs)
        if not path.exists():
            raise FrameTokenCacheError(
                f"The cache {str(self.folder)!r} has no tokens of {describe_source(video)} for this model and these "
                f"settings ({path.name}). Was the video, the model or a setting changed since? Call build again."
            )
        try:
            metadata = _metadata(path)
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise _damaged(path, str(error)) from error
        if metadata.get("checksum") != str(_checksum(tensors)):
            raise _damaged(path, "its content is not what was written")
        if "reason" in metadata:
            raise BadRowError(metadata["reason"])
        return tensors

    def path(self, video: Any, **video_kwargs: Any) -> Path:
        """
        Names the file of a video, whether it is there or not.

        Raises:
            [`BadRowError`]: If there is no such video.
        """
        options = self.processor.video_processor.frame_options(**video_kwargs)
        settings = {name: value for name, value in options.items() if name not in _WITHOUT_INFLUENCE}
        source = resolve_row_video(video)
        try:
            identity = video_identity(source)
        except (TypeError, ValueError) as error:
            raise BadRowError(str(error)) from error
        if isinstance(source, SourceFile) and settings["shot_detection"] != "uniform":
            settings["autoshot_model"] = shot_detector_identity(settings["autoshot_model"])
            if settings["shot_detection"] == "auto":  # does what the length of the file and this say
                settings["on_cpu"] = is_cpu(options["device"])
        if self.autocast_dtype is not None:
            settings["autocast_dtype"] = str(self.autocast_dtype)
        key = [FORMAT, identity, self.encoder_fingerprint, settings]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
        return self.folder / f"{digest}.safetensors"

    def _save(self, path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        """Writes a file that is there whole or not at all, whenever the process ends."""
        metadata = {**metadata, "format": FORMAT, "name": path.name, "checksum": str(_checksum(tensors))}
        with new_file(path) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=metadata)


class _MissingVideos:
    """Reads the videos that the cache lacks, for a dataloader: the path of the file, and the inputs or the error."""

    def __init__(self, cache: FrameTokenCache, dataset: Any, video_kwargs: dict):
        self.cache, self.videos, self.video_kwargs = cache, RowVideos(dataset), video_kwargs
        places: dict[Path, tuple[int, int]] = {}
        for row in range(len(dataset)):
            try:
                for place, video in enumerate(self.videos[row]):
                    places.setdefault(cache.path(video, **video_kwargs), (row, place))
            except BadRowError:
                continue
        ranks = PartialState()
        # Shared out before a look at what is there, which changes while other ranks work.
        mine = list(places.items())[ranks.process_index :: ranks.num_processes]
        self.wanted = [item for item in mine if not _is_whole(item[0])]

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, index: int) -> tuple[Path, dict[str, torch.Tensor] | str]:
        path, (row, place) = self.wanted[index]
        try:
            return path, dict(read_video_inputs(self.videos[row][place], self.cache.processor, self.video_kwargs))
        except BadRowError as error:
            return path, error.reason


def _is_whole(path: Path) -> bool:
    """Tells whether a valid file exists; logs a damaged one, which is then rebuilt."""
    if not path.exists():
        return False
    try:
        _metadata(path)
    except (SafetensorError, OSError) as error:
        logger.warning(f"{path} is damaged and is made again ({error}).")
        return False
    return True


def _metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a file and checks its format and name; opening it checks its length."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT or metadata.get("name") != path.name:
        raise SafetensorError(f"it says it is {metadata.get('name')!r} of format {metadata.get('format')!r}")
    return metadata


def _checksum(tensors: dict[str, torch.Tensor]) -> int:
    checksum = 0
    for _, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy(), checksum)
    return checksum


def _damaged(path: Path, reason: str) -> FrameTokenCacheError:
    return FrameTokenCacheError(f"{path} is no whole file of this cache: {reason}. Delete it and call build again.")


__all__ = ["FrameTokenCache", "FrameTokenCacheError"]
