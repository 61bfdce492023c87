"""V from disk is V: the same losses and gradients, and never those of another video, model or setting."""

import copy
import functools
import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, random_video, user_turn
from torch.utils.data import DataLoader

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.fingerprints import encoder_fingerprint
from linvt.training.frame_token_cache import CONVENTIONS, FrameTokenCache, FrameTokenCacheError
from linvt.training.training_rows import BadRowError
from linvt.training.video_chat_collator import VideoChatCollator


each_family = pytest.mark.parametrize("family", FAMILIES)
ANSWER = {"role": "assistant", "content": "A cat."}
PICTURE = {"type": "image", "image": Image.fromarray(random_video(1, seed=9)[0])}


@pytest.fixture
def video_file(video_file):
    """As it is, but each clip is written once: the time of a file counts."""
    return functools.cache(video_file)


def row_of(*parts) -> dict:
    return {"messages": [*user_turn(*parts), ANSWER]}


def mixed_rows(video_file) -> list[dict]:
    rows = [
        row_of(video_file(12), "What is it?"),
        row_of("First ", random_video(3, seed=2), "then ", video_file(9, seed=1)),
        row_of("Hello."),
        row_of("Who?"),
    ]
    rows[3]["messages"][0]["content"].append(PICTURE)
    return rows


def frozen(model):
    model.image_llm.requires_grad_(False)
    return model


def loss_and_gradients(model, batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.video_tokenizer.parameters()]


@each_family
@pytest.mark.parametrize("frames_per_batch", [1, 16])
def test_losses_and_gradients_are_the_same(make_linvt, video_file, tmp_path, family, frames_per_batch):
    model, processor = make_linvt(family)
    frozen(model).config.frames_per_batch = frames_per_batch
    rows = mixed_rows(video_file)
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    cache.build(rows)
    collator, cached_collator = VideoChatCollator(processor), VideoChatCollator(processor, cache)
    # Frame by frame the encoder does the same whatever the batch is. With more frames at once, one row at a time:
    # matrices of other sizes may be multiplied in another order.
    for batch_rows in (
        [rows] if frames_per_batch == 1 else [[row] for row in (rows[0], row_of(video_file(12), "Why?"))]
    ):
        batch, cached = collator(batch_rows), cached_collator(batch_rows)
        assert set(batch) - set(cached) == {"pixel_values_videos"}
        assert set(cached) - set(batch) == {"video_frame_tokens", "video_token_grid"}
        assert all(torch.equal(cached[name], batch[name]) for name in set(batch) & set(cached))
        (loss, gradients), (cached_loss, cached_gradients) = (loss_and_gradients(model, b) for b in (batch, cached))
        assert torch.equal(loss, cached_loss) and any(gradient.any() for gradient in gradients)
        assert all(torch.equal(*pair) for pair in zip(gradients, cached_gradients, strict=True))


def test_losses_are_the_same_in_mixed_precision(make_linvt, video_file, tmp_path):
    model, processor = make_linvt("llava")
    frozen(model).config.frames_per_batch = 1
    rows = mixed_rows(video_file)
    losses = []
    for dtype in (None, torch.bfloat16):
        cache = FrameTokenCache(tmp_path / "cache", model, processor, dtype)
        cache.build(rows)
        for collator in (VideoChatCollator(processor), VideoChatCollator(processor, cache)):
            with torch.autocast("cpu", torch.bfloat16):
                losses.append(loss_and_gradients(model, collator(rows))[0])
    assert losses[2] == losses[3] and losses[0] != losses[1]


def test_two_frames_in_one_patch(make_linvt, video_file, tmp_path):
    """The clips of shots, of which there are fewer than frames."""
    model, processor = make_linvt("qwen2_vl")
    frozen(model).config.frames_per_patch = 2
    rows = [row_of(video_file(12), "What?"), row_of(random_video(2), "Why?")]
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    cache.build(rows)
    batch, cached = VideoChatCollator(processor)(rows), VideoChatCollator(processor, cache)(rows)
    assert cached["video_frame_tokens"].shape[0] == 3 + 1 and cached["video_num_frames"].tolist() == [5, 2]
    with torch.no_grad():
        torch.testing.assert_close(model(**cached).logits, model(**batch).logits, rtol=1e-5, atol=1e-5)


