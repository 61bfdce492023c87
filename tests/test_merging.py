"""What merging does before anything is learnt, that it does exactly the same everywhere, and what learning adds."""

import numpy as np
import pytest
import torch
from reference_merging import clusters_of_tokens, directions_of_tokens, square
from tiny_families import SMALL, VARIANTS

from linvt import LinVTVideoConfig, LinVTVideoModel
from linvt.video_tokenizer.token_clustering import (
    cluster_tokens,
    farthest_points,
    log_novelty,
    squared_distances,
    token_directions,
)


MERGING = [name for name in VARIANTS if not name.endswith("_random")]
each_variant = pytest.mark.parametrize("variant", MERGING)
LARGEST = 2**24  # whole numbers up to it are exact in float32


def untrained(variant: str = "single", channels: int = 16, **settings) -> LinVTVideoModel:
    torch.manual_seed(0)
    config = LinVTVideoConfig(embedding_size=channels, **{**SMALL, **VARIANTS[variant], **settings})
    return LinVTVideoModel(config).eval()


def video_of(frame_tokens: torch.Tensor, grid: tuple[int, int], shots: list[int] | None = None) -> dict:
    """One video or, where tokens have four dimensions, several; a frame a second."""
    if frame_tokens.dim() == 3:
        frame_tokens = frame_tokens[None]
    num_videos, num_frames = frame_tokens.shape[:2]
    shots = [0] * num_frames if shots is None else shots
    return {
        "frame_tokens": frame_tokens,
        "grid": grid,
        "frame_seconds": torch.arange(num_frames, dtype=torch.float).expand(num_videos, -1),
        "shot_ids": torch.tensor(shots).expand(num_videos, -1),
    }


def random_videos(num_videos: int = 4, num_frames: int = 6, channels: int = 200, side: int = 8) -> dict:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(num_videos, num_frames, side * side, channels, generator=generator)
    return video_of(tokens, (side, side), [frame // 4 for frame in range(num_frames)])


def part_of(inputs: dict, videos: slice, frames: slice = slice(None)) -> dict:
    return {name: value if name == "grid" else value[videos, frames] for name, value in inputs.items()}


@pytest.mark.parametrize("variant", ["single", "multi_b", "multi_c", "text_off", "tta_only", "shot"])
@torch.no_grad()
def test_untrained_video_tokens_are_the_plain_means_of_what_belongs_together(variant):
    """Twelve things, each seen in several tokens of any length, become twelve video tokens in the order of time."""
    generator = torch.Generator().manual_seed(0)
    things = torch.randint(12, (5, 12), generator=generator)
    things[:, :3] = torch.arange(12).unflatten(0, (4, 3)).repeat(2, 1)[:5]  # each is there
    tokens = torch.eye(12, 16)[things] + 0.02 * torch.randn(5, 12, 16, generator=generator)
    tokens *= torch.rand(5, 12, 1, generator=generator) + 0.5
    inputs = video_of(tokens, (3, 4))
    weights = untrained(variant, top_k=60)(**inputs, output_token_weights=True).token_weights[0]
    members = (things.flatten() == torch.arange(12)[:, None]).double()
    expected = members / members.sum(1, keepdim=True)
    times = expected @ inputs["frame_seconds"][0].double().repeat_interleave(12)
    torch.testing.assert_close(weights.double(), expected[times.argsort()], rtol=0, atol=1e-6)


AWKWARD = {
    "one frame": (torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(0)), (3, 4)),
    "fewer tokens than video tokens": (torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1)), (2, 2)),
    "one token": (torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(2)), (1, 1)),
    "a still video": (torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(3)).repeat(6, 1, 1), (3, 4)),
    "one colour": (torch.full((5, 12, 16), 0.3), (3, 4)),
    "nothing": (torch.zeros(5, 12, 16), (3, 4)),
    "one thing too large": (torch.eye(60, 16).mul(1e30).view(5, 12, 16), (3, 4)),
}


@each_variant
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_videos_are_averaged_too(variant, name):
    tokens, grid = AWKWARD[name]
    model = untrained(variant)
    output = model(**video_of(tokens, grid), output_token_weights=True)
    weights = output.token_weights[0]
    assert weights.shape == (12, len(tokens) * tokens.shape[1]) and weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(12), rtol=0, atol=1e-5)
    expected = weights.double() @ tokens.flatten(0, 1).double()
    torch.testing.assert_close(output.video_tokens[0].double(), expected, rtol=1e-5, atol=1e-5)
    if weights.shape[1] <= SMALL["top_k"]:
        assert (weights.sum(0) > 0).all()  # nothing of it is lost
    output.token_weights.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("variant", ["single", "multi_c", "shot"])
