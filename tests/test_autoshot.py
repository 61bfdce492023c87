"""AutoShot against a naive network written from the description of the published one, and what users rely on."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel

from linvt.configuration.configuration_autoshot import AutoShotConfig
from linvt.conversion.convert_autoshot import convert_autoshot_checkpoint, convert_autoshot_state_dict
from linvt.processors.shots import autoshot_inference, autoshot_layers
from linvt.processors.shots.autoshot_inference import WinogradLayer
from linvt.processors.shots.modeling_autoshot import AutoShotModel


# name: (input channels, channels of a spatial convolution, channels of the branches, one spatial convolution for all)
NAIVE_LAYERS = {
    "Layer_0_3": (3, 16, (16, 16, 16, 16), False),
    "Layer_1_8": (64, 64, (12, 12, 12, 12, 16), True),
    "Layer_2_8": (64, 128, (25, 25, 25, 25, 28), True),
    "Layer_3_8": (128, 128, (25, 25, 25, 25, 28), True),
    "Layer_4_13": (128, 192, (51, 51, 51, 51, 52), False),
    "Layer_5_12": (256, 128, (51, 51, 51, 51, 52), False),
}
TINY = {"frame_height": 16, "frame_width": 24, "stage_channels": [8, 12, 16], "hidden_size": 16, "lookup_frames": 21}


def container(**modules: nn.Module) -> nn.Module:
    """An empty module with children of these names, to build keys with."""
    parent = nn.Module()
    for name, module in modules.items():
        parent.add_module(name, module)
    return parent


class NaiveLayer(nn.Module):
    def __init__(self, in_channels, spatial_channels, branch_channels, shared):
        super().__init__()
        self.shared = shared
        self.conv_blocks = nn.ModuleList()
        if shared:
            self.share = nn.Conv3d(in_channels, spatial_channels, (1, 3, 3), padding=(0, 1, 1), bias=False)
        for i, channels in enumerate(branch_channels):
            d = 2**i
            temporal = nn.Conv3d(
                spatial_channels, channels, (3, 1, 1), padding=(d, 0, 0), dilation=(d, 1, 1), bias=False
            )
            layers = [temporal]
            if not shared:
                layers.insert(0, nn.Conv3d(in_channels, spatial_channels, (1, 3, 3), padding=(0, 1, 1), bias=False))
            self.conv_blocks.append(container(layers=nn.ModuleList(layers)))
        self.batch_norm = nn.BatchNorm3d(sum(branch_channels), eps=1e-3)

    def forward(self, x):
        if self.shared:
            x = self.share(x)
        branches = [nn.Sequential(*block.layers)(x) for block in self.conv_blocks]
        return F.relu(self.batch_norm(torch.cat(branches, dim=1)))


class NaiveAutoShot(nn.Module):
    """The published network with its own parameter names, one window at a time: `(3, T, 27, 48)` in 0..255."""

    def __init__(self):
        super().__init__()
        for name, sizes in NAIVE_LAYERS.items():
            self.add_module(name, NaiveLayer(*sizes))
        self.color_hist_layer = container(fc=container(linear=nn.Linear(101, 128)))
        self.frame_sim_layer = container(
            projection=container(linear=nn.Linear(448, 128)), fc=container(linear=nn.Linear(101, 128))
        )
        self.fc1 = container(linear=nn.Linear(5888, 1024))  # dead
        self.fc1_0 = container(linear=nn.Linear(4864, 1024))
        self.cls_layer1 = container(linear=nn.Linear(1024, 1))
        self.cls_layer2 = container(linear=nn.Linear(1024, 1))

    def forward(self, frames):
        x = frames[None] / 255
        means = []
        for even, odd in (("Layer_0_3", "Layer_1_8"), ("Layer_2_8", "Layer_3_8"), ("Layer_4_13", "Layer_5_12")):
            shortcut = getattr(self, even)(x)
            x = F.avg_pool3d(getattr(self, odd)(shortcut) + shortcut, (1, 2, 2))
            means.append(x[0].mean(dim=(2, 3)).T)  # (T, C)
        trunk = torch.stack([x[0, :, t].permute(1, 2, 0).flatten() for t in range(x.shape[2])])
        colors = F.relu(self.color_hist_layer.fc.linear(self.bands(self.histograms(frames))))
        projected = self.frame_sim_layer.projection.linear(torch.cat(means, dim=1))
        similarity = F.relu(self.frame_sim_layer.fc.linear(self.bands(projected)))
        hidden = F.relu(self.fc1_0.linear(torch.cat([colors, similarity, trunk], dim=1)))
        return self.cls_layer1.linear(hidden)[:, 0], self.cls_layer2.linear(hidden)[:, 0]

    @staticmethod
    def histograms(frames):
        edges = np.arange(0, 257, 32)
        pixels = frames.numpy().transpose(1, 2, 3, 0).reshape(frames.shape[1], -1, 3)
        counts = [np.histogramdd(p, bins=(edges, edges, edges))[0].flatten() for p in pixels]
        return torch.tensor(np.stack(counts), dtype=torch.float32)

    @staticmethod
    def bands(features):
        rows = []
        for t in range(len(features)):
            near = [s for s in range(t - 50, t + 51) if 0 <= s < len(features)]
            cosines = F.cosine_similarity(features[t : t + 1], features[near])
            rows.append(F.pad(cosines, (near[0] - (t - 50), t + 50 - near[-1])))
        return torch.stack(rows)

    @torch.no_grad()
    def probabilities(self, clip, every=1):
        """Of all frames, or of those of every so many windows and else NaN."""
        end = -len(clip) % 50 + 25
        padded = np.concatenate([clip[:1].repeat(25, axis=0), clip, clip[-1:].repeat(end, axis=0)])
        windows = [padded[start : start + 100] for start in range(0, len(padded) - 99, 50)]
        kept = torch.full((len(windows), 50), torch.nan)
        for number in range(0, len(windows), every):
            window = torch.tensor(windows[number].transpose(3, 0, 1, 2)).float()
            kept[number] = self(window)[0][25:75].sigmoid()
        return kept.flatten()[: len(clip)]


def make_clip(num_frames: int, height: int = 27, width: int = 48, seed: int = 0) -> np.ndarray:
    """Shots of 5 to 40 frames: a random pattern that moves, with noise."""
    rng = np.random.default_rng(seed)
    frames = []
    while len(frames) < num_frames:
        pattern = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((6, 6, 1)))[:height, :width]
        motion = rng.integers(-1, 2, size=2)
        for _ in range(rng.integers(5, 41)):
            pattern = np.roll(pattern, motion, axis=(0, 1))
            frames.append(np.clip(pattern + rng.normal(0, 6, pattern.shape), 0, 255).astype(np.uint8))
    return np.stack(frames[:num_frames])


@pytest.fixture(scope="module")
def naive():
    """Random weights, and the statistics of a clip as those of the batch normalisations."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NaiveAutoShot().train()
        for module in model.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1.5 / module.in_features**0.5)
                nn.init.normal_(module.bias, std=0.1)
            elif isinstance(module, nn.BatchNorm3d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
                module.momentum = 1.0
        with torch.no_grad():
            model(torch.tensor(make_clip(100, seed=1).transpose(3, 0, 1, 2)).float())
    return model.eval()


@pytest.fixture(scope="module")
def model(naive):
    model = AutoShotModel(AutoShotConfig()).eval()
    model.load_state_dict(convert_autoshot_state_dict(naive.state_dict()))
    return model


@pytest.fixture
def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoShotModel(AutoShotConfig(**TINY)).eval()


@pytest.fixture(scope="module")
def tiny_clip():
    return make_clip(130, height=16, width=24)


@pytest.mark.parametrize("num_frames", [1, 49, 50, 51, 100, 101, 720])
def test_equals_the_naive_network_frame_by_frame(naive, model, num_frames):
    clip = make_clip(num_frames)
    expected = naive.probabilities(clip, every=5 if num_frames == 720 else 1)
    actual = model.shot_probabilities(clip)
    assert actual.shape == (num_frames,) and actual.dtype == torch.float32 and actual.isfinite().all()
    known = expected.isfinite()
    torch.testing.assert_close(actual[known], expected[known], rtol=0, atol=1e-5)
    if num_frames == 720:
        assert known.sum() == 150 and expected[known].std() > 0.05  # else being close would mean little


def test_training_mode_equals_the_naive_network(naive):
    trained = AutoShotModel(AutoShotConfig(dropout=0.0)).train()
    trained.load_state_dict(convert_autoshot_state_dict(naive.state_dict()))
    clip = make_clip(24)
    output = trained(torch.from_numpy(clip)[None])
    other = NaiveAutoShot().train()
    other.load_state_dict(naive.state_dict())
    one_hot, many_hot = other(torch.tensor(clip.transpose(3, 0, 1, 2)).float())
    torch.testing.assert_close(output.one_hot_logits[0], one_hot, rtol=0, atol=1e-4)
    torch.testing.assert_close(output.many_hot_logits[0], many_hot, rtol=0, atol=1e-4)
    updated = convert_autoshot_state_dict(other.state_dict())
    for name, value in trained.named_buffers():
        torch.testing.assert_close(value, updated[name], rtol=1e-4, atol=1e-5)


def test_number_of_parameters(naive, model):
    published = sum(p.numel() for p in naive.parameters())
    dead = sum(p.numel() for p in naive.fc1.parameters())
    assert published == 14_299_202
    assert sum(p.numel() for p in model.parameters()) == published - dead == 8_268_866


def test_windows_of_a_batch_do_not_see_each_other(tiny, tiny_clip):
    windows = torch.from_numpy(np.stack([tiny_clip[:60], tiny_clip[60:120]]))
    together = tiny(windows).one_hot_logits
    alone = torch.cat([tiny(window[None]).one_hot_logits for window in windows])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(tiny(windows, outputs=slice(7, 9)).one_hot_logits, alone[:, 7:9], rtol=0, atol=1e-5)


def test_bfloat16_trunk_with_float32_head_is_close(model, tmp_path):
    clip = make_clip(100)
    model.save_pretrained(tmp_path)
    loaded = AutoShotModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.layers[0].spatial_convs[0].weight.dtype == torch.bfloat16
    kept = {name.split(".")[0] for name, p in loaded.named_parameters() if p.dtype == torch.float32}
    assert kept >= {"color_histogram", "frame_similarity", "hidden_layer", "one_hot_classifier", "many_hot_classifier"}
    expected = model.shot_probabilities(clip)
    cast = pickle.loads(pickle.dumps(model)).to(torch.bfloat16)
    for half in (loaded, cast):
        actual = half.shot_probabilities(clip)
        assert actual.dtype == torch.float32
        assert 0 < (actual - expected).abs().max() < 0.03
    with torch.autocast("cpu", torch.bfloat16):
        actual = model.shot_probabilities(clip)
    assert actual.dtype == torch.float32
    assert 0 < (actual - expected).abs().max() < 0.03


def test_what_decides_is_float32_however_the_model_is_made(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    loaded = AutoShotModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    fresh = AutoModel.from_config(tiny.config, dtype=torch.bfloat16)
    found, expected = ({name: p.dtype for name, p in each.named_parameters()} for each in (fresh, loaded))
    assert found == expected and {torch.bfloat16, torch.float32} <= set(found.values())


def test_tuples_on_demand(tiny, tiny_clip):
    frames = torch.tensor(tiny_clip[None, :10])
    expected, given = tiny(frames), tiny(frames, return_dict=False)
    tiny.config.return_dict = False
    for found in (given, tiny(frames)):
        assert isinstance(found, tuple) and all(map(torch.equal, found, expected.to_tuple()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu(model):
    clip = make_clip(130)
    on_cuda = pickle.loads(pickle.dumps(model)).to("cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        actual = on_cuda.shot_probabilities(clip)
    assert actual.device.type == "cuda"
    torch.testing.assert_close(actual.cpu(), model.shot_probabilities(clip), rtol=0, atol=1e-4)
    half = on_cuda.to(torch.bfloat16).shot_probabilities(torch.from_numpy(clip).to("cuda"))
    torch.testing.assert_close(half, actual, rtol=0, atol=0.03)


def test_save_load_and_pickle_are_bit_equal(tiny, tiny_clip, tmp_path):
    expected = tiny.shot_probabilities(tiny_clip)
    tiny.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = AutoShotModel.from_pretrained(tmp_path)
    assert loaded.config.stage_channels == TINY["stage_channels"] and loaded.config.threshold == 0.296
    assert torch.equal(loaded.shot_probabilities(tiny_clip), expected)
    assert torch.equal(pickle.loads(pickle.dumps(tiny)).shot_probabilities(tiny_clip), expected)


def test_folded_normalisation_follows_training_and_loading(tiny, tiny_clip):
    before = tiny.shot_probabilities(tiny_clip)
    tiny.train()
    tiny(torch.from_numpy(tiny_clip[:60])[None])  # moves the running statistics
    tiny.eval()
    after = tiny.shot_probabilities(tiny_clip)
    assert not torch.allclose(before, after, atol=1e-3)
    fresh = AutoShotModel(AutoShotConfig(**TINY)).eval()
    fresh.shot_probabilities(tiny_clip)
    fresh.load_state_dict(tiny.state_dict())
    assert torch.equal(fresh.shot_probabilities(tiny_clip), after)


@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_gets_a_gradient(tiny, tiny_clip, training):
    tiny.train(training)
    output = tiny(torch.from_numpy(np.stack([tiny_clip[:40], tiny_clip[50:90]])))
    (output.one_hot_logits.square().mean() + output.many_hot_logits.square().mean()).backward()
    for name, parameter in tiny.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_stream_of_frames_equals_one_tensor_and_reads_no_further_than_needed(tiny, tiny_clip):
    expected = tiny.shot_probabilities(torch.from_numpy(tiny_clip))
    num_read = 0

    def stream():
        nonlocal num_read
        buffer = np.empty_like(tiny_clip[0])
        for frame in tiny_clip:
            buffer[:] = frame  # the same memory every time, as decoders do
            num_read += 1
            yield buffer

    assert torch.equal(tiny.shot_probabilities(stream()), expected)
    num_read = 0
    pieces = [(len(piece), num_read) for piece in tiny.iter_shot_probabilities(stream())]
    assert pieces == [(50, 75), (50, 125), (30, 130)]
    # A whole number of windows gets no window of padding.
    assert [len(piece) for piece in tiny.iter_shot_probabilities(tiny_clip[:100])] == [50, 50]
    assert torch.equal(tiny.shot_probabilities(list(torch.from_numpy(tiny_clip))), expected)
    assert torch.equal(tiny.shot_probabilities(tiny_clip[::-1][::-1]), expected)


@pytest.mark.parametrize(
    ("window_frames", "kept_frames"), [(100, 50), (60, 20), (60, 2), (40, 22), (40, 24), (30, 10), (30, 30), (9, 1)]
)
@pytest.mark.parametrize("size", [(16, 24), (19, 29)])
def test_every_window_is_what_forward_gives(window_frames, kept_frames, size):
    """Whatever windows share, and whichever layers are computed in another way."""
    fields = {"window_frames": window_frames, "kept_frames": kept_frames, "frame_height": size[0]}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoShotModel(AutoShotConfig(**{**TINY, **fields, "frame_width": size[1]})).train()
        for layer in model.layers:  # so that what is folded counts and nothing saturates
            layer.batch_norm.bias.normal_(std=0.5)
            layer.batch_norm.momentum = 1.0
        model(torch.from_numpy(make_clip(60, *size, seed=1))[None])
    model.eval()
    num_frames = 2 * window_frames + 3
    clip = make_clip(num_frames, *size)
    actual = model.shot_probabilities(clip)
    assert actual.shape == (num_frames,) and actual.std() > 1e-3
    context = (window_frames - kept_frames) // 2
    for start in range(0, num_frames, kept_frames):
        index = np.arange(start - context, start - context + window_frames).clip(0, num_frames - 1)
        with torch.no_grad():
            window = model(torch.from_numpy(clip[index])[None]).one_hot_logits[0].sigmoid()
        expected = window[context : context + kept_frames][: num_frames - start]
        torch.testing.assert_close(actual[start : start + kept_frames], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("batch", "frames", "height", "width"), [(1, 40, 6, 12), (2, 18, 7, 4), (1, 3, 1, 5)])
@pytest.mark.parametrize("tile", [3, 6])
def test_winograd_layer_equals_its_convolutions(monkeypatch, tile, batch, frames, height, width):
    monkeypatch.setattr(autoshot_inference, "tile_size", lambda dtype: tile)
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    spatial = [randn(7, 5, 3, 3) for _ in range(5)]
    temporal = [randn(channels, 7, 3, 1) for channels in (3, 3, 3, 3, 4)]
    bias = randn(16)
    x = randn(batch, frames, height, width, 5)
    branches = []
    for branch, (over_pixels, over_frames) in enumerate(zip(spatial, temporal, strict=True)):
        d = 2**branch
        y = F.conv3d(x.permute(0, 4, 1, 2, 3), over_pixels[:, :, None], padding=(0, 1, 1))
        branches.append(F.conv3d(y, over_frames[..., None], padding=(d, 0, 0), dilation=(d, 1, 1)))
    expected = F.relu(torch.cat(branches, dim=1).permute(0, 2, 3, 4, 1) + bias)
    layer = WinogradLayer(spatial, temporal, bias, height, width)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu_in_place_is_relu(dtype):
    x = torch.cat([torch.randn(100), torch.tensor([0.0, -0.0, 3e38, -3e38, torch.inf, -torch.inf, 1e-40])]).to(dtype)
    expected = F.relu(x)
    with torch.no_grad():
        assert autoshot_inference.relu_(x) is x and torch.equal(x, expected)


def test_the_fast_way_is_taken_where_it_multiplies_less(model, tiny, monkeypatch):
    sizes = [(27, 48), (27, 48), (13, 24), (13, 24), (6, 12), (6, 12)]

    def kinds(network):
        layers = [layer.for_inference(*size) for layer, size in zip(network.layers, sizes, strict=True)]
        return [isinstance(layer, WinogradLayer) for layer in layers]

    fast, plain = [False] * 4 + [True] * 2, [False] * 6
    assert kinds(model) == fast
    for has_tiles in (False, True):  # of AMX, for which convolutions are cheaper than the way to the points
        monkeypatch.setattr(autoshot_layers, "multiplies_bfloat16_tiles", lambda has_tiles=has_tiles: has_tiles)
        half = pickle.loads(pickle.dumps(model)).to(torch.bfloat16)
        assert kinds(model) == fast and kinds(half) == (plain if has_tiles else fast)
    assert kinds(pickle.loads(pickle.dumps(model)).to(torch.float16)) == plain
    with torch.autocast("cpu", torch.bfloat16):
        assert kinds(model) == plain
    assert isinstance(tiny.layers[5].for_inference(4, 6), WinogradLayer)  # so that tests of it mean something
    assert not isinstance(model.layers[5].for_inference(100, 200), WinogradLayer)  # its matrices would be huge


def test_probabilities_leave_nothing_behind(tiny, tiny_clip):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    attributes = [sorted(vars(module)) for module in tiny.modules()]
    first = tiny.shot_probabilities(tiny_clip)
    tiny.shot_probabilities(tiny_clip[::-1])
    assert torch.equal(tiny.shot_probabilities(tiny_clip), first)
    after = tiny.state_dict()
    assert list(before) == list(after) and all(torch.equal(value, after[name]) for name, value in before.items())
    assert [sorted(vars(module)) for module in tiny.modules()] == attributes


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, 16, 24, 3), np.uint8), "no frames"),
        ([], "no frames"),
        (np.zeros((5, 16, 24, 3), np.float32), r"uint8 RGB .* \(frames, 16, 24, 3\).* dtype float32"),
        (torch.zeros(5, 16, 24, 3), r"uint8 RGB .* dtype torch.float32"),
        (torch.zeros(5, 24, 16, 3, dtype=torch.uint8), r"height before width, but got shape \(5, 24, 16, 3\)"),
        (np.zeros((16, 24, 3), np.uint8), r"\(frames, 16, 24, 3\).* got shape \(16, 24, 3\)"),
        (iter(np.zeros((5, 3, 16, 24), np.uint8)), r"of shape \(16, 24, 3\).* got shape \(3, 16, 24\)"),
        (iter(np.zeros((5, 16, 24, 3))), r"of shape \(16, 24, 3\).* dtype float64"),
        (["a.png"], "torch.Tensor or a np.ndarray, got str"),
    ],
)
def test_frames_that_cannot_be_right_are_refused(tiny, frames, message):
    with pytest.raises(ValueError, match=message):
        tiny.shot_probabilities(frames)