def test_neither_videos_nor_the_encoder_are_used(make_linvt, video_file, tmp_path, monkeypatch):
    model, processor = make_linvt("llava")
    rows = mixed_rows(video_file)
    cache = FrameTokenCache(tmp_path / "cache", frozen(model), processor)
    cache.build(rows)
    expected = VideoChatCollator(processor, cache)(rows[:2])
    logits = model(**expected).logits

    def fail(*_, **__):
        raise AssertionError("This is what the cache is there to spare.")

    monkeypatch.setattr(type(processor.video_processor), "preprocess", fail)
    monkeypatch.setattr(model, "get_frame_tokens", fail)
    cache.build(rows)
    again = VideoChatCollator(processor, cache)(rows[:2])
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert torch.equal(model(**again).logits, logits)


def test_only_what_is_missing_is_made(make_linvt, video_file, tmp_path, monkeypatch):
    model, processor = make_linvt("llava")
    rows = [row_of(video_file(12), "What?"), row_of(video_file(9), "Why?"), row_of(video_file(12), "Who?")]
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    made, encode = [], model.encode_video
    monkeypatch.setattr(model, "encode_video", lambda *args: made.append(0) or encode(*args))
    model.video_tokenizer.train()
    cache.build(rows[:1])
    assert len(made) == 1
    cache.build(rows, num_workers=1)
    assert len(made) == 2 and len(list(cache.folder.iterdir())) == 2
    assert model.video_tokenizer.training and not model.image_llm.training


def test_a_build_that_is_broken_off_leaves_no_halves(make_linvt, video_file, tmp_path, monkeypatch):
    model, processor = make_linvt("llava")
    cache = FrameTokenCache(tmp_path / "cache", model, processor)

    def disk_full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("linvt.training.frame_token_cache.save_file", disk_full)
        with pytest.raises(OSError, match="No space left"):
            cache.build([row_of(video_file(12))])
    assert not list(cache.folder.iterdir())


def keys(cache, *videos, **kwargs) -> list[str]:
    return [cache.path(video, **kwargs).name for video in videos]


def test_files_are_told_apart(make_linvt, video_file, tmp_path):
    model, processor = make_linvt("llava")
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    path = video_file(12)
    frames = random_video(3)
    other_frame = frames.copy()
    other_frame[2, 0, 0, 0] ^= 1
    pictures = [Image.fromarray(frame) for frame in frames]
    videos = [path, video_file(12, seed=1), path.read_bytes(), frames, other_frame, frames[:2], pictures, pictures[:2]]
    before = keys(cache, *videos)
    assert len(set(before)) == len(videos)
    again = [str(path), str(video_file(12, seed=1)), bytes(path.read_bytes()), frames.copy()]
    assert keys(cache, *again, np.asfortranarray(other_frame)) == before[:5]
    link = tmp_path / "link.mp4"
    link.symlink_to(path)
    assert keys(cache, link) == before[:1]
    os.utime(path, ns=(0, 0))
    assert keys(cache, path, link)[0] not in before
    with pytest.raises(BadRowError, match="no_such.mp4': No such file"):
        cache.path("no_such.mp4")


def test_other_frames_have_other_files(make_linvt, video_file, tmp_path):
    model, processor = make_linvt("llava")
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    path = video_file(12)
    changes = [{}, {"num_frames": 4}, {"fps": 2}, {"size": {"height": 56, "width": 84}}, {"do_normalize": False}]
    changes += [
        {"shot_detection": "autoshot"},
        {"shot_detection": "auto"},
        {"shot_detection": "auto", "device": "meta"},
        {"image_mean": [0, 0, 0]},
        {"do_sample_frames": False},
    ]
    found = [cache.path(path, **change).name for change in changes]
    assert len(set(found)) == len(changes)
    assert cache.path(path, num_frames=5, on_progress=print).name == found[0]  # the number that is the default
    processor.video_processor.num_frames = 4
    assert cache.path(path).name == found[1]


def test_the_weights_of_autoshot_count(make_linvt, video_file, tmp_path):
    model, processor = make_linvt("llava")
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(content)
    options = [{"shot_detection": "autoshot", "autoshot_model": str(tmp_path / name)} for name in "abc"]
    a, b, c = (cache.path(video_file(6), **option) for option in options)
    assert a == c != b
    frames = random_video(3)
    assert len({cache.path(frames, **option) for option in options}) == 3  # settings, though nothing is detected


