import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, random_video, user_turn
from tiny_models import tiny_llava
from transformers.utils.logging import warning_once

from linvt import AutoShotConfig, AutoShotModel, LinVTProcessor, LinVTVideoProcessor, VideoReadError
from linvt.processors.shots.shot_cascade import ShotCascade


each_family = pytest.mark.parametrize("family", FAMILIES)
OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}


@each_family
def test_a_video_is_presented_as_one_image(make_linvt, image_llm, family):
    """The prompt is, character for character, the image-LLM's own for an image, but for the number of tokens."""
    _, processor = make_linvt(family)
    _, original = image_llm(family)
    question = {"type": "text", "text": "What is it?"}
    chats = [
        [{"role": "user", "content": [{"type": kind, kind: content}, question]}]
        for kind, content in (("video", random_video(4)), ("image", Image.fromarray(random_video(1)[0])))
    ]
    prompts = [
        tool.decode(tool.apply_chat_template(chat, add_generation_prompt=True, **OPTIONS)["input_ids"][0])
        for tool, chat in zip((processor, original), chats, strict=True)
    ]
    before, *_, after = prompts[1].split(processor.image_token)
    assert prompts[0] == before + processor.image_token * 12 + after


@each_family
def test_rendering_first_and_tokenizing_later_gives_the_same(make_linvt, family):
    _, processor = make_linvt(family)
    videos, picture = [random_video(4), random_video(7, seed=1)], Image.fromarray(random_video(1)[0])
    content = user_turn(videos[0], "First, then ", videos[1], "what?")[0]["content"]
    content.insert(1, {"type": "image", "image": picture})
    chat = [{"role": "user", "content": content}]
    direct = processor.apply_chat_template(chat, add_generation_prompt=True, **OPTIONS)
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert prompt.count(processor.video_token) == 2 and prompt.count(processor.image_token) == 1
    later = processor(text=prompt, images=[picture], videos=videos, return_tensors="pt")
    assert direct.keys() == later.keys()
    assert all(torch.equal(direct[name], later[name]) for name in direct)


@each_family
def test_the_instruction_is_marked(make_linvt, family):
    _, processor = make_linvt(family)
    chat = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *user_turn("Look at ", random_video(4), "and say: what is it?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        *user_turn("Sure?"),
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        *user_turn(random_video(3), "And this?"),
    ]
    inputs = processor.apply_chat_template(chat, **OPTIONS)
    ids, types, turns = (inputs[name][0] for name in ("input_ids", "mm_token_type_ids", "instruction_turns"))
    texts = [processor.decode(ids[(turns == number) & (types == 0)]) for number in (1, 2)]
    assert [" ".join(text.split()) for text in texts] == ["Look at and say: what is it?", "And this?"]
    assert turns[types == 2].tolist() == [1] * 12 + [2] * 12
    assert set(ids[types == 2].tolist()) == {processor.image_token_id}
    assert turns.max() == 2


@each_family
def test_masks_of_the_answers(make_linvt, family):
    _, processor = make_linvt(family)
    chat = [
        *user_turn(random_video(4), "What is it?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        *user_turn("And this? ", random_video(3)),
        {"role": "assistant", "content": [{"type": "text", "text": "Two dogs."}]},
    ]
    inputs = processor.apply_chat_template(chat, return_assistant_tokens_mask=True, **OPTIONS)
    answers = inputs["input_ids"][inputs["assistant_masks"].bool()]
    assert processor.decode(answers) == "A cat.Two dogs."


@each_family
def test_batches_are_padded(make_linvt, family):
    _, processor = make_linvt(family)
    chats = [user_turn(random_video(4), "What is it?"), user_turn(random_video(2), "Who?")]
    batch = processor.apply_chat_template(chats, processor_kwargs={"padding": True}, **OPTIONS)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "instruction_turns"):
        assert batch[name].shape == batch["input_ids"].shape
    padding = batch["attention_mask"] == 0
    assert padding[1].any() and not batch["instruction_turns"][padding].any()
    assert batch["video_num_frames"].tolist() == [4, 2]
    assert batch["video_shot_ids"].tolist() == [0] * 6
    assert batch["pixel_values_videos"].shape == (6, 3, 56, 56)


