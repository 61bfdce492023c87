"""Videos to frames of one fixed size with their times and shots, normalised as the image-LLM normalises images."""

import os

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import PILImageResampling, load_image
from transformers.processing_utils import Unpack
from transformers.utils import logging
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import is_valid_video_frame

from linvt.processors.shots.autoshot_files import (
    OF_THE_CHECKPOINT,
    copy_autoshot,
    find_autoshot,
    find_autoshot_of_checkpoint,
)
from linvt.processors.shots.shot_detection import load_shot_detector
from linvt.processors.video.frame_selection import check_sampling, num_frames_wanted, uniform_frame_indices
from linvt.processors.video.sampled_video import SampledVideo
from linvt.processors.video.video_container import VideoReadError
from linvt.processors.video.video_reading import read_video
from linvt.processors.video_settings import LinVTVideoProcessorKwargs, check_video_settings, frame_size


logger = logging.get_logger(__name__)

# What a saved processor holds beside its settings.
_BESIDE_SETTINGS = {"autoshot_folder", "auto_map", "image_processor_type", "processor_class", "video_processor_type"}


class LinVTVideoProcessor(BaseVideoProcessor):
    """
    Reads videos, picks `num_frames` of each, and brings them to one size, so that every frame has equally many tokens.

    Whole frames are squashed to `size`: cropping would cut the sides off wide videos, and tiling would give frames
    different numbers of tokens. Times are those of the file, counted from its first frame.

    Returns per call the frames of all videos in a row, `pixel_values_videos` (float32 of shape `(frames, 3, height,
    width)`), with `video_milliseconds` and `video_shot_ids` (int64 of shape `(frames,)`), and how many of them each
    video has, `video_num_frames` (int64 of shape `(videos,)`).
    """

    resample = PILImageResampling.BICUBIC
    size = {"height": 336, "width": 336}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    image_mean = [0.48145466, 0.4578275, 0.40821073]
    image_std = [0.26862954, 0.26130258, 0.27577711]
    num_frames = 32
    fps = None
    shot_detection = "autoshot"
    autoshot_model = None
    autoshot_folder = None  # where the weights are that came with the checkpoint; never saved
    valid_kwargs = LinVTVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "video_num_frames", "video_milliseconds", "video_shot_ids"]

    def __init__(self, **kwargs: Unpack[LinVTVideoProcessorKwargs]) -> None:
        """
        Makes a processor with other settings than the attributes of the class.

        Args:
            kwargs: The settings. `fps` takes the place of `num_frames`; with `num_frames=None` and no `fps` all frames
                of a video are taken.

        Raises:
            `TypeError` or `ValueError`: As [`check_video_settings`] and [`frame_size`] do.
        """
        check_video_settings({name: value for name, value in kwargs.items() if name not in _BESIDE_SETTINGS})
        if kwargs.get("size") is not None:
            kwargs["size"] = frame_size(kwargs["size"])
        super().__init__(**kwargs)
        if kwargs.get("num_frames") is None and ("num_frames" in kwargs or kwargs.get("fps") is not None):
            self.num_frames = None  # Transformers takes None for "not given" and sets the default of the class

    @classmethod
    def from_dict(cls, video_processor_dict: dict, **kwargs) -> "LinVTVideoProcessor":
        """As in `BaseVideoProcessor`; `fps` or `num_frames` given now takes the place of what was saved of the two."""
        known = {*cls.valid_kwargs.__annotations__, *_BESIDE_SETTINGS}  # another Transformers may have saved more
        if kwargs.get("fps") is not None or kwargs.get("num_frames") is not None:
            known -= {"fps", "num_frames"}
        fields = {name: value for name, value in video_processor_dict.items() if name in known}
        return super().from_dict(fields, **kwargs)

    @classmethod
    def from_image_processor(
        cls, image_processor: BaseImageProcessor, size: dict[str, int] | None = None, **kwargs
    ) -> "LinVTVideoProcessor":
        """
        A video processor that treats frames as `image_processor` treats images: same resampling, same normalisation.

        Args:
            size (`dict[str, int]`, *optional*): Height and width of a frame in pixels. By default those that the
                image processor brings every image to.

        Raises:
            `ValueError`: If the image processor keeps images at different sizes and `size` is left out.
        """
        if size is None:
            size = dict(image_processor.crop_size if image_processor.do_center_crop else image_processor.size)
        if not {"height", "width"} <= set(size):
            raise ValueError(
                f"The frames of a video need one size, but {type(image_processor).__name__} has none (it says "
                f"{size}); give that of a frame in pixels, as frame_size={{'height': ..., 'width': ...}}."
            )
        return cls(
            size={"height": size["height"], "width": size["width"]},
            resample=image_processor.resample,
            do_rescale=image_processor.do_rescale,
            rescale_factor=image_processor.rescale_factor,
            do_normalize=image_processor.do_normalize,
            image_mean=image_processor.image_mean,
            image_std=image_processor.image_std,
            **kwargs,
        )

    @classmethod
    def get_video_processor_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict, dict]:
        """As in `BaseVideoProcessor`; also finds AutoShot weights that travel with the checkpoint."""
        fields, unused = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        if fields.get("autoshot_model") == OF_THE_CHECKPOINT and "autoshot_model" not in kwargs:
            hub_kwargs = {name: value for name, value in kwargs.items() if name not in unused and name[0] != "_"}
            folder = find_autoshot_of_checkpoint(pretrained_model_name_or_path, **hub_kwargs)
            fields = {**fields, "autoshot_folder": str(folder)}
        return fields, unused

    def take_autoshot_along(self) -> None:
        """From now on `save_pretrained` saves the AutoShot weights too, whichever this processor uses."""
        if self.autoshot_model != OF_THE_CHECKPOINT:
            self.autoshot_folder = str(find_autoshot(self.autoshot_model))
            self.autoshot_model = OF_THE_CHECKPOINT

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> list[str]:
        """As `BaseVideoProcessor.save_pretrained`; weights of AutoShot that came with the checkpoint go along."""
        self.save_autoshot(save_directory)
        return super().save_pretrained(save_directory, **kwargs)

    def save_autoshot(self, save_directory: str | os.PathLike) -> None:
        if self.autoshot_model == OF_THE_CHECKPOINT:
            copy_autoshot(self._autoshot_of_checkpoint(), save_directory)

    def _autoshot_of_checkpoint(self) -> str:
        if self.autoshot_folder is None:
            raise ValueError(
                f"autoshot_model is {OF_THE_CHECKPOINT!r}, the weights of the checkpoint, but this processor was not "
                "loaded from one that has some; give a folder or Hub id of AutoShot weights."
            )
        return self.autoshot_folder

    def to_dict(self) -> dict:
        dropped = {"autoshot_folder"}
        if self._auto_class is None:  # of a self-contained checkpoint, whose code these classes do not save
            dropped.add("auto_map")
        return {name: value for name, value in super().to_dict().items() if name not in dropped}

    def preprocess(self, videos, **kwargs: Unpack[LinVTVideoProcessorKwargs]) -> BatchFeature:
        """
        Args:
            videos: One video or a list of videos. A video is a path, URL, bytes or open file; an array or tensor of
                shape `(frames, height, width, 3)` or `(frames, 3, height, width)` of uint8; or a list of frames, each
                a picture, an array, or a path or URL of a picture.
            kwargs: Overrides of the attributes of the processor, `video_metadata` and `return_tensors`.

        Raises:
            `VideoReadError`: If a file cannot be read as a video, or as a frame of one. No video is ever left out in
                silence.
        """
        return_tensors = kwargs.pop("return_tensors", None)
        return_metadata = kwargs.pop("return_metadata", False)
        metadata = kwargs.pop("video_metadata", None)
        options = self.frame_options(**kwargs)
        videos = flatten_videos(videos)
        if not videos:
            raise ValueError("No video was given.")
        metadata = [None] * len(videos) if metadata is None else _as_list(metadata)
        if len(metadata) != len(videos):
            raise ValueError(f"{len(videos)} videos came with {len(metadata)} video_metadata; give one for each.")

        if kwargs.get("shot_detection") == "autoshot" and not all(map(is_file, videos)):
            logger.warning_once("Shots are found in video files only; a video given as frames is one shot.")
        sampled = [self._sample(video, meta, options) for video, meta in zip(videos, metadata, strict=True)]
        data = {
            "pixel_values_videos": torch.cat([self._normalize(video.frames, options) for video in sampled]),
            "video_num_frames": torch.tensor([len(video.frames) for video in sampled]),
            "video_milliseconds": torch.cat([_milliseconds(video.frame_seconds) for video in sampled]),
            "video_shot_ids": torch.cat([torch.tensor(video.shot_ids) for video in sampled]),
        }
        if return_metadata:
            data["video_metadata"] = sampled
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata"])

    def frame_options(self, **kwargs: Unpack[LinVTVideoProcessorKwargs]) -> dict:
        """
        Returns all settings by name, overridden by `kwargs`: which frames of a video are picked, and how they look.

        Raises:
            `TypeError` or `ValueError`: As [`check_video_settings`] and [`frame_size`] do.
        """
        check_video_settings(kwargs)
        options = {name: kwargs.get(name, getattr(self, name, None)) for name in self.valid_kwargs.__annotations__}
        for name, other in (("num_frames", "fps"), ("fps", "num_frames")):
            if kwargs.get(name) is not None:
                options[other] = None
        check_video_settings(options)  # attributes may have been set since they were checked
        options["size"] = frame_size(options["size"])
        if options["shot_detection"] == "autoshot" and options["autoshot_model"] == OF_THE_CHECKPOINT:
            options["autoshot_model"] = self._autoshot_of_checkpoint()
        return options

    def _sample(self, video, metadata, options: dict) -> SampledVideo:
        """The picked frames of one video, resized, still uint8."""
        size = options["size"]
        resize = v2.Resize(
            [size["height"], size["width"]], interpolation=_interpolation(options["resample"]), antialias=True
        )
        transform = resize if options["do_resize"] else None
        if is_file(video):
            return read_video(
                video,
                num_frames=options["num_frames"] if options["do_sample_frames"] else None,
                fps=options["fps"] if options["do_sample_frames"] else None,
                transform=transform,
                detect_shots=self._shot_detector(options),
                on_progress=options["on_progress"],
            )
        return _sample_frames(video, metadata, options, transform)

    def _shot_detector(self, options: dict):
        if options["shot_detection"] == "uniform":
            return None
        return load_shot_detector(options["autoshot_model"])

    def _normalize(self, frames: torch.Tensor, options: dict) -> torch.Tensor:
        frames = frames.to(device=options["device"], dtype=torch.float32)
        if options["do_rescale"]:
            frames = frames * options["rescale_factor"]
        if options["do_normalize"]:
            frames = tvf.normalize(frames, options["image_mean"], options["image_std"])
        return frames


