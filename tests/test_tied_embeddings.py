"""PEFT and `from_pretrained` treat word embeddings of a wrapped image-LLM as they treat them without a wrapper."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from tiny_families import SMALL
from transformers import AutoModelForImageTextToText

from linvt import LinVTConfig, LinVTForConditionalGeneration


TIED = {"llava": False, "qwen2_vl": True}  # by family

ADAPTERS = {
    "trained whole": {"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]},
    "low rank": {"target_modules": ["embed_tokens"]},
    "some tokens": {"trainable_token_indices": {"embed_tokens": [3, 5]}, "target_modules": ["q_proj"]},
}


def embedding_adapter(model: torch.nn.Module, ensure_weight_tying: bool, **settings) -> tuple[set[str], set[str]]:
    """Names of what learns in the embeddings and the head, without the wrapper's prefix, and what PEFT warned of."""
    config = LoraConfig(r=2, task_type=TaskType.CAUSAL_LM, ensure_weight_tying=ensure_weight_tying, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tuned = get_peft_model(copy.deepcopy(model), config)
    names = [name for name, parameter in tuned.named_parameters(remove_duplicate=False) if parameter.requires_grad]
    names = [name.replace("image_llm.", "") for name in names if "embed_tokens" in name or "lm_head" in name]
    said = {str(warning.message).replace("image_llm.", "") for warning in caught}
    return set(names), {message for message in said if "tie" in message}


@pytest.mark.parametrize("ensure", [True, False])
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("family", TIED)
def test_peft_knows_whether_embeddings_are_tied(make_linvt, image_llm, family, adapter, ensure):
    expected = embedding_adapter(image_llm(family)[0], ensure, **ADAPTERS[adapter])
    assert expected[0]
    assert embedding_adapter(make_linvt(family)[0], ensure, **ADAPTERS[adapter]) == expected


@pytest.mark.parametrize("family", TIED)
def test_the_configuration_tells_whether_embeddings_are_tied(make_linvt, family, tmp_path):
    model, _ = make_linvt(family)
    shared = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    config = LinVTConfig.from_dict(model.config.to_dict())
    assert shared == TIED[family] == model.config.tie_word_embeddings == config.tie_word_embeddings
    assert config.to_dict()["tie_word_embeddings"] == TIED[family]


def test_embeddings_are_untied_by_an_argument(make_linvt, tmp_path):
    """As PEFT advises where an adapter of tied embeddings is to be merged."""
    model, _ = make_linvt("qwen2_vl")
    words = model.get_input_embeddings().weight
    model.save_pretrained(tmp_path / "tied")
    untied = LinVTForConditionalGeneration.from_pretrained(tmp_path / "tied", tie_word_embeddings=False)
    untied.get_output_embeddings().weight.data.fill_(2)
    untied.save_pretrained(tmp_path / "untied")
    loaded = LinVTForConditionalGeneration.from_pretrained(tmp_path / "untied")
    assert not untied.config.tie_word_embeddings and not loaded.config.tie_word_embeddings
    assert torch.equal(loaded.get_input_embeddings().weight, words)
    assert (loaded.get_output_embeddings().weight == 2).all()


def test_what_is_set_is_set_for_the_image_llm(image_llm):
    """Also where a configuration takes it from its language model when it is loaded, as LLaVA's does."""
    config = LinVTConfig(image_llm_config=image_llm("llava")[0].config.to_dict())
    for value in (True, False):
        config.tie_word_embeddings = value
        loaded = LinVTConfig.from_dict(config.to_dict())
        assert loaded.tie_word_embeddings == loaded.image_llm_config.tie_word_embeddings == value
        plain = AutoModelForImageTextToText.from_config(loaded.image_llm_config)
        assert (plain.get_input_embeddings().weight is plain.get_output_embeddings().weight) == value
    assert LinVTConfig(
        image_llm_config=config.image_llm_config.to_dict(), tie_word_embeddings=True
    ).tie_word_embeddings


def test_wrapping_leaves_tied_embeddings_of_a_live_image_llm_alone(image_llm):
    for family, tied in TIED.items():
        live = image_llm(family)[0]
        before = live.config.to_dict()
        model = LinVTForConditionalGeneration.from_image_llm(live, SMALL)
        LinVTConfig.from_dict(model.config.to_dict())
        assert live.config.to_dict() == before and live.config.tie_word_embeddings == tied
