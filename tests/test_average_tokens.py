"""The naive baseline of Tab. 2: plain means of frame tokens, with neither SVR nor TTA and without a parameter."""

import pytest
import torch
from tiny_families import FAMILIES, random_video, user_turn
from transformers import AutoModel

from linvt import LinVTVideoConfig, LinVTVideoModel


AVERAGE = {"use_svr": False, "use_tta": False, "multi_scale": "single", "text_conditioning": False}
PER_FRAME = {**AVERAGE, "num_queries": [5], "pooling_windows": [1]}

each_family = pytest.mark.parametrize("family", FAMILIES)


def make(num_tokens: int) -> LinVTVideoModel:
    settings = {**AVERAGE, "num_queries": [num_tokens], "pooling_windows": [1]}
    return LinVTVideoModel(LinVTVideoConfig(embedding_size=8, **settings))


def average(tokens, num_frames, num_video_tokens=None, **kwargs):
    seconds = torch.arange(num_frames).float().expand(len(tokens), -1)
    return make(num_video_tokens or num_frames)(tokens, (3, 4), seconds, **kwargs)


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_one_token_per_frame_is_the_mean_of_that_frame(num_frames):
    tokens = torch.randn(2, num_frames, 12, 8)
    output = average(tokens, num_frames, output_token_weights=True)
    torch.testing.assert_close(output.video_tokens, tokens.mean(2), rtol=1e-5, atol=1e-6)
    expected = torch.eye(num_frames).repeat_interleave(12, dim=1) / 12
    torch.testing.assert_close(output.token_weights, expected.expand(2, -1, -1), rtol=0, atol=1e-6)
    assert output.token_scores is None and average(tokens, num_frames).token_weights is None


@pytest.mark.parametrize(("num_frames", "num_video_tokens"), [(6, 3), (6, 2), (5, 4), (2, 9), (1, 20)])
def test_other_numbers_are_means_of_even_windows(num_frames, num_video_tokens):
    """The windows of adaptive average pooling, which overlap where the numbers do not divide."""
    tokens = torch.randn(1, num_frames, 12, 8)
    output = average(tokens, num_frames, num_video_tokens, output_token_weights=True)
    expected = torch.nn.functional.adaptive_avg_pool1d(tokens.flatten(1, 2).mT, num_video_tokens).mT
    torch.testing.assert_close(output.video_tokens, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.token_weights.sum(-1), torch.ones(1, num_video_tokens))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_mean_once(dtype):
    tokens = (torch.randn(1, 3, 12, 8) * 1e3).to(dtype)
    expected = tokens.double().mean(2).to(dtype)
    assert average(tokens, 3).video_tokens.dtype == dtype
    torch.testing.assert_close(average(tokens, 3).video_tokens, expected)


def test_there_is_nothing_to_learn():
    assert list(make(5).parameters()) == [] and make(5).state_dict() == {}


@each_family
@torch.no_grad()
def test_in_the_whole_model(make_linvt, ask, family):
    model, processor = make_linvt(family, **PER_FRAME)
    inputs = ask(processor, random_video(9), "What happens?", random_video(3, seed=1))
    output = model(**inputs, output_token_weights=True)
    frames = inputs["pixel_values_videos"].split((5, 3))
    tokens = model.get_frame_tokens(frames[0])
    torch.testing.assert_close(output.video_tokens[0], tokens.mean(1), rtol=1e-5, atol=1e-5)
    tokens = model.get_frame_tokens(frames[1]).flatten(0, 1)
    torch.testing.assert_close(output.video_tokens[1], output.video_token_weights[1] @ tokens, rtol=1e-5, atol=1e-5)
    assert output.video_token_weights[1].shape == (5, len(tokens))
    length = inputs["input_ids"].shape[1]
    assert model.generate(**inputs, max_new_tokens=3).shape[1] == length + 3


@each_family
def test_gradients_reach_the_image_llm(make_linvt, ask, family):
    model, processor = make_linvt(family, **PER_FRAME)
    inputs = ask(processor, random_video(9), "What happens?")
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert model.get_decoder().layers[0].mlp.up_proj.weight.grad.any()


def test_saved_models_load(make_linvt, tmp_path):
    model, processor = make_linvt("llava", **PER_FRAME)
    model.save_pretrained(tmp_path)
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(user_turn(random_video(6), "What?"), **options)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
