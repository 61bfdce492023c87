"""Every image-LLM of Transformers keeps the contracts of the design, or is refused with a reason; none is unknown.

The table of `docs/image_llms.md` is what this run gives; `python docs/image_llm_table.py` writes it.
"""

import inspect
from pathlib import Path

import pytest
import torch
import transformers
from conformance import MODEL_TYPES, Conformance, default_config, reason_of_refusal
from conformance_table import conform, refusal_row
from tiny_image_llms import NEEDED_PACKAGES, build, tiny_config
from tiny_pictures import image_processor_class
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from linvt import LinVTForConditionalGeneration, LinVTVideoProcessor
from linvt.image_llms.family_table import FAMILIES
from linvt.image_llms.image_llm_support import BROKEN_TRANSFORMERS, LEAST_TRANSFORMERS, REFUSED, check_image_llm_config


TABLE = Path(__file__).parents[1] / "docs" / "image_llms.md"
REFUSALS = {model_type: reason for model_type in MODEL_TYPES if (reason := reason_of_refusal(model_type))}
SUPPORTED = [model_type for model_type in MODEL_TYPES if model_type not in REFUSALS]

# Where classes or fields have other names in older versions, the table speaks of the version that it names.
table_of_this_version = f"Transformers {transformers.__version__}" in TABLE.read_text()


def in_table(line: str) -> bool:
    return not table_of_this_version or line in TABLE.read_text().splitlines()


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_supported(model_type, tmp_path):
    for package in NEEDED_PACKAGES.get(model_type, ()):
        pytest.importorskip(package)
    assert in_table(conform(model_type, tmp_path))


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_an_image_processor_gives_one_size_or_says_what_to_give(model_type):
    """As it is by default, without a model that could tell."""
    image_processor = image_processor_class(model_type)()
    size = {"height": 28, "width": 56}
    assert LinVTVideoProcessor.from_image_processor(image_processor, size).size == size
    try:
        size = dict(LinVTVideoProcessor.from_image_processor(image_processor).size)
    except ValueError as error:
        assert f"{type(image_processor).__name__} has none" in str(error) and "model=" in str(error)
    else:
        assert size.keys() == {"height", "width"} and min(size.values()) > 0


@pytest.mark.parametrize("model_type", REFUSALS)
def test_refused(model_type, tmp_path):
    """From the configuration alone, before weights are loaded, with the reason and the way out."""
    default_config(model_type).save_pretrained(tmp_path)
    with pytest.raises(ValueError) as error:
        LinVTForConditionalGeneration.from_image_llm(tmp_path)
    message = str(error.value)
    assert REFUSALS[model_type] in message and repr(model_type) in message
    assert all(name in message for name in FAMILIES)
    assert in_table(refusal_row(model_type))


@pytest.mark.parametrize("model_type", LEAST_TRANSFORMERS)
def test_least_transformers(model_type, monkeypatch):
    """An older Transformers is refused with the version that is needed and the one that is there."""
    config, least = default_config(model_type), LEAST_TRANSFORMERS[model_type]
    for version in ("5.9.1", "5.17.0"):
        monkeypatch.setattr(transformers, "__version__", version)
        with pytest.raises(
            ValueError, match=f"{model_type}.*needs Transformers {least} or newer, and this is {version}"
        ):
            check_image_llm_config(config)
    for version in (f"{least}.0", f"{least}.1", "5.100.0", "6.0.0"):
        monkeypatch.setattr(transformers, "__version__", version)
        check_image_llm_config(config)


@pytest.mark.parametrize("model_type", [name for name in LEAST_TRANSFORMERS if "or newer" in REFUSALS.get(name, "")])
def test_older_transformers_is_not_enough(model_type, monkeypatch, tmp_path):
    """Without the refusal a contract is broken: `LEAST_TRANSFORMERS` asks for no more than is needed."""
    monkeypatch.delitem(LEAST_TRANSFORMERS, model_type)
    with pytest.raises((AssertionError, RuntimeError, TypeError)):
        conform(model_type, tmp_path)


