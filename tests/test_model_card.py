"""Model cards say what the files of a model say, the Hub accepts them, and their snippets run as they stand."""

import itertools
import json
import math
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, get_session
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors import safe_open
from tiny_families import SMALL, random_video, write_video
from tiny_models import tiny_llava

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt.hub.export import export_model
from linvt.hub.model_card import write_model_card
from linvt.hub.model_records import RECORD_FILES, Evaluation, TrainingStage, read_records, write_records


STAGE = TrainingStage(
    stage="alignment",
    learnt=["the video tokenizer"],
    data="org/captions",
    data_on_hub=True,
    num_rows=7130,
    num_rows_left_out=29,
    num_steps=222,
    batch_size=32,
    learning_rate=0.0013,
    settings={"seed": 7},
    versions={"torch": "2.15.0"},
)
EVALUATION = Evaluation(
    evaluated="this model",
    data="Some questions",
    data_id="org/questions",
    split="test",
    num_examples=487,
    metric="accuracy",
    unit="percent",
    values={"order": 61.3, "mean": 58.25},
)


@pytest.fixture
def exported(make_linvt, tmp_path):
    folder = tmp_path / "my-model"
    for part in make_linvt("llava"):
        part.save_pretrained(folder)
    return folder


def numbers_of(folder: Path) -> set[str]:
    """Every number that a file of the model holds or that its weights add up to, as a card would write it."""
    names = ("config.json", "processor_config.json", "training.json", "evaluation.json")
    texts = [(folder / name).read_text() for name in names]
    config = json.loads((folder / "config.json").read_text())["video_tokenizer_config"]
    found = {str(sum(config["num_queries"])), f"{sum(file.stat().st_size for file in folder.glob('*.safetensors')):,}"}
    sizes = {}
    with safe_open(folder / "model.safetensors", "pt") as weights:
        for name in weights.keys():
            sizes[name] = math.prod(weights.get_slice(name).get_shape())
    found.add(f"{sum(sizes.values()):,}")
    found.add(f"{sum(size for name, size in sizes.items() if name.startswith('video_tokenizer.')):,}")
    return found | set(re.findall(r"\d+(?:\.\d+)*", " ".join(texts)))


def test_every_number_is_in_a_file(exported):
    write_records(exported, [STAGE])
    write_records(exported, [EVALUATION])
    card = ModelCard.load(write_model_card(exported, "full", license="mit"))
    # Without code, links, and the sentences that count nothing.
    text = re.sub(r"```.*?```|\(https?://\S+\)|arXiv:\S+|F32|^\d\. ", "", card.text, flags=re.DOTALL | re.MULTILINE)
    shown = set(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)*", text))
    assert {"7130", "29", "222", "32", "0.0013", "61.3", "58.25", "487", "2.15.0"} <= shown
    assert shown <= numbers_of(exported)
    settings = json.loads((exported / "processor_config.json").read_text())["video_processor"]
    size = settings["size"]
    assert f"| {settings['num_frames']}, of {size['height']} x {size['width']} pixels" in text


def test_metadata(exported):
    write_records(exported, [STAGE, STAGE])
    before = {**vars(EVALUATION), "evaluated": "the image-LLM", "values": {"order": 50.0}}
    write_records(exported, [Evaluation(**before), EVALUATION])
    card = ModelCard.load(write_model_card(exported, "full", repo_id="me/there", license="mit"))
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "video-text-to-text" and data["library_name"] == "linvt"
    assert data["license"] == "mit" and data["datasets"] == ["org/captions"]
    assert "base_model" not in data and "@" not in card.text
    name, results = model_index_to_eval_results(data["model-index"])
    assert name == "there"
    assert {(result.metric_name, result.metric_value) for result in results} == {
        ("accuracy, order (percent)", 61.3),
        ("accuracy, mean (percent)", 58.25),
    }
    assert {(result.dataset_type, result.dataset_split) for result in results} == {("org/questions", "test")}
    write_model_card(exported, "self-contained")
    data = ModelCard.load(exported / "README.md").data.to_dict()
    assert data["library_name"] == "transformers" and "license" not in data


def test_what_is_not_known_is_said(make_linvt, tmp_path):
    exported = tmp_path / "my-model"
    for part in make_linvt("llava", start="random"):
        part.save_pretrained(exported)
    text = write_model_card(exported, "full").read_text()
    assert "No record of a training" in text and "answers about videos mean nothing" in text
    assert "Nothing was trained" not in text and "unless a call asks" not in text
    assert "Not evaluated" in text and "Nothing is known about how right" in text
    assert "Not known: the image-LLM was given as a folder" in text


