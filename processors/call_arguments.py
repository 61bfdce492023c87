"""Sorts the arguments of a processor call: which go to the tokenizer, the image processor and the video processor.

An argument that is unknown, given twice or impossible is an error that names it, with videos and without.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any

import jinja2.ext
import jinja2.meta
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs

from linvt.processors.video.frame_selection import check_at_least_one
from linvt.processors.video_settings import LinVTVideoProcessorKwargs


# Arguments of tokenizers that move or mark text, so that the places of the videos would no longer be true.
_NOT_WITH_VIDEOS = (
    "is_split_into_words",
    "return_overflowing_tokens",
    "sanitize_control_tokens",
    "text_pair",
    "text_pair_target",
    "text_target",
)
_CHAT_ARGUMENTS = signature(ProcessorMixin.apply_chat_template).parameters.keys() - {"return_tensors", "kwargs"}


class LinVTVideosKwargs(LinVTVideoProcessorKwargs, total=False):  # type: ignore[call-arg]  # as for its base
    """
    num_video_tokens (`int`, *optional*, defaults to that of the processor):
        Tokens that each video of the call has in its prompt. Which numbers there are depends on the model: with
        `start="merge"` any up to its `top_k`, otherwise only that of its configuration.
    """

    num_video_tokens: int | None


class LinVTProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict, but Transformers is not followed
    videos_kwargs: LinVTVideosKwargs


@dataclass(frozen=True)
class CallArguments:
    """
    Holds the arguments of a call whose prompts have videos.

    Args:
        text (`dict`), images (`dict`), videos (`dict`): Those of the tokenizer, the image and the video processor.
        num_video_tokens (`int`, *optional*): Tokens of each video, where the call chooses them.
        return_tensors (`str`, *optional*): The kind of tensors to return.
        return_text_replacement_offsets (`bool`): Whether to return what was filled into the prompts, and where.
    """

    text: dict[str, Any]
    images: dict[str, Any]
    videos: dict[str, Any]
    num_video_tokens: int | None
    return_tensors: str | None
    return_text_replacement_offsets: bool


class ArgumentSorter:
    """
    Sorts the arguments of the processor around an image-LLM's.

    Args:
        image_llm_processor (`ProcessorMixin`): The processor of the image-LLM, whose arguments and defaults hold for
            prompts with videos too.
    """

    def __init__(self, image_llm_processor: ProcessorMixin):
        self._processor = image_llm_processor
        theirs = image_llm_processor.valid_processor_kwargs.__annotations__
        self._groups = {
            "text_kwargs": set(TextKwargs.__annotations__),
            "images_kwargs": {
                *image_llm_processor.image_processor.valid_kwargs.__annotations__,
                *theirs["images_kwargs"].__annotations__,
            },
            "videos_kwargs": set(LinVTVideosKwargs.__annotations__),
        }
        # A prompt without videos may be given all that the image-LLM's processor knows.
        self._groups_without_videos = {
            **self._groups,
            "text_kwargs": self._groups["text_kwargs"] | set(theirs["text_kwargs"].__annotations__),
            "audio_kwargs": set(theirs["audio_kwargs"].__annotations__),
        }
        self._image_llm_names = {*theirs, *signature(type(image_llm_processor).__call__).parameters}

    def with_videos(self, kwargs: Mapping[str, Any]) -> CallArguments:
        """
        Sorts the arguments of a call whose prompts have videos.

        Args:
            kwargs (`dict`): Given by themselves, in `text_kwargs`, `images_kwargs` or `videos_kwargs`, or for all
                parts in `common_kwargs`.

        Raises:
            `TypeError`: If an argument is unknown.
            `ValueError`: If one is given twice, or is impossible with videos, or `num_video_tokens` is no count.
        """
        single, groups = _spread(kwargs, self._groups)
        for name, known in self._groups.items():
            groups[name] |= {key: value for key, value in single.items() if key in known}
        impossible = [name for name in _NOT_WITH_VIDEOS if groups["text_kwargs"].get(name)]
        if impossible:
            raise ValueError(f"{', '.join(impossible)} cannot be used in prompts with videos; leave it out.")
        kinds = [group.pop("return_tensors") for group in groups.values() if "return_tensors" in group]
        if any(kind != kinds[0] for kind in kinds):
            raise ValueError(f"return_tensors is given as {' and as '.join(map(repr, kinds))}; give one kind for all.")
        num_video_tokens = groups["videos_kwargs"].pop("num_video_tokens", None)
        if num_video_tokens is not None:
            check_at_least_one("num_video_tokens", num_video_tokens)
        text = {**self._text_defaults(), **groups["text_kwargs"]}
        default_kind = text.pop("return_tensors", None)
        text.pop("return_mm_token_type_ids", None)  # the model always needs them for videos
        return CallArguments(
            images=groups["images_kwargs"],
            videos=groups["videos_kwargs"],
            num_video_tokens=num_video_tokens,
            return_tensors=kinds[0] if kinds else default_kind,
            return_text_replacement_offsets=bool(text.pop("return_text_replacement_offsets", False)),
            text=text,
        )

    def without_videos(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """
        Returns the arguments for the image-LLM's processor: `kwargs` without those that only videos have.

        Raises:
            `TypeError` or `ValueError`: If an argument is unknown or given twice.
        """
        single, groups = _spread(kwargs, self._groups_without_videos, self._image_llm_names)
        groups.pop("videos_kwargs")
        others = self._image_llm_names.union(*(self._groups_without_videos[name] for name in groups))
        return {key: value for key, value in single.items() if key in others} | {
            name: group for name, group in groups.items() if group
        }

    def split_chat(
        self, template: str, kwargs: Mapping[str, Any], processor_kwargs: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Splits arguments into variables, which are what the chat template reads, and arguments of the processor.

        Args:
            template (`str`): The chat template.
            kwargs (`dict`): Both kinds.
            processor_kwargs (`dict`, *optional*): More of the second kind.

        Returns:
            The variables of the template with the arguments of `ProcessorMixin.apply_chat_template`, and the arguments
            of the processor.

        Raises:
            `TypeError` or `ValueError`: If an argument of the processor is unknown or given twice.
        """
        of_template = template_variables(template) | _CHAT_ARGUMENTS
        variables = {name: value for name, value in kwargs.items() if name in of_template}
        single = {name: value for name, value in kwargs.items() if name not in of_template}
        _refuse_twice(single.keys() & (processor_kwargs or {}).keys())
        arguments = {**(processor_kwargs or {}), **single}
        self.without_videos(arguments)
        return variables, arguments

    def _text_defaults(self) -> dict[str, Any]:
        """Defaults of the image-LLM's processor and, above them, what its tokenizer was loaded with."""
        tokenizer = self._processor.tokenizer
        # Processors have their defaults as an attribute or, as all did in Transformers 5.17, in `_defaults`.
        before = getattr(self._processor.valid_processor_kwargs, "_defaults", {})
        defaults = {
            **getattr(self._processor, "text_kwargs", {}),
            **before.get("text_kwargs", {}),
            **{name: getattr(tokenizer, name, value) for name, value in tokenizer.init_kwargs.items()},
        }
        return {name: value for name, value in defaults.items() if name in self._groups["text_kwargs"]}


