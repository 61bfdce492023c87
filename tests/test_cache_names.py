"""The cache goes by each name that Transformers takes for it, and our own code uses no deprecated one."""

import warnings

import pytest
import torch
from conformance import Conformance
from tiny_models import CACHE
from transformers.utils import logging

from linvt import LinVTConfig, XGenMMConfig


# Transformers goes on serving the older name. Before 5.24 it is the only one.
CACHE_NAMES = sorted({CACHE, "past_key_values"})
PORTS = ("linvt_mipha", "linvt_molmo", "linvt_qwen_vl", "linvt_xgen_mm")

each_name = pytest.mark.parametrize("name", CACHE_NAMES)
each_model = pytest.mark.parametrize("model_type", ("llava", *PORTS))
older_name_may_warn = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")


def longer(inputs: dict, words: torch.Tensor) -> dict:
    """The prompt with words of the answer behind it."""
    grown = inputs | {"input_ids": torch.cat([inputs["input_ids"], words], dim=1)}
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0), ("instruction_turns", 0)):
        if name in inputs:
            grown[name] = torch.nn.functional.pad(inputs[name], (0, words.shape[1]), value=value)
    return grown


@each_name
@each_model
@older_name_may_warn
@torch.no_grad()
def test_going_on_from_the_cache(model_type, name):
    case = Conformance(model_type)
    words = torch.tensor([[7, 9]])
    for model, part in ((case.model, "video"), (case.model, "image"), (case.image_llm, "image")):
        inputs = case.prompt("words", part, "words")
        whole = longer(inputs, words)
        output = model(**inputs, use_cache=True)
        assert getattr(output, name) is output[name] is output[CACHE]
        length = output[name].get_seq_length()
        assert length == inputs["input_ids"].shape[1]
        step = model(input_ids=words, **{name: output[name]})
        assert step[name].get_seq_length() == length + 2
        torch.testing.assert_close(step.logits, model(**whole).logits[:, -2:], rtol=1e-4, atol=1e-4)

    inputs = case.prompt("words", "video", "words")
    whole, greedy = longer(inputs, words), {"max_new_tokens": 3, "do_sample": False}
    cache = case.model(**inputs, use_cache=True)[name]
    expected = case.model.generate(**whole, **greedy)
    assert torch.equal(case.model.generate(**whole, **greedy, **{name: cache}), expected)


def test_predictions_of_a_trainer_hold_no_cache():
    for config in (LinVTConfig, XGenMMConfig):
        assert CACHE in config.keys_to_ignore_at_inference


@each_model
def test_nothing_deprecated(model_type, caplog):
    """Transformers logs it once per process, or warns."""
    case = Conformance(model_type)
    logging.get_logger().warning_once.cache_clear()
    logging.add_handler(caplog.handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        for model, part in ((case.model, "video"), (case.model, "image"), (case.image_llm, "image")):
            inputs = case.prompt("words", part, "words")
            output = model(**inputs, labels=inputs["input_ids"], use_cache=True)
            model(**inputs, return_dict=False)
            model(input_ids=torch.tensor([[7]]), **{CACHE: output[CACHE]})
            model.generate(**inputs, max_new_tokens=2, do_sample=False)
            model.generate(**inputs, max_new_tokens=2, do_sample=False, prompt_lookup_num_tokens=2)
            model.generate(**inputs, max_new_tokens=2, num_beams=2)
    logging.remove_handler(caplog.handler)
    assert "deprecated" not in caplog.text
