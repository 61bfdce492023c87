"""The contracts of the video tokenizer, on the module alone, over all its variants."""

import copy
import math
from itertools import permutations

import pytest
import torch
from reference_video_tokenizer import reference_weights
from tiny_families import SMALL, VARIANTS, move_from_merging, without_gradient

from linvt import LinVTVideoConfig, LinVTVideoModel
from linvt.video_tokenizer.token_pooling import average_pooling_matrix, even_pooling_matrix, window_masks


CHANNELS, GRID = 12, (3, 4)

each_variant = pytest.mark.parametrize("variant", VARIANTS)


def make(variant: str = "multi_c", seed: int = 0, **settings) -> LinVTVideoModel:
    config = LinVTVideoConfig(**{"embedding_size": CHANNELS, **SMALL, **VARIANTS[variant], **settings})
    torch.manual_seed(seed)
    model = LinVTVideoModel(config).eval()
    # Larger than at initialisation, so that scores, queries and text make a visible difference.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            wide = config.embedding_size / CHANNELS if parameter.shape[1] == config.embedding_size else 1
            torch.nn.init.normal_(parameter, std=0.15 * wide**-0.5)
    move_from_merging(model)
    return model


def make_fresh(variant: str, **settings) -> LinVTVideoModel:
    """As it is before any training."""
    torch.manual_seed(0)
    return LinVTVideoModel(LinVTVideoConfig(**{"embedding_size": CHANNELS, **SMALL, **VARIANTS[variant], **settings}))


def make_inputs(
    num_frames: int = 5, num_videos: int = 2, seed: int = 1, num_shots: int = 2, channels: int = CHANNELS
) -> dict:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.arange(num_frames)
    return {
        "frame_tokens": torch.randn(num_videos, num_frames, GRID[0] * GRID[1], channels, generator=generator),
        "grid": GRID,
        "frame_seconds": (frames * 1.5).expand(num_videos, -1),
        "shot_ids": (frames * num_shots // num_frames).expand(num_videos, -1),
        "instruction_embeds": torch.randn(num_videos, 7, channels, generator=generator),
    }


@each_variant
@pytest.mark.parametrize("num_frames", [1, 2, 5, 9])
def test_every_video_token_is_a_convex_combination_of_frame_tokens(variant, num_frames):
    inputs = make_inputs(num_frames)
    output = make(variant)(**inputs, output_token_weights=True)
    weights, tokens = output.token_weights, inputs["frame_tokens"].flatten(1, 2)
    assert weights.shape == (2, 12, num_frames * 12) and weights.dtype == torch.float32
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 12), rtol=0, atol=1e-5)
    expected = weights.double() @ tokens.double()
    torch.testing.assert_close(output.video_tokens.double(), expected, rtol=1e-5, atol=1e-5)
    assert make(variant)(**inputs).token_weights is None


def assert_weights_are_those_of_the_reference(model: LinVTVideoModel, inputs: dict, atol: float, **asked) -> None:
    weights = model(**inputs, **asked, output_token_weights=True).token_weights
    names = ("frame_tokens", "grid", "frame_seconds", "shot_ids", "instruction_embeds")
    for video in range(len(weights)):
        alone = [inputs[name] if name == "grid" else inputs[name][video] for name in names]
        expected = reference_weights(model, *alone, *asked.values())
        torch.testing.assert_close(weights[video].double(), expected, rtol=0, atol=atol)


@each_variant
@pytest.mark.parametrize("num_frames", [1, 3, 5])
@pytest.mark.parametrize("maker", [make, make_fresh])
@torch.no_grad()
def test_the_weights_are_those_of_the_reference(variant, num_frames, maker):
    assert_weights_are_those_of_the_reference(maker(variant).eval(), make_inputs(num_frames), atol=1e-5)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.endswith("_random")])
@pytest.mark.parametrize("maker", [make, make_fresh])
@torch.no_grad()
def test_merging_is_that_of_the_reference_in_windows_of_shots_and_for_any_number(variant, maker):
    """Channels that are projected, shots of other lengths than windows, fewer kept tokens, other scales."""
    model = maker(variant, embedding_size=130, max_shot_frames=2, top_k=25).eval()
    inputs = make_inputs(num_frames=5, channels=130)
    inputs["shot_ids"] = torch.tensor([[0, 0, 0, 7, 7], [3, 3, 3, 3, 3]])
    for number in (1, 7):
        assert_weights_are_those_of_the_reference(model, inputs, atol=1e-4, num_video_tokens=number)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("svr_only")])
def test_video_tokens_are_in_the_order_of_time(variant):
    inputs = make_inputs(num_frames=24)
    weights = make(variant)(**inputs, output_token_weights=True).token_weights
    seconds = inputs["frame_seconds"].repeat_interleave(GRID[0] * GRID[1], 1)
    times = (weights @ seconds[..., None])[..., 0]
    assert (times.diff(dim=1) > -1e-4).all() and (times[:, -1] > times[:, 0] + 1).all()


