"""Settings of the video processor hold, or are refused by name, at construction, at a call, and after saving."""

import numpy as np
import pytest
import torch
from tiny_families import random_video
from transformers.image_utils import SizeDict

from linvt import LinVTProcessor, LinVTVideoProcessor


SECONDS, FILE_FPS = 4, 10
TIMED = {"video_metadata": {"fps": FILE_FPS, "total_num_frames": SECONDS * FILE_FPS}}


def num_frames(processor: LinVTVideoProcessor, **kwargs) -> int:
    """Frames that are picked of a video of 4 seconds and 40 frames."""
    video = processor(random_video(SECONDS * FILE_FPS), return_metadata=True, **TIMED, **kwargs)["video_metadata"][0]
    return len(video.frame_indices)


def reloaded(processor: LinVTVideoProcessor, folder, **kwargs) -> LinVTVideoProcessor:
    processor.save_pretrained(folder)
    return LinVTVideoProcessor.from_pretrained(folder, **kwargs)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 32), ({"fps": 2.0}, 8), ({"num_frames": 7}, 7), ({"num_frames": None}, 40), ({"fps": None}, 32)],
)
def test_one_of_rate_and_number_of_frames_holds(settings, expected, tmp_path):
    processor = LinVTVideoProcessor(**settings)
    assert num_frames(processor) == expected
    assert num_frames(reloaded(processor, tmp_path)) == expected


@pytest.mark.parametrize(("settings", "expected"), [({}, 32), ({"fps": 2.0}, 8), ({"num_frames": 7}, 7)])
def test_a_call_overrides_what_a_processor_is_set_to(settings, expected):
    assert num_frames(LinVTVideoProcessor(), **settings) == expected


def test_none_at_a_call_leaves_a_setting_as_it_is():
    """All frames of an hour of video would fill the memory, for a `None` that a caller passes on."""
    settings = {"num_frames": 7, "size": 42, "resample": 3, "shot_detection": "uniform", "do_sample_frames": True}
    processor, frames = LinVTVideoProcessor(**settings), random_video(12)
    expected = processor(frames, **TIMED)
    nothing = processor(frames, **TIMED, **dict.fromkeys([*settings, "fps", "do_resize", "image_mean", "device"]))
    assert torch.equal(nothing["pixel_values_videos"], expected["pixel_values_videos"])
    assert num_frames(processor, do_sample_frames=False) == SECONDS * FILE_FPS


def test_what_a_call_gives_of_the_two_takes_the_place_of_either(tmp_path):
    by_rate, by_number = LinVTVideoProcessor(fps=3.0), LinVTVideoProcessor(num_frames=5)
    assert num_frames(by_rate, num_frames=6) == 6 and num_frames(by_number, fps=1.0) == 4
    assert num_frames(by_rate, num_frames=None) == 12
    assert num_frames(reloaded(by_rate, tmp_path, num_frames=6)) == 6
    assert num_frames(reloaded(by_number, tmp_path, fps=1.0)) == 4
    assert num_frames(by_rate) == 12 and num_frames(by_number) == 5


def test_the_rate_of_a_whole_processor_is_saved(image_llm, tmp_path):
    _, original = image_llm("llava")
    LinVTProcessor.from_image_llm_processor(original, fps=0.5).save_pretrained(tmp_path)
    assert num_frames(LinVTProcessor.from_pretrained(tmp_path).video_processor) == 2
    assert num_frames(LinVTProcessor.from_pretrained(tmp_path, num_frames=3).video_processor) == 3


