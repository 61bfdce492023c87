"""Warnings about damaged videos of which frames could be read, one line each."""

from fractions import Fraction

from transformers.utils import logging


logger = logging.get_logger(__name__)


def warn_about_damage(
    name: str,
    *,
    num_frames: int,
    num_lost_frames: int,
    end_seconds: float,
    stated_seconds: float,
    stated_fps: Fraction | None,
) -> None:
    """
    Warns of lost frames, of times that had to be computed, and of a video that is shorter than it says.

    Args:
        name (`str`): Of the video.
        num_frames (`int`): Frames that were decoded.
        num_lost_frames (`int`): Frames that could not be decoded.
        end_seconds (`float`): End of the last frame.
        stated_seconds (`float`): Duration that the file states; 0 if none, or if it was not read to its end.
        stated_fps (`Fraction`, *optional*): Frame rate from which times were computed, if there were no timestamps.
    """
    if num_lost_frames > 0:
        logger.warning(
            f"{name} is damaged: {num_lost_frames} of {num_frames + num_lost_frames} frames are lost, the others are "
            "used."
        )
    if stated_fps is not None:
        logger.warning(
            f"{name} has no usable timestamps: times come from its stated rate of {float(stated_fps):g} frames per "
            "second."
        )
    # Matroska states no number of frames, so a file that was cut off shows only in its duration.
    if num_lost_frames == 0 and stated_seconds > end_seconds + 1:
        logger.warning(
            f"{name} states a duration of {stated_seconds:.1f} s, but its frames end after {end_seconds:.1f} s. It "
            "may be truncated."
        )


__all__ = ["warn_about_damage"]
