"""Videos to frames of one fixed size with their times and shots, normalised as the image-LLM normalises images."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import Unpack
from transformers.utils import logging

from linvt.processors.shots.automatic_shots import choose_shot_detection, choose_stream_shot_detection
from linvt.processors.shots.autoshot_files import AUTOSHOT_IN_CHECKPOINT
from linvt.processors.shots.saved_autoshot import AutoShotVideoProcessor
from linvt.processors.shots.shot_detection import ShotDetector, load_shot_detector
from linvt.processors.video.forked_processes import on_one_thread_in_forks, one_thread_in_forks
from linvt.processors.video.frame_pixels import frame_resizer, normalize_frames
from linvt.processors.video.frame_selection import check_at_least_one
from linvt.processors.video.given_frames import read_given_frames
from linvt.processors.video.sampled_video import SampledVideo
from linvt.processors.video.source_files import SourceFile, rereadable_file
from linvt.processors.video.video_reading import read_video
from linvt.processors.video.video_sources import SourceFrames, flatten_videos, resolve_video
from linvt.processors.video.video_stream import STALL_SECONDS, StreamedFrame, iter_video
from linvt.processors.video_settings import LinVTVideoProcessorKwargs, check_video_settings, frame_size
from linvt.video_tokenizer.video_memory import VideoMemory


logger = logging.get_logger(__name__)

NOT_TENSORS = ["video_metadata", "video_memories"]

# What a saved processor holds beside its settings.
_BESIDE_SETTINGS = {"autoshot_folder", "auto_map", "image_processor_type", "processor_class", "video_processor_type"}


class LinVTVideoProcessor(AutoShotVideoProcessor):
    """
    Reads videos, picks `num_frames` of each, and brings them to one size, so that every frame has equally many tokens.

    Whole frames are squashed to `size`: cropping would cut the sides off wide videos, and tiling would give frames
    different numbers of tokens. Times are those of the file, counted from its first frame.

    Returns per call the frames of all videos in a row, `pixel_values_videos` (float32 of shape `(frames, 3, height,
    width)`), with `video_milliseconds` and `video_shot_ids` (int64 of shape `(frames,)`), and how many of them each
    video has, `video_num_frames` (int64 of shape `(videos,)`): 0 of one that is given as a memory, of which there is a
    list then, `video_memories`, with `None` for the others.
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
    num_frames: int | None = 32
    fps = None
    shot_detection = "auto"
    valid_kwargs = LinVTVideoProcessorKwargs
    model_input_names = [
        "pixel_values_videos",
        "video_num_frames",
        "video_milliseconds",
        "video_shot_ids",
    ]

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
    def from_dict(cls, video_processor_dict: dict, **kwargs: Any) -> "LinVTVideoProcessor":
        """As in `BaseVideoProcessor`; `fps` or `num_frames` given now takes the place of what was saved of the two."""
        known = {*cls.valid_kwargs.__annotations__, *_BESIDE_SETTINGS}  # another Transformers may have saved more
        if kwargs.get("fps") is not None or kwargs.get("num_frames") is not None:
            known -= {"fps", "num_frames"}
        fields = {name: value for name, value in video_processor_dict.items() if name in known}
        return super().from_dict(fields, **kwargs)

    @classmethod
    def from_image_processor(
        cls, image_processor: BaseImageProcessor, size: dict[str, int] | None = None, **kwargs: Any
    ) -> "LinVTVideoProcessor":
        """
        Makes a video processor that resamples and normalises frames as `image_processor` does images.

        Args:
            size (`dict[str, int]`, *optional*): Height and width of a frame in pixels. By default those that the
                image processor brings every image to.

        Raises:
            `ValueError`: If the image processor has no one size for images and `size` is left out.
        """
        if size is None:
            cropped = getattr(image_processor, "do_center_crop", None)
            known = dict(getattr(image_processor, "crop_size" if cropped else "size", None) or {})
            size = {side: known[side] for side in ("height", "width") if side in known}
            if len(size) < 2:
                raise ValueError(
                    f"The frames of a video need one size, and {type(image_processor).__name__} has none (its size is "
                    f"{known}); give model=, the LinVT model, or frame_size={{'height': ..., 'width': ...}} in pixels."
                )
        same = ("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        settings = {name: getattr(image_processor, name, None) for name in same}
        # What an image processor leaves open is as in this class.
        settings = {name: value for name, value in settings.items() if value is not None}
        return cls(size=size, **settings, **kwargs)

    def to_dict(self) -> dict:
        fields = super().to_dict()
        if self._auto_class is None:  # of a self-contained checkpoint, whose code these classes do not save
            fields.pop("auto_map", None)
        return fields

    @one_thread_in_forks()
    def preprocess(self, videos: Any, **kwargs: Unpack[LinVTVideoProcessorKwargs]) -> BatchFeature:
        """
        Args:
            videos: One video or several, as [`flatten_videos`] takes them; [`resolve_video`] lists the forms of a
                video. As a video, a list of names of pictures has to stand in a list in a list.
            kwargs: Overrides of the attributes of the processor, `video_metadata` and `return_tensors`.

        Raises:
            `VideoReadError`: If a file cannot be read as a video, or as a frame of one. No video is ever left out in
                silence.
        """
        return_tensors = kwargs.pop("return_tensors", None)
        return_metadata = kwargs.pop("return_metadata", False)
        metadata = kwargs.pop("video_metadata", None)
        options = self.frame_options(**kwargs)
        videos = [resolve_video(video) for video in flatten_videos(videos)]
        if not videos:
            raise ValueError("No video was given.")
        metadata = [None] * len(videos) if metadata is None else _as_list(metadata)
        if len(metadata) != len(videos):
            raise ValueError(f"{len(videos)} videos came with {len(metadata)} video_metadata; give one for each.")

        if kwargs.get("shot_detection") == "autoshot" and any(isinstance(video, SourceFrames) for video in videos):
            logger.warning_once("Shots are found in video files only; a video given as frames is one shot.")
        sampled = [
            None if isinstance(video, VideoMemory) else self._sample(video, meta, options)
            for video, meta in zip(videos, metadata, strict=True)
        ]
        read = [video for video in sampled if video is not None]
        data: dict[str, Any] = {
            "video_num_frames": torch.tensor([0 if video is None else len(video.frames) for video in sampled])
        }
        if read:
            data["pixel_values_videos"] = torch.cat([normalize_frames(video.frames, options) for video in read])
            data["video_milliseconds"] = torch.cat([_milliseconds(video.frame_seconds) for video in read])
            data["video_shot_ids"] = torch.cat([torch.tensor(video.shot_ids) for video in read])
        if len(read) < len(sampled):
            data["video_memories"] = [video if isinstance(video, VideoMemory) else None for video in videos]
        if return_metadata:
            data["video_metadata"] = sampled
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=NOT_TENSORS)

    def iter_video(
        self,
        source: Any,
        *,
        fps: float = 1.0,
        frames_per_piece: int = 16,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        stall_seconds: float = STALL_SECONDS,
        **settings: Unpack[LinVTVideoProcessorKwargs],
    ) -> Iterator[BatchFeature]:
        """
        Reads a video of any length in pieces, in bounded memory, each piece as soon as its frames are certain.

        Args:
            source: A video file in any form, or a [`LiveSource`], as `iter_video` of
                `linvt.processors.video.video_stream` takes it.
            fps (`float`, *optional*, defaults to 1.0): Times per second at which a frame is picked.
            frames_per_piece (`int`, *optional*, defaults to 16): Frames of a piece; the last one may have fewer.
            start_seconds, end_seconds (`float`, *optional*): Read the frames of `[start_seconds, end_seconds)` alone.
            stall_seconds (`float`, *optional*, defaults to 30): For how long a live source may give nothing.
            settings: Overrides of the attributes of the processor, as for [`~LinVTVideoProcessor.preprocess`].
                `shot_detection="auto"` looks for shots in files that are not long; not in live sources, whose frames
                would come some 100 frames later.

        Yields:
            `BatchFeature`: What `preprocess` returns for one video, of the frames of the piece. Times count from the
            start of the video, and shots on over all pieces.

        Raises:
            `VideoReadError`: If the source cannot be read as a video.
            `ValueError`: If a setting needs the length of the video (`num_frames`, `do_sample_frames=False`), or
                cannot hold.
        """
        check_at_least_one("frames_per_piece", frames_per_piece)
        if settings.get("num_frames") is not None or settings.get("do_sample_frames") is False:
            raise ValueError("num_frames and do_sample_frames need the length of the video; give fps for a stream.")
        for name in ("return_metadata", "return_tensors", "video_metadata"):
            if settings.get(name) not in (None, False, "pt"):
                raise ValueError(f"{name} is {settings[name]!r}, which cannot be chosen for a stream.")
        options = self.frame_options(**{**settings, "fps": fps})
        if options["shot_detection"] == "auto":
            options["shot_detection"] = choose_stream_shot_detection(source, options["device"])
        detector = self._shot_detector(options)
        frames = iter_video(
            source,
            fps=fps,
            transform=frame_resizer(options),
            detect_shot_starts=None if detector is None else detector.starts,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            stall_seconds=stall_seconds,
            on_progress=options["on_progress"],
        )
        return on_one_thread_in_forks(self._pieces(frames, frames_per_piece, options))

    def _pieces(self, frames: Iterator[StreamedFrame], frames_per_piece: int, options: dict) -> Iterator[BatchFeature]:
        while piece := list(islice(frames, frames_per_piece)):
            pixels = normalize_frames(torch.stack([frame.picture for frame in piece]), options)
            yield BatchFeature(
                {
                    "pixel_values_videos": pixels,
                    "video_num_frames": torch.tensor([len(piece)]),
                    "video_milliseconds": _milliseconds([frame.seconds for frame in piece]),
                    "video_shot_ids": torch.tensor([frame.shot_id for frame in piece]),
                }
            )

    def frame_options(self, **kwargs: Unpack[LinVTVideoProcessorKwargs]) -> dict:
        """
        Returns all settings by name, overridden by those of `kwargs` that are not `None`: which frames of a video are
        picked, and how they look. (A call takes all frames with `do_sample_frames=False`.)

        Raises:
            `TypeError` or `ValueError`: As [`check_video_settings`] and [`frame_size`] do.
        """
        check_video_settings(kwargs)
        given = {name: value for name, value in kwargs.items() if value is not None}
        options = {name: given.get(name, getattr(self, name, None)) for name in self.valid_kwargs.__annotations__}
        for name, other in (("num_frames", "fps"), ("fps", "num_frames")):
            if name in given:
                options[other] = None
        check_video_settings(options)  # attributes may have been set since they were checked
        options["size"] = frame_size(options["size"])
        if options["shot_detection"] == "uniform":
            options["autoshot_model"] = None  # needs no weights, so they may be missing
        elif options["autoshot_model"] == AUTOSHOT_IN_CHECKPOINT:
            options["autoshot_model"] = self.autoshot_of_checkpoint()
        return options

    def _sample(self, video: SourceFile | SourceFrames, metadata: Any, options: dict) -> SampledVideo:
        """The picked frames of one video, resized, still uint8."""
        transform = frame_resizer(options)
        sampling = {name: options[name] if options["do_sample_frames"] else None for name in ("num_frames", "fps")}
        if isinstance(video, SourceFrames):
            return read_given_frames(video, **sampling, metadata=metadata, transform=transform)
        with ExitStack() as stack:
            if options["shot_detection"] == "auto":
                video = stack.enter_context(rereadable_file(video))
                options = {**options, "shot_detection": choose_shot_detection(video, options["device"])}
            return read_video(
                video,
                **sampling,
                transform=transform,
                detect_shots=self._shot_detector(options),
                on_progress=options["on_progress"],
            )

    def _shot_detector(self, options: dict) -> ShotDetector | None:
        if options["shot_detection"] == "uniform":
            return None
        return load_shot_detector(options["autoshot_model"], options["device"])


def _milliseconds(seconds: list[float]) -> torch.Tensor:
    """Whole numbers, so that `.to(torch.bfloat16)` on the model inputs leaves the times as they are."""
    return torch.tensor([round(1000 * second) for second in seconds])


def _as_list(metadata: Any) -> list:
    """`video_metadata` of all videos: one, a list, or a list per prompt."""
    if not isinstance(metadata, (list, tuple)):
        return [metadata]
    return [one for item in metadata for one in (item if isinstance(item, (list, tuple)) else [item])]


__all__ = ["LinVTVideoProcessor"]
