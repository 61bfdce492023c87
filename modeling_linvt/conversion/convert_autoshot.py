"""Converts a checkpoint of the AutoShot authors (wentaozhu/AutoShot) to a folder that `AutoShotModel` loads."""

import os
import pickle
from pathlib import Path

import torch

from linvt.checkpoints.atomic_folder import check_new_folder, new_folder
from linvt.configuration.configuration_autoshot import AutoShotConfig
from linvt.processors.shots.autoshot_layers import LAYER_SPECS
from linvt.processors.shots.modeling_autoshot import AutoShotModel


# The published class builds this layer for an attention that the searched network does not have, and never calls it.
DEAD_KEYS = ("fc1.linear.weight", "fc1.linear.bias")

_BATCH_NORM_KEYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_LINEAR_NAMES = {
    "color_histogram.band_projection": "color_hist_layer.fc",
    "frame_similarity.feature_projection": "frame_sim_layer.projection",
    "frame_similarity.band_projection": "frame_sim_layer.fc",
    "hidden_layer": "fc1_0",
    "one_hot_classifier": "cls_layer1",
    "many_hot_classifier": "cls_layer2",
}


def published_keys() -> dict[str, str]:
    """Maps our key to the published key, for every parameter and buffer of [`AutoShotModel`]."""
    keys = {}
    for index, spec in enumerate(LAYER_SPECS):
        ours, published = f"layers.{index}", spec.published_name
        if spec.shares_spatial:
            keys[f"{ours}.spatial_convs.0.weight"] = f"{published}.share.weight"
        for branch in range(spec.num_dilations):
            block = f"{published}.conv_blocks.{branch}.layers"
            if not spec.shares_spatial:
                keys[f"{ours}.spatial_convs.{branch}.weight"] = f"{block}.0.weight"
            # A block holds its spatial convolution, if it has one of its own, in front of its temporal one.
            keys[f"{ours}.temporal_convs.{branch}.weight"] = f"{block}.{0 if spec.shares_spatial else 1}.weight"
        for name in _BATCH_NORM_KEYS:
            keys[f"{ours}.batch_norm.{name}"] = f"{published}.batch_norm.{name}"
    for ours, published in _LINEAR_NAMES.items():
        for name in ("weight", "bias"):
            keys[f"{ours}.{name}"] = f"{published}.linear.{name}"
    return keys


def convert_autoshot_state_dict(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Renames the tensors of the published network and turns its 3-D convolutions into 2-D ones.

    Args:
        published (`dict[str, torch.Tensor]`):
            State dict of the published class. Its dead layer `fc1` may be there and is dropped.

    Returns:
        `dict[str, torch.Tensor]`: State dict of [`AutoShotModel`] with the default configuration.

    Raises:
        `ValueError`: If a key is missing, unknown or of another shape; names all of them.
    """
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in AutoShotModel(AutoShotConfig()).state_dict().items()}
    keys = published_keys()
    problems = [f"missing {key}" for key in keys.values() if key not in published]
    problems += [f"unexpected {key}" for key in published if key not in {*keys.values(), *DEAD_KEYS}]
    converted = {}
    for key, published_key in keys.items():
        if published_key not in published:
            continue
        tensor = published[published_key]
        expected = tuple(shapes[key])
        if "spatial_convs" in key:
            expected = (*expected[:2], 1, *expected[2:])  # (out, in, 1, 3, 3)
        elif "temporal_convs" in key:
            expected = (*expected, 1)  # (out, in, 3, 1, 1)
        found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        if found != expected:
            problems.append(f"shape of {published_key}: expected {expected}, got {found}")
        else:
            converted[key] = tensor.reshape(shapes[key]).contiguous()
    if problems:
        raise ValueError("This is not the published AutoShot network: " + "; ".join(problems) + ".")
    return converted


def convert_autoshot_checkpoint(checkpoint_path: str | os.PathLike, output_dir: str | os.PathLike) -> None:
    """
    Converts the published checkpoint file, `ckpt_0_200_0.pth`, to `config.json` and `model.safetensors`.

    Args:
        checkpoint_path (`str` or `os.PathLike`):
            File saved by `torch.save`: a dict whose entry `"net"` is the state dict. Read without running code of it.
        output_dir (`str` or `os.PathLike`):
            New folder for `AutoShotModel.from_pretrained`, see `checkpoints.atomic_folder.new_folder`.

    Raises:
        `FileNotFoundError`: If there is no such checkpoint.
        `FileExistsError`: If `output_dir` holds something already.
        `ValueError`: If the file is not a checkpoint, or not one of this network.
    """
    check_new_folder(output_dir)
    model = AutoShotModel(AutoShotConfig())
    model.load_state_dict(convert_autoshot_state_dict(_load_net(Path(checkpoint_path))))
    with new_folder(output_dir) as folder:
        model.save_pretrained(folder)


def _load_net(checkpoint_path: Path) -> dict[str, torch.Tensor]:
    try:
        checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{checkpoint_path} is damaged or not a torch checkpoint that holds only tensors.") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("net"), dict):
        found = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(f"{checkpoint_path} has no entry 'net' with the weights of the network; found {found}.")
    return checkpoint["net"]


__all__ = ["convert_autoshot_checkpoint", "convert_autoshot_state_dict", "published_keys"]
