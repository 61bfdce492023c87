"""Memories of videos: seen in any pieces, merged in any order, they are those of the whole, and answer as it does."""

import itertools
import json

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, random_video, user_turn
from transformers import pipeline

from linvt import LinVTForConditionalGeneration
from linvt.streaming_encoder import StreamingEncoder
from linvt.training.training_stages import lora_for_instruction
from linvt.video_tokenizer.video_memory import VideoMemory


each_family = pytest.mark.parametrize("family", FAMILIES)
SHOTS = [0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]
SETTINGS = {
    "merging": {},
    "shot": {"temporal_attention": "shot"},
    "shot_random": {"temporal_attention": "shot", "start": "random"},
    "svr_only": {"temporal_attention": "shot", "use_tta": False, "text_conditioning": False},
    "text_off": {"temporal_attention": "shot", "text_conditioning": False},
    "multi_b": {"temporal_attention": "shot", "multi_scale": "multi_b"},
    "multi_a": {"temporal_attention": "shot", "multi_scale": "multi_a"},
    "single": {"temporal_attention": "shot", "multi_scale": "single"},
}
each_setting = pytest.mark.parametrize("setting", SETTINGS)


def video_of(processor, shots=SHOTS, seed=0, start_milliseconds=0) -> dict:
    """A video of noise with these shots; frames of a shot are alike."""
    rng = torch.Generator().manual_seed(seed)
    pictures = torch.randn(max(shots) + 1, 3, 56, 56, generator=rng)[shots]
    return {
        "pixel_values_videos": pictures + 0.3 * torch.randn(pictures.shape, generator=rng),
        "video_milliseconds": start_milliseconds + 130 * torch.arange(len(shots)),
        "video_shot_ids": torch.tensor(shots),
    }


def cut(video: dict, *places: int) -> list[dict]:
    """A video in pieces, from one place to the next."""
    ends = [*places, len(video["video_milliseconds"])]
    return [
        {name: value[start:end] for name, value in video.items()}
        for start, end in zip([0, *places], ends, strict=True)
    ]


def make_model(make_linvt, make_untrained, family, setting, **settings):
    """A trained model, but for `"merging"`, whose scores are the prior."""
    make = make_untrained if setting == "merging" else make_linvt
    model, processor = make(family, **{**SETTINGS[setting], "max_shot_frames": 4, **settings})
    return model.eval(), processor


def assert_same(memory: VideoMemory, other: VideoMemory) -> None:
    assert memory.span_seconds == other.span_seconds and memory.num_frames == other.num_frames
    for name in ("seconds", "places", "shots"):
        assert torch.equal(getattr(memory, name), getattr(other, name)), name
    for name in ("tokens", "scores", "score_bias"):
        torch.testing.assert_close(getattr(memory, name), getattr(other, name), rtol=1e-4, atol=1e-5)