@each_variant
def test_gradients_reach_the_frame_tokens_as_weights(variant):
    """Where scores, queries and keys do not see V, the derivative of the video tokens by V is W."""
    model, inputs = make(variant), make_inputs()
    torch.nn.init.zeros_(model.token_proj.weight)
    inputs["frame_tokens"].requires_grad_()
    output = model(**inputs, output_token_weights=True)
    output.video_tokens.sum().backward()
    gradient = inputs["frame_tokens"].grad.flatten(1, 2)
    torch.testing.assert_close(gradient, output.token_weights.sum(1)[..., None].expand_as(gradient))


@each_variant
def test_weights_ignore_nothing_but_what_the_values_are(variant):
    """With all frame tokens of a channel equal, the output has that value: no bias, no projection of values."""
    inputs = make_inputs()
    inputs["frame_tokens"][..., 3] = 7.5
    video_tokens = make(variant)(**inputs).video_tokens
    torch.testing.assert_close(video_tokens[..., 3], torch.full((2, 12), 7.5))


@each_variant
def test_every_parameter_learns(variant):
    model = make(variant)
    model(**make_inputs()).video_tokens.square().sum().backward()
    assert without_gradient(model) == []


@each_variant
def test_every_parameter_learns_and_moves_from_the_initial_weights(variant):
    """In one step from random ones, and in two from merging: what it leaves alone at first is zero."""
    model = make_fresh(variant)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(2 if model.merges else 1):
        optimizer.zero_grad()
        (model(**make_inputs()).video_tokens - 1).square().mean().backward()
        optimizer.step()
    assert without_gradient(model) == []
    assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == []


@each_variant
def test_what_adds_to_merging_learns_at_once(variant):
    model = make_fresh(variant)
    if model.merges:
        (model(**make_inputs()).video_tokens - 1).square().mean().backward()
        silent = without_gradient(model)
        adds = ("score_weight", "log_sharpness", "time_weight", "query_proj.weight", "word_proj.weight")
        learnt = {name for name, _ in model.named_parameters() if ".layers." not in name}
        names = {name for name in learnt if name.endswith(adds)}
        assert names and not names & set(silent)
        assert all(parameter.grad is not None for parameter in model.parameters())  # or other ranks would wait


@each_variant
def test_a_video_does_not_depend_on_its_neighbours(variant):
    model, inputs = make(variant), make_inputs()
    together = model(**inputs).video_tokens
    for video in range(2):
        alone = {name: v if name == "grid" else v[video : video + 1] for name, v in inputs.items()}
        torch.testing.assert_close(model(**alone).video_tokens[0], together[video], rtol=0, atol=1e-5)


def test_padding_of_the_instruction_changes_nothing():
    model, inputs = make(), make_inputs()
    expected = model(**inputs).video_tokens
    padding = torch.full((2, 3, CHANNELS), 9.0)
    mask = torch.ones(2, 7, dtype=torch.bool)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    for side in (1, -1):
        padded = dict(inputs)
        padded["instruction_embeds"] = torch.cat([padding, inputs["instruction_embeds"]][::side], dim=1)
        padded["instruction_mask"] = torch.cat([nothing, mask][::side], dim=1)
        torch.testing.assert_close(model(**padded).video_tokens, expected, rtol=0, atol=1e-5)


def test_only_the_best_tokens_of_a_video_get_weight():
    model = make(top_k=15)
    output = model(**make_inputs(), output_token_weights=True)
    for weights, scores in zip(output.token_weights, output.token_scores, strict=True):
        best = [token for _, token in sorted((-score, token) for token, score in enumerate(scores.tolist()))[:15]]
        assert set(weights.sum(0).nonzero().flatten().tolist()) == set(best)


def test_in_training_tokens_are_drawn_with_odds_of_their_weight():
    """So that one with a low score, too, is seen at times and can learn; the chances are those of an exact count."""
    refiner = make("single", top_k=2, num_queries=[2], pooling_windows=[1]).refiner.train()
    odds = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.double)
    expected = torch.zeros(4, dtype=torch.double)
    for first, second in permutations(range(4), 2):
        chance = odds[first] / odds.sum() * odds[second] / (odds.sum() - odds[first])
        expected[[first, second]] += chance
    drawn = refiner.select(odds.log().float().expand(40_000, -1))
    assert (drawn[:, 0] < drawn[:, 1]).all()
    shares = torch.bincount(drawn.flatten(), minlength=4) / len(drawn)
    torch.testing.assert_close(shares.double(), expected, rtol=0, atol=0.015)  # 6 standard deviations
    best = torch.tensor([[2, 3]])
    assert (refiner.eval().select(odds.log()[None].float()) == best).all()
    # Where the scores do not learn, as beside LoRA, nothing is to be gained from worse tokens.
    frozen = refiner.train().requires_grad_(False)
    assert (frozen.select(odds.log().float().expand(100, -1)) == best).all()