def test_that_nothing_was_trained_is_read_off_the_weights(make_untrained, tmp_path):
    """Also where LoRA alone was, and in the files of which no shard holds all weights; nothing else says so."""
    model, processor = make_untrained("llava")
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    text = write_model_card(tmp_path, "full").read_text()
    assert "Nothing was trained; frame tokens are merged" in text and "No record of a training" not in text
    assert "12 tokens per video, unless a call asks for another `num_video_tokens`" in text
    write_records(tmp_path, [TrainingStage(**{**vars(STAGE), "learnt": ["LoRA on the LLM"]})])
    assert "Nothing was trained in the video tokenizer; frame" in write_model_card(tmp_path, "full").read_text()
    model.video_tokenizer.aggregator.time_weight.data[1, 3] = 1e-4
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert "Nothing was trained" not in write_model_card(tmp_path, "full").read_text()


@pytest.mark.parametrize(
    ("shot_detection", "said"),
    [
        ("autoshot", "the shots of a video, which AutoShot finds. Its weights come with `linvt`"),
        ("auto", "the shots of a video that is not long, which AutoShot finds. Its weights come with `linvt`"),
        ("uniform", "shots are not looked for"),
    ],
)
def test_how_frames_are_picked(exported, shot_detection, said):
    settings = json.loads((exported / "processor_config.json").read_text())
    settings["video_processor"]["shot_detection"] = shot_detection
    (exported / "processor_config.json").write_text(json.dumps(settings))
    assert said in write_model_card(exported, "full").read_text() and not (exported / "autoshot").exists()


def test_red_villm_claims_no_averages(tmp_path, make_linvt):
    image_llm, _ = tiny_llava()
    settings = {"model_type": "red_villm_video", "num_frames": 5, "num_frame_tokens": 16}
    LinVTForConditionalGeneration.from_image_llm(image_llm, settings).save_pretrained(tmp_path)
    make_linvt("llava")[1].save_pretrained(tmp_path)
    text = write_model_card(tmp_path, "full").read_text()
    assert "RED-VILLM" in text and "weighted average" not in text and "2404.11865" in text
    assert "Nothing was trained" not in text and "unless a call asks" not in text


