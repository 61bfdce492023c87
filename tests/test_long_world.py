"""The long world: what is asked is seen where it should be, answers are true, the question alone tells little."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from small_world import long_data
from small_world.drawing import draw_video
from small_world.fixed_tokens import PASSES_ON, asked_frames, fixed_tokens
from small_world.long_data import load_or_make_long_videos
from small_world.long_questions import LONG_QUESTIONS, long_questions
from small_world.long_scenes import FRAMES_PER_SHOT, NUM_SHOTS, make_long_video
from small_world.scenes import COLOURS, DIRECTIONS, KINDS, SPLITS
from small_world.small_image_llm import PIXELS, small_llava, small_processor
from small_world.video_data import picked_frames
from small_world.video_rows import RowCollator, picture_rows, video_rows
from test_small_world import centre_of
from transformers import AutoModelForImageTextToText

from linvt import LinVTForConditionalGeneration


SIZE = 64
CHANCE = {"needle": 1 / 4, "attribute": 1 / 6, "motion": 1 / 4, "position": 1 / 4}
CHANCE |= {"existence": 1 / 2, "count": 1 / 3, "order": 1 / 2, "sequence": 1 / 3}


def named(text: str) -> list[str]:
    """The shapes that a question names, each a colour and a kind, in its order."""
    words = text.split()
    pairs = zip(words, words[1:], strict=False)
    return [f"{colour} {kind}" for colour, kind in pairs if colour in COLOURS and kind in KINDS]


@pytest.mark.parametrize("number", range(24))
def test_videos_keep_their_promises(number):
    video = make_long_video("train", number)
    assert video == make_long_video("train", number)
    assert len(video.shots) == NUM_SHOTS[number % 3]
    assert all(one.background != other.background for one, other in zip(video.shots, video.shots[1:], strict=False))
    seen = Counter(shape.name for shot in video.shots for shape in shot.shapes)
    standing = [place for place, shot in enumerate(video.shots) if shot.is_short]
    # One event that stands still in each of as many parts, so that needles are spread evenly over the video.
    num_parts = max(4, len(video.shots) // 8)
    assert [place * num_parts // len(video.shots) for place in standing] == list(range(num_parts))
    assert all(seen[shape.name] == 1 for place in standing for shape in video.shots[place].shapes)
    moving = [shape for shot in video.shots for shape in shot.shapes if shape.direction is not None]
    assert len(moving) == 1 and seen[moving[0].name] == 1
    per_kind = Counter(name.split()[1] for name in seen)
    assert sorted(per_kind[kind] for kind in KINDS)[0] == 0 and {1, 2} <= set(per_kind.values())
    # Every shot has a frame, and there are as many as the length says.
    seconds, shot_ids = picked_frames(video, FRAMES_PER_SHOT * len(video.shots))
    assert len(set(seconds)) == FRAMES_PER_SHOT * len(video.shots) and set(shot_ids) == set(range(len(video.shots)))


def test_what_is_asked_is_seen_in_the_shots_that_are_named():
    for number in range(12):
        video = make_long_video("test", number)
        seconds, shot_ids = picked_frames(video, FRAMES_PER_SHOT * len(video.shots))
        frames = draw_video(video, seconds, SIZE)
        for question in long_questions("test", number):
            if question.about not in ("needle", "motion"):
                continue
            (name,) = named(question.text)
            if name.endswith("triangle"):
                continue  # the middle of its pixels is not its centre
            shown = [frame for frame, shot in zip(frames, shot_ids, strict=True) if shot == question.shots[0]]
            (x, y), last = (centre_of(frame, name.split()[0]) for frame in (shown[0], shown[-1]))
            if question.about == "needle":
                assert question.answer == f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"
            else:
                step = np.subtract(last, (x, y))
                assert np.dot(step, DIRECTIONS[question.answer.removeprefix("to the ")]) > 0.2


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true(split):
    asked = Counter()
    for number in range(60):
        video = make_long_video(split, number)
        first_shot, shapes = {}, {}
        for place, shot in enumerate(video.shots):
            for shape in shot.shapes:
                first_shot.setdefault(shape.name, place)
                shapes[shape.name] = shape
        for question in long_questions(split, number):
            names, words, answer = named(question.text), question.text.split(), question.answer
            asked[question.about] += 1
            if question.about in ("needle", "position"):
                x, y = shapes[names[0]].start
                assert answer == f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"
                num_shots = sum(names[0] in [shape.name for shape in shot.shapes] for shot in video.shots)
                assert num_shots == len(question.shots) and (question.about == "position" or num_shots == 1)
            elif question.about == "motion":
                assert answer == f"to the {shapes[names[0]].direction}"
            elif question.about == "attribute":
                (kind,) = [word for word in words if word in KINDS]
                assert [name for name in shapes if name.endswith(kind)] == [f"{answer} {kind}"]
            elif question.about == "existence":
                assert (names[0] in shapes) == (answer == "yes")
                colour, kind = names[0].split()
                assert any(name.startswith(colour) for name in shapes) and any(name.endswith(kind) for name in shapes)
            elif question.about == "count":
                (kind,) = [word for word in words if word in KINDS]
                assert ("zero", "one", "two").index(answer) == sum(name.endswith(kind) for name in shapes)
            else:
                assert len(names) == {"order": 2, "sequence": 3}[question.about] == len(set(names))
                assert answer == f"the {min(names, key=first_shot.get)}"
                if question.about == "order":
                    apart = abs(first_shot[names[0]] - first_shot[names[1]])
                    assert apart >= len(video.shots) / 4
    assert set(asked) == set(LONG_QUESTIONS) and asked["needle"] == sum(max(4, n // 8) for n in NUM_SHOTS) * 20


def test_who_sees_the_question_alone_stays_near_chance():
    """Learns the best answer to every question about the same things, by kind, colour and place among those named."""

    def clues(question) -> list[tuple]:
        things = [word for word in question.text.split() if word in COLOURS + KINDS]
        return [(question.about,), (question.about, *things), *((question.about, thing) for thing in things)]

    def told(question) -> str:  # of those named, answers are told by their place
        names = named(question.text)
        return str(names.index(question.answer.removeprefix("the "))) if len(names) > 1 else question.answer

    learnt: dict[tuple, Counter] = defaultdict(Counter)
    for number in range(2400):
        for question in long_questions("train", number):
            for clue in clues(question):
                learnt[clue][told(question)] += 1
    for place in range(4):
        right = defaultdict(list)
        for number in range(900):
            for question in long_questions("test", number):
                some = clues(question)
                best = learnt[some[min(place, len(some) - 1)]].most_common(1)
                right[question.about].append(bool(best) and best[0][0] == told(question))
        for about, answers in right.items():
            assert np.mean(answers) < CHANCE[about] + 0.05, (about, place)


def test_splits_share_nothing():
    shown, asked = defaultdict(set), defaultdict(set)
    for split in SPLITS:
        for number in range(300):
            shown[split] |= {(shot.background, shot.shapes[0].start) for shot in make_long_video(split, number).shots}
            for question in long_questions(split, number):
                words = [word for word in question.text.split() if word not in COLOURS + KINDS]
                asked[split].add((question.about, " ".join(words)))
    for found in (shown, asked):
        assert sum(map(len, found.values())) == len(set.union(*found.values()))


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture(scope="module")
def image_llm(processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small-image-llm")
    torch.manual_seed(0)
    small_llava(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(autouse=True)
def files_of_two(monkeypatch):
    monkeypatch.setattr(long_data, "VIDEOS_PER_FILE", 2)


@pytest.fixture
def videos(image_llm, folder):
    return load_or_make_long_videos(folder, "test", 4, image_llm)


@torch.no_grad()
def test_tokens_are_those_of_the_frames(videos, image_llm, processor):
    assert videos.num_frames == [64, 128, 256, 64]
    model = AutoModelForImageTextToText.from_pretrained(image_llm)
    for number in (1, 3):
        video = make_long_video("test", number)
        seconds, shot_ids = picked_frames(video, videos.num_frames[number])
        pixels = processor.image_processor(list(draw_video(video, seconds, PIXELS)), return_tensors="pt")
        tokens = torch.stack(list(model.get_image_features(pixel_values=pixels["pixel_values"]).pooler_output))
        inputs = videos.model_inputs([number])
        assert inputs["video_frame_tokens"].dtype == torch.float32
        assert torch.allclose(inputs["video_frame_tokens"], tokens, rtol=2e-3, atol=1e-3)
        assert inputs["video_shot_ids"].tolist() == shot_ids and inputs["video_num_frames"].tolist() == [len(seconds)]
        assert inputs["video_milliseconds"].tolist() == [round(1000 * second) for second in seconds]


def test_what_was_made_is_read_and_the_rest_is_made(videos, image_llm, folder, monkeypatch):
    more = load_or_make_long_videos(folder, "test", 5, image_llm)
    assert torch.equal(more.tokens[: len(videos.tokens)], videos.tokens) and more.num_frames[:4] == videos.num_frames
    files = sorted(folder.glob("long-test-*.safetensors"))
    assert len(files) == 3
    files[1].rename(files[1].with_suffix(".whole"))  # as a process leaves it that is stopped too early
    before = files[0].stat().st_mtime_ns
    again = load_or_make_long_videos(folder, "test", 5, image_llm)
    assert torch.equal(again.tokens, more.tokens) and again.questions == more.questions
    assert files[0].stat().st_mtime_ns == before
    monkeypatch.setattr(long_data, "_make", None)
    load_or_make_long_videos(folder, "test", 3, image_llm)


@torch.no_grad()
def test_videos_of_any_lengths_stand_in_one_batch(videos, image_llm, processor):
    settings = {"hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_attention_heads": 2, "top_k": 100}
    settings |= {"num_queries": [6, 2], "pooling_windows": [1, 2], "temporal_attention": "shot"}
    model = AutoModelForImageTextToText.from_pretrained(image_llm)
    model = LinVTForConditionalGeneration.from_image_llm(model, settings).eval()
    rows = [row for row in video_rows(videos.questions) if row.question.about in ("order", "needle")][::5]
    rows += picture_rows("test", 3)
    collator = RowCollator(rows, "test", videos, processor, 8)
    whole = collator([{"row": row} for row in reversed(range(len(rows)))])
    assert len(set(whole["video_num_frames"].tolist())) == 3
    assert whole.pop("labels") is not None
    logits = model(**whole).logits
    for place, number in enumerate(reversed(range(len(rows)))):
        alone = collator([{"row": number}])
        length = alone["input_ids"].shape[1]
        del alone["labels"]
        assert torch.allclose(model(**alone).logits[0], logits[place, :length], atol=1e-4)


@torch.no_grad()
def test_tokens_that_were_made_once_are_given_to_the_llm_as_they_are(videos, image_llm, processor):
    pooled = fixed_tokens(videos, lambda tokens, grid, seconds, shots: tokens.mean(2)[:, :: tokens.shape[1] // 32])
    assert pooled.num_frames == [32, 32, 32, 32]
    all_tokens = fixed_tokens(videos, lambda tokens, grid, seconds, shots: tokens.flatten(1, 2))
    assert torch.equal(all_tokens.tokens[:, 0], videos.tokens.float().flatten(0, 1))
    base = AutoModelForImageTextToText.from_pretrained(image_llm).eval()
    model = LinVTForConditionalGeneration.from_image_llm(base, PASSES_ON).eval()
    rows = video_rows(videos.questions)[:3]
    batch = RowCollator(rows, "test", pooled, processor, None)([{"row": row} for row in range(3)])
    assert batch.pop("labels") is not None
    places = pooled.places[0]
    embeds = base.get_input_embeddings()(batch["input_ids"])
    is_video = batch["mm_token_type_ids"] == 2
    embeds[is_video] = pooled.tokens[places, 0].repeat(3, 1)
    expected = base(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(model(**batch).logits, expected, atol=1e-4)


def test_the_frames_that_tell_are_those_of_the_shots_that_are_asked_about(videos):
    shown = asked_frames(videos, "test")
    questions = [(number, question) for number, asked in enumerate(videos.questions) for question in asked]
    assert [[question] for _, question in questions] == shown.questions
    for (number, question), place in zip(questions, shown.places, strict=True):
        of_video = videos.tokens[videos.places[number]].float()
        found = [(of_video == frame).all((1, 2)).nonzero()[0, 0].item() for frame in shown.tokens[place, 0].split(16)]
        shots = videos.shot_ids[videos.places[number]][found].tolist()
        if question.about == "position":
            assert len(shots) == 1 and shots[0] in question.shots
        elif question.about == "motion":
            assert set(shots) == set(question.shots) and found == sorted(found) and len(found) > 1
        else:
            assert shots == sorted(question.shots) or (question.about == "count" and not question.shots)


def test_flat_videos_have_tokens_only(videos):
    with pytest.raises(ValueError, match="frames"):
        videos.model_inputs([0], "frames")
