"""Settings of the video processor: their names, and the checks that hold at construction and at every call alike."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from transformers.image_processing_utils import get_size_dict
from transformers.image_utils import SizeDict
from transformers.processing_utils import VideosKwargs

from linvt.processors.video.frame_selection import check_sampling


ShotDetection = Literal["auto", "autoshot", "uniform"]


class LinVTVideoProcessorKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict, but Transformers is not followed
    """
    shot_detection (`str`, *optional*, defaults to `"auto"`):
        `"autoshot"` finds the shots of a file and spreads the frames over them, for which it decodes all of it;
        `"uniform"` spreads them over time and decodes only what it needs; `"auto"` is `"autoshot"` for files that
        state at most 2,000 frames, or 100,000 where `device` is not the CPU, and `"uniform"` for longer ones, which a
        warning says. Streams are searched for shots by both. Videos that are given as frames are one shot.
    autoshot_model (`str`, *optional*):
        Hub id or folder of trained AutoShot weights. By default those that come with this package;
        `"checkpoint:autoshot"` for those in the subfolder `autoshot/` of the checkpoint that this processor is of.
    on_progress (`Callable[[float], None]`, *optional*):
        Called with the fraction of a file that has been read.
    device (`str` or `torch.device`, *optional*, defaults to the CPU):
        Where AutoShot runs, and where frames are normalised and returned. They are decoded and resized on the CPU.
    """

    shot_detection: ShotDetection
    autoshot_model: str | None
    on_progress: Callable[[float], None] | None


_SQUASHED = "whole frames are squashed to size, since cropping would cut the sides off wide videos"
# Arguments of Transformers' video processors that are settled here: the value that holds, and why.
_SETTLED: dict[str, tuple[Any, str]] = {
    "crop_size": (None, _SQUASHED),
    "data_format": ("channels_first", "the model takes frames of shape (3, height, width)"),
    "default_to_square": (True, "all frames are brought to one size, so one number is a square"),
    "do_center_crop": (False, _SQUASHED),
    "do_convert_rgb": (True, "the model takes RGB frames"),
    "do_pad": (False, "all frames are brought to one size, so there is nothing to pad"),
    "input_data_format": (None, "the dimension of length 3 holds the channels of a frame"),
}


def check_video_settings(settings: Mapping[str, Any]) -> None:
    """
    Checks settings that were given together, to the constructor or to a call.

    Args:
        settings (`Mapping[str, Any]`): By the names of [`LinVTVideoProcessorKwargs`]; `None` is always allowed.

    Raises:
        `TypeError`: If a name is unknown.
        `ValueError`: If a setting cannot hold, such as cropping, both `num_frames` and `fps`, or `num_frames=4.0`.
    """
    unknown = sorted(settings.keys() - LinVTVideoProcessorKwargs.__annotations__.keys())
    if unknown:
        raise TypeError(f"The video processor got unknown arguments: {', '.join(unknown)}.")
    given = {name: value for name, value in settings.items() if value is not None}
    for name in _SETTLED.keys() & given.keys():
        value, reason = _SETTLED[name]
        if given[name] != value:
            raise ValueError(f"{name} is {given[name]!r}, which cannot be chosen here: {reason}.")
    if "num_frames" in given and "fps" in given:
        raise ValueError(
            f"num_frames is {given['num_frames']} and fps is {given['fps']}; give one of them, the number of frames "
            "of a video or of a second."
        )
    check_sampling(given.get("num_frames"), given.get("fps"))
    shot_detection = given.get("shot_detection")
    if shot_detection is not None and shot_detection not in get_args(ShotDetection):
        raise ValueError(f"shot_detection is {shot_detection!r}; give 'auto', 'autoshot' or 'uniform'.")


def frame_size(size: int | tuple[int, int] | Mapping[str, int] | SizeDict) -> dict[str, int]:
    """
    Returns the one height and width that frames are brought to.

    Args:
        size: Pixels: of the side of a square, `(height, width)`, or `{"height": ..., "width": ...}`.

    Raises:
        `ValueError`: If it leaves the size to the video, as `{"shortest_edge": ...}` does, or is not in whole pixels.
    """
    pixels = dict(size) if isinstance(size, (Mapping, SizeDict)) else get_size_dict(size)
    is_whole = all(isinstance(side, int) and side > 0 for side in pixels.values())
    if pixels.keys() != {"height", "width"} or not is_whole:
        raise ValueError(
            f"size is {pixels}, but the frames of all videos need one size, so that they have equally many tokens; "
            "give it in whole pixels as {'height': ..., 'width': ...}."
        )
    return pixels


__all__ = ["LinVTVideoProcessorKwargs", "check_video_settings", "frame_size"]
