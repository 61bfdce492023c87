"""`linvt export` and `linvt push`, through the real client to a Hub of the tests."""

import json

import pytest
import torch
from hub_server import LICENSED
from safetensors.torch import save_file
from tiny_families import SMALL, user_turn

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.checkpoints.safe_weights import PICKLES
from linvt.hub.export import FORMATS


QUESTION = "What is it?"


@pytest.fixture(autouse=True)
def staging(tmp_path, monkeypatch):
    """Where temporary folders are made, so that it is seen whether one is left."""
    folder = tmp_path / "staging"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def model_folder(hub, image_llm, tmp_path):
    """`model_folder(family)`: a saved model around an image-LLM that is on the Hub."""

    def make(family: str):
        own, own_processor = image_llm(family)
        own.save_pretrained(tmp_path / f"image_{family}")
        own_processor.save_pretrained(tmp_path / f"image_{family}")
        (tmp_path / f"image_{family}" / "README.md").write_text(LICENSED)
        hub.add_model(f"org/image-{family}", tmp_path / f"image_{family}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            model = LinVTForConditionalGeneration.from_image_llm(f"org/image-{family}", SMALL)
        processor = LinVTProcessor.from_image_llm_processor(
            own_processor, model.config.num_video_tokens, {"height": 56, "width": 56}, num_frames=4
        )
        processor.video_processor.shot_detection = "uniform"
        model.save_pretrained(tmp_path / family)
        processor.save_pretrained(tmp_path / family)
        hub.requests.clear()
        return tmp_path / family

    return make


def answer_of(folder, clip) -> dict[str, torch.Tensor]:
    """Inputs of a prompt with a video, and the logits."""
    model = LinVTForConditionalGeneration.from_pretrained(folder)
    inputs = LinVTProcessor.from_pretrained(folder).apply_chat_template(
        user_turn(clip, QUESTION), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    with torch.no_grad():
        return {**inputs, "logits": model(**inputs).logits}


def writes(hub) -> list[str]:
    return [path for method, path in hub.requests if method not in ("GET", "HEAD")]


# A folder


@pytest.mark.parametrize("name", ["full", "light"])
def test_export_says_what_it_wrote(run, model_folder, tmp_path, name):
    source = model_folder("llava")
    code, output, error = run("export", source, tmp_path / "exported", "--format", name, "--json")
    assert (code, error) == (0, "")
    result = json.loads(output)
    sizes = {
        str(path.relative_to(tmp_path / "exported")): path.stat().st_size
        for path in (tmp_path / "exported").rglob("*")
        if path.is_file()
    }
    assert result["files"] == sizes and result["num_bytes"] == sum(sizes.values()) and result["format"] == name
    code, output, error = run("export", source, tmp_path / "again", "--format", name)
    assert code == 0
    assert f"{source}, {name}" in " ".join(output.split()) and str(tmp_path / "again") in output
    listed = {line.split()[-1] for line in output.splitlines() if line.endswith((".json", ".jinja", ".safetensors"))}
    assert listed == {path for path in sizes if path.endswith((".json", ".jinja", ".safetensors"))}


def test_export_to_a_folder_that_is_there_is_one_line(run, model_folder, tmp_path):
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "file").touch()
    code, output, error = run("export", tmp_path / "missing", tmp_path / "new")
    assert (code, output) == (2, "") and "there is no folder" in error and error.count("\n") == 1
    code, output, error = run("export", model_folder("llava"), tmp_path / "exported")
    assert (code, output) == (2, "") and "exists already" in error and error.count("\n") == 1


# The Hub


def test_a_dry_run_lists_what_a_push_sends(run, hub, model_folder, staging):
    source = model_folder("llava")
    (source / "training_args.bin").write_bytes(b"")
    options = ("push", source, "me/model", "--private", "--json")
    code, output, error = run(*options, "--dry-run")
    assert (code, error) == (0, "")
    planned = json.loads(output)
    assert writes(hub) == [] and "me/model" not in hub.repositories
    assert planned["dry_run"] and planned["new_repository"] and planned["left_out"] == ["training_args.bin"]

    code, output, error = run(*options)
    assert (code, error) == (0, "")
    pushed = json.loads(output)
    assert pushed.pop("commit") == hub.repositories["me/model"].branches["main"]
    assert pushed.pop("url") == f"{hub.url}/me/model"
    assert pushed == planned | {"dry_run": False}
    assert pushed["files"] == {path: len(data) for path, data in hub.files("me/model").items()}
    assert hub.repositories["me/model"].private
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize(
    ("token", "has_network", "message"),
    [
        ("", True, "needs a token"),
        ("hf_wrong", True, "does not accept the token"),
        (None, False, "cannot be reached"),
        (None, True, "the name me/model is taken"),
    ],
)
def test_a_dry_run_lists_all_the_same_and_warns(
    run, hub, make_linvt, tmp_path, monkeypatch, staging, token, has_network, message
):
    """Of a model whose image-LLM is not from the Hub, so that its card asks for no licence there."""
    for part in make_linvt("llava"):
        part.save_pretrained(tmp_path / "local")
    options = ("push", tmp_path / "local", "me/model", "--dry-run")
    planned = json.loads(run(*options, "--json")[1])
    hub.add_model("me/model", tmp_path / "local")  # now the name is taken
    hub.requests.clear()
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    if not has_network:
        hub.is_down = True
    code, output, error = run(*options, "--json")
    result = json.loads(output)
    assert (code, error) == (0, "") and message in result["warning"]
    assert result["files"] == planned["files"] != {} and result["num_bytes"] == planned["num_bytes"]
    assert result["new_repository"] is None and "warning" not in planned
    code, output, error = run(*options)
    assert (code, error) == (0, "") and message in " ".join(output.split()) and "model.safetensors" in output
    assert writes(hub) == [] and list(staging.iterdir()) == []


def test_a_dry_run_of_what_cannot_be_exported_or_named_is_an_error(run, hub, make_linvt, tmp_path):
    for part in make_linvt("llava"):
        part.save_pretrained(tmp_path / "local")
    for arguments, message in ((("me/model", "--format", "light"), "written light"), (("me//model",), "me//model")):
        code, output, error = run("push", tmp_path / "local", *arguments, "--dry-run")
        assert (code, output, error.count("\n")) == (2, "", 1) and message in error
    assert hub.requests == []


def test_a_commit_on_purpose_takes_files_of_another_format_away(run, hub, model_folder, tmp_path):
    source = model_folder("llava")
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "model-00001-of-00001.safetensors").write_bytes(b"")
    hub.add_model("me/model", shards)
    code, output, _ = run("push", source, "me/model", "--revision", "main", "--dry-run")
    assert code == 0 and "removes" in output and "model-00001-of-00001.safetensors" in output
    assert list(hub.files("me/model")) == ["model-00001-of-00001.safetensors"]
    code, output, _ = run("push", source, "me/model", "--revision", "main")
    assert code == 0 and "removed" in output and "model-00001-of-00001.safetensors" not in hub.files("me/model")