def test_forward_refuses_frames_and_training_mode_refuses_probabilities(tiny, tiny_clip):
    with pytest.raises(ValueError, match=r"\(batch, frames, 16, 24, 3\).* got shape \(1, 4, 16, 24, 3\) and dtype"):
        tiny(torch.zeros(1, 4, 16, 24, 3))
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        tiny.train().shot_probabilities(tiny_clip)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frame_height": 7}, "frame_height is 7 pixels"),
        ({"frame_width": 0}, "frame_width is 0 pixels"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"kept_frames": 0}, "kept_frames is 0; .* between 1 and 100"),
        ({"kept_frames": 120}, "kept_frames is 120; .* between 1 and 100"),
        ({"kept_frames": 51}, "odd number of frames.* make both even or both odd"),
        ({"lookup_frames": 100}, "lookup_frames is 100; it must be odd"),
        ({"stage_channels": [64, 128]}, "give three numbers"),
        ({"stage_channels": [64, 128, 255]}, "multiple of 4"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"similarity_channels": 0}, "similarity_channels is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"batch_norm_eps": 0.0}, "batch_norm_eps is 0.0"),
        ({"min_shot_frames": 0}, "min_shot_frames is 0"),
    ],
)
def test_configurations_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AutoShotConfig(**fields)


