"""The contrast of words and tokens against plain loops, and over two processes against the joined batch."""

import math

import pytest
import torch
from two_ranks import late_interaction_gradients, on_two_ranks

from linvt.late_interaction import MAX_TOKENS, LateInteractionContrast


SIZE = 8


def pairs(number: int, seed: int = 0) -> dict:
    """Videos of different length, texts of one to four words, zero behind them, and a number for each text."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(number, 4, SIZE, generator=generator)
    for pair in range(number):
        words[pair, 1 + pair % 4 :] = 0
    return {
        "keys": [3 * torch.randn(5 + 60 * pair, SIZE, generator=generator) for pair in range(number)],
        "words": words,
        "text_ids": torch.arange(number),
    }


def plain_loss(keys, words, text_ids, scale: float = 1.0) -> float:
    """From the definition, word by word; a video has equally many of its tokens in it, however long it is."""

    def fit(text: int, video: int) -> float:
        tokens = [keys[video][place * len(keys[video]) // MAX_TOKENS].double() for place in range(MAX_TOKENS)]
        total = 0.0
        for word in words[text].double():
            total += math.log(sum(math.exp(float(word @ token) / math.sqrt(SIZE)) for token in tokens) / MAX_TOKENS)
        return scale * total

    losses = []
    for i in range(len(keys)):
        others = [j for j in range(len(keys)) if j == i or text_ids[j] != text_ids[i]]
        for fits in ({j: fit(j, i) for j in others}, {j: fit(i, j) for j in others}):
            losses.append(math.log(sum(math.exp(value) for value in fits.values())) - fits[i])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_it_is_info_nce_of_the_words_that_fit_best(scale):
    inputs, contrast = pairs(5), LateInteractionContrast()
    contrast.logit_scale.data.fill_(math.log(scale))
    torch.testing.assert_close(contrast(**inputs).item(), plain_loss(**inputs, scale=scale), rtol=1e-5, atol=1e-6)


def test_equal_texts_are_no_negatives_of_each_other():
    inputs = pairs(5)
    inputs["text_ids"][3] = inputs["text_ids"][1]
    found = LateInteractionContrast()(**inputs).item()
    torch.testing.assert_close(found, plain_loss(**inputs), rtol=1e-5, atol=1e-6)
    assert found != pytest.approx(plain_loss(**pairs(5)), abs=1e-3)


def test_padding_changes_nothing():
    inputs = pairs(4)
    padded = {**inputs, "words": torch.cat([inputs["words"], torch.zeros(4, 3, SIZE)], 1)}
    torch.testing.assert_close(LateInteractionContrast()(**padded), LateInteractionContrast()(**inputs))


@pytest.mark.parametrize("number", [0, 1])
def test_one_pair_or_none_gives_zero_with_a_graph(number):
    contrast = LateInteractionContrast().requires_grad_()
    inputs = pairs(2)
    loss = contrast(inputs["keys"][:number], inputs["words"][:number], inputs["text_ids"][:number])
    loss.backward()
    assert loss.item() == 0 and contrast.logit_scale.grad.item() == 0


def test_low_precision_and_autocast_do_not_reach_the_fits():
    inputs = pairs(4)
    expected = LateInteractionContrast()(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LateInteractionContrast()(**inputs), expected)


def test_two_ranks_give_the_gradient_of_the_joined_batch(tmp_path):
    joined = pairs(5)
    joined["text_ids"][4] = joined["text_ids"][0]

    def part(first: int, last: int, most_words: int = 4) -> dict:
        words = joined["words"][first:last, :most_words]
        return {"keys": joined["keys"][first:last], "words": words, "text_ids": joined["text_ids"][first:last]}

    # Texts of a rank may all be shorter than those of the other; a rank may have no pair at all.
    cases = [[part(0, 2, most_words=2), part(2, 5)], [part(0, 5), part(0, 0)], [part(0, 0), part(0, 0)]]
    wholes = [joined, joined, part(0, 0)]
    ranks = on_two_ranks(late_interaction_gradients, tmp_path, cases)
    alone = late_interaction_gradients([[whole] for whole in wholes])
    for case in range(len(cases)):
        for rank in range(2):
            torch.testing.assert_close(ranks[rank][case], alone[case], rtol=1e-5, atol=1e-6)
