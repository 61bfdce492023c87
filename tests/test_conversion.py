"""Reading, planning and writing, whatever the base: what is wrong is an error that says so, and leaves nothing."""

import json
import math

import published_checkpoints as published
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from linvt.conversion import KINDS
from linvt.conversion.checkpoint_kinds import JoinRule, KeyRule, num_layers
from linvt.conversion.checkpoint_reader import CheckpointReader
from linvt.conversion.convert import checkpoint_kind, convert_checkpoint
from linvt.conversion.key_plan import plan_conversion
from linvt.conversion.shard_writer import ShardWriter


FORMATS = ("safetensors", "safetensors sharded", "bin", "bin sharded", "old bin")
LAYER = "language_model.model.layers.1."


@pytest.fixture
def source(tmp_path):
    return published.write_checkpoint(tmp_path / "source", *published.internvl2("InternLM2ForCausalLM"))


def rewrite(folder, change):
    """A checkpoint whose tensors were changed by `change(tensors)`."""
    config, tensors = published.internvl2("InternLM2ForCausalLM")
    change(tensors)
    return published.write_checkpoint(folder, config, tensors)


def check_error(source, tmp_path, message: str, kind=ValueError):
    with pytest.raises(kind) as error:
        convert_checkpoint(source, tmp_path / "output")
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_reader_gives_every_tensor(tmp_path, file_format):
    _, tensors = published.internvl2("InternLM2ForCausalLM")
    reader = CheckpointReader(published.write_checkpoint(tmp_path, {}, tensors, file_format))
    assert reader.shapes == {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    assert all(torch.equal(reader.tensor(key), tensor) for key, tensor in tensors.items())


def test_reader_opens_every_file_once(tmp_path):
    """In the order of `shapes`, so that no more than one of them is in memory."""
    _, tensors = published.internvl2("InternLM2ForCausalLM")
    for file_format in ("safetensors sharded", "bin sharded"):
        reader = CheckpointReader(published.write_checkpoint(tmp_path / file_format, {}, tensors, file_format))
        opened = []
        original = reader._tensors
        reader._tensors = lambda path, opened=opened, original=original: (opened.append(path), original(path))[1]
        for key in reader.shapes:
            reader.tensor(key)
        changes = [a for a, b in zip(opened, opened[1:] + [None], strict=True) if a != b]
        assert len(changes) == 3


@pytest.mark.parametrize("file_format", ["safetensors sharded", "bin sharded"])
def test_missing_file_of_several(tmp_path, file_format):
    config, tensors = published.internvl2()
    source = published.write_checkpoint(tmp_path / "source", config, tensors, file_format)
    gone = next(source.glob("*00002-of-00003*"))
    gone.unlink()
    check_error(source, tmp_path, f"lacks {gone.name}", FileNotFoundError)


def test_index_that_names_a_key_that_is_not_there(tmp_path):
    config, tensors = published.internvl2()
    source = published.write_checkpoint(tmp_path / "source", config, tensors, "safetensors sharded")
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"]["language_model.model.extra"] = "model-00001-of-00003.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    check_error(
        source, tmp_path, "the index says that model-00001-of-00003.safetensors holds language_model.model.extra"
    )


class _Evil:
    def __reduce__(self):
        return print, ("code of the checkpoint was run",)


@pytest.mark.parametrize(
    "content", [{"weight": _Evil()}, {"state_dict": {"weight": torch.zeros(1)}}, [torch.zeros(1)]]
)
def test_bin_files_hold_tensors_and_run_nothing(tmp_path, source, content, capsys):
    (source / "model.safetensors").unlink()
    torch.save(content, source / "pytorch_model.bin")
    check_error(source, tmp_path, "pytorch_model.bin is")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_files(tmp_path, source, name):
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").unlink()
    (source / name).write_bytes(data[: len(data) // 2])
    check_error(source, tmp_path, f"{name} is damaged")


def test_folders_without_weights_or_config(tmp_path, source):
    (source / "model.safetensors").unlink()
    check_error(source, tmp_path, "holds no weights", FileNotFoundError)
    (source / "config.json").unlink()
    check_error(source, tmp_path, "has no config.json", FileNotFoundError)


def test_missing_keys_are_named_as_the_source_names_them(tmp_path):
    source = rewrite(tmp_path / "source", lambda tensors: tensors.pop(LAYER + "attention.wqkv.weight"))
    key = "model.language_model.layers.1.self_attn.q_proj.weight (32, 32)"
    check_error(source, tmp_path, f"missing {LAYER}attention.wqkv.weight for {key}")


def test_unexpected_keys(tmp_path):
    source = rewrite(tmp_path / "source", lambda tensors: tensors.update({"head.weight": torch.zeros(2, 3)}))
    check_error(source, tmp_path, "unexpected head.weight (2, 3)")


def test_keys_of_a_layer_that_the_config_does_not_have(tmp_path):
    config, tensors = published.internvl2("InternLM2ForCausalLM", num_hidden_layers=1)
    source = published.write_checkpoint(tmp_path / "source", config, tensors)
    check_error(source, tmp_path, "the model has no model.language_model.layers.1.")


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("mlp1.1.weight", (32, 63), "makes model.multi_modal_projector.linear_1.weight (32, 63), expected (32, 64)"),
        (LAYER + "attention.wqkv.weight", (63, 32), "does not make model.language_model.layers.1.self_attn.q_proj"),
        (LAYER + "attention.wqkv.weight", (128, 32), "does not make model.language_model.layers.1.self_attn.q_proj"),
        ("vision_model.encoder.layers.0.attn.qkv.bias", (45,), "makes model.vision_tower.encoder.layer.0.attention"),
    ],
)
def test_misshapen_keys(tmp_path, key, shape, message):
    source = rewrite(tmp_path / "source", lambda tensors: tensors.update({key: torch.zeros(shape)}))
    check_error(source, tmp_path, f"shape of {key} {shape}")
    check_error(source, tmp_path, message)


def test_many_problems_are_counted(tmp_path):
    config, tensors = published.internvl2("InternLM2ForCausalLM")
    tensors = {key: tensor for key, tensor in tensors.items() if "vision_model" not in key}
    check_error(published.write_checkpoint(tmp_path / "source", config, tensors), tmp_path, "; and 50 more")


def test_a_config_that_lacks_something_names_it(tmp_path):
    config, tensors = published.internvl2()
    del config["llm_config"]["rms_norm_eps"]
    source = published.write_checkpoint(tmp_path / "source", config, tensors)
    check_error(source, tmp_path, "config.json does not state rms_norm_eps")


def test_interrupted_conversions_leave_nothing_that_loads(tmp_path, source, monkeypatch):
    """Whatever stops it, also what nobody can clean up after, and the next one starts anew."""
    added = []

    def stop(self, key, tensor):
        added.append(key)
        if len(added) == 20:
            self._write_shard()  # the worst: weights are there already
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            convert_checkpoint(source, tmp_path / "output")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]

    with monkeypatch.context() as patch:  # killed: nothing is cleaned up
        patch.setattr("linvt.checkpoints.atomic_folder.shutil.rmtree", lambda *args, **kwargs: None)
        patch.setattr("linvt.conversion.convert.ShardWriter.finish", _fail)
        with pytest.raises(OSError, match="No space left"):
            convert_checkpoint(source, tmp_path / "output")
    left = tmp_path / ".output.unfinished" / "output"
    assert left.is_dir() and not (left / "config.json").exists() and not (tmp_path / "output").exists()
    (left / "stale.safetensors").touch()

    convert_checkpoint(source, tmp_path / "output")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "output"}
    files = {path.name for path in (tmp_path / "output").iterdir()}
    assert files == {"config.json", "generation_config.json", "model.safetensors"}


