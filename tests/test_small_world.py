"""The small world: what is asked can be seen, what is answered is true, and who does not look cannot know."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from small_world.accuracy import accuracy, right_answers
from small_world.drawing import RGB, draw_shot, draw_video
from small_world.encoding import encode_chat
from small_world.phrasings import AROUND, ASK, ask
from small_world.questions import ALBUM_QUESTIONS, IMAGE_QUESTIONS, VIDEO_QUESTIONS, image_questions, order_questions
from small_world.scenes import COLOURS, DIRECTIONS, KINDS, SPLITS, make_album, make_picture, make_video, scene_rng
from small_world.small_image_llm import PIXELS, small_llava, small_processor
from small_world.video_data import VideoSet, picked_frames, questions_about
from small_world.video_rows import RowCollator, album_rows, picture_rows, video_rows
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from linvt import LinVTForConditionalGeneration
from linvt.configuration.input_values import IGNORED_LABEL


SIZE = 64


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture(scope="module")
def saved_image_llm(processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small-image-llm")
    torch.manual_seed(0)
    small_llava(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def centre_of(picture: np.ndarray, colour: str) -> tuple[float, float]:
    """Centre of the pixels of a colour, as fractions of the picture."""
    rows, columns = np.nonzero(abs(picture.astype(int) - RGB[colour]).max(-1) < 12)
    assert len(rows) > 20, f"no {colour} to be seen"
    return columns.mean() / len(picture), rows.mean() / len(picture)


def test_scenes_are_always_the_same_and_differ_between_splits():
    assert make_video("train", 3) == make_video("train", 3)
    assert len({str(make_video(split, 3)) for split in SPLITS}) == 3
    assert questions_about("test", 5) == questions_about("test", 5)


@pytest.mark.parametrize("number", range(60))
def test_videos_keep_their_promises(number):
    video = make_video("train", number)
    assert 4 <= sum(shot.seconds for shot in video.shots if not shot.is_short) <= 64
    names = [shape.name for shape in video.shapes]
    assert len(names) == len(set(names))
    for shot in video.shots:
        if shot.is_short:
            assert shot.seconds <= video.seconds / 16 and len(shot.shapes) == 1
    seconds = picked_frames(video, 16)[0]
    assert len(set(seconds)) == 16 and 0 <= min(seconds) and max(seconds) < video.seconds
    # Every shot has a frame, the shortest too.
    ends = np.cumsum([shot.seconds for shot in video.shots])
    assert {int(np.searchsorted(ends, second, side="right")) for second in seconds} == set(range(len(video.shots)))


def test_every_shape_is_where_its_scene_says():
    for number in range(40):
        shot = make_picture("train", number)
        picture = draw_shot(shot, 0, SIZE)
        colours = Counter(shape.colour for shape in shot.shapes)
        for shape in shot.shapes:
            if colours[shape.colour] == 1 and shape.kind != "triangle":
                assert np.allclose(centre_of(picture, shape.colour), shape.start, atol=0.03)


def test_shapes_move_to_where_the_answer_says():
    num_moving = 0
    for number in range(60):
        for shot in make_video("train", number).shots:
            colours = Counter(colour for shape in shot.shapes for colour in (shape.colour, shape.later_colour))
            for shape in shot.shapes:
                if shape.direction is None or colours[shape.colour] > 1:
                    continue
                first, last = (centre_of(draw_shot(shot, moment, SIZE), shape.colour) for moment in (0.05, 0.95))
                step = np.subtract(last, first)
                assert np.dot(step, DIRECTIONS[shape.direction]) > 0.3
                assert abs(np.dot(step, DIRECTIONS[shape.direction][::-1])) < 0.06
                num_moving += 1
    assert num_moving > 20


def test_a_cut_is_between_the_shots():
    video = next(video for video in (make_video("train", n) for n in range(9)) if len(video.shots) > 1)
    cut = video.shots[0].seconds
    before, after = draw_video(video, [cut - 0.01, cut + 0.01], SIZE).astype(int)
    assert abs(before - after).mean() > 5
    assert np.array_equal(before, draw_shot(video.shots[0], (cut - 0.01) / cut, SIZE))


def facts(video) -> dict:
    """What is true of a video, found again in another way than the questions find it."""
    shapes = [(shape, shot) for shot in video.shots for shape in shot.shapes]
    return {
        "names": {s.name for s, _ in shapes},
        "colour": {k: [s.colour for s, _ in shapes if s.kind == k] for k in KINDS},
        "kind": {c: [s.kind for s, _ in shapes if c in (s.colour, s.later_colour)] for c in COLOURS},
        "moves": {s.name: s.direction for s, _ in shapes},
        "turns": {s.name: s.later_colour for s, _ in shapes},
        "corner": {s.name: s.corner for s, _ in shapes},
        "shot": {s.name: i for i, shot in enumerate(video.shots) for s in shot.shapes},
    }


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true(split):
    asked = Counter()
    for number in range(150):
        video = make_video(split, number)
        true = facts(video)
        for question in questions_about(split, number):
            words, answer = question.text.replace("?", " ").split(), question.answer
            colours, kinds = [w for w in words if w in COLOURS], [w for w in words if w in KINDS]
            name = f"{colours[0]} {kinds[0]}" if colours and kinds else None
            asked[question.about] += 1
            if question.about == "attribute":
                assert true["colour"][kinds[0]] == [answer] if kinds else true["kind"][colours[0]] == [answer]
            elif question.about == "existence":
                assert (name in true["names"]) == (answer == "yes")
            elif question.about == "count":
                assert ("zero", "one", "two").index(answer) == len(true["colour"][kinds[0]])
            elif question.about in ("position", "needle"):
                assert true["corner"][name] == answer and true["moves"][name] is None
            elif question.about == "motion":
                assert answer == f"to the {true['moves'][name]}"
            elif question.about == "change":
                assert answer == true["turns"][name]
            elif question.about == "order":
                names = [f"{colour} {kind}" for colour, kind in zip(colours, kinds, strict=True)]
                assert answer == f"the {min(names, key=true['shot'].get)}"
                assert true["shot"][names[0]] != true["shot"][names[1]]
            else:
                assert {part.removeprefix("a ") for part in answer.replace(" , then ", " and ").split(" and ")} == set(
                    true["names"]
                )
    assert set(asked) == set(VIDEO_QUESTIONS) and min(asked.values()) > 15


def test_a_needle_is_on_screen_in_a_short_shot_of_a_long_video_only():
    found = 0
    for number in range(200):
        video = make_video("test", number)
        for question in questions_about("test", number):
            if question.about == "needle":
                (needle,) = [shape for shot in video.shots if shot.is_short for shape in shot.shapes]
                assert video.seconds >= 16 and needle.name in question.text and question.answer == needle.corner
                found += 1
    assert found > 20


def test_splits_share_no_phrasing_but_all_words():
    phrasings = defaultdict(set)
    for split in SPLITS:
        rng = np.random.default_rng(0)
        for about in ASK:
            words = {
                "kind": "KIND",
                "colour": "COLOUR",
                "name": "NAME",
                "one": "ONE",
                "other": "OTHER",
                "third": "THIRD",
            }
            phrasings[split] |= {ask(about, split, rng, **words) for _ in range(300)}
    assert sum(map(len, phrasings.values())) == len(ASK) * 4 * len(AROUND) == len(set.union(*phrasings.values()))
    words = {split: {word for text in texts for word in text.split()} for split, texts in phrasings.items()}
    assert words["test"] <= words["train"] and words["validation"] <= words["train"]


def test_the_commonest_answers_are_little_more_common_than_others():
    answers = defaultdict(Counter)
    for number in range(1500):
        for question in questions_about("train", number):
            answers[question.about][question.answer] += 1
    shares = {about: max(counts.values()) / counts.total() for about, counts in answers.items()}
    assert shares["existence"] < 0.54 and shares["count"] < 0.42
    assert max(shares["position"], shares["needle"], shares["motion"]) < 0.31
    assert max(shares["attribute"], shares["change"], shares["order"]) < 0.25


def test_every_word_is_known(processor):
    for split in SPLITS:
        for number in range(100):
            questions = questions_about(split, number)
            rng = scene_rng(split, "question", number)
            questions += image_questions(make_picture(split, number), split, rng)
            for question in questions:
                ids = processor.tokenizer(f"{question.text} {question.answer}").input_ids
                assert processor.tokenizer.unk_token_id not in ids
                assert processor.tokenizer.decode(processor.tokenizer(question.answer).input_ids) == question.answer


def test_pictures_are_asked_everything(processor):
    asked = Counter(row.question.about for row in picture_rows("test", 300))
    assert set(asked) == set(IMAGE_QUESTIONS) and min(asked.values()) > 30


def test_albums_show_what_is_asked_of_them():
    asked = Counter()
    for row in album_rows("test", 400):
        about, text, answer = row.question.about, row.question.text, row.question.answer
        shots = list(dict.fromkeys(shot for shot, _ in make_album("test", row.album)))
        moments = [moment for _, moment in row.pictures("test")]
        names = {shape.name: (shape, place) for place, shot in enumerate(shots) for shape in shot.shapes}
        named = [name for name in names if name in text]
        asked[about] += 1
        if about == "order":  # the pictures stand in the order of the shots
            assert len(named) == 2 and answer == f"the {min(named, key=lambda name: names[name][1])}"
        elif about == "motion":  # both ends of a movement are shown
            assert (moments[0], moments[-1]) == (0.1, 0.9) and answer == f"to the {names[named[0]][0].direction}"
        elif about == "change":  # one colour is in the first picture, the other in the last
            assert moments[0] < 0.5 <= moments[-1] and answer == names[named[0]][0].later_colour
        elif about == "position":
            assert answer == names[named[0]][0].corner
    assert set(asked) == set(ALBUM_QUESTIONS) and min(asked.values()) > 15


@pytest.fixture(scope="module")
def videos(saved_image_llm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    made = VideoSet.load_or_make(folder, "test", 6, 16, saved_image_llm)
    again = VideoSet.load_or_make(folder, "test", 6, 16, saved_image_llm)
    assert torch.equal(made.tokens, again.tokens) and made.questions == again.questions
    return made


def test_right_answers_are_those_that_generate_gives(processor, saved_image_llm):
    """Of an untrained model: its own greedy answers are asked for, some of them spoilt."""
    model = LlavaForConditionalGeneration.from_pretrained(saved_image_llm).eval()
    prompts = [encode_chat(processor.tokenizer, [], [row.question]) for row in picture_rows("test", 12)]
    for number, chat in enumerate(prompts):
        prompt = [token for token, label in zip(chat.input_ids, chat.labels, strict=True) if label == IGNORED_LABEL]
        answer = model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, len(prompt) :].tolist()
        if number % 2:
            answer[-1] = (answer[-1] + 1) % 50
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[IGNORED_LABEL] * len(prompt) + answer])
        assert right_answers(model(input_ids=ids).logits, labels).tolist() == [number % 2 == 0]


@torch.no_grad()
def test_questions_about_videos_and_pictures_stand_in_one_batch(processor, videos, saved_image_llm, monkeypatch):
    image_llm = AutoModelForImageTextToText.from_pretrained(saved_image_llm)
    model = LinVTForConditionalGeneration.from_image_llm(
        image_llm, {"hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_attention_heads": 2}
    ).eval()
    rows = [*video_rows(videos.questions)[:9], *picture_rows("test", 7), *album_rows("test", 6)]
    collator = RowCollator(rows, "test", videos, processor, model.config.num_video_tokens)
    # One by one, and all together in another order, questions get the same answers.
    whole = collator([{"row": row} for row in reversed(range(len(rows)))])
    labels = whole.pop("labels")
    logits = model(**whole).logits
    for place, number in enumerate(reversed(range(len(rows)))):
        alone = collator([{"row": number}])
        wanted = labels[place][labels[place] != IGNORED_LABEL]
        learnt = alone.pop("labels")[0]
        assert torch.equal(learnt[learnt != IGNORED_LABEL], wanted)
        length = alone["input_ids"].shape[1]
        assert torch.allclose(model(**alone).logits[0], logits[place, :length], atol=1e-4)

    # Accuracies, with every third answer taken for a right one.
    monkeypatch.setattr("small_world.accuracy.right_answers", lambda _, labels: torch.arange(len(labels)) % 3 == 0)
    right = defaultdict(list)
    for number, row in enumerate(rows):
        right[row.question.about].append(number % 3 == 0)
    expected = {about: 100 * np.mean(found) for about, found in right.items()}
    expected["mean"] = np.mean([share for about, share in expected.items() if about != "caption"])
    assert "caption" in right and accuracy(model, collator) == pytest.approx(expected)


@torch.no_grad()
def test_tokens_of_a_video_are_those_of_its_frames(processor, videos, saved_image_llm):
    model = AutoModelForImageTextToText.from_pretrained(saved_image_llm)
    video = make_video("test", 2)
    frames = draw_video(video, picked_frames(video, 16)[0], PIXELS)
    pixels = processor.image_processor(list(frames), return_tensors="pt")["pixel_values"]
    tokens = model.get_image_features(pixel_values=pixels).pooler_output
    assert torch.allclose(torch.stack(list(tokens)), videos.tokens[2], atol=1e-5)
    assert torch.allclose(model.model.multi_modal_projector(videos.features[2]), videos.tokens[2], atol=1e-5)


def test_order_questions_are_about_every_two_shots_of_an_album():
    for number in range(40):
        album = make_album("train", number)
        shots = list(dict.fromkeys(shot for shot, _ in album))
        questions = order_questions(album, "train", np.random.default_rng(number))
        assert len(questions) == len(shots) * (len(shots) - 1) // 2
        first_seen = {f"the {shape.name}": place for place, shot in enumerate(shots) for shape in shot.shapes}
        for question in questions:
            named = [name for name in first_seen if name in question.text]
            assert len(named) == 2 and question.answer == min(named, key=first_seen.get)
