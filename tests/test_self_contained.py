"""Self-contained checkpoints load where `linvt` is not installed. In fresh environments: `nox -s self_contained`."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file
from self_contained_cases import CASES, build, write_case
from tiny_families import user_turn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoVideoProcessor,
    LlavaForConditionalGeneration,
    pipeline,
)

import linvt
from linvt.hub import self_contained
from linvt.hub.self_contained import CLASSES_FILE, carried_code, check_code, save_self_contained
from linvt.ports.auto_classes import PORTS
from linvt.processors.shots.shot_detection import AUTOSHOT_WEIGHTS


LOADER = Path(__file__).with_name("load_self_contained.py")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """All cases, each written once."""
    folder = tmp_path_factory.mktemp("self_contained")
    return {name: write_case(name, folder / name) for name in CASES}


@pytest.fixture(scope="module")
def former_case(tmp_path_factory) -> Path:
    """
    The LLaVA case as linvt wrote it when its modules lay in one folder and videos were padded to one length. Its
    AutoShot weights are those of the package, and too large to be kept twice.
    """
    folder = tmp_path_factory.mktemp("former")
    with zipfile.ZipFile(Path(__file__).with_name("fixtures") / "self_contained_one_folder.zip") as packed:
        packed.extractall(folder)
    shutil.copy(AUTOSHOT_WEIGHTS / "model.safetensors", folder / "model" / "autoshot")
    return folder


def run_script(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )


def test_checkpoints_load_without_linvt(cases, former_case, tmp_path):
    """
    Two families, a port and RED-VILLM, and what a former linvt wrote: every Auto class, the pipeline, a video file,
    saved again and once more.
    """
    done = run_script(LOADER, "--hide", *cases.values(), former_case, HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:-1]] == [*cases, former_case.name]
    assert "without linvt, peft, trl, accelerate" in done.stdout


@pytest.mark.parametrize("options", [{}, {"trust_remote_code": True}])
@pytest.mark.parametrize("name", ["llava", "mipha"])
def test_checkpoints_load_with_linvt_as_any_other(cases, tmp_path, name, options):
    folder = cases[name] / "model"
    expected = load_file(cases[name] / "expected.safetensors")
    assert type(AutoConfig.from_pretrained(folder, **options)) is linvt.LinVTConfig
    assert type(AutoVideoProcessor.from_pretrained(folder, **options)) is linvt.LinVTVideoProcessor
    for auto_class in (AutoModel, AutoModelForImageTextToText):
        model = auto_class.from_pretrained(folder, **options)
        assert type(model) is linvt.LinVTForConditionalGeneration
    inputs = {key: value for key, value in expected.items() if key != "logits"}
    assert torch.equal(model(**inputs).logits, expected["logits"])
    processor = AutoProcessor.from_pretrained(folder, **options)
    assert type(processor) is linvt.LinVTProcessor
    assert type(pipeline("video-text-to-text", str(folder), **options)) is linvt.VideoTextToTextPipeline

    # Saved from here it is an ordinary checkpoint, which names no code that is not there.
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    for file in ("config.json", "processor_config.json"):
        assert "auto_map" not in (tmp_path / file).read_text()


def test_what_a_former_linvt_wrote_loads_with_this_one_and_answers_the_same(former_case):
    expected = load_file(former_case / "expected.safetensors")
    told = json.loads((former_case / "expected.json").read_text())
    model = AutoModelForImageTextToText.from_pretrained(former_case / "model")
    processor = AutoProcessor.from_pretrained(former_case / "model")
    assert type(model) is linvt.LinVTForConditionalGeneration and type(processor) is linvt.LinVTProcessor
    inputs = processor.apply_chat_template(
        user_turn(former_case / "clip.mp4", told["question"]),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    for name, value in inputs.items():
        if name != "video_num_frames":  # frames of one video, which had an axis for the videos
            former = expected[name].flatten(0, 1) if name.startswith(("pixel", "video")) else expected[name]
            assert torch.equal(value, former), name
    # What TTA sees is now computed for the kept tokens alone, as of a memory: sums round otherwise.
    torch.testing.assert_close(model(**inputs).logits, expected["logits"], rtol=1e-5, atol=1e-5)
    pipe = pipeline("video-text-to-text", str(former_case / "model"))
    (answer,) = pipe(str(former_case / "clip.mp4"), text=told["question"], max_new_tokens=6, do_sample=False)
    assert answer["generated_text"] == told["answer"]


def test_saving_leaves_no_trace(tmp_path):
    """What the process saves afterwards is, byte for byte, what it saved before."""
    model, processor = build("llava")
    for folder in ("before", "self_contained", "after"):
        if folder == "self_contained":
            save_self_contained(model, processor, tmp_path / folder)
        else:
            model.save_pretrained(tmp_path / folder)
            processor.save_pretrained(tmp_path / folder)
    before, after = (
        {path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.*")}
        for folder in ("before", "after")
    )
    assert before == after and not any(path.suffix == ".py" for path in after)
    assert not model.is_remote_code()


def test_only_code_that_the_model_needs_is_carried(cases):
    ports = {path.name for path in Path(linvt.__file__).parent.joinpath("ports").glob("modeling_*.py")}
    for name, case in cases.items():
        files = {path.name for path in (case / "model").glob("*.py")}
        assert files & ports == ({"modeling_mipha.py"} if name == "mipha" else set())
        assert not files & {
            "cli_main.py",
            "convert.py",
            "video_sft_trainer.py",
            "auto_classes.py",
            "self_contained.py",
        }
        assert all(file == CLASSES_FILE or file in _modules_of_linvt() for file in files)


@pytest.mark.parametrize("port", PORTS, ids=lambda port: port[0].model_type)
def test_the_code_of_every_port_can_be_carried(port):
    sources = carried_code(port)
    check_code(sources)
    assert len(sources) <= len(carried_code()) + 8
    assert "".join(f"{item.__name__}, " for item in port)[:-2] in sources[CLASSES_FILE]


def _modules_of_linvt() -> set[str]:
    folders = [Path(linvt.__path__[0]), *(Path(sys.modules[f"linvt.{name}"].__path__[0]) for name in FOLDERS)]
    return {path.name for folder in folders for path in folder.rglob("*.py")}


FOLDERS = ("configuration", "processors")


def test_no_name_of_a_module_is_taken():
    assert CLASSES_FILE not in _modules_of_linvt()


FROM_THE_HUB = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from load_self_contained import *

case, good, bad = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
model, processor = load("me/video", revision=good)
check_answers(model, processor, case)
# The code of a later commit is broken. Its weights load with the code of the commit that was read and trusted.
try:
    transformers.AutoConfig.from_pretrained("me/video", trust_remote_code=True)
except RuntimeError as error:
    assert "not trusted" in str(error)
else:
    raise AssertionError("the code of the last commit was not run")
model = transformers.AutoModel.from_pretrained("me/video", trust_remote_code=True, code_revision=good)
check_answers(model, processor, case)
check_pipeline("me/video", case, revision=good)
for folder in ("saved_again", "saved_twice"):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    model, processor = load(folder)
    check_answers(model, processor, case)

# And now linvt comes in, after a copy of its classes.
assert "linvt" not in sys.modules
import linvt
assert type(transformers.AutoModel.from_pretrained("me/video")) is linvt.LinVTForConditionalGeneration
assert type(transformers.AutoProcessor.from_pretrained("me/video")) is linvt.LinVTProcessor
"""