@each_family
def test_other_models_have_other_files(make_linvt, tmp_path, family):
    model, processor = make_linvt(family)
    fingerprint = encoder_fingerprint(model)
    with torch.no_grad():
        model.get_decoder().layers[0].mlp.up_proj.weight += 1
        model.get_output_embeddings().weight += 1
        next(model.video_tokenizer.parameters()).add_(1)
    model.config.frames_per_batch, model.config.image_llm_config.text_config.use_cache = 3, False
    assert encoder_fingerprint(model) == fingerprint  # none of these changes V
    model.save_pretrained(tmp_path / "model")
    assert encoder_fingerprint(LinVTForConditionalGeneration.from_pretrained(tmp_path / "model")) == fingerprint
    assert encoder_fingerprint(copy.deepcopy(model).to(torch.bfloat16)) != fingerprint
    for name, parameter in list(model.image_llm.named_parameters())[::3]:
        if "language" not in name and "lm_head" not in name:
            with torch.no_grad():
                value = parameter.view(-1)[-1].clone()
                parameter.view(-1)[-1] += 1
                assert encoder_fingerprint(model) != fingerprint, name
                parameter.view(-1)[-1] = value
    assert encoder_fingerprint(model) == fingerprint
    model.config.frames_per_patch = 2
    assert encoder_fingerprint(model) != fingerprint


def test_a_processor_that_was_saved_finds_its_files(make_linvt, video_file, tmp_path):
    model, processor = make_linvt("llava")
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    processor.save_pretrained(tmp_path / "processor")
    loaded = FrameTokenCache(tmp_path / "cache", model, LinVTProcessor.from_pretrained(tmp_path / "processor"))
    assert loaded.path(video_file(6)) == cache.path(video_file(6))


def test_what_is_not_there_is_an_error(make_linvt, video_file, tmp_path):
    """And no fault of a row, which could be skipped: then all rows might be."""
    model, processor = make_linvt("llava")
    rows = [row_of(video_file(6), "What?")]
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    cache.build(rows)
    for collator in (
        VideoChatCollator(processor, cache, skip_bad_rows=True, processor_kwargs={"num_frames": 3}),
        VideoChatCollator(processor, cache, skip_bad_rows=True),
    ):
        with pytest.raises(FrameTokenCacheError, match="has no tokens of .*clip_6_0.mp4.*Call build again"):
            collator(rows)
        os.utime(video_file(6), ns=(0, 0))  # for the second one the file has changed


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "misplaced", "foreign"])
def test_damaged_files_are_an_error_and_made_again(make_linvt, video_file, tmp_path, damage, caplog):
    model, processor = make_linvt("llava")
    rows = [row_of(video_file(6), "What?"), row_of(video_file(9), "Why?")]
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    cache.build(rows)
    path, other = (cache.path(video_file(number)) for number in (6, 9))
    expected, content = VideoChatCollator(processor, cache)(rows), path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "misplaced":
        path.write_bytes(other.read_bytes())
    else:
        save_file(load_file(path), path)
    with pytest.raises(FrameTokenCacheError, match=f"{path.name} is no whole file of this cache.*Delete it"):
        VideoChatCollator(processor, cache, skip_bad_rows=True)(rows)
    if damage == "flipped":  # which only reading all of it shows
        path.unlink()
    cache.build(rows)
    again = VideoChatCollator(processor, cache)(rows)
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert damage == "flipped" or "is damaged and is made again" in caplog.text


def test_videos_that_cannot_be_read_are_bad_rows(make_linvt, tmp_path, video_file, caplog):
    model, processor = make_linvt("llava")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    rows = [row_of(broken, "What?"), row_of(tmp_path / "no_such.mp4"), {"text": "no chat"}, row_of(video_file(6))]
    rows = [{**row, "row_number": number} for number, row in enumerate(rows)]
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    cache.build(rows)
    assert "broken.mp4" in caplog.text
    with pytest.raises(BadRowError, match="Row 0: .*broken.mp4': its content is not a video"):
        VideoChatCollator(processor, cache)(rows)
    collator = VideoChatCollator(processor, cache, skip_bad_rows=True)
    assert len(collator(rows)["input_ids"]) == 1 and sorted(collator.skipped) == [0, 1, 2]


def test_workers_need_no_model(make_linvt, video_file, tmp_path):
    model, processor = make_linvt("llava")
    rows = mixed_rows(video_file)[:2]
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    cache.build(rows)
    copied = pickle.loads(pickle.dumps(cache))
    assert copied.model is None
    expected = VideoChatCollator(processor, cache)(rows)
    for collator, num_workers in ((VideoChatCollator(processor, copied), 0), (VideoChatCollator(processor, cache), 1)):
        (batch,) = DataLoader(rows, batch_size=2, collate_fn=collator, num_workers=num_workers)
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_ranks_share_the_work(make_linvt, video_file, tmp_path, monkeypatch):
    """Of all videos, not of those that are missing: these change while others work, and some would be nobody's."""
    model, processor = make_linvt("llava")
    rows = [row_of(video_file(number)) for number in (6, 7, 8, 9, 6)]
    cache = FrameTokenCache(tmp_path / "cache", model, processor)

    def build(rank: int) -> None:
        state = SimpleNamespace(process_index=rank, num_processes=3)
        monkeypatch.setattr("linvt.training.frame_token_cache.PartialState", lambda: state)
        cache.build(rows)

    def made() -> list[int]:
        return [number for number in (6, 7, 8, 9) if cache.path(video_file(number)).exists()]

    build(1)
    assert made() == [7]
    build(0)  # rank 1 is done by now
    assert made() == [6, 7, 9]
    build(2)
    assert made() == [6, 7, 8, 9]