@each_family
def test_conversations_without_videos_are_the_image_llms_own(make_linvt, image_llm, family):
    _, processor = make_linvt(family)
    _, original = image_llm(family)
    chats = [
        [{"role": "user", "content": "Just text."}],
        [{"role": "user", "content": [{"type": "image", "image": Image.fromarray(random_video(1)[0])}]}],
    ]
    for chat in chats:
        for kwargs in ({}, OPTIONS, {**OPTIONS, "add_generation_prompt": True}):
            got, expected = (tool.apply_chat_template(chat, **kwargs) for tool in (processor, original))
            if isinstance(expected, str):
                assert got == expected
            else:
                assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)
    text = original.apply_chat_template(chats[1])
    image = chats[1][0]["content"][0]["image"]
    got, expected = (tool(text=text, images=image, return_tensors="pt") for tool in (processor, original))
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_the_forms_of_a_video_give_the_same(make_linvt, video_file, tmp_path):
    _, processor = make_linvt("llava")
    frames = random_video(6)
    pictures = [Image.fromarray(frame) for frame in frames]
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(str(tmp_path / f"{number}.png"))
        picture.save(paths[-1])
    forms = [
        frames,
        torch.from_numpy(frames),
        torch.from_numpy(frames).permute(0, 3, 1, 2),
        list(frames),
        pictures,
        paths,
    ]
    expected = processor.apply_chat_template(user_turn(frames, "What?"), **OPTIONS)
    for form in forms:
        chat = [{"role": "user", "content": [{"type": "video", "video": form}, {"type": "text", "text": "What?"}]}]
        inputs = processor.apply_chat_template(chat, **OPTIONS)
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    path = video_file(12)
    expected = processor.apply_chat_template(user_turn(path, "What?"), **OPTIONS)
    for part in (
        {"type": "video", "url": str(path)},
        {"type": "video", "path": str(path)},
        {"type": "video", "video": path.read_bytes()},
        {"type": "video_url", "video_url": {"url": str(path)}},
    ):
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}], **OPTIONS
        )
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def test_times_come_from_the_file(make_linvt, video_file):
    _, processor = make_linvt("llava")
    video = processor.video_processor(video_file(20, fps=10), num_frames=4, return_tensors="pt")
    assert video["video_milliseconds"].tolist() == [200, 700, 1200, 1700]  # the middles of four quarters
    video = processor.video_processor(video_file(20, fps=10), fps=2, return_tensors="pt")
    assert video["video_milliseconds"].tolist() == [200, 700, 1200, 1700]
    video = processor.video_processor(video_file(20, fps=10), do_sample_frames=False, return_tensors="pt")
    assert video["video_milliseconds"].tolist() == list(range(0, 2000, 100))


def test_all_frames_of_an_array_without_a_number(make_linvt):
    _, processor = make_linvt("llava")
    unlimited = LinVTVideoProcessor(num_frames=None)
    for read, options in ((unlimited, {}), (processor.video_processor, {"do_sample_frames": False})):
        video = read(random_video(8), return_tensors="pt", **options)
        assert video["pixel_values_videos"].shape[0] == 8


def test_weights_that_are_not_needed_may_be_missing(make_linvt, video_file, tmp_path):
    _, processor = make_linvt("llava")
    expected = processor.video_processor(video_file(12), shot_detection="uniform", return_tensors="pt")
    for missing in ("checkpoint:autoshot", str(tmp_path / "nothing")):
        processor.video_processor.autoshot_model = missing
        got = processor.video_processor(video_file(12), shot_detection="uniform", return_tensors="pt")
        assert all(torch.equal(got[name], expected[name]) for name in expected)
        with pytest.raises((ValueError, OSError), match="AutoShot weights|nothing"):
            processor.video_processor(video_file(12), shot_detection="autoshot", return_tensors="pt")