def is_file(video) -> bool:
    return isinstance(video, (str, os.PathLike, bytes)) or callable(getattr(video, "read", None))


def flatten_videos(videos) -> list:
    """A flat list of single videos from one video, a list of videos, or a list of such lists (one per prompt)."""
    if not isinstance(videos, (list, tuple)) or (videos and all(is_valid_video_frame(item) for item in videos)):
        return [videos]
    flat = []
    for item in videos:
        if isinstance(item, (list, tuple)) and not all(is_valid_video_frame(frame) for frame in item):
            # A list in a list in a list of names is a video given as names of pictures.
            flat += [list(video) if isinstance(video, tuple) else video for video in item]
        else:
            flat.append(item)
    return flat


def _sample_frames(video, metadata, options: dict, transform) -> SampledVideo:
    """Picks frames of a video that comes as frames; its times come from `metadata`."""
    frames = _frames_to_tensors(video)
    total = len(frames)
    fields = dict(metadata or {})
    fps = fields.get("fps")
    if fps is not None and not fps > 0:
        raise ValueError(f"fps of video_metadata is {fps}, expected a number above 0.")
    if fps is None:
        logger.warning_once(
            "A video was given as frames without video_metadata, so their times are unknown; they are taken as one "
            "second apart. Give video_metadata={'fps': ..., 'total_num_frames': ...} for true times."
        )
        fps = 1.0
    source_indices = fields.get("frames_indices")
    source_indices = list(range(total)) if source_indices is None else [int(index) for index in source_indices]
    if len(source_indices) != total:
        raise ValueError(f"A video of {total} frames came with {len(source_indices)} frames_indices; give one each.")
    picked = list(range(total))
    if options["do_sample_frames"]:
        check_sampling(options["num_frames"], options["fps"])
        # The frames may be a sample already, from a part of a longer video: count the time that they span.
        span_seconds = (max(source_indices) - min(source_indices) + 1) / fps
        num_wanted = num_frames_wanted(total, span_seconds, options["num_frames"], options["fps"])
        picked = uniform_frame_indices(total, num_wanted)
    chosen = [frames[index] if transform is None else transform(frames[index]) for index in picked]
    height, width = frames[0].shape[-2:]
    duration_seconds = (max(source_indices) + 1) / fps
    return SampledVideo(
        frames=torch.stack(chosen),
        frame_indices=[source_indices[index] for index in picked],
        frame_seconds=[source_indices[index] / fps for index in picked],
        shot_ids=[0] * len(picked),
        shots_frames=[(0, max(source_indices) + 1)],
        shots_seconds=[(0.0, duration_seconds)],
        total_num_frames=int(fields.get("total_num_frames") or total),
        duration_seconds=duration_seconds,
        fps=float(fps),
        width=width,
        height=height,
        num_lost_frames=0,
    )


