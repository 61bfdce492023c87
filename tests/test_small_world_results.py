"""What is written about runs: differences, pictures, and the rows that nothing learns."""

import json
import re
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from small_world import costs
from small_world.baselines import all_tokens, density_peaks, random_scores, uniform_frames
from small_world.compared_rows import COMPARED
from small_world.paired_difference import paired_difference
from small_world.pictures import LONG_ROWS, LOSS_ROWS, write_pictures
from small_world.result_summary import summary, tokens_needed
from small_world.results import differences_table, write_results
from small_world.run_results import Results, rows_by_kind
from small_world.small_image_llm import small_llava, small_processor
from small_world.svg_chart import line_chart, round_ticks
from small_world.world_rows import BUDGETS, VARIANTS


def one_difference(ones: list[tuple], others: list[tuple], drawn: list[int]) -> float:
    """The difference in one draw of videos, question by question; a question is (kind, video, right)."""
    gains: dict[str, list[float]] = {}
    for video in drawn:
        for (kind, asked_about, one), (_, _, other) in zip(ones, others, strict=True):
            if asked_about == video:
                gains.setdefault(kind, []).append(one - other)
    return 100 * sum(sum(of_kind) / len(of_kind) for of_kind in gains.values()) / len(gains)


def test_differences_are_those_of_videos_drawn_one_by_one():
    rng = np.random.default_rng(5)
    questions = [("order", video) for video in range(40) for _ in range(3)] + [("needle", v) for v in range(40)]
    # Questions about one video are right or wrong together.
    luck = rng.random(40)
    ones = [(kind, video, float(rng.random() < 0.5 + 0.4 * luck[video])) for kind, video in questions]
    others = [(kind, video, float(rng.random() < 0.7 * luck[video])) for kind, video in questions]
    arrays = [
        {kind: np.array([right for k, _, right in row if k == kind]) for kind in ("order", "needle")}
        for row in (ones, others)
    ]
    videos = {kind: np.array([video for k, video in questions if k == kind]) for kind in ("order", "needle")}
    found = paired_difference(*arrays, videos)
    assert found.points == pytest.approx(one_difference(ones, others, list(range(40))))
    draws = [one_difference(ones, others, list(rng.integers(0, 40, 40))) for _ in range(600)]
    assert np.allclose(np.percentile(draws, (2.5, 97.5)), (found.low, found.high), atol=2.5)
    assert found.is_clear and str(found) == f"{found.points:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
    # Videos are drawn, not questions, whose interval would be too narrow.
    same = paired_difference(arrays[0], arrays[0], videos)
    assert (same.points, same.low, same.high) == (0, 0, 0) and not same.is_clear


def test_charts_are_xml_and_show_every_point():
    series = {"a & b": [(16, 91.5), (32, 70.0), (64, 12.25)], "<other>": [(16, 50.0), (64, 60.0)]}
    root = ElementTree.fromstring(line_chart("Needles < order", "shots", "percent", series, logarithmic=True))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"Needles < order", "shots", "percent", "a & b", "<other>", "16", "32", "64"} <= set(texts)
    lines = [line.get("points").split() for line in root.iter(f"{space}polyline")]
    assert [len(points) for points in lines] == [3, 2]
    _, _, width, height = map(float, root.get("viewBox").split())
    places = [[tuple(map(float, point.split(","))) for point in points] for points in lines]
    assert all(0 < x < width and 0 < y < height for points in places for x, y in points)
    # Higher is nearer to the top, doublings are equally wide, and equal is at the same place.
    first, second = places
    assert first[0][1] < first[1][1] < first[2][1] and first[1][0] * 2 == pytest.approx(
        first[0][0] + first[2][0], abs=0.2
    )
    assert first[0][0] == second[0][0]
    assert "prefers-color-scheme: dark" in line_chart("t", "x", "y", series)


@pytest.mark.parametrize("values", [[3.2, 98.1], [0.71, 0.74], [50.0], [0.0], [1e6, 5e6], [-3.0, 2.0]])
def test_ticks_are_round_and_hold_all_values(values):
    ticks = round_ticks(values)
    steps = np.diff(ticks)
    assert 2 <= len(ticks) <= 9 and np.allclose(steps, steps[0])
    assert ticks[0] <= min(values) and max(values) <= ticks[-1] + 1e-9
    assert float(f"{steps[0]:.1e}") == pytest.approx(steps[0])