@pytest.mark.parametrize("variant", ["single", "single_random"])
def test_the_score_of_a_token_raises_its_weight(variant):
    """Scores are a bias of the logits, so the weight of a token whose score alone is raised by 1 grows by e."""
    model, inputs = make(variant), make_inputs(num_videos=1)
    before = model(**inputs, output_token_weights=True)
    token = int(before.token_scores[0].argmax())
    refiner = model.refiner

    class Raised(torch.nn.Module):
        select = staticmethod(refiner.select)
        prior_scores = staticmethod(refiner.prior_scores)

        def forward(self, hidden, windows):
            scores = refiner(hidden, windows)
            return scores + torch.nn.functional.one_hot(torch.tensor([token]), scores.shape[1])

    model.refiner = Raised()
    after = model(**inputs, output_token_weights=True)
    weights = before.token_weights[0, :, token] * math.e
    expected = weights / (1 - weights / math.e + weights)  # rows sum to 1; they may change places
    found = after.token_weights[0, :, token]
    torch.testing.assert_close(found.sort().values, expected.sort().values, rtol=1e-4, atol=1e-6)


def test_kept_tokens_stay_in_the_order_of_the_video():
    """Windows of the finest SVR-only scale cover time from start to end, whatever the scores are."""
    output = make("svr_only", multi_scale="single")(**make_inputs(num_frames=9), output_token_weights=True)
    centres = (output.token_weights * torch.arange(9 * 12)).sum(-1)
    assert (centres.diff(dim=1) > 0).all()


@pytest.mark.parametrize("attention", ["video", "shot"])
def test_shots_are_scored_apart_only_with_shot_attention(attention):
    model, inputs = make(temporal_attention=attention), make_inputs(num_frames=6)
    before = model(**inputs).token_scores.unflatten(1, (6, 12))
    inputs["frame_tokens"][:, 3:] += 1  # the second shot
    after = model(**inputs).token_scores.unflatten(1, (6, 12))
    assert torch.equal(before[:, :3], after[:, :3]) == (attention == "shot")
    assert not torch.equal(before[:, 3:], after[:, 3:])


def test_one_shot_is_the_whole_video_but_for_the_share_that_has_passed():
    inputs = make_inputs(num_shots=1)
    models = [make(temporal_attention=attention) for attention in ("shot", "video")]
    for model in models:
        torch.nn.init.zeros_(model.time_proj.weight)
    shot, video = (model(**inputs).video_tokens for model in models)
    torch.testing.assert_close(shot, video, rtol=0, atol=1e-6)


def test_shots_longer_than_a_window_are_scored_in_windows():
    model, inputs = make("shot", max_shot_frames=2), make_inputs(num_frames=5, num_shots=1)
    before = model(**inputs).token_scores.unflatten(1, (5, 12))
    inputs["frame_tokens"][:, 2] += 1
    after = model(**inputs).token_scores.unflatten(1, (5, 12))
    changed = [not torch.equal(before[:, frame], after[:, frame]) for frame in range(5)]
    assert changed == [False, False, True, True, False]


@each_variant
def test_the_instruction_matters_exactly_where_it_is_read(variant):
    model, inputs = make(variant), make_inputs()
    before = model(**inputs).video_tokens
    inputs["instruction_embeds"] = -inputs["instruction_embeds"]
    assert torch.equal(model(**inputs).video_tokens, before) != model.config.text_conditioning


def test_a_video_without_instruction_works():
    inputs = make_inputs()
    inputs["instruction_embeds"] = torch.zeros(2, 0, CHANNELS)
    empty = make()(**inputs).video_tokens
    del inputs["instruction_embeds"]
    assert empty.isfinite().all() and torch.equal(make()(**inputs).video_tokens, empty)


@each_variant
def test_time_and_place_matter(variant):
    model, inputs = make(variant), make_inputs()
    before = model(**inputs).video_tokens
    later = model(**{**inputs, "frame_seconds": inputs["frame_seconds"] * 3}).video_tokens
    turned = model(**{**inputs, "grid": (4, 3)}).video_tokens
    assert not torch.allclose(before, later) and not torch.allclose(before, turned)


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
@pytest.mark.parametrize("returns", [{}, {"return_dict": False}])
def test_states_of_layers_are_refused_by_name_and_not_asking_for_them_changes_nothing(name, returns):
    model, inputs = make("multi_c"), make_inputs()
    expected = model(**inputs, **returns)[0]
    for not_asked in (False, None):
        assert torch.equal(model(**inputs, **returns, **{name: not_asked})[0], expected)
    with pytest.raises(ValueError, match=f"LinVTVideoModel returns nothing for {name}: "):
        model(**inputs, **returns, **{name: True})
    with pytest.raises(TypeError, match="output_token_weight'"):
        model(**inputs, output_token_weight=True)