def _frames_to_tensors(video) -> list[torch.Tensor]:
    """Frames as uint8 tensors of shape `(3, height, width)`."""
    if not isinstance(video, (list, tuple, np.ndarray, torch.Tensor)):
        raise TypeError(
            f"A video was given as {type(video).__name__}; give a path, URL, bytes, file, array, tensor or frames."
        )
    frames = [_frame_to_tensor(frame) for frame in video]
    if not frames:
        raise ValueError("A video without frames was given; a video needs at least one frame.")
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"The frames of a video have different shapes: {sorted({tuple(f.shape) for f in frames})}.")
    return frames


def _frame_to_tensor(frame) -> torch.Tensor:
    if isinstance(frame, (str, os.PathLike)):
        try:
            frame = load_image(os.fspath(frame))
        except Exception as error:  # HTTP clients and decoders raise their own
            raise VideoReadError(f"a frame of a video, {os.fspath(frame)!r}, cannot be read: {error}") from error
    if isinstance(frame, Image.Image):
        frame = np.asarray(frame.convert("RGB"))
    frame = torch.from_numpy(frame.copy()) if isinstance(frame, np.ndarray) else frame
    if frame.ndim != 3 or frame.dtype != torch.uint8 or 3 not in (frame.shape[0], frame.shape[-1]):
        raise ValueError(
            f"A frame has shape {tuple(frame.shape)} and dtype {frame.dtype}; expected uint8 of shape (height, width, "
            "3) or (3, height, width)."
        )
    return frame if frame.shape[0] == 3 else frame.permute(2, 0, 1)


