"""The example that sees a video in parts: what it merges is what one machine would have kept."""

import json
import math

import encode_in_parts
import pytest
import torch

from linvt import VideoMemory


SUFFIX = ".memory.safetensors"


@pytest.mark.parametrize("setting", ["trained", "untrained"])
@pytest.mark.parametrize("frames_per_patch", [1, 2])
def test_parts_of_a_video_merge_to_the_whole(
    run, make_linvt, make_untrained, video_file, tmp_path, setting, frames_per_patch
):
    make = make_linvt if setting == "trained" else make_untrained
    model, processor = make("qwen2_vl", temporal_attention="shot", max_shot_frames=4)
    model.config.frames_per_patch, model.config.frames_per_batch = frames_per_patch, 6
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    video, options = str(video_file(75, fps=10)), ("--model", str(tmp_path / "model"), "--fps", "5")
    parts = tmp_path / f"parts{SUFFIX}"
    encode_in_parts.main([video, str(parts), *options, "--part", "2"])
    assert [path.name for path in tmp_path.glob(f"*{SUFFIX}")] == [f"parts.2{SUFFIX}"]
    encode_in_parts.main([video, str(parts), *options])
    assert len([*tmp_path.glob(f"parts.?{SUFFIX}")]) == 4
    whole = tmp_path / f"whole{SUFFIX}"
    code, output, _ = run("encode", video, whole, *options, "--uniform", "--json")
    assert code == 0 and json.loads(output)["num_frames"] == math.ceil(7.5 * 5)
    found, expected = VideoMemory.load(parts), VideoMemory.load(whole)
    assert found.num_frames == expected.num_frames and found.span_seconds == expected.span_seconds
    for name in ("seconds", "places", "shots"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("tokens", "scores", "score_bias"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    answers = []
    for memory in (parts, whole):
        code, output, _ = run("ask", memory, "Who?", *options[:2], "--max-new-tokens", 8, "--json")
        answers.append(json.loads(output)["text"])
    assert answers[0] == answers[1] != ""


@pytest.mark.parametrize(("seconds", "parts", "fps"), [(3600, 4, 1), (3600.2, 7, 2), (100, 4, 1), (9.5, 3, 4)])
def test_parts_are_cut_at_windows(make_linvt, seconds, parts, fps):
    config = make_linvt("llava", max_shot_frames=32)[0].config
    borders = encode_in_parts.part_borders(seconds, fps, parts, config)
    assert borders[0][0] == 0 and borders[-1][1] is None and 1 <= len(borders) <= parts
    for (start, end), (next_start, _) in zip(borders, borders[1:], strict=False):
        assert start < end == next_start < seconds and (end * fps) % 32 == 0
