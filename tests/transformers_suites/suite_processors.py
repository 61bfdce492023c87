"""Transformers' tests of processors and of video processors, on LinVT's around those of LLaVA-OneVision."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from suites import Suite
from tests.test_processing_common import ProcessorTesterMixin
from tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs
from tiny_families import build_image_llm, random_video, write_video
from transformers import LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor, ProcessorMixin

from linvt import LinVTProcessor, LinVTVideoProcessor
from tests import test_processing_common


FILES = tempfile.TemporaryDirectory()


def local_file(url: str) -> str:
    """A picture or a clip made here, in place of the one at an address."""
    path = Path(FILES.name) / url.rsplit("/", 1)[-1]
    frames = random_video(11, height=60, width=80)
    if not path.exists() and path.suffix == ".mp4":
        write_video(path, frames, fps=30)
    elif not path.exists():
        Image.fromarray(frames[0]).save(path)
    return str(path)


test_processing_common.url_to_local_path = local_file
for _modality in ("images", "videos"):
    _urls = test_processing_common.MODALITY_INPUT_DATA[_modality]
    test_processing_common.MODALITY_INPUT_DATA[_modality] = [local_file(url) for url in _urls]

_, IMAGE_LLM_PROCESSOR = build_image_llm("llava_onevision")
PROCESSOR = LinVTProcessor.from_image_llm_processor(
    IMAGE_LLM_PROCESSOR, num_video_tokens=4, frame_size={"height": 28, "width": 28}, shot_detection="uniform"
)


class ProcessorSuite(ProcessorTesterMixin, Suite):
    """The tests of a processor made of the parts of `processor`."""

    __test__ = False
    processor: ProcessorMixin

    @classmethod
    def setUpClass(cls) -> None:
        if cls.__test__:
            super().setUpClass()

    @classmethod
    def _setup_component(cls, attribute: str):
        return getattr(cls.processor, attribute)


class LlavaOnevisionProcessorSuite(ProcessorSuite):
    __test__ = True
    processor = IMAGE_LLM_PROCESSOR
    processor_class = LlavaOnevisionProcessor

    @staticmethod
    def prepare_processor_dict() -> dict:
        image = "{% if part['type'] == 'image' %}{{ '<image>' }}{% endif %}"
        video = "{% if part['type'] == 'video' %}{{ '<video>' }}{% endif %}"
        return {
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "chat_template": IMAGE_LLM_PROCESSOR.chat_template.replace(image, image + video),
        }


class LinVTProcessorSuite(ProcessorSuite):
    __test__ = True
    control = LlavaOnevisionProcessorSuite
    processor = PROCESSOR
    processor_class = LinVTProcessor

    @staticmethod
    def prepare_processor_dict() -> dict:
        return {
            "num_video_tokens": 4,
            "image_llm_processor": PROCESSOR.image_llm_processor,
            "chat_template": PROCESSOR.chat_template,
        }

    def prepare_text_inputs(self, batch_size: int | None = None, modalities: str | list | None = None):
        """Texts as user turns: that of a video is found by its header."""
        texts = super().prepare_text_inputs(batch_size, modalities)
        return _as_turn(texts) if isinstance(texts, str) else [_as_turn(text) for text in texts]

    @property
    def video_sampling_expectations(self) -> list[dict]:
        """Frames of all videos stand in a row, and 0.37 s have four frames at 10 frames per second: 0.0, 0.1, ..."""
        expected = [{**case, "expected_dim": 0} for case in super().video_sampling_expectations]
        return [{**case, "output_length": 4} if case.get("num_frames", 3) is None else case for case in expected]


def _as_turn(text: str) -> str:
    return f"<|im_start|>user {text}<|im_end|>"


class VideoProcessorTester:
    """Videos of eight frames of random sizes."""

    batch_size, num_frames, num_channels = 3, 8, 3

    def expected_output_video_shape(self, videos: list) -> tuple[int, ...]:
        return (self.num_frames, self.num_channels, 18, 18)

    def prepare_video_inputs(self, equal_resolution: bool = False, return_tensors: str = "pil") -> list[np.ndarray]:
        sizes = {"min_resolution": 24, "max_resolution": 40}
        shape = (self.batch_size, self.num_frames, self.num_channels)
        return prepare_video_inputs(*shape, **sizes, equal_resolution=equal_resolution, return_tensors=return_tensors)


class VideoProcessorSuite(VideoProcessingTestMixin, Suite):
    """The tests of a video processor that brings frames to one size."""

    __test__ = False
    test_cast_dtype = True
    video_processor_dict: dict

    def setUp(self) -> None:
        super().setUp()
        self.video_processor_tester = VideoProcessorTester()


class LlavaOnevisionVideoProcessorSuite(VideoProcessorSuite):
    __test__ = True
    fast_video_processing_class = LlavaOnevisionVideoProcessor
    video_processor_dict = {
        "size": {"shortest_edge": 20},
        "do_center_crop": True,
        "crop_size": {"height": 18, "width": 18},
    }


class LinVTVideoProcessorSuite(VideoProcessorSuite):
    __test__ = True
    control = LlavaOnevisionVideoProcessorSuite
    fast_video_processing_class = LinVTVideoProcessor
    video_processor_dict = {"size": {"height": 18, "width": 18}}

    def assert_expected_videos_shape(
        self, encoded_videos, expected_output_video_shape: tuple, num_videos: int
    ) -> None:
        """The frames of all videos stand in a row."""
        frames, *rest = expected_output_video_shape
        self.assertEqual(tuple(encoded_videos.shape), (num_videos * frames, *rest))