def _milliseconds(seconds: list[float]) -> torch.Tensor:
    """Whole numbers, so that `.to(torch.bfloat16)` on the model inputs leaves the times as they are."""
    return torch.tensor([round(1000 * second) for second in seconds])


def _as_list(metadata) -> list:
    """`video_metadata` of all videos: one, a list, or a list per prompt."""
    if not isinstance(metadata, (list, tuple)):
        return [metadata]
    return [one for item in metadata for one in (item if isinstance(item, (list, tuple)) else [item])]


def _interpolation(resample: int) -> v2.InterpolationMode:
    if resample == PILImageResampling.LANCZOS:
        logger.warning_once(
            "Frames are resized with bicubic instead of Lanczos resampling, which tensors do not have."
        )
        return v2.InterpolationMode.BICUBIC
    return {
        PILImageResampling.NEAREST: v2.InterpolationMode.NEAREST,
        PILImageResampling.BOX: v2.InterpolationMode.BOX,
        PILImageResampling.BILINEAR: v2.InterpolationMode.BILINEAR,
        PILImageResampling.HAMMING: v2.InterpolationMode.HAMMING,
        PILImageResampling.BICUBIC: v2.InterpolationMode.BICUBIC,
    }[PILImageResampling(resample)]


__all__ = ["LinVTVideoProcessor", "flatten_videos", "is_file"]