def test_checkpoints_load_by_hub_id(cases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with HubServer() as hub:
        good = hub.add_model("me/video", cases["mipha"] / "model")
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / CLASSES_FILE).write_text("raise RuntimeError('this code was not trusted')\n")
        bad = hub.add_model("me/video", tmp_path / "broken")
        done = hub.run(FROM_THE_HUB, tmp_path / "home", LOADER.parent, cases["mipha"], good, bad)
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sources: sources.pop("token_refiner.py"), "imports token_refiner.py, which would not be saved"),
        (
            lambda sources: sources.update({"prompt_marks.py": "import bisect\nimport linvt\n"}),
            "Line 2 of prompt_marks.py still imports linvt",
        ),
        (
            lambda sources: sources.update({"prompt_marks.py": "def late():\n    from linvt import LinVTConfig\n"}),
            "Line 2 of prompt_marks.py still imports linvt",
        ),
        (
            lambda sources: sources.update({"prompt_marks.py": "def late():\n    import peft\n"}),
            "Line 2 of prompt_marks.py imports peft.*is_peft_available",
        ),
    ],
)
def test_code_that_would_not_load_is_refused(monkeypatch, tmp_path, change, message):
    model, processor = build("llava")
    sources = carried_code()
    change(sources)
    monkeypatch.setattr(self_contained, "carried_code", lambda port: sources)
    with pytest.raises(ValueError, match=message):
        save_self_contained(model, processor, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_optional_packages_may_be_imported_where_transformers_does_not_ask_for_them():
    check_code({"a.py": "try:\n    import peft\nexcept ImportError:\n    peft = None\n"})
    check_code({"a.py": "if is_peft_available():\n    import peft\n"})
    with pytest.raises(ValueError, match="Line 3 of a.py imports peft"):
        check_code({"a.py": "if is_peft_available():\n    import peft\nimport peft\n"})


def test_an_import_of_a_package_is_refused(monkeypatch):
    original = self_contained._read_module
    monkeypatch.setattr(
        self_contained,
        "_read_module",
        lambda name: (
            original(name) + ("from linvt.processors.video import video_reading\n" if "marks" in name else "")
        ),
    )
    with pytest.raises(ValueError, match="linvt.processors.video is imported, but it is no module"):
        carried_code()


def test_classes_whose_code_is_not_known_are_refused(tmp_path):
    class Mine(LlavaForConditionalGeneration):
        pass

    class MyProcessor(linvt.LinVTProcessor):
        pass

    model, processor = build("llava")
    with pytest.raises(ValueError, match="MyProcessor was given"):
        save_self_contained(model, MyProcessor.from_image_llm_processor(processor._processor), tmp_path / "model")
    model.image_llm.__class__ = Mine
    with pytest.raises(ValueError, match="Mine comes from .*export this model as full or light"):
        save_self_contained(model, processor, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_auto_map_names_classes_that_are_there(cases):
    folder = cases["llava"] / "model"
    config = json.loads((folder / "config.json").read_text())
    processor = json.loads((folder / "processor_config.json").read_text())
    maps = config["auto_map"] | processor["auto_map"] | processor["video_processor"]["auto_map"]
    assert len(maps) == 6
    classes = (folder / CLASSES_FILE).read_text()
    assert all(f"import {reference.split('.')[1]}\n" in classes for reference in maps.values())
    assert {reference.split(".")[0] + ".py" for reference in maps.values()} == {CLASSES_FILE}
