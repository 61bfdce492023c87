"""Refuses settings that a configuration does not have, such as misspelt ones."""

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches

from transformers import PreTrainedConfig


# What `PreTrainedConfig` takes beside its fields and properties.
_ARGUMENTS = {"attn_implementation", "experts_implementation"}


def refuse_unknown_settings(config: PreTrainedConfig, others: dict[str, object]) -> None:
    """
    Refuses what is given beside the fields of a configuration and is no setting of it. A saved configuration keeps
    everything, as `PreTrainedConfig` does: another version may have written it, and Transformers and its trainers add
    settings of their own.

    Args:
        config (`PreTrainedConfig`): With its fields set; `transformers_version` tells that it was saved.
        others (`dict`): What was given beside the fields.

    Raises:
        `ValueError`: If one of them is no setting; the message names the one that is spelt alike, or all.
    """
    if config.transformers_version is None:
        check_settings(type(config), others)


def check_settings(config_class: type[PreTrainedConfig], names: Iterable[str]) -> None:
    """Raises a `ValueError` for the first of `names` that is no setting of these configurations."""
    own = _own_names(config_class)
    for name in names:
        if name in own or hasattr(PreTrainedConfig, name) or name in _ARGUMENTS or name.startswith("_"):
            continue
        alike = get_close_matches(name, own, n=1)
        advice = f"did you mean {alike[0]}?" if alike else f"it has {', '.join(own)}."
        raise ValueError(f"{config_class.__name__} has no setting {name!r}; {advice}")


def own_settings(config: PreTrainedConfig) -> dict[str, object]:
    """Returns the settings that this kind of configuration has beside those of every configuration."""
    return {name: getattr(config, name) for name in _own_names(type(config))}


def _own_names(config_class: type[PreTrainedConfig]) -> list[str]:
    common = {field.name for field in fields(PreTrainedConfig)}
    return [field.name for field in fields(config_class) if field.name not in common]


__all__ = ["check_settings", "own_settings", "refuse_unknown_settings"]