@lru_cache(maxsize=16)
def template_variables(template: str) -> frozenset[str]:
    """Returns the names that a chat template looks up in what it is rendered with."""
    environment = jinja2.Environment(extensions=[_GenerationBlocks, jinja2.ext.loopcontrols])
    return frozenset(jinja2.meta.find_undeclared_variables(environment.parse(template)))


class _GenerationBlocks(jinja2.ext.Extension):
    """Reads `{% generation %}`, the mark of answers in Transformers' chat templates, as if it were not there."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _spread(
    kwargs: Mapping[str, Any], known: Mapping[str, set[str]], known_alone: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Returns the arguments that were given by themselves, and those that were given in groups."""
    single = dict(kwargs)
    groups = {name: dict(single.pop(name, None) or {}) for name in known}
    common = single.pop("common_kwargs", None) or {}
    # The same value for all parts and by itself is one, as Transformers takes it.
    _refuse_twice(name for name in single.keys() & common.keys() if single[name] != common[name])
    single |= common
    _refuse_unknown(single, set(known_alone).union(*known.values()))
    for name, group in groups.items():
        _refuse_unknown(group, known[name])
        _refuse_twice(group.keys() & single.keys())
    return single, groups


def _refuse_unknown(given: Iterable[str], known: set[str]) -> None:
    for name in given:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f"; did you mean {similar[0]}?" if similar else "."
            raise TypeError(f"LinVTProcessor got an unknown argument: {name}{hint}")


def _refuse_twice(names: Iterable[str]) -> None:
    for name in names:
        raise ValueError(f"{name} is given twice, by itself and in a group of arguments; give it once.")


__all__ = ["ArgumentSorter", "CallArguments", "LinVTProcessorKwargs", "template_variables"]