LOAD = """
import sys
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, AutoVideoProcessor,
    pipeline,
)
import linvt

clip, folder, *names = sys.argv[1:]
content = [{"type": "video", "video": clip}, {"type": "text", "text": "What is it?"}]
chat = [{"role": "user", "content": content}]
for name in names:
    inputs = load_file(f"{folder}/{name.split('-')[0]}.answer")
    expected = inputs.pop("logits")
    name = "me/" + name
    classes = (linvt.LinVTForConditionalGeneration, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM)
    for auto_class in classes:
        model = auto_class.from_pretrained(name)
        assert type(model) is linvt.LinVTForConditionalGeneration
        assert torch.equal(model(**inputs).logits, expected), (name, auto_class)
    assert type(AutoConfig.from_pretrained(name)) is linvt.LinVTConfig
    processor = AutoProcessor.from_pretrained(name)
    assert type(processor) is type(linvt.LinVTProcessor.from_pretrained(name)) is linvt.LinVTProcessor
    assert type(AutoVideoProcessor.from_pretrained(name)) is linvt.LinVTVideoProcessor
    own = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    assert own.keys() == inputs.keys() and all(torch.equal(own[key], inputs[key]) for key in inputs), name
    answer = model.generate(**own, max_new_tokens=4, do_sample=False)[0, own["input_ids"].shape[1] :]
    said = pipeline("video-text-to-text", model=name)(chat, max_new_tokens=4, generate_kwargs={"do_sample": False})
    assert said[0]["generated_text"][-1]["content"] == processor.decode(answer, skip_special_tokens=True), name
    print(name)
"""