@torch.no_grad()
def test_of_a_still_video_one_frame_is_kept(variant):
    """Of tokens that are equally new the first one in time, then in place, is picked: all else is a copy."""
    still, grid = AWKWARD["a still video"]
    weights = untrained(variant, top_k=12)(**video_of(still, grid), output_token_weights=True).token_weights[0]
    assert (weights[:, :12].sum(0) > 0).all() and not weights[:, 12:].any()


@each_variant
@torch.no_grad()
def test_untrained_weights_are_the_same_to_the_bit(variant):
    """On one thread and two, in a batch and alone; wide tokens, several shots, far more tokens than are kept."""
    model, inputs = untrained(variant, channels=200, num_layers=1), random_videos(num_videos=2)
    expected = model(**inputs, output_token_weights=True)
    torch.set_num_threads(2)
    try:
        together = model(**inputs, output_token_weights=True)
        alone = [model(**part_of(inputs, slice(v, v + 1)), output_token_weights=True) for v in range(2)]
    finally:
        torch.set_num_threads(1)
    for name in expected.keys() & {"token_weights", "token_scores"}:
        assert torch.equal(together[name], expected[name])
        assert torch.equal(torch.cat([output[name] for output in alone]), expected[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_novelty_is_that_of_the_shot_alone(dtype):
    """So a video can be given shot by shot, whatever else it shows, and memories of shots can be joined."""
    model, inputs = untrained(channels=200, top_k=100, max_shot_frames=4), random_videos(num_frames=9, side=5)
    inputs["shot_ids"] = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 2], [5, 5, 5, 5, 5, 5, 5, 5, 5]]).repeat(2, 1)
    inputs["frame_tokens"] = inputs["frame_tokens"].to(dtype)
    model = model.to(dtype)
    scores = model(**inputs).token_scores.unflatten(1, (9, 25))
    windows = ([(0, 2), (2, 6), (6, 8), (8, 9)], [(0, 4), (4, 8), (8, 9)])  # shots, in parts of 4 frames at most
    for video in range(4):
        for start, end in windows[video % 2]:
            alone = model(**part_of(inputs, slice(video, video + 1), slice(start, end))).token_scores
            assert torch.equal(alone.flatten(), scores[video, start:end].flatten())
    kept = model.refiner.select(scores.flatten(1))
    for video in range(4):  # the best of the first frames, joined with the best of the others
        first, second = scores[video, :4].flatten(), scores[video, 4:].flatten()
        halves = [model.refiner.select(half[None])[0] for half in (first, second)]
        joined = torch.cat([halves[0], halves[1] + 100])
        best = model.refiner.select(torch.cat([first, second])[joined][None])[0]
        assert torch.equal(joined[best], kept[video])


def test_of_equally_far_points_the_first_is_picked():
    points = torch.tensor([[[0.0, 0], [0, 5], [5, 0], [-5, 0], [0, -5], [0, 5], [1, 0]]])
    picks, novelty = farthest_points(points, 4)
    assert picks.tolist() == [[0, 1, 2, 3]]  # all four corners are as far; after (0, 5), its opposite is no farther
    assert novelty.tolist() == [[4 * 1000**2, 25, 25, 25, 25, 0, 1]]
    assert farthest_points(points[:, :3], 7)[0].tolist() == [[0, 1, 2, 0, 1, 2, 0]]
    mask = torch.tensor([[True, True, True, False, False, False, False]])
    picks, novelty = farthest_points(points, 7, mask)
    assert picks[0, :3].tolist() == [0, 1, 2] and novelty[0, :3].tolist() == [4 * 1000**2, 25, 25]


def adversarial_tokens(channels: int) -> torch.Tensor:
    """Opposite tokens, along one channel, along all, along one projection's signs, tiny and huge ones, and nothing."""
    generator = torch.Generator().manual_seed(channels)
    signs = torch.randint(0, 2, (channels,), generator=generator) * 2.0 - 1
    tokens = [torch.ones(channels), signs, torch.eye(channels)[-1], torch.randn(channels, generator=generator)]
    tokens.append(torch.randn(channels, generator=generator) ** 9)
    if channels > 128:
        fixed = torch.tensor(np.random.RandomState(0).randint(0, 2, (channels, 128)) * 2.0 - 1).float()
        tokens += [fixed[:, 0], fixed.sum(1)]
    tokens += [tokens[0] * 1e-25, tokens[3] * 1e25]
    return torch.stack([*tokens, *(-token for token in tokens), torch.zeros(channels)])