def test_metadata_of_frames_is_honoured(make_linvt):
    _, processor = make_linvt("llava")
    read = processor.video_processor
    metadata = {"fps": 4.0, "total_num_frames": 8}
    video = read(random_video(8), video_metadata=metadata, num_frames=2, return_tensors="pt")
    assert video["video_milliseconds"].tolist() == [500, 1500]
    metadata = [{"fps": 4.0, "total_num_frames": 80, "frames_indices": [0, 30, 44]}]
    video = read(random_video(3), video_metadata=metadata, return_tensors="pt", return_metadata=True)
    assert video["video_milliseconds"].tolist() == [0, 7500, 11000]
    assert video["video_metadata"][0].total_num_frames == 80


def test_fps_of_frames_taken_from_a_longer_video(make_linvt):
    """Eight frames span 7.1 s: two per second are all of them, one per two seconds half of them."""
    _, processor = make_linvt("llava")
    metadata = {"fps": 10.0, "total_num_frames": 900, "frames_indices": list(range(305, 380, 10))}
    for fps, num_frames in ((2, 8), (0.5, 4)):
        video = processor.video_processor(random_video(8), video_metadata=metadata, fps=fps, return_tensors="pt")
        assert video["pixel_values_videos"].shape[0] == num_frames


def test_times_survive_a_cast_to_bfloat16(make_linvt):
    _, processor = make_linvt("llava")
    metadata = {"fps": 1.0, "total_num_frames": 9000, "frames_indices": [7001, 7002]}
    video = processor.video_processor(random_video(2), video_metadata=metadata, return_tensors="pt")
    assert video.to(torch.bfloat16)["video_milliseconds"].tolist() == [7001000, 7002000]


def test_frames_without_times_are_warned_about(make_linvt, caplog):
    _, processor = make_linvt("llava")
    warning_once.cache_clear()
    video = processor.video_processor(random_video(3), return_tensors="pt")
    assert "times are unknown" in caplog.text
    assert video["video_milliseconds"].tolist() == [0, 1000, 2000]


