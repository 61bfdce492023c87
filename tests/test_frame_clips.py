import pytest
import torch
from tiny_families import random_video
from transformers import Qwen2VLVideoProcessor

from linvt.frame_clips import frame_clips


@pytest.mark.parametrize(
    ("shots", "frames_per_patch", "clips"),
    [
        ([0, 0, 0], 1, [[0], [1], [2]]),
        ([0, 0, 0, 0], 2, [[0, 1], [2, 3]]),
        ([0, 0, 0], 2, [[0, 1], [2, 2]]),
        ([0, 0, 0, 1, 1], 2, [[0, 1], [2, 2], [3, 4]]),
        ([4, 7, 9], 2, [[0, 0], [1, 1], [2, 2]]),
        ([0, 0, 0, 0, 0], 4, [[0, 1, 2, 3], [4, 4, 4, 4]]),
    ],
)
def test_clips(shots, frames_per_patch, clips):
    assert frame_clips(torch.tensor(shots), frames_per_patch).tolist() == clips


def test_qwen2_vl_takes_in_two_frames_as_its_own_video_path_does(make_linvt):
    model, processor = make_linvt("qwen2_vl")
    model.config.frames_per_patch = 2
    frames = random_video(4, height=56, width=56)
    original = processor.image_processor
    settings = {"size": dict(original.size), "image_mean": original.image_mean, "image_std": original.image_std}
    video = Qwen2VLVideoProcessor(**settings)(torch.from_numpy(frames), return_tensors="pt", do_sample_frames=False)
    assert video["video_grid_thw"].tolist() == [[2, 4, 4]]
    expected = model.image_llm.get_video_features(video["pixel_values_videos"], video["video_grid_thw"]).pooler_output[
        0
    ]
    inputs = processor.video_processor(frames, num_frames=4, return_tensors="pt")
    tokens = model.get_frame_tokens(inputs["pixel_values_videos"], torch.tensor([[0, 1], [2, 3]]))
    torch.testing.assert_close(tokens.flatten(0, 1), expected, rtol=1e-4, atol=1e-4)


def test_pairs_of_still_frames_are_the_frames(make_linvt):
    model, processor = make_linvt("qwen2_vl")
    frames = processor.video_processor(random_video(2), return_tensors="pt")["pixel_values_videos"]
    pairs = model.get_frame_tokens(frames, torch.tensor([[0, 0], [1, 1]]))
    torch.testing.assert_close(pairs, model.get_frame_tokens(frames), rtol=1e-5, atol=1e-5)


def test_pairs_in_a_batch_give_what_they_give_alone(make_linvt):
    model, processor = make_linvt("qwen2_vl")
    model.config.frames_per_patch = 2
    batch = processor.video_processor([random_video(5), random_video(3, seed=1)], return_tensors="pt")
    together = model.get_video_features(**batch, output_token_weights=True)
    assert [weights.shape[1] for weights in together.token_weights] == [3 * 4, 2 * 4]
    for video, number in enumerate((5, 3)):
        counts = {"video_num_frames": torch.tensor([number])}
        alone = {name: value.split((5, 3))[video] for name, value in batch.items() if name not in counts} | counts
        torch.testing.assert_close(
            together.pooler_output[video], model.get_video_features(**alone).pooler_output[0], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("family", ["llava", "llava_onevision", "internvl"])
def test_encoders_of_single_frames_refuse_pairs(make_linvt, family):
    model, processor = make_linvt(family)
    model.config.frames_per_patch = 2
    with pytest.raises(ValueError, match="one by one; set config.frames_per_patch = 1"):
        model.get_video_features(**processor.video_processor(random_video(4), return_tensors="pt"))


def test_a_depth_that_qwen2_vl_does_not_have_is_refused(make_linvt):
    model, processor = make_linvt("qwen2_vl")
    model.config.frames_per_patch = 3
    with pytest.raises(ValueError, match="frames_per_patch is 3; this Qwen2VL encodes 1 or 2 frames as one clip"):
        model.get_video_features(**processor.video_processor(random_video(4), return_tensors="pt"))