def _fail(self):
    raise OSError("No space left on device")


def test_output_must_be_new(tmp_path, source):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        convert_checkpoint(source, tmp_path / "output")
    assert (tmp_path / "output" / "notes.txt").read_text() == "mine"
    (tmp_path / "output" / "notes.txt").unlink()
    convert_checkpoint(source, tmp_path / "output")
    assert (tmp_path / "output" / "model.safetensors").exists()


def test_progress_only_grows_and_ends_at_one(tmp_path, source):
    fractions = []
    convert_checkpoint(source, tmp_path / "output", on_progress=fractions.append)
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(fractions) > 20


def test_formats_are_told_apart():
    checkpoints = {
        "internvl2": published.internvl2("Qwen2ForCausalLM"),
        "aquila_vl": published.aquila_vl(),
        "mipha": published.mipha(True, 0.5),
    }
    for name, (config, tensors) in checkpoints.items():
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        assert [kind.name for kind in KINDS if kind.recognises(config, shapes)] == [name]
        assert checkpoint_kind(config, shapes).name == name
        assert not any(kind.recognises({}, {}) for kind in KINDS)


def test_unknown_formats_list_the_known(tmp_path, source):
    with pytest.raises(ValueError, match="model_type 'bert'.*internvl2.*--kind"):
        checkpoint_kind({"model_type": "bert"}, {})
    with pytest.raises(ValueError, match="unknown kind 'other'; choose one of .*internvl2"):
        convert_checkpoint(source, tmp_path / "output", kind="other")
    with pytest.raises(ValueError, match="has no revision 'v1'"):
        convert_checkpoint(source, tmp_path / "output", revision="v1")


