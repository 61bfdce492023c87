"""What is exported is whole, holds no pickle, and takes the AutoShot weights along."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import random_video
from transformers import AutoProcessor, AutoVideoProcessor

from linvt import AutoShotConfig, AutoShotModel, LinVTForConditionalGeneration, LinVTProcessor, LinVTVideoProcessor
from linvt.hub.export import export_model
from linvt.processors.shots.autoshot_files import AUTOSHOT_IN_CHECKPOINT, AUTOSHOT_WEIGHTS
from linvt.processors.shots.shot_detection import load_shot_detector
from linvt.training.video_identity import shot_detector_identity


EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = ("config.json", "model.safetensors")


@pytest.fixture
def saved(make_linvt, tmp_path) -> Path:
    """A model and its processor as trainers save them."""
    for part in make_linvt("llava"):
        part.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def own_autoshot(tmp_path) -> Path:
    """AutoShot with other weights than the package's."""
    torch.manual_seed(3)
    AutoShotModel(AutoShotConfig(stage_channels=(8, 8, 8), hidden_size=8)).save_pretrained(tmp_path / "own")
    return tmp_path / "own"


def test_weights_that_are_missing_are_an_error_and_not_fresh_ones(saved, tmp_path, run):
    tensors = load_file(saved / "model.safetensors")
    lost = tensors.pop("video_tokenizer.token_proj.weight")
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="do not fit its config.json: 1 are missing.*token_proj"):
        export_model(saved, tmp_path / "out")
    assert not (tmp_path / "out").exists() and len(lost)
    code, output, error = run("ask", EXAMPLES / "shapes.mp4", "What?", "--uniform", "--model", saved)
    assert (code, output) == (2, "") and "do not fit its config.json" in error


def test_what_learnt_in_float32_stays_so(saved, tmp_path):
    """As the first stage of training leaves a model whose image-LLM is bfloat16."""
    LinVTForConditionalGeneration.from_pretrained(saved, dtype=torch.bfloat16).save_pretrained(saved)
    model = LinVTForConditionalGeneration.from_pretrained(saved)
    for parameter in model.video_tokenizer.parameters():
        parameter.data = parameter.data.float() + 1e-4
    model.save_pretrained(saved)
    export_model(saved, tmp_path / "out")
    stored, exported = (load_file(folder / "model.safetensors") for folder in (saved, tmp_path / "out"))
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16, torch.float32}
    assert all(torch.equal(exported[name], stored[name]) for name in stored)


