"""InfoNCE against plain loops, and over two processes against the joined batch."""

import math

import pytest
import torch
from two_ranks import ProjectedContrast, contrastive_gradients, gradients, on_two_ranks

from linvt.contrastive_loss import VideoTextContrast


def batch(num_rows: int, seed: int = 0, length: int = 12, channels: int = 8) -> dict:
    """Rows of 4 video tokens and an answer of one to four tokens, both at a place of their own."""
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(num_rows, length, channels, generator=generator)
    is_video = torch.zeros(num_rows, length, dtype=torch.bool)
    labels = torch.full((num_rows, length), -100)
    for row in range(num_rows):
        is_video[row, row % 3 : row % 3 + 4] = True
        answer = torch.randint(0, 1000, (1 + row % 4,), generator=generator)
        labels[row, 7 : 7 + len(answer)] = answer
    return {"embeds": embeds, "is_video": is_video, "labels": labels}


def plain_loss(embeds, is_video, labels, scale: float = 1 / 0.07) -> float:
    """From the definition, pair by pair."""
    rows = [row for row in range(len(embeds)) if is_video[row].any() and (labels[row] != -100).any()]
    videos = [embeds[row][is_video[row]].double().mean(0) for row in rows]
    texts = [embeds[row][labels[row] != -100].double().mean(0) for row in rows]
    answers = [labels[row][labels[row] != -100].tolist() for row in rows]
    losses = []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j == i or answers[j] != answers[i]]
        for one, many in ((videos[i], texts), (texts[i], videos)):
            similar = {j: float(one @ many[j] / one.norm() / many[j].norm()) * scale for j in others}
            losses.append(math.log(sum(math.exp(value) for value in similar.values())) - similar[i])
    return sum(losses) / len(losses)


def test_it_is_info_nce_in_both_directions():
    inputs = batch(6)
    torch.testing.assert_close(VideoTextContrast()(**inputs).item(), plain_loss(**inputs), rtol=1e-5, atol=1e-6)


def test_rows_without_a_video_or_an_answer_take_no_part():
    inputs = batch(6)
    inputs["is_video"][1], inputs["labels"][4] = False, -100
    rows = [0, 2, 3, 5]
    alone = VideoTextContrast()(**{name: value[rows] for name, value in inputs.items()})
    assert torch.equal(VideoTextContrast()(**inputs), alone)


def test_equal_answers_are_no_negatives_of_each_other():
    inputs = batch(5)
    inputs["labels"][3] = -100
    inputs["labels"][3, 9:11] = inputs["labels"][1, 7:9]  # the same two tokens, elsewhere in the row
    torch.testing.assert_close(VideoTextContrast()(**inputs).item(), plain_loss(**inputs), rtol=1e-5, atol=1e-6)
    inputs["labels"][3, 9:11] = inputs["labels"][1, 7:9].flip(0)  # other tokens
    torch.testing.assert_close(VideoTextContrast()(**inputs).item(), plain_loss(**inputs), rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing():
    inputs = batch(4)
    padded = {name: torch.cat([value, value[:, :3]], 1) for name, value in inputs.items()}
    padded["is_video"][:, -3:], padded["labels"][:, -3:] = False, -100
    torch.testing.assert_close(VideoTextContrast()(**padded), VideoTextContrast()(**inputs))


@pytest.mark.parametrize("num_rows", [0, 1])
def test_one_pair_or_none_gives_zero_with_a_graph(num_rows):
    contrast = VideoTextContrast().requires_grad_()  # as where this loss is trained on
    loss = contrast(**{name: value[:num_rows] for name, value in batch(2).items()})
    loss.backward()
    assert loss.item() == 0 and contrast.logit_scale.grad.item() == 0
    assert contrast(None, None, batch(2)["labels"]).item() == 0


def test_the_temperature_learns_and_has_a_limit():
    inputs, contrast = batch(6), VideoTextContrast()
    assert not contrast(**inputs).requires_grad  # only where it is asked to
    contrast.requires_grad_()
    contrast(**inputs).backward()
    assert contrast.logit_scale.grad.abs() > 0
    with torch.no_grad():
        contrast.logit_scale.fill_(20.0)
    contrast.logit_scale.grad = None
    loss = contrast(**inputs)
    torch.testing.assert_close(loss.item(), plain_loss(**inputs, scale=100.0), rtol=1e-4, atol=1e-6)
    loss.backward()
    assert contrast.logit_scale.grad.abs() > 0  # it can come back


def test_low_precision_and_autocast_do_not_reach_the_similarities():
    inputs = batch(6)
    expected = VideoTextContrast()(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(VideoTextContrast()(**inputs), expected)


def test_two_ranks_give_the_gradient_of_the_joined_batch(tmp_path):
    joined = batch(7)
    joined["labels"][6], joined["is_video"][2] = joined["labels"][0], False
    text_only = {"embeds": None, "is_video": None, "labels": torch.full((2, 3), 5)}

    def split(*rows: slice) -> list[dict]:
        return [{name: value[part] for name, value in joined.items()} for part in rows]

    first, nothing = split(slice(0, 7), slice(0, 0))
    cases = [split(slice(0, 5), slice(5, 7)), [first, text_only], [first, nothing], split(slice(0, 1), slice(2, 3))]
    wholes = [joined, joined, joined, split(slice(0, 1))[0]]
    ranks = on_two_ranks(contrastive_gradients, tmp_path, cases)
    for case, whole in enumerate(wholes):
        model = ProjectedContrast(channels=8)
        loss = model(**whole)
        loss.backward()
        expected = {"loss": loss.detach(), **gradients(model)}
        assert set(expected) == {"loss", "weight", "contrast.logit_scale"}
        for rank in range(2):
            torch.testing.assert_close(ranks[rank][case], expected, rtol=1e-5, atol=1e-6)