def test_records_come_along_from_the_source_and_survive(exported, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    write_records(source, [STAGE])
    write_records(source, [EVALUATION])
    write_model_card(exported, "full", source=source)
    assert read_records(exported, TrainingStage) == [STAGE]
    assert read_records(exported, Evaluation) == [EVALUATION]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"evaluation.json is no JSON"),
        ("{}", r"evaluation.json holds a dict; expected a list of Evaluation"),
        ("[3]", r"entry 0 of .*evaluation.json is a int"),
        ('[{"evaluated": "x"}]', r"entry 0 of .*evaluation.json is no Evaluation: .*missing.* 'data', 'data_id'"),
    ],
)
def test_files_of_no_records(exported, text, message):
    (exported / "evaluation.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_model_card(exported, "full")


@pytest.mark.parametrize(
    ("record", "wrong", "message"),
    [
        (EVALUATION, {"note": ""}, "'note'"),
        (EVALUATION, {"num_examples": "487"}, "'num_examples' expected int, got str"),
        (EVALUATION, {"values": {"order": 61.3, "mean": "58"}}, r"values\['mean'\].* '58'"),
        (EVALUATION, {"values": {"order": None}}, r"values\['order'\].* None"),
        (EVALUATION, {"values": [61.3]}, "'values' expected a dict, got list"),
        (STAGE, {"learnt": "the video tokenizer"}, "'learnt' expected a list, got str"),
        (STAGE, {"learnt": ["LoRA", 3]}, r"learnt\[1\].* expected str, got int"),
        (STAGE, {"learning_rate": "0.001"}, "'learning_rate' .*'0.001'"),
        (STAGE, {"settings": {"seed": None}}, r"settings\['seed'\].* None"),
        (STAGE, {"versions": {"torch": 2}}, r"versions\['torch'\].* expected str, got int"),
    ],
)
def test_malformed_records_are_named_by_file_entry_and_field(exported, record, wrong, message):
    file = RECORD_FILES[type(record)]
    (exported / file).write_text(json.dumps([vars(record), {**vars(record), **wrong}]))
    with pytest.raises(ValueError, match=f"entry 1 of .*{file} is no {type(record).__name__}: .*{message}"):
        write_model_card(exported, "full")


def test_whole_numbers_are_numbers(exported):
    write_records(exported, [Evaluation(**{**vars(EVALUATION), "values": {"order": 61}})])
    assert read_records(exported, Evaluation)[0].values == {"order": 61}


@pytest.mark.parametrize("base", ["license_name: llama", "pipeline_tag: image-text-to-text"])
def test_a_licence_that_is_given_is_not_said_to_be_inherited(exported, monkeypatch, tmp_path, base):
    (tmp_path / "README.md").write_text(f"---\n{base}\n---\n")
    monkeypatch.setattr("linvt.hub.model_card.hf_hub_download", lambda *_, **__: tmp_path / "README.md")
    config = json.loads((exported / "config.json").read_text())
    config["image_llm_source"] = {"id": "org/base", "revision": "a" * 40}
    (exported / "config.json").write_text(json.dumps(config))
    text = write_model_card(exported, "full", license="mit").read_text()
    assert "license: mit" in text and "`mit`, as given by who exported" in text
    with pytest.raises(ValueError, match="names no licence"):
        write_model_card(exported, "full")
    (tmp_path / "README.md").write_text("---\na: [\n---\n")
    with pytest.raises(ValueError, match="org/base at a+ has metadata that cannot be read"):
        write_model_card(exported, "full")


RUN = """
import os, shlex, sys

os.chdir(sys.argv[1])
if sys.argv[2] == "without linvt":
    sys.modules["linvt"] = sys.modules["peft"] = None  # as if they were not installed
for kind, snippet in zip(sys.argv[3::2], sys.argv[4::2], strict=True):
    if kind == "python":
        exec(snippet, {})
    else:
        from linvt_cli.cli_main import main

        assert kind == "bash" and main(shlex.split(snippet)[1:]) == 0
    print("--")
"""


def test_cards_of_exports(hub, tmp_path):
    """All formats: the licence is that of the image-LLM, the Hub takes the card, and its snippets run."""
    image_llm, processor = tiny_llava()
    image_llm.save_pretrained(tmp_path / "image_llm")
    processor.save_pretrained(tmp_path / "image_llm")
    write_video(tmp_path / "video.mp4", random_video(12))
    hub.add_model("org/unlicensed", tmp_path / "image_llm")
    licence = "license: other\nlicense_name: llama\nlicense_link: LICENSE"
    (tmp_path / "image_llm" / "README.md").write_text(f"---\n{licence}\n---\n")
    commit = hub.add_model("org/llava", tmp_path / "image_llm")
    for name in ("llava", "unlicensed"):
        LinVTForConditionalGeneration.from_image_llm(f"org/{name}", SMALL).save_pretrained(tmp_path / name)
        size = {"height": 56, "width": 56}
        LinVTProcessor.from_image_llm_processor(processor, 12, size, num_frames=4).save_pretrained(tmp_path / name)
    with pytest.raises(ValueError, match="The licence is given as 'mit'.* is 'other'"):
        export_model(tmp_path / "llava", tmp_path / "other", license="mit")
    with pytest.raises(ValueError, match="names no licence"):
        export_model(tmp_path / "unlicensed", tmp_path / "other")
    export_model(tmp_path / "unlicensed", tmp_path / "given", license="apache-2.0")
    assert ModelCard.load(tmp_path / "given" / "README.md").data.license == "apache-2.0"

    snippets = {"with linvt": [], "without linvt": []}
    for format, relation in (("full", "finetune"), ("light", "adapter"), ("self-contained", "finetune")):
        export_model(tmp_path / "llava", tmp_path / format, format, repo_id=f"me/{format}")
        card = ModelCard.load(tmp_path / format / "README.md")
        # The Hub's own check, as ModelCard.validate asks for it; that of huggingface_hub 1.5 knows one address only.
        asked = {"repoType": "model", "content": (tmp_path / format / "README.md").read_text()}
        get_session().post(f"{hub.url}/api/validate-yaml", json=asked).raise_for_status()
        data = card.data.to_dict()
        assert (data["base_model"], data["base_model_relation"]) == ("org/llava", relation)
        assert (data["license"], data["license_name"]) == ("other", "llama")
        assert data["license_link"] == f"https://huggingface.co/org/llava/blob/{commit}/LICENSE"
        assert "weights are in `autoshot/`" in card.text and commit in card.text
        assert "Blender Foundation" in (tmp_path / format / "autoshot" / "README.md").read_text()
        hub.add_model(f"me/{format}", tmp_path / format)
        code = re.findall(r"```(python|bash)\n(.*?)```", card.text, re.DOTALL)
        assert [kind for kind, _ in code] == ["python", "python", *([] if format == "self-contained" else ["bash"])]
        assert all(f"me/{format}" in snippet for _, snippet in code)
        snippets["without linvt" if format == "self-contained" else "with linvt"] += code
    for installed, code in snippets.items():
        ran = hub.run(RUN, tmp_path / "fresh", tmp_path, installed, *itertools.chain(*code))
        assert ran.returncode == 0, ran.stderr
        *answers, rest = ran.stdout.split("--\n")
        assert len(answers) == len(code) and all(answers) and not rest, ran.stdout
