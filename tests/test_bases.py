"""The page of the image-LLMs of the two papers: its numbers are those of the models, its commands and Python work."""

import copy
import re
import shlex
from pathlib import Path

import bases
import pytest
import torch
from parameters import AT_MOST
from published_shapes import published_bases
from tiny_families import SMALL, build_image_llm
from transformers import SiglipVisionConfig, SiglipVisionModel

from linvt.image_llms.family_table import FAMILIES, image_llm_family
from linvt_cli.cli_main import _parser


PAGE = (Path(__file__).parents[1] / "docs" / "bases.md").read_text()

PUBLISHED_PARAMETERS = {
    "BAAI/Aquila-VL-2B-llava-qwen": 2_178_969_120,
    "allenai/Molmo-7B-D-0924": 8_021_025_280,
    "Qwen/Qwen-VL-Chat": 19_313_870_336 // 2,
}
"""What the checkpoints' own indices say: parameters, or bytes and their width."""

WITH_POOLING_HEAD = {
    "Salesforce/xgen-mm-phi3-mini-instruct-interleave-r-v1.5": 17_437_028_876 // 4,
    "zhumj34/Mipha-3B": 3_217_417_280,
}
"""The same for checkpoints that hold SigLIP's pooling head, which no image-LLM uses."""

ROUNDED_PARAMETERS = {
    "Qwen/Qwen2-VL-7B-Instruct": 8.29e9,
    "OpenGVLab/InternVL2-1B": 0.938e9,
    "OpenGVLab/InternVL2-2B": 2.21e9,
    "OpenGVLab/InternVL2-4B": 4.15e9,
    "OpenGVLab/InternVL2-8B": 8.08e9,
    "zhumj34/Mipha-phi1_5-1.6B": 1.42e9 + 0.41e9 + 0.01e9,  # Phi-1.5, SigLIP, projector
    "Salesforce/xgen-mm-phi3-mini-instruct-r-v1": 3.82e9 + 0.63e9 + 0.14e9,  # Phi-3, ViT-H, the rest
    "llava-hf/llava-1.5-7b-hf": 7.06e9,
    "llava-hf/llava-1.5-13b-hf": 13.35e9,
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": 8.03e9,
}
"""What is said of the whole, or of the parts where nothing is."""


@pytest.fixture(scope="module")
def rows():
    return {row["name"]: row for row in bases.measure()}


def test_sizes_are_the_published_ones(rows):
    exact = PUBLISHED_PARAMETERS | WITH_POOLING_HEAD
    assert set(exact) | set(ROUNDED_PARAMETERS) == set(rows)
    siglip = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 0}
    with torch.device("meta"):
        counts = [
            SiglipVisionModel(SiglipVisionConfig(**siglip, vision_use_head=use_head)).num_parameters()
            for use_head in (True, False)
        ]
    for name, published in exact.items():
        pooling_head = counts[0] - counts[1] if name in WITH_POOLING_HEAD else 0
        assert rows[name]["parameters"] + pooling_head == published, name
    for name, published in ROUNDED_PARAMETERS.items():
        assert rows[name]["parameters"] == pytest.approx(published, rel=0.003), name


def test_the_page_holds_the_table(rows):
    begin, end = PAGE.index(bases.BEGIN) + len(bases.BEGIN), PAGE.index(bases.END)
    assert PAGE[begin:end] == bases.table(list(rows.values())), "run python docs/benchmarks/bases.py --write"


def test_every_video_tokenizer_is_as_small_as_the_papers(rows):
    assert max(row["channels"] for row in rows.values()) == 5120
    assert all(0 < row["video_tokenizer"] <= AT_MOST for row in rows.values())


def _native() -> list[str]:
    with torch.device("meta"):
        return [name for name, base in published_bases().items() if base.config.model_type in FAMILIES]


@pytest.mark.parametrize("name", _native())
def test_a_frame_has_as_many_tokens(name):
    """Pictures and patches are the published ones; N does not depend on widths, depths and the LLM, which are tiny."""
    with torch.device("meta"):
        base = published_bases()[name]
    config = copy.deepcopy(base.config)
    vision, text = config.vision_config, config.text_config
    text.num_hidden_layers, text.vocab_size, text.hidden_size, text.num_attention_heads = 0, 8, 32, 4
    if config.model_type == "qwen2_vl":
        vision.depth, vision.embed_dim, vision.hidden_size, vision.num_heads = 1, 32, 32, 2
    else:
        vision.num_hidden_layers, vision.num_attention_heads = 2, 2
        vision.hidden_size, vision.intermediate_size = 32, 8
    family = image_llm_family(base.build(config).eval())
    with torch.no_grad():
        tokens = family.frame_tokens(torch.zeros(1, 1, 3, base.frame_pixels, base.frame_pixels))
    assert tokens.shape == (1, base.tokens_per_frame, 32)


def test_every_base_has_its_commands():
    commands = [shlex.split(line) for line in re.findall(r"^linvt .+$", PAGE, re.MULTILINE)]
    folders, wrapped = {}, []
    for command in commands:
        options = _parser().parse_args(command[1:])
        if options.command == "convert":
            folders[options.output] = options.source
        else:
            wrapped.append(folders.get(options.image_llm, options.image_llm))
    with torch.device("meta"):
        assert sorted(wrapped) == sorted(published_bases())


def test_the_python_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for part in build_image_llm("internvl"):
        part.save_pretrained("internvl2-1b")
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    block = block.replace('dtype="auto"', 'dtype="auto", video_tokenizer_config=SMALL')
    exec(block, {"SMALL": SMALL})
    assert (tmp_path / "internvl2-1b-linvt" / "model.safetensors").is_file()
    assert (tmp_path / "internvl2-1b-linvt" / "processor_config.json").is_file()