def test_kind_can_be_forced(tmp_path):
    config, tensors = published.internvl2()
    config["model_type"] = "something_else"
    source = published.write_checkpoint(tmp_path / "source", config, tensors)
    check_error(source, tmp_path, "the format cannot be told")
    assert convert_checkpoint(source, tmp_path / "output", kind="internvl2").kind == "internvl2"


def test_hub_ids_are_loaded_with_their_revision(tmp_path, source, monkeypatch):
    """Safetensors where there are some, `.bin` where not, and no code."""
    calls = []

    def load(name, revision, allow_patterns):
        calls.append((name, revision, allow_patterns))
        return str(source)

    monkeypatch.setattr("linvt.conversion.convert.snapshot_download", load)
    convert_checkpoint("OpenGVLab/InternVL2-2B", tmp_path / "output", revision="abc")
    ((name, revision, patterns),) = calls
    assert (name, revision) == ("OpenGVLab/InternVL2-2B", "abc")
    assert "*.safetensors" in patterns and "*.bin" not in patterns and not any(".py" in item for item in patterns)
    published.write_checkpoint(source, *published.internvl2(), "bin")
    (source / "model.safetensors").unlink()
    convert_checkpoint("OpenGVLab/InternVL2-2B", tmp_path / "other")
    assert ["*.bin" in call[2] for call in calls] == [False, False, True]


def test_results_are_written_in_files_of_bounded_size(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {f"layer.{number}": torch.randn(10, generator=generator) for number in range(7)}
    writer = ShardWriter(tmp_path, max_shard_bytes=100)  # two tensors of 40 bytes
    for key, tensor in tensors.items():
        writer.add(key, tensor)
    writer.finish()
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 7 * 40 == writer.num_bytes
    assert {path.name for path in tmp_path.glob("*.safetensors")} == set(index["weight_map"].values())
    assert len(set(index["weight_map"].values())) == 4
    for key, tensor in tensors.items():
        with safe_open(tmp_path / index["weight_map"][key], "pt") as file:
            assert torch.equal(file.get_tensor(key), tensor)


def test_large_results_load(tmp_path, source, monkeypatch):
    from transformers import InternVLForConditionalGeneration

    convert_checkpoint(source, tmp_path / "one")
    monkeypatch.setattr(ShardWriter.__init__, "__defaults__", (50_000,))
    convert_checkpoint(source, tmp_path / "several")
    assert len(list((tmp_path / "several").glob("model-*-of-*.safetensors"))) > 3
    one, several = (
        InternVLForConditionalGeneration.from_pretrained(tmp_path / name).state_dict() for name in ("one", "several")
    )
    assert one.keys() == several.keys() and all(torch.equal(one[key], several[key]) for key in one)


def test_join_rules_make_one_tensor_of_several(tmp_path):
    """Also where the sources lie in different files, and where one is missing."""
    rules = [
        JoinRule(("rows", "more_rows"), "embedding", lambda parts, config: torch.cat(parts)),
        KeyRule(r"layer\.(\d)\.both", (r"a.\1", r"b.\1"), lambda tensor, config: tensor.chunk(2)),
        KeyRule("known", ()),
    ]
    shapes = {"more_rows": (2, 3), "layer.0.both": (4,), "rows": (5, 3), "known": (1,)}
    expected = {"embedding": (7, 3), "a.0": (2,), "b.0": (2,)}
    steps = plan_conversion(shapes, rules, None, expected)
    assert [(step.sources, step.targets) for step in steps] == [
        (("layer.0.both",), ("a.0", "b.0")),
        (("rows", "more_rows"), ("embedding",)),
    ]
    rows = torch.arange(21.0).view(7, 3)
    assert torch.equal(steps[1].make([rows[:5], rows[5:]])[0], rows)
    cases = [
        ({"more_rows": (2, 4)}, "shape of rows (5, 3), more_rows (2, 4) does not make embedding (7, 3)"),
        ({"rows": (4, 3)}, "it makes embedding (6, 3), expected (7, 3)"),
        ({"layer.0.both": None}, "missing layer.0.both for a.0 (2,)"),
        ({"rows": None}, "missing rows or more_rows for embedding (7, 3)"),
        ({"layer.1.both": (4,)}, "unexpected layer.1.both (4,): the model has no a.1"),
    ]
    for change, message in cases:
        changed = {key: shape for key, shape in {**shapes, **change}.items() if shape is not None}
        with pytest.raises(ValueError) as error:
            plan_conversion(changed, rules, None, expected)
        assert message in str(error.value)


def test_two_keys_for_one_tensor_are_an_error():
    rules = [KeyRule("a|b", ("c",))]
    with pytest.raises(ValueError, match="both a and b make c"):
        plan_conversion({"a": (1,), "b": (1,)}, rules, None, {"c": (1,)})


def test_number_of_layers_is_read_off_the_keys():
    assert (
        num_layers({"model.layers.0.a": (), "model.layers.11.b": (), "other.layers.40.c": ()}, "model.layers.") == 12
    )
    assert num_layers({"a": ()}, "model.layers.") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(ps_version="v1"), "ps_version is 'v1'"),
        (lambda config: config["llm_config"].update(architectures=["GPT2LMHeadModel"]), "is a GPT2LMHeadModel"),
    ],
)
def test_internvl2_that_is_something_else(tmp_path, change, message):
    config, tensors = published.internvl2()
    change(config)
    check_error(published.write_checkpoint(tmp_path / "source", config, tensors), tmp_path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear', expected 'mlp2x_gelu'"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type is 'flat'"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio is 'pad'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is"),
        ({"image_grid_pinpoints": "all"}, "image_grid_pinpoints is 'all'"),
    ],
)
def test_llava_qwen_that_is_something_else(tmp_path, change, message):
    config, tensors = published.aquila_vl()
    source = published.write_checkpoint(tmp_path / "source", {**config, **change}, tensors)
    check_error(source, tmp_path, message)