def test_wrong_tokens_are_refused(make_linvt, video_file, tmp_path):
    model, processor = make_linvt("llava")
    rows = [row_of(video_file(12), "What?"), row_of(video_file(6), "Why?")]
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    cache.build(rows)
    batch = VideoChatCollator(processor, cache)(rows)
    with pytest.raises(
        ValueError, match="video_frame_tokens are given, but the vision encoder or the projector learns"
    ):
        model(**batch)
    frozen(model)
    tokens, grid = batch["video_frame_tokens"], batch["video_token_grid"]
    for wrong in (tokens[:-1], tokens[:, :-1], tokens[:, 0]):
        with pytest.raises(ValueError, match="video_frame_tokens have shape"):
            model(**{**batch, "video_frame_tokens": wrong})
    with pytest.raises(ValueError, match="video_token_grid is .*the same for all"):
        model(**{**batch, "video_token_grid": torch.tensor([[4, 4], [2, 8]])})
    with pytest.raises(ValueError, match="either pixel_values_videos, or video_frame_tokens with"):
        model(**batch, pixel_values_videos=torch.zeros(10, 3, 56, 56))
    batch.pop("video_token_grid")
    with pytest.raises(ValueError, match="without video_token_grid"):
        model(**batch)
    assert grid.tolist() == [[4, 4], [4, 4]]


def test_the_dtype_of_the_encoder_is_kept(make_linvt, video_file, tmp_path):
    model, processor = make_linvt("llava")
    cache = FrameTokenCache(tmp_path / "cache", model.to(torch.bfloat16), processor)
    cache.build([row_of(video_file(6))])
    assert cache.load(video_file(6))["video_frame_tokens"].dtype == torch.bfloat16
    with safe_open(cache.path(video_file(6)), framework="pt") as file:
        assert file.get_slice("video_frame_tokens").get_shape() == [5, 16, 32]


# Of V with the weights and the pictures below: mean, spread, and the mean weighted by place, which an other order of
# rows and columns changes; rows and columns; times of the frames. If linvt gives others now, add one to `CONVENTIONS`
# in frame_token_cache.py, so that V of before is not taken for V of now, and write them here.
V_OF_CONVENTIONS = {
    1: {
        "llava": (-0.0194, 1.1978, 0.1404, [4, 4]),
        "llava_onevision": (-0.0004, 2.0033, 0.1568, [4, 4]),
        "internvl": (0.0170, 0.9361, -0.1163, [2, 2]),
        "qwen2_vl": (0.0206, 1.4380, 0.2787, [2, 2]),
    },
}
SECONDS_OF_CONVENTIONS = {1: [1, 3, 6, 8, 10]}


@each_family
def test_other_conventions_have_another_number(make_linvt, tmp_path, family):
    model, processor = make_linvt(family)
    with torch.no_grad():
        for number, weight in enumerate(model.image_llm.parameters()):
            weight.copy_((torch.arange(weight.numel()) * 0.7 + number).sin().view(weight.shape) / 4)
    frame, row, column = np.ogrid[:12, :60, :80]
    brightness = 128 + 100 * np.sin(frame + row / 9) * np.cos(column / 7 + frame / 3)
    video = np.stack([brightness, 255 - brightness, brightness / 2], axis=-1).astype(np.uint8)
    cache = FrameTokenCache(tmp_path / "cache", model, processor)
    cache.build([row_of(video)])
    kept = cache.load(video)
    tokens = kept["video_frame_tokens"].flatten().double()
    by_place = 100 * (tokens * torch.arange(len(tokens)).double().cos()).mean()
    found = [tokens.mean(), tokens.std(), by_place]
    *expected, grid = V_OF_CONVENTIONS[CONVENTIONS][family]
    assert torch.stack(found).tolist() == pytest.approx(expected, abs=0.01)
    assert kept["video_token_grid"].tolist() == [grid]
    assert (kept["video_milliseconds"] / 1000).tolist() == SECONDS_OF_CONVENTIONS[CONVENTIONS]