def test_published_checkpoint_converts(naive, model, tmp_path):
    torch.save({"net": naive.state_dict(), "epoch": 200}, tmp_path / "ckpt.pth")
    output_dir = tmp_path / "models" / "autoshot"
    convert_autoshot_checkpoint(tmp_path / "ckpt.pth", output_dir)
    assert {path.name for path in output_dir.iterdir()} == {"config.json", "model.safetensors"}
    assert [path.name for path in output_dir.parent.iterdir()] == ["autoshot"]
    loaded = AutoShotModel.from_pretrained(output_dir).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())
    with pytest.raises(FileExistsError, match="exists already"):
        convert_autoshot_checkpoint(tmp_path / "ckpt.pth", output_dir)


def test_every_wrong_key_of_a_checkpoint_is_named(naive, tmp_path):
    net = dict(naive.state_dict())
    del net["cls_layer1.linear.bias"], net["Layer_2_8.batch_norm.running_var"]
    net["Layer_6_0.proj_q.weight"] = torch.zeros(1)
    net["fc1_0.linear.weight"] = torch.zeros(1024, 5888)
    torch.save({"net": net}, tmp_path / "ckpt.pth")
    with pytest.raises(ValueError, match="not the published AutoShot network") as error:
        convert_autoshot_checkpoint(tmp_path / "ckpt.pth", tmp_path / "out")
    for problem in (
        "missing cls_layer1.linear.bias",
        "missing Layer_2_8.batch_norm.running_var",
        "unexpected Layer_6_0.proj_q.weight",
        "shape of fc1_0.linear.weight: expected (1024, 4864), got (1024, 5888)",
    ):
        assert problem in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt.pth"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, r"no entry 'net' .* found \['model'\]"),
        ([1, 2], "no entry 'net' .* found list"),
        ({"net": NaiveLayer}, "damaged or not a torch checkpoint that holds only tensors"),
    ],
)
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "ckpt.pth")
    with pytest.raises(ValueError, match=message):
        convert_autoshot_checkpoint(tmp_path / "ckpt.pth", tmp_path / "out")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match="damaged or not a torch checkpoint"):
        convert_autoshot_checkpoint(tmp_path / "text.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