@each_family
def test_frames_are_normalised_like_images(image_llm, family):
    """A frame of the final size comes out as the image processor's pixels (Qwen2-VL: as its patches)."""
    _, original = image_llm(family)
    size = {"height": 56, "width": 56}
    video_processor = LinVTVideoProcessor.from_image_processor(original.image_processor, size)
    frame = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    pixels = video_processor(frame[None], return_tensors="pt")["pixel_values_videos"][0]
    image = original.image_processor(Image.fromarray(frame), return_tensors="pt")["pixel_values"]
    if family == "qwen2_vl":
        image = image.view(2, 2, 2, 2, 3, 2, 14, 14)[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(3, 56, 56)
    else:
        image = image.flatten(0, -4)[0]
    torch.testing.assert_close(pixels, image, rtol=0, atol=1e-5)


def test_frames_are_squashed_whole_with_the_image_llms_resampling():
    frame = random_video(1, height=72, width=128)[0]
    _, original = tiny_llava()
    video_processor = LinVTVideoProcessor.from_image_processor(original.image_processor)
    assert video_processor.size == {"height": 56, "width": 56}
    pixels = video_processor(frame[None], return_tensors="pt", do_normalize=False)["pixel_values_videos"][0]
    reference = np.asarray(Image.fromarray(frame).resize((56, 56), Image.Resampling.BICUBIC)) / 255
    assert np.abs(pixels.permute(1, 2, 0).numpy() - reference).max() < 2.5 / 255


def test_the_model_says_how_large_frames_are_and_how_many_tokens_a_video_is(make_linvt, image_llm):
    """Where images may have any size, nothing else does; what is given by hand counts, unless it is impossible."""
    model, _ = make_linvt("qwen2_vl")
    _, original = image_llm("qwen2_vl")
    with pytest.raises(ValueError, match="Qwen2VLImageProcessor has none.*model=.*frame_size="):
        LinVTProcessor.from_image_llm_processor(original)
    processor = LinVTProcessor.from_image_llm_processor(original, model=model, num_frames=7)
    side = 16 * 14 * 2  # tokens, patches of 14 pixels, two of which become a token
    assert processor.video_processor.size == {"height": side, "width": side} == model.frame_size()
    assert processor.num_video_tokens == model.config.num_video_tokens != 112
    assert processor.video_processor.num_frames == 7
    wide = {"height": 56, "width": 112}
    processor = LinVTProcessor.from_image_llm_processor(original, frame_size=wide, model=model)
    assert processor.video_processor.size == wide
    assert LinVTProcessor.from_image_llm_processor(original, frame_size=wide).num_video_tokens == 112
    with pytest.raises(ValueError, match="num_video_tokens is 112, but a video is 12 tokens in the model"):
        LinVTProcessor.from_image_llm_processor(original, 112, model=model)


def test_the_processor_of_another_image_llm_is_an_error(make_linvt, image_llm):
    model, _ = make_linvt("internvl")
    _, other = image_llm("qwen2_vl")
    with pytest.raises(ValueError, match=r"Qwen2VLProcessor fills <\|image_pad\|> .* the model replaces token \d+"):
        LinVTProcessor.from_image_llm_processor(other, model=model)


@each_family
def test_tokens_are_counted_from_sizes(make_linvt, image_llm, family):
    """As vLLM plans a batch: images as the image-LLM's processor counts them, videos by the number of their tokens."""
    _, processor = make_linvt(family)
    _, original = image_llm(family)
    images, videos = [(56, 56), (84, 112)], [(9, 56, 56), (3, 28, 56), (1, 56, 84)]
    counted = processor._get_num_multimodal_tokens(image_sizes=images, video_sizes=videos)
    expected = original._get_num_multimodal_tokens(image_sizes=images)
    assert counted["num_image_tokens"] == expected["num_image_tokens"]
    assert counted["num_video_tokens"] == [processor.num_video_tokens] * 3
    assert "num_video_tokens" not in processor._get_num_multimodal_tokens(image_sizes=images)


def test_autoshot_weights_of_another_kind_are_an_error(make_linvt, video_file, tmp_path):
    """A network that is not loaded would be a random one, and random networks find shots too."""
    model, processor = make_linvt("llava")
    model.config.save_pretrained(tmp_path / "linvt")
    options = {"shot_detection": "autoshot", "num_frames": 3}
    with pytest.raises(ValueError, match="holds a 'linvt' model; give trained AutoShot weights"):
        processor.video_processor(video_file(12), autoshot_model=str(tmp_path / "linvt"), **options)
    network = AutoShotModel(AutoShotConfig())
    weights = network.state_dict()
    lost = sorted(weights)[0]
    network.save_pretrained(tmp_path / "autoshot", state_dict={k: v for k, v in weights.items() if k != lost})
    with pytest.raises(ValueError, match=f"lacks weights of AutoShot: {lost}"):
        processor.video_processor(video_file(12), autoshot_model=str(tmp_path / "autoshot"), **options)


def test_shots_are_found_where_that_is_fast_unless_told_otherwise(image_llm):
    _, original = image_llm("llava")
    video_processor = LinVTProcessor.from_image_llm_processor(original).video_processor
    assert video_processor.shot_detection == "auto" and video_processor.autoshot_model is None


def test_the_shortest_shot_is_that_of_the_configuration(make_linvt, video_file, tmp_path, monkeypatch):
    def a_cut_after_every_two_frames(cascade, frames):
        yield torch.arange(sum(1 for _ in frames)) % 2 == 1

    monkeypatch.setattr(ShotCascade, "iter_probabilities", a_cut_after_every_two_frames)
    _, processor = make_linvt("llava")
    for min_shot_frames, num_shots in ((1, 6), (3, 3)):
        folder = tmp_path / str(min_shot_frames)
        AutoShotModel(AutoShotConfig(min_shot_frames=min_shot_frames)).save_pretrained(folder)
        options = {"shot_detection": "autoshot", "autoshot_model": str(folder), "num_frames": 12}
        shots = processor.video_processor(video_file(12), **options)["video_shot_ids"]
        assert shots.unique().tolist() == list(range(num_shots))


def test_shots_of_a_video_given_as_frames_are_not_asked_for_in_vain(make_linvt, caplog):
    _, processor = make_linvt("llava")
    frames = random_video(4)
    metadata = {"fps": 2.0, "total_num_frames": 4}
    processor.video_processor(frames, video_metadata=metadata)
    assert "one shot" not in caplog.text
    processor.video_processor(frames, video_metadata=metadata, shot_detection="autoshot")
    assert "a video given as frames is one shot" in caplog.text


def test_autoshot_with_weights_spreads_the_frames_over_the_shots(make_linvt, video_file, tmp_path, monkeypatch):
    def a_cut_after_two_frames(cascade, frames):
        yield torch.arange(sum(1 for _ in frames)) == 1

    _, processor = make_linvt("llava")
    AutoShotModel(AutoShotConfig()).save_pretrained(tmp_path / "autoshot")
    monkeypatch.setattr(ShotCascade, "iter_probabilities", a_cut_after_two_frames)
    options = {"shot_detection": "autoshot", "autoshot_model": str(tmp_path / "autoshot")}
    video = processor.video_processor(video_file(12, fps=10), num_frames=3, return_tensors="pt", **options)
    assert video["video_shot_ids"].tolist() == [0, 1, 1]
    first, *others = video["video_milliseconds"].tolist()
    assert first in (0, 100) and all(200 <= time < 1200 for time in others)

    def load_again(*_, **__):
        raise AssertionError("The weights are loaded once per video.")

    monkeypatch.setattr(AutoShotModel, "from_pretrained", load_again)
    again = processor.video_processor([video_file(12, fps=10)] * 2, num_frames=3, return_tensors="pt", **options)
    assert again["video_shot_ids"].tolist() == [0, 1, 1] * 2


def test_wrong_numbers_of_videos(make_linvt):
    _, processor = make_linvt("llava")
    prompt = processor.apply_chat_template(user_turn(random_video(2), "What?"))
    with pytest.raises(ValueError, match="prompts have 1 videos.*but 0 videos were given"):
        processor(text=prompt)
    with pytest.raises(ValueError, match="prompts have 1 videos.*but 2 videos were given"):
        processor(text=prompt, videos=[random_video(2), random_video(2)])
    with pytest.raises(ValueError, match="prompts have 0 videos.*but 1 videos were given"):
        processor(text="No place for it.", videos=random_video(2))


@each_family
def test_images_of_a_batch_go_to_their_own_prompts(make_linvt, family):
    """Of three prompts, one has a video alone, one an image alone, one both and in the other order."""
    model, processor = make_linvt(family)
    pictures = [Image.fromarray(random_video(1, seed=seed, height=40, width=80)[0]) for seed in (1, 2)]
    chats = [user_turn(random_video(4), "What?"), user_turn("Who?"), user_turn("Where?", random_video(3, seed=1))]
    chats[1][0]["content"].insert(0, {"type": "image", "image": pictures[0]})
    chats[2][0]["content"].insert(1, {"type": "image", "image": pictures[1]})
    batch = processor.apply_chat_template(chats, processor_kwargs={"padding": True}, **OPTIONS)
    prompts = processor.apply_chat_template(chats)
    later = processor(
        text=prompts,
        images=pictures,
        videos=[random_video(4), random_video(3, seed=1)],
        padding=True,
        return_tensors="pt",
    )
    assert batch.keys() == later.keys() and all(torch.equal(batch[name], later[name]) for name in batch)
    together = model(**batch).logits
    for row, chat in enumerate(chats):
        alone = processor.apply_chat_template(chat, **OPTIONS)
        length = alone["input_ids"].shape[1]
        torch.testing.assert_close(together[row, -length:], model(**alone).logits[0], rtol=1e-3, atol=1e-3)


def test_wrong_numbers_of_images_beside_a_video(make_linvt):
    _, processor = make_linvt("llava")
    picture = Image.fromarray(random_video(1)[0])
    for images, number in ((None, 0), ([picture, picture], 2)):
        with pytest.raises(ValueError, match=f"prompts have 1 images.*but {number} images were given"):
            processor(text="<image><video>", images=images, videos=random_video(2))


def test_bad_input_is_named(make_linvt, tmp_path):
    _, processor = make_linvt("llava")
    read = processor.video_processor
    with pytest.raises(VideoReadError, match="no_such_file.mp4"):
        processor.apply_chat_template(user_turn(tmp_path / "no_such_file.mp4", "What?"), **OPTIONS)
    with pytest.raises(ValueError, match="dtype float32; expected uint8"):
        read(random_video(3).astype(np.float32))
    with pytest.raises(ValueError, match="different shapes"):
        read([random_video(1)[0], random_video(1, height=40)[0]])
    with pytest.raises(ValueError, match="1 videos came with 2 video_metadata"):
        read(random_video(3), video_metadata=[{"fps": 1.0, "total_num_frames": 3}] * 2)
    with pytest.raises(ValueError, match="3 frames came with 2 frames_indices"):
        read(random_video(3), video_metadata={"fps": 1.0, "total_num_frames": 9, "frames_indices": [1, 2]})
    with pytest.raises(ValueError, match="names no video"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])
    with pytest.raises(ValueError, match="1 images and videos, but its prompt has 2 places"):
        processor.apply_chat_template(user_turn(random_video(2), "What is <image>?"))
    with pytest.raises(ValueError, match="text of a message holds <video>"):
        processor.apply_chat_template(user_turn(random_video(2), "What is <video>?"))
    with pytest.raises(ValueError, match="has no 'type'"):
        processor.apply_chat_template([{"role": "user", "content": [{"text": "What?"}]}])
    with pytest.raises(ValueError, match="fps is 0, expected a number above 0"):
        read(random_video(3), fps=0)
    with pytest.raises(ValueError, match="fps of video_metadata is 0"):
        read(random_video(3), video_metadata={"fps": 0, "total_num_frames": 3})
    with pytest.raises(ValueError, match="num_frames is 0"):
        read(random_video(3), num_frames=0)
    with pytest.raises(TypeError, match="given as int"):
        read([3])
    with pytest.raises(ValueError, match="No video was given"):
        read([])
    with pytest.raises(ValueError, match="user turn that holds a video was not found"):
        processor(text="Look: <video>", videos=random_video(2))
    with pytest.raises(ValueError, match="needs image_llm_processor"):
        LinVTProcessor(processor.image_processor, processor.tokenizer, processor.video_processor)


def test_truncated_videos_are_an_error(make_linvt):
    _, processor = make_linvt("llava")
    with pytest.raises(ValueError, match="need 12 video tokens, but .* are left after truncation"):
        processor.apply_chat_template(
            user_turn(random_video(2), "What?"), processor_kwargs={"truncation": True, "max_length": 10}, **OPTIONS
        )


def test_a_processor_without_chat_template_says_what_to_do(make_linvt):
    _, processor = make_linvt("llava")
    processor.chat_template = None
    with pytest.raises(ValueError, match="no chat template.*set processor.chat_template"):
        processor(text="<video>", videos=random_video(2))