def test_rate_and_number_of_frames_together_are_refused():
    both = {"num_frames": 4, "fps": 2.0}
    with pytest.raises(ValueError, match=r"num_frames is 4 and fps is 2\.0"):
        LinVTVideoProcessor(**both)
    with pytest.raises(ValueError, match=r"num_frames is 4 and fps is 2\.0"):
        num_frames(LinVTVideoProcessor(), **both)
    processor = LinVTVideoProcessor(num_frames=4)
    processor.fps = 2.0
    with pytest.raises(ValueError, match=r"num_frames is 4 and fps is 2\.0"):
        num_frames(processor)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_size", 40),
        ("data_format", "channels_last"),
        ("default_to_square", False),
        ("do_center_crop", True),
        ("do_convert_rgb", False),
        ("do_pad", True),
        ("input_data_format", "channels_first"),
        ("shot_detection", "transnet"),
        ("size", {"shortest_edge": 30}),
        ("size", {"height": 30}),
        ("size", {"height": 42.5, "width": 42}),
        ("size", {"height": 0, "width": 42}),
        ("size", {"longest_edge": 42, "shortest_edge": 28}),
        ("num_frames", 4.0),
        ("num_frames", "4"),
        ("num_frames", -1),
        ("fps", "2"),
        ("fps", float("nan")),
    ],
)
def test_what_cannot_hold_is_refused_with_the_reason(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        LinVTVideoProcessor(**{name: value})
    with pytest.raises(ValueError, match=f"^{name} is "):
        LinVTVideoProcessor()(random_video(2), **{name: value})


def test_what_holds_anyway_may_be_said():
    said = {
        "do_center_crop": False,
        "do_pad": None,
        "data_format": "channels_first",
        "do_convert_rgb": True,
        "input_data_format": None,
    }
    frames = random_video(3)
    expected = LinVTVideoProcessor()(frames)["pixel_values_videos"]
    assert torch.equal(LinVTVideoProcessor(**said)(frames)["pixel_values_videos"], expected)
    assert torch.equal(LinVTVideoProcessor()(frames, **said)["pixel_values_videos"], expected)


def test_misspelt_settings_are_named(image_llm):
    _, original = image_llm("llava")
    for make in (
        lambda: LinVTVideoProcessor(shot_detector="uniform"),
        lambda: LinVTVideoProcessor()(random_video(2), shot_detector="uniform"),
        lambda: LinVTVideoProcessor().frame_options(shot_detector="uniform"),
        lambda: LinVTProcessor.from_image_llm_processor(original, shot_detector="uniform"),
    ):
        with pytest.raises(TypeError, match="shot_detector"):
            make()


def test_settings_that_another_version_saved_are_no_obstacle():
    fields = {**LinVTVideoProcessor(num_frames=6).to_dict(), "a_setting_of_tomorrow": True}
    assert num_frames(LinVTVideoProcessor.from_dict(fields)) == 6


@pytest.mark.parametrize(
    "size", [42, (42, 42), [42, 42], {"height": 42, "width": 42}, SizeDict(height=42, width=42)], ids=repr
)
def test_forms_of_a_size(size):
    frames = random_video(2)
    expected = LinVTVideoProcessor(size={"height": 42, "width": 42})(frames)["pixel_values_videos"]
    assert expected.shape[-2:] == (42, 42)
    assert torch.equal(LinVTVideoProcessor(size=size)(frames)["pixel_values_videos"], expected)
    assert torch.equal(LinVTVideoProcessor()(frames, size=size)["pixel_values_videos"], expected)


def test_height_comes_before_width():
    frames = LinVTVideoProcessor(size=(28, 56))(np.zeros((1, 30, 30, 3), np.uint8))["pixel_values_videos"]
    assert frames.shape[-2:] == (28, 56)


def test_frames_are_returned_on_the_device_that_is_asked_for():
    """The meta device is one that every machine has and that no tensor comes to by accident."""
    for processor, kwargs in ((LinVTVideoProcessor(), {"device": "meta"}), (LinVTVideoProcessor(device="meta"), {})):
        inputs = processor(random_video(2), return_tensors="pt", **kwargs)
        assert inputs["pixel_values_videos"].device.type == "meta"
        assert inputs["video_milliseconds"].tolist()  # a number is looked at, so it stays where numbers can be
    cpu = LinVTVideoProcessor()(random_video(2), device=torch.device("cpu"))["pixel_values_videos"]
    assert torch.equal(cpu, LinVTVideoProcessor()(random_video(2))["pixel_values_videos"])