def test_into_the_folder_that_one_is_in(saved, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export_model(saved, ".").output == tmp_path / "here"
    assert (tmp_path / "here" / "config.json").is_file()


def same_files(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def test_a_full_export_is_the_model_with_its_autoshot_weights(saved, tmp_path, ask):
    fractions = []
    exported = export_model(saved, tmp_path / "new" / "full", on_progress=fractions.append)
    assert exported.format == "full" and exported.output == tmp_path / "new" / "full" and exported.left_out == ()
    found = {p.relative_to(exported.output).as_posix(): p for p in exported.output.rglob("*") if p.is_file()}
    assert exported.files == {name: path.stat().st_size for name, path in found.items()}
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert [path.name for path in exported.output.parent.iterdir()] == ["full"]  # no staging is left
    models = [LinVTForConditionalGeneration.from_pretrained(path) for path in (saved, exported.output)]
    tensors = [model.state_dict() for model in models]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    inputs = ask(LinVTProcessor.from_pretrained(exported.output), random_video(6), "What is it?")
    assert torch.equal(models[0](**inputs).logits, models[1](**inputs).logits)
    assert same_files(exported.output / "autoshot", AUTOSHOT_WEIGHTS)
    fields = json.loads((exported.output / "processor_config.json").read_text())["video_processor"]
    assert fields["autoshot_model"] == AUTOSHOT_IN_CHECKPOINT and str(tmp_path) not in json.dumps(fields)


def test_a_trainers_checkpoint_stays_without_them(saved, tmp_path):
    assert not (saved / "autoshot").exists()
    processor = LinVTProcessor.from_pretrained(saved)
    assert processor.video_processor.autoshot_model is None
    processor.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "autoshot").exists()


def test_weights_travel_from_checkpoint_to_checkpoint(saved, own_autoshot, video_file, tmp_path, monkeypatch):
    processor = LinVTProcessor.from_pretrained(saved)
    processor.video_processor.autoshot_model = str(own_autoshot)
    processor.video_processor.shot_detection = "autoshot"
    processor.save_pretrained(saved)
    expected = processor.video_processor(video_file(30))["video_shot_ids"]
    export_model(saved, tmp_path / "full")
    assert same_files(tmp_path / "full" / "autoshot", own_autoshot)
    shutil.rmtree(own_autoshot)
    monkeypatch.chdir(tmp_path)  # a relative name of the checkpoint means the same after a change of folder
    loaded = [LinVTProcessor.from_pretrained("full"), AutoProcessor.from_pretrained("full")]
    video_processors = [AutoVideoProcessor.from_pretrained("full"), LinVTVideoProcessor.from_pretrained("full")]
    monkeypatch.chdir(saved)
    for number, part in enumerate([*loaded, *video_processors]):
        video_processor = part if part in video_processors else part.video_processor
        load_shot_detector.cache_clear()
        assert torch.equal(video_processor(video_file(30))["video_shot_ids"], expected)
        part.save_pretrained(tmp_path / f"again_{number}")
        part.save_pretrained(tmp_path / f"again_{number}")  # over itself
        assert same_files(tmp_path / f"again_{number}" / "autoshot", tmp_path / "full" / "autoshot")
        text = "".join(path.read_text() for path in (tmp_path / f"again_{number}").glob("*.json"))
        assert AUTOSHOT_IN_CHECKPOINT in text and str(tmp_path / "full") not in text
    export_model(tmp_path / "full", tmp_path / "second")
    assert same_files(tmp_path / "second" / "autoshot", tmp_path / "full" / "autoshot")
    # Other weights can still be given, and the cache of frame tokens tells these from the package's.
    other = AutoVideoProcessor.from_pretrained(tmp_path / "full", autoshot_model=str(AUTOSHOT_WEIGHTS))
    assert other.frame_options()["autoshot_model"] == str(AUTOSHOT_WEIGHTS)
    identity = shot_detector_identity(loaded[0].video_processor.frame_options()["autoshot_model"])
    assert identity != shot_detector_identity(None)


@pytest.mark.parametrize("lost", FILES)
def test_missing_autoshot_weights_are_an_error(saved, tmp_path, lost):
    export_model(saved, tmp_path / "full")
    (tmp_path / "full" / "autoshot" / lost).unlink()
    for load in (LinVTProcessor, AutoProcessor, AutoVideoProcessor):
        with pytest.raises(FileNotFoundError, match=r"full/autoshot should hold weights of AutoShot.*again"):
            load.from_pretrained(tmp_path / "full")


def test_damaged_autoshot_weights_are_an_error(saved, video_file, tmp_path):
    export_model(saved, tmp_path / "full")
    weights = tmp_path / "full" / "autoshot" / "model.safetensors"
    whole = weights.read_bytes()
    processor = AutoVideoProcessor.from_pretrained(tmp_path / "full", shot_detection="autoshot")
    weights.write_bytes(whole[:-1000])
    with pytest.raises(ValueError, match=r"AutoShot weights .*full/autoshot/model.safetensors are damaged"):
        processor(video_file())
    tensors = load_file(AUTOSHOT_WEIGHTS / "model.safetensors")
    name = sorted(tensors)[0]
    save_file({n: t for n, t in tensors.items() if n != name}, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"autoshot lacks weights of AutoShot: {name}"):
        processor(video_file())


def test_a_processor_that_was_not_loaded_has_no_weights_of_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="was not loaded from one that has some"):
        LinVTVideoProcessor(autoshot_model=AUTOSHOT_IN_CHECKPOINT).save_pretrained(tmp_path / "saved")