def test_pinpoints_may_be_written_as_a_range(tmp_path):
    config, tensors = published.aquila_vl()
    config["image_grid_pinpoints"] = "(1x1),...,(2x3)"
    source = published.write_checkpoint(tmp_path / "source", config, tensors)
    converted = convert_checkpoint(source, tmp_path / "output")
    assert converted.config.image_grid_pinpoints == [[28, 28], [28, 56], [28, 84], [56, 28], [56, 56], [56, 84]]


def test_siglip_of_384_pixels_is_told_by_its_27_by_27_patches():
    """384 is not 27 x 14, so the size of the picture cannot be read off the positions alone."""
    from linvt.conversion.siglip_tower import siglip_config

    layer = "v.encoder.layers.{}.mlp.fc1.weight"
    shapes = {layer.format(number): (4304, 1152) for number in range(26)}
    shapes |= {
        "v.embeddings.patch_embedding.weight": (1152, 3, 14, 14),
        "v.embeddings.position_embedding.weight": (729, 1152),
    }
    config = siglip_config(shapes, "v.")
    assert (config.image_size, config.patch_size, config.num_hidden_layers) == (384, 14, 26)
    assert (config.hidden_size, config.intermediate_size) == (1152, 4304)
    with pytest.raises(ValueError, match="missing v.embeddings.position_embedding.weight"):
        siglip_config({key: shape for key, shape in shapes.items() if "position" not in key}, "v.")


def test_number_of_parameters(tmp_path, source):
    _, tensors = published.internvl2("InternLM2ForCausalLM")
    converted = convert_checkpoint(source, tmp_path / "output")
    assert converted.num_parameters == sum(math.prod(tensor.shape) for tensor in tensors.values())


def test_old_rope_buffers_and_heads_are_dropped(tmp_path):
    config, tensors = published.mipha(False, 0.4)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    source = published.write_checkpoint(tmp_path / "source", config, tensors)
    convert_checkpoint(source, tmp_path / "output")
    with safe_open(tmp_path / "output" / "model.safetensors", "pt") as file:
        assert not any("inv_freq" in key or "head.probe" in key for key in file.keys())


def test_unindexed_safetensors_come_before_bin(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    torch.save({"b": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert list(CheckpointReader(tmp_path).shapes) == ["a"]