@pytest.mark.parametrize("model_type", BROKEN_TRANSFORMERS)
def test_broken_transformers(model_type, monkeypatch):
    """That version is refused with what fails there, and no other."""
    config, (broken, failure) = default_config(model_type), BROKEN_TRANSFORMERS[model_type]
    monkeypatch.setattr(transformers, "__version__", broken)
    with pytest.raises(ValueError, match=f"{model_type}.*does not work in Transformers {broken} .*{failure}"):
        check_image_llm_config(config)
    for version in ("5.23.0", "5.24.1", "5.25.0"):
        monkeypatch.setattr(transformers, "__version__", version)
        check_image_llm_config(config)


@pytest.mark.parametrize("model_type", BROKEN_TRANSFORMERS)
def test_broken_transformers_is_broken(model_type):
    """The image-LLM alone, with a prompt of words."""
    if transformers.__version__ != BROKEN_TRANSFORMERS[model_type][0]:
        pytest.skip("this Transformers is another")
    with pytest.raises(AttributeError):
        build(model_type)(input_ids=torch.tensor([[5, 6]]))


@pytest.mark.parametrize(
    ("model_type", "older_name"), [("fuyu", "image_patches"), ("video_llava", "pixel_values_images")]
)
def test_both_names_of_pixels(model_type, older_name):
    """Transformers calls them pixel_values from 5.21 on, while its processors still give the older name."""
    if "pixel_values" not in _forward_arguments(model_type):
        pytest.skip("this Transformers has the older name only")
    case = Conformance(model_type)
    inputs = case.prompt("words", "image", "words", "video", "words")
    expected = case.model(**inputs).logits
    pixels = inputs.pop(older_name)
    assert torch.equal(case.model(**inputs, pixel_values=pixels).logits, expected)


@pytest.mark.parametrize(
    ("model_type", "field", "reason"),
    [("gemma4", "vision_config", "no vision_config"), ("vipllava", "image_token_id", "no image_token_id")],
)
def test_a_configuration_that_lacks_something_is_refused(model_type, field, reason):
    """Though its model type is supported: the language model alone, and a model that names no placeholder."""
    config = tiny_config(model_type)
    setattr(config, field, None)
    image_llm = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]._from_config(config)
    with pytest.raises(ValueError, match=f"'{model_type}': .*{reason}"):
        LinVTForConditionalGeneration.from_image_llm(image_llm)


def test_none_is_unknown():
    """What is not refused has a family that somebody chose, and nobody is both."""
    assert set(SUPPORTED) | set(LEAST_TRANSFORMERS) <= set(FAMILIES) and not set(FAMILIES) & set(REFUSED)
    if table_of_this_version:
        lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
        assert [line.split("`")[1] for line in lines] == MODEL_TYPES
        counts = f"{len(SUPPORTED)} of {len(MODEL_TYPES)} are supported"
        assert counts in TABLE.read_text() and len(SUPPORTED) >= 60


def _forward_arguments(model_type):
    return inspect.signature(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[CONFIG_MAPPING[model_type]].forward).parameters


@pytest.mark.parametrize(
    ("model_type", "is_true"),
    [
        ("blip-2", lambda arguments: arguments["pixel_values"].default is inspect.Parameter.empty),
        ("deepseek_vl_hybrid", lambda arguments: "high_res_pixel_values" in arguments),
        ("evolla", lambda arguments: "protein_input_ids" in arguments and "pixel_values" not in arguments),
        ("instructblip", lambda arguments: arguments["pixel_values"].default is inspect.Parameter.empty),
        ("instructblipvideo", lambda arguments: arguments["pixel_values"].default is inspect.Parameter.empty),
        ("kosmos-2", lambda arguments: "image_embeds_position_mask" in arguments),
        ("kosmos-2.5", lambda arguments: "image_embeds_position_mask" in arguments),
        ("mistral4", lambda arguments: "pixel_values" not in arguments),
        ("mllama", lambda arguments: "cross_attention_mask" in arguments),
        ("pi0", lambda arguments: "actions" in arguments),
    ],
)
def test_reasons_are_true(model_type, is_true):
    """As far as the arguments of `forward` tell; a model that changes may become one that can be supported."""
    if model_type not in MODEL_TYPES:
        pytest.skip("this Transformers does not have it")
    assert is_true(_forward_arguments(model_type))