@pytest.mark.parametrize("channels", [1, 2, 3, 12, 127, 128, 129, 3584])
def test_directions_and_distances_are_exact_whole_numbers(channels):
    tokens = adversarial_tokens(channels)
    directions = token_directions(tokens)
    expected = directions_of_tokens(tokens.tolist())
    assert directions.long().tolist() == expected and torch.equal(directions, directions.round())
    when = torch.arange(len(tokens)) % 2 * 2000.0
    points = torch.cat([directions, when[:, None]], dim=1)[None]
    rows = points[0].long().tolist()
    exact = [[square(one, other) for other in rows] for one in rows]
    assert max(max(row) for row in exact) <= LARGEST
    assert squared_distances(points, points)[0].long().tolist() == exact


@pytest.mark.parametrize("scale", [2.0**-60, 0.125, 2.0**40])
def test_directions_do_not_depend_on_the_length_of_a_token(scale):
    tokens = torch.randn(50, 300, generator=torch.Generator().manual_seed(0))
    assert torch.equal(token_directions(tokens * scale), token_directions(tokens))


def test_projected_directions_keep_distances():
    tokens = torch.randn(60, 3584, generator=torch.Generator().manual_seed(0))
    tokens[30:] = tokens[:30] + torch.linspace(0.1, 3, 30)[:, None] * tokens[30:]
    directions = token_directions(tokens)[None]
    found = squared_distances(directions, directions)[0].sqrt() / 1000
    expected = torch.cdist(*[torch.nn.functional.normalize(tokens, dim=1)] * 2)
    apart = expected > 0.05
    errors = found[apart] / expected[apart] - 1
    assert errors.std() < 0.08 and errors.abs().max() < 0.35


def test_clusters_of_tens_of_thousands_of_tokens_are_exact():
    """Sums that float32 cannot hold, and a mean so near to a half that any rounding on the way would show."""
    directions = torch.tensor([[999.0, 1], [998, 1], [-999, 1]])
    directions = directions.repeat_interleave(torch.tensor([9_001, 9_000, 500]), 0)
    order = torch.randperm(len(directions), generator=torch.Generator().manual_seed(0))
    progress = torch.zeros(len(directions))
    expected = torch.tensor(clusters_of_tokens(directions[order].long().tolist(), progress.tolist(), 2))
    for some in (order, order.flip(0)):
        margins, clusters = cluster_tokens(directions[some][None], progress[None], 2)
        by_size = clusters[0].bincount().argsort()
        found = torch.empty(2, len(order))
        found[:, some] = margins[0, by_size]
        torch.testing.assert_close(found[:, order], expected, rtol=0, atol=0)


@each_variant
@torch.no_grad()
def test_any_number_of_video_tokens_up_to_top_k(variant):
    model, inputs = untrained(variant), random_videos(num_videos=2, channels=16, side=3)
    for number in (1, 2, 3, 5, 11, 12, 13, 40):
        output = model(**inputs, num_video_tokens=number, output_token_weights=True)
        assert output.video_tokens.shape == (2, number, 16) and output.token_weights.shape == (2, number, 54)
        assert output.token_weights.min() >= 0
        torch.testing.assert_close(output.token_weights.sum(-1), torch.ones(2, number), rtol=0, atol=1e-5)
    default = model(**inputs).video_tokens
    assert torch.equal(model(**inputs, num_video_tokens=12).video_tokens, default)


@each_variant
def test_other_numbers_of_video_tokens_are_refused(variant):
    model, inputs = untrained(variant), random_videos(num_videos=1, channels=16, side=3)
    for number in (0, -1, *([41, 1000] if model.config.use_svr else [])):
        with pytest.raises(
            ValueError, match=rf"shall become {number} tokens .*(from 1 to 40, its top_k|makes 1 or more)"
        ):
            model(**inputs, num_video_tokens=number)