def test_what_cannot_be_exported_leaves_nothing(saved, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(FileExistsError, match="there exists already"):
        export_model(saved, tmp_path / "there")
    with pytest.raises(ValueError, match="no format 'tiny'; give one of full, light, self-contained"):
        export_model(saved, tmp_path / "new", "tiny")
    with pytest.raises(ValueError, match="is a folder, which has no revision 'main'"):
        export_model(saved, tmp_path / "new", revision="main")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(LinVTForConditionalGeneration, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model(saved, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved", "there"]


def test_a_self_contained_export_becomes_a_full_one_again(saved, tmp_path):
    exported = export_model(saved, tmp_path / "with_code", "self-contained")
    assert {"linvt_classes.py", "autoshot/model.safetensors"} <= exported.files.keys()
    again = export_model(tmp_path / "with_code", tmp_path / "full")
    assert again.files.keys() == export_model(saved, tmp_path / "direct").files.keys()
    assert not any("auto_map" in path.read_text() for path in again.output.glob("*.json"))
    assert (again.output / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_pickles_of_the_source_stay_behind(saved, tmp_path):
    torch.save({"learning_rate": 1.0}, saved / "training_args.bin")
    exported = export_model(saved, tmp_path / "full")
    assert exported.left_out == ("training_args.bin",)
    assert not [path for path in exported.output.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_pickles_are_not_loaded(saved, image_llm, tmp_path):
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    LinVTForConditionalGeneration.from_pretrained(saved)  # the safetensors beside it
    with pytest.raises(ValueError, match="use_safetensors=False asks for pickles"):
        LinVTForConditionalGeneration.from_pretrained(saved, use_safetensors=False)
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"as a pickle only \(pytorch_model.bin\).*linvt convert"):
        LinVTForConditionalGeneration.from_pretrained(saved)
    with pytest.raises(ValueError, match="as a pickle only"):
        export_model(saved, tmp_path / "full")
    model, _ = image_llm("llava")
    model.config.save_pretrained(tmp_path / "image_llm")
    torch.save(model.state_dict(), tmp_path / "image_llm" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="image_llm has its weights as a pickle only"):
        LinVTForConditionalGeneration.from_image_llm(tmp_path / "image_llm")


def test_autoshot_weights_and_pickles_by_hub_id(hub, saved, own_autoshot, tmp_path, monkeypatch):
    """Revision, token and cache folder reach the weights of AutoShot as they reach the other files."""
    export_model(saved, tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    for name in FILES:
        shutil.copy(own_autoshot / name, tmp_path / "second" / "autoshot" / name)
    (tmp_path / "pickle").mkdir()
    shutil.copy(saved / "config.json", tmp_path / "pickle")
    torch.save(load_file(saved / "model.safetensors"), tmp_path / "pickle" / "pytorch_model.bin")
    shutil.copytree(saved, tmp_path / "trained")
    torch.save({"learning_rate": 1.0}, tmp_path / "trained" / "training_args.bin")
    hub.add_model("org/secret", tmp_path / "first", private=True)
    repository = hub.repositories["org/secret"]
    repository.branches["other"] = repository.branches["main"]
    hub.add_model("org/secret", tmp_path / "second", revision="other")
    hub.add_model("org/pickle", tmp_path / "pickle")
    hub.add_model("org/trained", tmp_path / "trained")

    monkeypatch.setenv("HF_TOKEN", "")
    options = {"token": hub.read_token, "cache_dir": tmp_path / "own_cache"}
    for load in (AutoProcessor, LinVTProcessor, AutoVideoProcessor, LinVTVideoProcessor):
        for revision, weights in (("main", AUTOSHOT_WEIGHTS), ("other", own_autoshot)):
            loaded = load.from_pretrained("org/secret", revision=revision, **options)
            loaded.save_pretrained(tmp_path / f"{load.__name__}_{revision}")
            assert same_files(tmp_path / f"{load.__name__}_{revision}" / "autoshot", weights)
    with pytest.raises(ValueError, match=r"org/pickle has its weights as a pickle only \(pytorch_model.bin\)"):
        LinVTForConditionalGeneration.from_pretrained("org/pickle")
    exported = export_model("org/trained", tmp_path / "full")
    assert "autoshot/model.safetensors" in exported.files and exported.left_out == ("training_args.bin",)
    assert not any("pytorch_model.bin" in path or "training_args.bin" in path for _, path in hub.requests)
