"""Being told what is asked: from the scenes, checked against the pictures that were drawn of them."""

import numpy as np
import pytest
import torch
from small_world.drawing import RGB, draw_video
from small_world.oracle import shown_shapes, told_what_is_asked
from small_world.scenes import make_video
from small_world.small_image_llm import PATCH, PIXELS
from small_world.video_data import VideoSet, picked_frames, questions_about


NUM_FRAMES = 16


def tokens_of_colour(pictures: np.ndarray, colour: str) -> torch.Tensor:
    """Tokens with a pixel of nearly this colour, `(frames, tokens per frame)`."""
    near = (abs(pictures.astype(int) - RGB[colour]).max(-1) < 12).reshape(len(pictures), 4, PATCH, 4, PATCH)
    return torch.from_numpy(near.any((2, 4)).reshape(len(pictures), -1))


@pytest.mark.parametrize("number", range(6))
def test_tokens_that_show_a_shape_have_its_colour(number):
    video = make_video("test", number)
    seconds, shot_ids = picked_frames(video, NUM_FRAMES)
    pictures, shown = draw_video(video, seconds, PIXELS), shown_shapes(video, NUM_FRAMES)
    shots = [place for place, shot in enumerate(video.shots) for _ in shot.shapes]
    assert len(shown) == len(video.shapes)
    for shape, tokens, shot in zip(video.shapes, shown, shots, strict=True):
        in_shot = torch.tensor(shot_ids) == shot
        assert not tokens[~in_shot].any() and tokens[in_shot].any(1).all()
        if shape.later_colour is None:
            coloured = tokens_of_colour(pictures, shape.colour)
            # A ring or a cross may cover a tenth of a patch with edges alone.
            assert (tokens & coloured).any(1)[in_shot].all()
            assert not tokens[in_shot].all() and (tokens & ~coloured).sum() <= tokens.sum() / 3


def test_a_question_gets_more_of_the_shot_that_shows_what_it_names():
    """Of video tokens that tell by themselves from which shot they are, its share is more than that of its frames."""
    number = next(n for n in range(50) if len(make_video("test", n).shots) >= 3)
    video = make_video("test", number)
    seconds, shot_ids = picked_frames(video, NUM_FRAMES)
    generator = torch.Generator().manual_seed(0)
    # Channel s of a token is large in shot s.
    tokens = torch.randn(number + 1, NUM_FRAMES, 16, 12, generator=generator)
    for frame, shot in enumerate(shot_ids):
        tokens[number, frame, :, shot] += 4
    videos = VideoSet(
        frames=torch.zeros(0),
        tokens=tokens,
        features=torch.zeros(0),
        milliseconds=torch.tensor([[round(1000 * second) for second in seconds]]).expand(number + 1, -1),
        shot_ids=torch.tensor([shot_ids]).expand(number + 1, -1),
        questions=[[] for _ in range(number)] + [questions_about("test", number)],
    )
    told = told_what_is_asked(videos, "test")
    asked = [question for question in videos.questions[number] if question.about != "caption"]
    assert [questions for (questions,) in told.questions] == asked and told.num_frames == [28] * len(asked)
    for question, place in zip(asked, told.places, strict=True):
        named = [n for n, shot in enumerate(video.shots) if any(s.name in question.text for s in shot.shapes)]
        from_shot = told.tokens[place, 0, : len(video.shots)].argmax(1)
        if len(named) == 1:
            share_of_frames = shot_ids.count(named[0]) / NUM_FRAMES
            assert (from_shot == named[0]).float().mean() > share_of_frames