V = torch.randn(2, 6, 4, 8, generator=torch.Generator().manual_seed(0))
SECONDS = torch.arange(6.0).expand(2, -1) * 2


@pytest.mark.parametrize(
    "weights", [all_tokens, uniform_frames, density_peaks, partial(random_scores, num_kept=9, seed=1)]
)
def test_weights_are_averages(weights):
    made = weights(V, SECONDS, number=5)
    assert made.shape[2] == 24 and (made >= 0).all() and torch.allclose(made.sum(-1), torch.ones(2, made.shape[1]))
    when = made @ SECONDS.repeat_interleave(4, 1)[..., None]
    assert (when.diff(dim=1) >= -1e-5).all()
    alone = torch.cat([weights(V[i : i + 1], SECONDS[i : i + 1], number=5) for i in range(2)])
    if weights in (all_tokens, uniform_frames, density_peaks):
        assert torch.equal(alone, made)


def test_uniform_frames_are_whole_ones():
    made = uniform_frames(V, SECONDS, number=5) @ V.flatten(1, 2)
    assert torch.equal(made, V[:, [1, 4]].flatten(1, 2))


def test_what_is_drawn_by_lot_depends_on_the_lots_alone():
    made = [random_scores(V, SECONDS, 5, num_kept=9, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert ((made[0].sum(1) > 0).sum(1) == 9).all()


def test_density_peaks_are_those_of_loops():
    number, tokens = 5, torch.nn.functional.normalize(V.flatten(1, 2), dim=-1)
    made = density_peaks(V, SECONDS, number)
    for video in range(2):
        points = tokens[video].double()
        squares = [[float((a - b).square().sum()) for b in points] for a in points]
        density = [np.exp(-np.mean(sorted(row)[:5])) for row in squares]
        far = [
            min((squares[i][j] for j in range(24) if density[j] > density[i]), default=max(squares[i])) ** 0.5
            for i in range(24)
        ]
        centres = sorted(range(24), key=lambda i: -density[i] * far[i])[:number]
        clusters = {
            centre: [i for i in range(24) if min(centres, key=lambda c: squares[i][c]) == centre] for centre in centres
        }
        expected = {frozenset(members) for members in clusters.values()}
        assert {frozenset(row.nonzero()[:, 0].tolist()) for row in made[video]} == expected


def run_of(name: str, stage: str, rng: np.random.Generator, chance: float, world: str = "small") -> dict:
    rows = rows_by_kind(world)
    right = {about: "".join("01"[int(rng.random() < chance)] for _ in asked) for about, asked in rows.items()}
    shares = {about: 100 * answers.count("1") / len(answers) for about, answers in right.items()}
    shares["mean"] = float(np.mean([share for about, share in shares.items() if about != "caption"]))
    pictures = {"mean": 99.0, "caption": 90.0}
    run = {"variant": name, "seed": 0, "options": {}, "losses": [{"step": 50, "loss": 1.0}], "seconds": 60}
    run |= {"num_video_tokens": 28, "video_tokenizer_parameters": 0, "right": {stage: {"videos": right}}}
    return {**run, stage: {"videos": shares, "pictures": pictures}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    made = [
        run_of("merging, 28 tokens", "untrained", rng, 0.8),
        run_of("uniform frames, 28 tokens", "untrained", rng, 0.5),
        run_of("long, merging, 28 tokens", "untrained", rng, 0.7, "long"),
        run_of("merging, LoRA alone", "tuned", rng, 0.9),
    ]
    made[-1].pop("right")  # as runs were kept before
    for run in made:
        (folder / f"{run['variant']}.json").write_text(json.dumps(run))
    return folder


def test_rows_are_compared_where_their_answers_were_kept(runs):
    results = Results.read(runs)
    found = results.difference(("merging, 28 tokens", "untrained"), ("uniform frames, 28 tokens", "untrained"))
    means = [results.accuracy(name, "untrained") for name in ("merging, 28 tokens", "uniform frames, 28 tokens")]
    assert found.points == pytest.approx(means[0] - means[1]) and found.is_clear
    assert results.difference(("merging, LoRA alone", "tuned"), ("merging, 28 tokens", "untrained")) is None
    table = differences_table(results)
    (line,) = [line for line in table.splitlines() if line.startswith("| merging, or uniform frames")]
    assert str(found) in line and line.endswith("clear |")
    assert "answers not kept" in table


def test_accuracies_by_place_and_length_are_those_of_the_questions(runs):
    results = Results.read(runs)
    right = results.right("long, merging, 28 tokens", "untrained")["needle"]
    rows = rows_by_kind("long")["needle"]
    by_place = dict(results.by_place("long, merging, 28 tokens", "untrained"))
    third = [
        r for r, row in zip(right, rows, strict=True) if row.video % 3 == 2 and row.question.shots[0] in range(16, 24)
    ]
    assert by_place[3] == pytest.approx(100 * np.mean(third)) and set(by_place) == set(range(1, 9))
    by_length = dict(results.by_length("long, merging, 28 tokens", "untrained", "needle"))
    shortest = [r for r, row in zip(right, rows, strict=True) if row.video % 3 == 0]
    assert by_length[16] == pytest.approx(100 * np.mean(shortest)) and set(by_length) == {16, 32, 64}


def test_a_page_is_filled_in_and_its_pictures_are_drawn(runs, tmp_path):
    page = tmp_path / "results.md"
    names = ("summary", "pictures", "differences", "tables")
    page.write_text("# Results\n" + "\n".join(f"<!-- {name} -->old<!-- /{name} --> between" for name in names))
    write_results(runs, page)
    text = page.read_text()
    assert "old" not in re.sub("cold|told|hold|fold", "", text) and text.count("between") == 4
    assert re.findall(r"^(\d+)\. ", text, re.MULTILINE) == [str(number) for number in range(1, 11)]
    assert "[not run]" in text and "{" not in text
    shown = re.findall(r"\]\((pictures/.*\.svg)\)", text)
    assert len(shown) >= 4 and all(ElementTree.parse(tmp_path / name) is not None for name in shown)
    before = text
    write_results(runs, page)
    assert page.read_text() == before


def test_tokens_that_merging_needs(runs):
    made = {f"merging, {number} tokens": [{"untrained": {"videos": {"mean": 50.0 + number}}}] for number in BUDGETS}
    results = Results(made)
    assert tokens_needed(results, 78.0) == "28" and tokens_needed(results, 78.1) == "56"
    assert tokens_needed(results, 200.0) == "more than 112" and tokens_needed(results, None) == ""
    assert summary(Results({})).count("[not run]") > 20


def test_every_row_that_is_compared_or_drawn_exists():
    names = {name for pair in COMPARED.values() for name, _ in pair} | {name for name, _ in LONG_ROWS.values()}
    assert names | set(LOSS_ROWS) <= set(VARIANTS)
    for one, other in COMPARED.values():
        assert VARIANTS[one[0]].world == VARIANTS[other[0]].world


def test_losses_of_the_second_stage_follow_those_of_the_first(runs, tmp_path):
    losses = [{"step": step, "loss": loss} for step, loss in ((50, 1.5), (100, 1.0), (50, 0.5), (100, 0.25))]
    results = Results({"LinVT": [{"losses": losses}]})
    (line,) = write_pictures(results, tmp_path)
    chart = ElementTree.parse(tmp_path / "losses.svg")
    (polyline,) = chart.iter("{http://www.w3.org/2000/svg}polyline")
    across = [float(point.split(",")[0]) for point in polyline.get("points").split()]
    assert np.allclose(np.diff(across), np.diff(across)[0], atol=0.2)
    assert across[0] < across[-1] and "losses.svg" in line


def test_costs_are_drawn_by_length(image_llm_of_costs, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "FRAMES", (16, 64))
    monkeypatch.setattr(costs, "NUM_TRIES", 1)
    costs.measure_costs(image_llm_of_costs, tmp_path / costs.COSTS_FILE)
    results = Results.read(tmp_path)
    assert results.runs == {} and results.costs["frames"] == [16, 64]
    held = results.costs["bytes"]
    assert held["TTA on all tokens"] == [16 * 16 * 96 * 4, 64 * 16 * 96 * 4]
    assert held["LinVT, 512 tokens kept"] == [256 * 96 * 4, 512 * 96 * 4]
    assert all(second > 0 for seconds in results.costs["seconds"].values() for second in seconds)
    assert len(write_pictures(results, tmp_path / "pictures")) == 2


@pytest.fixture
def image_llm_of_costs(tmp_path):
    small_llava(small_processor()).save_pretrained(tmp_path / "image-llm")
    return str(tmp_path / "image-llm")