def in_one_pass(model, video: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The kept tokens, their times and places, as `forward` of the video tokenizer chooses them."""
    tokens, grid = model.encode_video(video["pixel_values_videos"], video["video_shot_ids"])
    seconds = video["video_milliseconds"] / 1000
    scored = model.video_tokenizer.score(tokens[None], grid, seconds[None], video["video_shot_ids"][None])
    kept = scored.select(model.video_tokenizer.refiner.select(scored.scores))
    return kept.tokens[0], kept.seconds[0], kept.places[0]


@each_family
@each_setting
@torch.no_grad()
def test_any_pieces_give_what_one_pass_keeps(make_linvt, make_untrained, family, setting):
    model, processor = make_model(make_linvt, make_untrained, family, setting)
    model.config.frames_per_batch = 3
    video = video_of(processor)
    tokens, seconds, places = in_one_pass(model, video)
    whole = model.see([video])
    assert torch.equal(whole.seconds, seconds) and torch.equal(whole.places, places)
    torch.testing.assert_close(whole.tokens, tokens, rtol=1e-4, atol=1e-5)
    assert len(whole) == min(40, 13 * whole.grid[0] * whole.grid[1]) and whole.num_frames == 13
    for pieces in (cut(video, *range(1, 13)), cut(video, 1), cut(video, 4, 5, 11)):
        assert_same(model.see(pieces), whole)


@each_setting
@torch.no_grad()
def test_memories_of_parts_merge_in_any_order(make_linvt, make_untrained, setting):
    model, processor = make_model(make_linvt, make_untrained, "llava", setting)
    video = video_of(processor)
    whole = model.see([video])
    # At cuts, and between the windows of the long shot.
    parts = [model.see([part]) for part in cut(video, 2, 5, 10)]
    for order in itertools.permutations(parts):
        assert_same(VideoMemory.merge(*order), whole)
    first, second, third, fourth = parts
    assert_same(VideoMemory.merge(VideoMemory.merge(fourth, first), VideoMemory.merge(third, second)), whole)
    assert_same(VideoMemory.merge(VideoMemory.merge(first, third), fourth, second), whole)
    assert VideoMemory.merge(first) is first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_ties_are_broken_by_time_and_place(make_untrained, dtype):
    """Every shot shows the same still picture: of its tokens, all are equally new in every shot."""
    model, processor = make_untrained("llava", top_k=22)
    model = model.to(dtype)
    shots = [0, 1, 2, 3, 4]
    video = video_of(processor, shots)
    video["pixel_values_videos"][:] = video["pixel_values_videos"][0]
    whole = model.see([video])
    assert whole.tokens.dtype == dtype and len(whole) == 22
    parts = [model.see([part]) for part in cut(video, 1, 2, 3, 4)]
    assert_same(VideoMemory.merge(*reversed(parts)), whole)
    best = whole.scores.min()
    everything = torch.cat([part.scores for part in parts])
    assert int((everything == best).sum()) > int((whole.scores == best).sum())  # so some of the equals had to go
    of_the_worst = whole.seconds[whole.scores == best]
    assert torch.equal(of_the_worst, of_the_worst.sort().values) and of_the_worst[0] == 0


@each_family
@torch.no_grad()
def test_answers_are_those_about_the_video(make_linvt, family):
    model, processor = make_linvt(family, temporal_attention="shot", max_shot_frames=4)
    frames = random_video(9)
    memory = model.see([processor.video_processor([frames], num_frames=9)])
    chats = [[user_turn(question, video)] for question in ("Who?", "What happens then?") for video in (frames, memory)]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    answers, weights = [], []
    for chat in chats:
        inputs = processor.apply_chat_template(chat, **options, processor_kwargs={"num_frames": 9})
        answers.append(model.generate(**inputs, max_new_tokens=8, do_sample=False).tolist())
        weights.append(model(**inputs, output_token_weights=True).video_token_weights[0])
    assert answers[0] == answers[1] != answers[2] == answers[3]
    # W of a memory is that of its tokens; of the video it is 0 everywhere else.
    for of_video, of_memory in (weights[:2], weights[2:]):
        used = of_video.sum(0) > 0
        torch.testing.assert_close(of_video[:, used], of_memory, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(of_memory.sum(1), torch.ones(len(of_memory)))


@torch.no_grad()
def test_batches_mix_memories_and_videos(make_linvt, tmp_path):
    model, processor = make_linvt("llava", temporal_attention="shot")
    videos = [random_video(number, seed=number) for number in (4, 7, 5)]
    seen = [model.see([processor.video_processor([video], num_frames=8)]) for video in videos]
    seen[1].save(tmp_path / "b.memory.safetensors")
    options = {
        "tokenize": True,
        "return_dict": True,
        "return_tensors": "pt",
        "processor_kwargs": {"num_frames": 8, "padding": True},
    }

    def logits(*videos):
        parts = [{"type": "video", "video": video} for video in videos[:2]]
        two = [{"role": "user", "content": [*parts, {"type": "text", "text": "Which is longer?"}]}]
        inputs = processor.apply_chat_template([two, user_turn("Who?", videos[2])], **options)
        return model(**inputs).logits, inputs

    expected, _ = logits(*videos)
    for mixed in ((videos[0], str(tmp_path / "b.memory.safetensors"), seen[2]), (seen[0], videos[1], videos[2]), seen):
        found, inputs = logits(*mixed)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert "pixel_values_videos" not in inputs and inputs["video_num_frames"].tolist() == [0, 0, 0]


def test_the_pipeline_takes_memories(make_linvt, tmp_path):
    model, processor = make_linvt("llava", temporal_attention="shot")
    frames = random_video(5)
    memory = model.see([processor.video_processor([frames])])
    memory.save(tmp_path / "x.memory.safetensors")
    pipe = pipeline("video-text-to-text", model=model, processor=processor)
    asked = {"text": "Who?", "max_new_tokens": 5, "do_sample": False}
    expected = pipe(frames, **asked)[0]["generated_text"]
    assert pipe(memory, **asked)[0]["generated_text"] == expected
    videos = [memory, str(tmp_path / "x.memory.safetensors"), frames]
    answers = pipe(videos, **asked, batch_size=3)
    assert [answer[0]["generated_text"] for answer in answers] == [expected] * 3


@each_setting
@torch.no_grad()
def test_seen_so_far_is_the_memory_of_the_part(make_linvt, make_untrained, setting):
    """At every moment, even within a shot and a batch of the encoder; and looking changes nothing."""
    model, processor = make_model(make_linvt, make_untrained, "qwen2_vl", setting, top_k=24)
    model.config.frames_per_batch, model.config.frames_per_patch = 4, 2
    video, encoder = video_of(processor), StreamingEncoder(model)
    for number, frame in enumerate(cut(video, *range(1, 13)), start=1):
        encoder.add(**frame)
        assert_same(encoder.memory(), model.see(cut(video, number)[:1]))


@pytest.mark.parametrize("frames_per_patch", [1, 2])
@torch.no_grad()
def test_who_goes_on_from_a_closed_part_ends_the_same_bit_by_bit(make_linvt, frames_per_patch):
    model, processor = make_linvt("qwen2_vl", temporal_attention="shot", max_shot_frames=2)
    model.config.frames_per_batch, model.config.frames_per_patch = 3 * frames_per_patch, frames_per_patch
    video, encoder, closed = video_of(processor), StreamingEncoder(model), []
    for frame in cut(video, *range(1, 13)):
        encoder.add(**frame)
        closed.append(encoder.closed_part())
    whole = encoder.memory()
    for part in closed:
        again = StreamingEncoder(model, part)
        again.add(**{name: value[part.next_frame :] for name, value in video.items()})
        memory = again.memory()
        assert_same(memory, whole)
        assert torch.equal(memory.tokens, whole.tokens) and torch.equal(memory.scores, whole.scores)
    assert any(part.num_skipped for part in closed) and closed[-1].memory.num_frames > 5


@each_setting
@torch.no_grad()
def test_a_memory_knows_when_its_shots_begin_and_the_video_ends(make_linvt, make_untrained, setting):
    """Though nothing is kept of the end, which shows the same as the frame before."""
    model, processor = make_model(make_linvt, make_untrained, "llava", setting, top_k=20)
    video = video_of(processor, [0, 0, 1, 1, 1, 1, 1, 1, 1])
    video["pixel_values_videos"][3:] = video["pixel_values_videos"][2]
    memory = model.see(cut(video, 5))
    assert memory.span_seconds == pytest.approx((0, 1.04)) and memory.num_frames == 9
    starts = torch.tensor([0, 260, 780])  # the second shot is as long as two windows
    window = torch.searchsorted(starts, (1000 * memory.seconds.double()).round().long(), right=True) - 1
    assert torch.equal(memory.shots, starts[window])
    if setting == "merging":
        assert memory.seconds.max() < 1
    inputs = {
        "grid": memory.grid,
        "instruction_embeds": torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1)),
    }
    tokens, _ = model.encode_video(video["pixel_values_videos"], video["video_shot_ids"])
    frames = {"frame_seconds": video["video_milliseconds"][None] / 1000, "shot_ids": video["video_shot_ids"][None]}
    expected = model.video_tokenizer(tokens[None], **frames, **inputs).video_tokens
    found = model.video_tokenizer(None, kept_tokens=memory.scored_tokens("cpu"), **inputs).video_tokens
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_is_held_does_not_grow_with_the_video(make_linvt, monkeypatch):
    """However long a shot is, as many frames are scored at once as a window has, and as many encoded as a batch."""
    model, processor = make_linvt("llava", temporal_attention="shot", max_shot_frames=4)
    model.config.frames_per_batch = 3
    scored, encoded = [], []
    score, encode = model.video_tokenizer.score, model.get_frame_tokens

    def spy_on_score(frame_tokens, *args):
        scored.append(frame_tokens.shape[1])
        return score(frame_tokens, *args)

    def spy_on_encode(frames, *args):
        encoded.append(len(frames))
        return encode(frames, *args)

    monkeypatch.setattr(model.video_tokenizer, "score", spy_on_score)
    monkeypatch.setattr(model, "get_frame_tokens", spy_on_encode)
    memory = model.see(cut(video_of(processor, [0] * 50), *range(1, 50)))
    assert scored == [4] * 12 + [2] and encoded == [3] * 16 + [2] and len(memory) == 40


@torch.no_grad()
def test_learnt_scores_that_look_at_the_whole_video_are_given_once(make_linvt):
    model, processor = make_linvt("llava", temporal_attention="video")
    video = video_of(processor)
    tokens, seconds, places = in_one_pass(model, video)
    memory = model.see(cut(video, 3, 8))
    torch.testing.assert_close(memory.tokens, tokens, rtol=1e-4, atol=1e-5)
    assert torch.equal(memory.seconds, seconds) and torch.equal(memory.places, places)
    other = model.see([video_of(processor, start_milliseconds=10_000)])
    with pytest.raises(ValueError, match="temporal_attention='shot'"):
        VideoMemory.merge(memory, other)


@torch.no_grad()
def test_a_file_holds_all_and_is_always_the_same(make_linvt, tmp_path):
    model, processor = make_linvt("llava", temporal_attention="shot")
    memory, path = model.see([video_of(processor)]), tmp_path / "x.memory.safetensors"
    memory.save(path)
    content = path.read_bytes()
    VideoMemory.load(path).save(path)
    assert path.read_bytes() == content
    assert_same(VideoMemory.load(path), memory)
    with pytest.raises(ValueError, match=r"\.memory\.safetensors"):
        memory.save(tmp_path / "x.safetensors")


@torch.no_grad()
def test_files_that_are_no_memories_are_refused(make_linvt, tmp_path):
    model, processor = make_linvt("llava", temporal_attention="shot")
    path = tmp_path / "x.memory.safetensors"
    model.see([video_of(processor)]).save(path)
    content = path.read_bytes()
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    known = json.loads(about["linvt_video_memory"])

    def saved(changed=None, **settings):
        settings = json.dumps({**known, **settings})
        save_file({**tensors, **(changed or {})}, path, metadata={"linvt_video_memory": settings})

    def fails(match):
        with pytest.raises(ValueError, match=match):
            VideoMemory.load(path)
        with pytest.raises(ValueError, match=match):
            processor.video_processor([str(path)])

    path.write_bytes(content[:-5])
    fails("damaged")
    path.write_bytes(b"hello")
    fails("damaged")
    save_file(tensors, path)
    fails("not a memory")
    saved(version=9)
    fails("version 9")
    saved({"places": tensors["places"] + 1000})
    fails("4 x 4")
    saved({"seconds": tensors["seconds"].flip(0)})
    fails("order of time")
    saved({"scores": tensors["scores"] * float("nan")})
    fails("not only numbers")
    saved({"scores": tensors["scores"][1:]})
    fails("tokens|scores")
    saved({"tokens": tensors["tokens"].int()})
    fails("int32")
    saved(colour="red")
    fails("colour")
    seconds = tensors["seconds"].clone()
    seconds[2] = float("nan")
    saved({"seconds": seconds})
    fails("not only numbers")
    odd_settings = {
        "grid": ([4], [-4, -4], [4.5, 4], "44", [True, 16]),
        "spans_seconds": ([], [[0]], [[0, 1, 2]], [[5, 0]], [["0", "9"]], [0, 9]),
        "num_frames": ("13", 0, None),
        "top_k": (None, 2.5),
        "encoder": (5,),
        "scorer": (None,),
        "mergeable": ("no", 1),
    }
    for name, values in odd_settings.items():
        for value in values:
            saved(**{name: value})
            fails(f"damaged: {name} is")
    saved(spans_seconds=[[0, float("nan")]])
    fails("order of time")
    path.unlink()
    with pytest.raises(ValueError, match="no memory of a video at"):
        processor.video_processor([str(path)])


@torch.no_grad()
def test_a_memory_of_another_model_is_refused_with_the_reason(make_linvt, make_untrained, ask):
    model, processor = make_linvt("llava", temporal_attention="shot")
    memory = model.see([video_of(processor)])
    memory.name = "lecture"
    inputs = ask(processor, memory, "Who?")
    model(**inputs)
    model.video_tokenizer.aggregator.key_proj.weight.add_(1)  # TTA comes with the question
    model.get_decoder().layers[0].mlp.up_proj.weight.add_(1)
    model(**inputs)
    model.video_tokenizer.refiner.score_weight.add_(1)
    with pytest.raises(ValueError, match="lecture was made by another SVR"):
        model(**inputs)
    model.video_tokenizer.refiner.score_weight.sub_(1)
    next(model.image_llm.model.vision_tower.parameters()).add_(1)
    with pytest.raises(ValueError, match="lecture was made by another encoder"):
        model(**inputs)
    model, processor = make_untrained("llava")
    inputs = ask(processor, model.see([video_of(processor)]), "Who?")
    model.video_tokenizer.token_proj.weight.add_(1)  # has no influence before anything is learnt
    model(**inputs)
    model.config.video_tokenizer_config.max_shot_frames += 1
    with pytest.raises(ValueError, match="another SVR"):
        model(**inputs)


@pytest.mark.parametrize("settings", [{"model_type": "red_villm_video"}, {"use_svr": False, "multi_scale": "single"}])
def test_who_keeps_no_tokens_has_no_memory(image_llm, settings):
    model = LinVTForConditionalGeneration.from_image_llm(image_llm("llava")[0], settings)
    with pytest.raises(ValueError, match="keeps no tokens"):
        model.see([])


@torch.no_grad()
def test_a_video_tokenizer_that_peft_wraps_sees_and_remembers(make_linvt, ask):
    model, processor = make_linvt("llava", temporal_attention="shot")
    video = video_of(processor)
    memory = model.see([video])
    inputs = ask(processor, memory, "Who?")
    expected = model(**inputs).logits
    tuned = get_peft_model(model, lora_for_instruction(model, r=2)).eval()
    assert_same(tuned.see([video]), memory)
    torch.testing.assert_close(tuned(**inputs).logits, expected)
    model.video_tokenizer.refiner.score_weight.add_(1)  # of the copy that learns
    with pytest.raises(ValueError, match="another SVR"):
        tuned(**inputs)
    with tuned.disable_adapter():
        torch.testing.assert_close(tuned(**inputs).logits, expected)
    with pytest.raises(ValueError, match="another SVR"):
        tuned(**inputs)


@torch.inference_mode()
def test_a_model_that_is_made_in_inference_mode_sees_and_notices_changes(image_llm):
    torch.manual_seed(0)
    model = LinVTForConditionalGeneration.from_image_llm(image_llm("llava")[0], {"hidden_size": 32}).eval()
    memory = model.see([video_of(None)])
    assert memory.scorer == model.see([video_of(None)]).scorer
    next(model.image_llm.model.vision_tower.parameters()).add_(1)
    assert model.see([video_of(None)]).encoder != memory.encoder


@pytest.mark.parametrize("memories", [["x.memory.safetensors"], [{}], "x.memory.safetensors", 3])
def test_what_is_no_memory_is_named(make_linvt, ask, memories):
    model, processor = make_linvt("llava", temporal_attention="shot")
    memory = model.see([video_of(processor)])
    inputs = ask(processor, memory, "Who?")
    with pytest.raises(TypeError, match="video_memories"):
        model(**{**inputs, "video_memories": memories})
    with pytest.raises(TypeError, match="video_memories"):
        model(**{**inputs, "video_memories": memory})


@torch.no_grad()
def test_what_belongs_to_frames_is_refused_beside_memories_alone(make_linvt, ask):
    model, processor = make_linvt("llava", temporal_attention="shot")
    inputs = ask(processor, model.see([video_of(processor)]), "Who?")
    for name, value in (("video_milliseconds", torch.zeros(5)), ("pixel_values_videos", torch.zeros(5, 3, 56, 56))):
        with pytest.raises(ValueError, match=name):
            model(**inputs, **{name: value})


@torch.no_grad()
def test_a_memory_of_other_channels_is_refused_though_its_fingerprints_fit(make_linvt, ask):
    model, processor = make_linvt("llava", temporal_attention="shot")
    memory = model.see([video_of(processor)])
    memory.tokens = memory.tokens[:, :8]
    with pytest.raises(ValueError, match="8 channels"):
        model(**ask(processor, memory, "Who?"))


@torch.no_grad()
def test_odd_pieces_are_named(make_linvt):
    model, processor = make_linvt("llava", temporal_attention="shot")
    video = video_of(processor)
    for no_pieces in ("lecture.mp4", video, [{}], [video["pixel_values_videos"]]):
        with pytest.raises(TypeError, match="pixel_values_videos"):
            model.see(no_pieces)
    with pytest.raises(ValueError, match="No frame"):
        model.see([])
    with pytest.raises(ValueError, match="1430 ms|1560 ms"):
        model.see([video, video])
    with pytest.raises(ValueError, match=r"\(12,\)"):
        model.see([{**video, "video_milliseconds": video["video_milliseconds"][1:]}])
    smaller = {**video_of(processor, start_milliseconds=9000)}
    smaller["pixel_values_videos"] = smaller["pixel_values_videos"][..., :28, :28]
    with pytest.raises(ValueError, match="28"):
        model.see([video, smaller])
    with pytest.raises(ValueError, match="2 videos"):
        model.see([processor.video_processor([random_video(3), random_video(3)])])
    memory = model.see([video])
    with pytest.raises(ValueError, match="show the same time"):
        VideoMemory.merge(memory, memory)
    with pytest.raises(ValueError, match="top_ks"):
        other = make_linvt("llava", temporal_attention="shot", top_k=20)[0]
        VideoMemory.merge(memory, other.see([video_of(processor, start_milliseconds=9000)]))
    with pytest.raises(ValueError, match="at least one"):
        VideoMemory.merge()


def test_training_refuses_a_memory(make_linvt):
    from linvt.training.chat_prompts import read_video_inputs
    from linvt.training.training_rows import BadRowError

    model, processor = make_linvt("llava", temporal_attention="shot")
    memory = model.see([video_of(processor)])
    memory.name = "lecture"
    with pytest.raises(BadRowError, match="lecture is a memory"):
        read_video_inputs(memory, processor, {})