def test_grid_must_fit():
    with pytest.raises(ValueError, match="grid of 5 x 3 does not fit the 12 tokens"):
        make()(**{**make_inputs(), "grid": (5, 3)})


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_variant
def test_half_precision_is_safe(variant, dtype, scale):
    model, inputs = make(variant), make_inputs()
    inputs["frame_tokens"] *= scale
    if model.merges:  # the clusters are those of the tokens that it is given, and of what is relevant
        if model.config.text_conditioning and not model.config.use_svr:
            torch.nn.init.zeros_(model.aggregator.relevance.word_proj.weight)
        inputs["frame_tokens"] = inputs["frame_tokens"].to(dtype).float()
    exact = model(**inputs, output_token_weights=True)
    model.to(dtype)
    inputs = {name: v.to(dtype) if name in ("frame_tokens", "instruction_embeds") else v for name, v in inputs.items()}
    output = model(**inputs, output_token_weights=True)
    assert output.video_tokens.dtype == dtype and output.video_tokens.isfinite().all()
    assert output.token_weights.dtype == torch.float32
    torch.testing.assert_close(output.token_weights.sum(-1), torch.ones(2, 12), rtol=0, atol=1e-5)
    if not model.config.use_svr:  # with it, rounding may select another token
        # Weights of clusters are larger than those of queries that look everywhere.
        atol = 0.1 if model.merges else 0.05
        torch.testing.assert_close(output.token_weights, exact.token_weights, rtol=0, atol=atol)


def test_autocast_keeps_scores_and_weights_in_float32():
    model, inputs = make(), make_inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**inputs, output_token_weights=True)
    assert output.token_scores.dtype == output.token_weights.dtype == torch.float32
    torch.testing.assert_close(output.token_weights.sum(-1), torch.ones(2, 12), rtol=0, atol=1e-5)


@each_variant
def test_eager_and_sdpa_attention_agree(variant):
    outputs = []
    for implementation in ("eager", "sdpa"):
        model = make(variant)
        model.set_attn_implementation(implementation)
        assert model.config._attn_implementation == implementation
        outputs.append(model(**make_inputs()).video_tokens)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)


@each_variant
def test_gradient_checkpointing_changes_nothing(variant):
    gradients = []
    for checkpointing in (False, True):
        model = make(variant).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)  # tokens are drawn
        model(**make_inputs()).video_tokens.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients)


def test_saved_and_loaded_alone(tmp_path):
    model, inputs = make("multi_b"), make_inputs()
    model.save_pretrained(tmp_path)
    loaded = LinVTVideoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).video_tokens, model(**inputs).video_tokens)


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 7, 16, 33])
@pytest.mark.parametrize("window", [1, 2, 4, 16])
def test_average_pooling_is_the_mean_of_shifted_windows(num_tokens, window):
    matrix = average_pooling_matrix(num_tokens, window)
    length = min(window, num_tokens)
    values = torch.randn(num_tokens, dtype=torch.double)
    step = max(length // 2, 1)
    expected = values.unfold(0, length, step).mean(-1)
    pooled = matrix.double() @ values
    torch.testing.assert_close(pooled[: len(expected)], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(pooled[-1], values[-length:].mean(), rtol=0, atol=1e-6)
    assert (matrix.sum(0) > 0).all()  # no token is left out


@pytest.mark.parametrize("num_tokens", [1, 2, 5, 12, 100])
@pytest.mark.parametrize("num_windows", [1, 3, 12, 64])
def test_even_windows_are_adaptive_average_pooling(num_tokens, num_windows):
    values = torch.randn(1, 1, num_tokens)
    expected = torch.nn.functional.adaptive_avg_pool1d(values, num_windows)[0, 0]
    torch.testing.assert_close(even_pooling_matrix(num_tokens, num_windows) @ values[0, 0], expected)
    assert window_masks(num_tokens, num_windows).any(0).all()


@pytest.mark.parametrize(("hidden_size", "num_attention_heads"), [(8, 1), (8, 8), (24, 3), (40, 5)])
def test_every_width_that_the_configuration_takes_works(hidden_size, num_attention_heads):
    model = make(hidden_size=hidden_size, num_attention_heads=num_attention_heads)
    assert model(**make_inputs()).video_tokens.isfinite().all()


@pytest.mark.parametrize("channels", [2048, 3584, 4096, 5120])
def test_no_more_parameters_than_the_paper(channels):
    with torch.device("meta"):
        model = LinVTVideoModel(LinVTVideoConfig(embedding_size=channels))
    assert sum(parameter.numel() for parameter in model.parameters()) <= 267_000_000