def test_learnt_queries_are_as_many_as_they_are():
    model, inputs = untrained("single_random"), random_videos(num_videos=1, channels=16, side=3)
    assert model(**inputs, num_video_tokens=12).video_tokens.shape[1] == 12
    for number in (1, 11, 13):
        with pytest.raises(ValueError, match="makes 12, .*start='random'"):
            model(**inputs, num_video_tokens=number)


@pytest.mark.parametrize("num_queries", [[12], [6, 4, 2], [64, 32, 16], [4, 4, 4], [1, 1], [1, 5, 30], [30, 1]])
def test_scales_share_any_number_of_video_tokens(num_queries):
    config = LinVTVideoConfig(num_queries=num_queries, pooling_windows=[1] * len(num_queries))
    assert config.video_tokens_per_scale(sum(num_queries)) == num_queries
    assert config.video_tokens_per_scale(4 * sum(num_queries)) == [4 * queries for queries in num_queries]
    for number in range(1, 200):
        finest, *coarser = config.video_tokens_per_scale(number)
        assert finest + sum(coarser) == number and finest >= 1
        shares = [number * queries / sum(num_queries) for queries in num_queries]
        assert all(share - 1 < some <= share for some, share in zip(coarser, shares[1:], strict=True))


@each_variant
@torch.no_grad()
def test_autocast_changes_nothing_of_what_is_untrained(variant):
    model, inputs = untrained(variant, channels=200), random_videos(num_videos=2, side=4)
    expected = model(**inputs, output_token_weights=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**inputs, output_token_weights=True)
    assert torch.equal(output.token_weights, expected.token_weights)
    assert model.config.use_svr is False or torch.equal(output.token_scores, expected.token_scores)


@each_variant
@torch.no_grad()
def test_half_precision_keeps_and_clusters_the_same_tokens(variant):
    model, inputs = untrained(variant, channels=200), random_videos(num_videos=2, side=4)
    inputs["frame_tokens"] = inputs["frame_tokens"].bfloat16()
    half = model.bfloat16()(**inputs, output_token_weights=True)
    inputs["frame_tokens"] = inputs["frame_tokens"].float()
    exact = model.float()(**inputs, output_token_weights=True)  # with the weights as they were rounded
    assert torch.equal(half.token_weights, exact.token_weights) and half.video_tokens.dtype == torch.bfloat16


def test_compiled_it_does_the_same():
    inputs, outputs, gradients = random_videos(num_videos=2, side=3), [], []
    for compiled in (False, True):
        torch.compiler.reset()
        model = untrained("single", channels=200, num_layers=1)
        output = (torch.compile(model, backend="eager") if compiled else model)(**inputs, output_token_weights=True)
        output.video_tokens.square().sum().backward()
        outputs.append((output.video_tokens, output.token_weights))
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


@each_variant
def test_one_step_of_training_changes_scores_and_weights(variant):
    model, inputs = untrained(variant), random_videos(num_videos=2, channels=16, side=3)
    before = model(**inputs, output_token_weights=True)
    (before.video_tokens - 1).square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    after = model(**inputs, output_token_weights=True)
    assert not torch.allclose(after.token_weights, before.token_weights, rtol=0, atol=1e-5)
    if model.refiner is not None:
        assert not torch.allclose(after.token_scores, before.token_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_saved_video_tokenizer_starts_where_it_did(variant, tmp_path):
    model, inputs = untrained(variant), random_videos(num_videos=1, channels=16, side=3)
    model.save_pretrained(tmp_path)
    loaded = LinVTVideoModel.from_pretrained(tmp_path)
    assert loaded.config.start == model.config.start == ("random" if variant.endswith("_random") else "merge")
    assert torch.equal(loaded(**inputs).video_tokens, model(**inputs).video_tokens)


def test_only_what_can_be_kept_is_looked_for():
    """A shot of many more tokens than are kept: what is left over is as new as the picks leave it."""
    generator = torch.Generator().manual_seed(0)
    directions = token_directions(torch.randn(2, 40, 16, generator=generator))
    novelty = log_novelty(directions, torch.tensor([[0, 1]]), 5).flatten()
    picks, _ = farthest_points(directions.flatten(0, 1)[None], 5)
    rest = [token for token in range(80) if token not in picks[0].tolist()]
    points = directions.flatten(0, 1)[None]
    nearest = squared_distances(points, points.take_along_dim(picks[..., None], 1))[0].min(1).values
    torch.testing.assert_close(novelty[rest], 0.5 * (nearest[rest] / 1000**2).log())
    assert novelty[picks[0]].min() >= novelty[rest].max()