def test_what_is_pushed_loads_by_its_id(run, hub, model_folder, video_file, tmp_path):
    """
    Every format, and what Transformers' own `push_to_hub` sends, in a process that knows nothing but the id: the
    same logits as before, bit for bit.
    """
    clip, names = video_file(12), []
    for family in ("llava", "qwen2_vl"):
        source = model_folder(family)
        save_file(answer_of(source, clip), tmp_path / f"{family}.answer")
        for name in FORMATS:
            code, output, error = run("push", source, f"me/{family}-{name}", "--format", name)
            assert code == 0, error
        LinVTForConditionalGeneration.from_pretrained(source).push_to_hub(f"me/{family}-itself")
        LinVTProcessor.from_pretrained(source).push_to_hub(f"me/{family}-itself")
        pushed = {name: hub.files(f"me/{family}-{name}") for name in (*FORMATS, "itself")}
        names += [f"{family}-{name}" for name in pushed]
        assert len(pushed["light"]["model.safetensors"]) < len(pushed["full"]["model.safetensors"])
        assert {name for name in pushed if any(path.endswith(".py") for path in pushed[name])} == {"self-contained"}
        assert not [path for files in pushed.values() for path in files if path.endswith(PICKLES)]
    done = hub.run(LOAD, tmp_path / "home", clip, tmp_path, *names)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"me/{name}" for name in names]
    assert hub.unknown_requests == []


# What goes wrong, and that the second try completes


def test_a_wrong_token_then_a_right_one(run, hub, model_folder, monkeypatch):
    source = model_folder("llava")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, output, error = run("push", source, "me/model")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"linvt push: {hub.url} does not accept the token")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert run("push", source, "me/model")[0] == 0
    assert "model.safetensors" in hub.files("me/model")


def test_a_lost_connection_then_the_same_command(run, hub, model_folder, staging):
    source = model_folder("llava")
    size = (source / "model.safetensors").stat().st_size
    hub.cut_after(size // 2)
    code, output, error = run("push", source, "me/model")
    assert (code, output, error.count("\n")) == (2, "", 1), error
    assert "cannot be reached" in error and "The same command goes on" in error
    assert hub.files("me/model") == {} and list(staging.iterdir()) == []
    arrived = set(hub.large_files)
    hub.restore()
    hub.requests.clear()
    code, output, error = run("push", source, "me/model")
    assert (code, error) == (0, "")
    sent = {path.removeprefix("/lfs/") for method, path in hub.requests if method == "PUT"}
    assert sent == set(hub.large_files) - arrived
    assert "model.safetensors" in hub.files("me/model")


def test_a_name_that_is_taken_then_another(run, hub, model_folder, monkeypatch):
    source = model_folder("llava")
    assert run("push", source, "me/model")[0] == 0
    before = hub.repositories["me/model"].branches["main"]
    with monkeypatch.context() as patch:
        patch.setattr("linvt.hub.export.export_model", None)  # it is said before the model is exported
        code, output, error = run("push", source, "me/model")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert "the name me/model is taken" in error and "another name" in error and "--revision main" in error
    assert hub.repositories["me/model"].branches["main"] == before
    assert run("push", source, "me/other")[0] == 0
    other, taken = hub.files("me/other"), hub.files("me/model")
    assert other.pop("README.md").replace(b"other", b"model") == taken.pop("README.md").replace(b"other", b"model")
    assert other == taken


@pytest.mark.parametrize("num_bytes", [500, 100_000])
def test_a_download_that_breaks_off_then_the_same_command(run, hub, model_folder, video_file, num_bytes):
    """In the middle of the configuration, and of the weights."""
    hub.add_model("me/model", model_folder("llava"))
    options = ("ask", video_file(12), QUESTION, "--model", "me/model", "--max-new-tokens", 4)
    hub.cut_after(num_bytes)
    code, output, error = run(*options)
    assert (code, output, error.count("\n")) == (2, "", 1), error
    assert error.startswith(f"linvt ask: {hub.url} cannot be reached ("), error
    hub.restore()
    code, output, error = run(*options)
    assert (code, error) == (0, "")
    assert "text" in output
