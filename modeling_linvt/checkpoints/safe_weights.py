"""Weights are read as safetensors only: a pickle runs whatever code it holds when it is loaded."""

import os
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, HTTPError


PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of files that are, or may be, pickles."""

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
"""Arguments of `from_pretrained` that say where a file comes from, not what is made of it."""


def safetensors_only(name_or_path: str | os.PathLike, kwargs: dict) -> dict:
    """
    Arguments of `from_pretrained` that read no pickle.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub id of the weights.
        kwargs (`dict`): The caller's arguments of `from_pretrained`.

    Raises:
        `ValueError`: If there are weights, but only as pickles, or the caller asks for those.
    """
    if kwargs.get("use_safetensors") is False:
        raise ValueError("use_safetensors=False asks for pickles, which run code when they are loaded; leave it out.")
    subfolder = kwargs.get("subfolder") or ""
    if not os.path.isdir(name_or_path) and kwargs.get("local_files_only"):
        return {**kwargs, "use_safetensors": True}
    files = _files(name_or_path, subfolder, kwargs.get("revision"), kwargs.get("token"))
    pickles = sorted(file for file in files if file.lower().endswith(PICKLES) and file != "training_args.bin")
    if pickles and not any(file.endswith(".safetensors") for file in files):
        raise ValueError(
            f"{name_or_path} has its weights as a pickle only ({', '.join(pickles[:3])}), which may run code when it "
            "is loaded, so it is not read. Take a revision with safetensors, or, for an image-LLM or AutoShot as it "
            "was published, give it to `linvt convert`."
        )
    return {**kwargs, "use_safetensors": True}


def _files(
    name_or_path: str | os.PathLike, subfolder: str, revision: str | None, token: str | bool | None
) -> list[str]:
    """Names of the files of a folder or repository; none where it cannot be asked, of which loading says more."""
    if os.path.isdir(name_or_path):
        folder = Path(name_or_path) / subfolder
        return [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    try:
        files = HfApi().list_repo_files(str(name_or_path), revision=revision, token=token)
    except (HTTPError, HFValidationError, OSError):
        return []
    prefix = f"{subfolder}/" if subfolder else ""
    inside = [file.removeprefix(prefix) for file in files if file.startswith(prefix)]
    return [file for file in inside if "/" not in file]


__all__ = ["HUB_ARGUMENTS", "PICKLES", "safetensors_only"]
