"""Self-contained checkpoints of tiny models, each with a clip and with what the model says of it.

`tests/load_self_contained.py` compares, where `linvt` is not installed. Also a command:
`python tests/self_contained_cases.py FOLDER`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1] / "examples"))  # as pytest is told in pyproject.toml

from tiny_families import SMALL, build_image_llm, random_video, user_turn, write_video
from tiny_models import tiny_llava

from linvt import LinVTForConditionalGeneration, LinVTProcessor, MiphaConfig, MiphaForConditionalGeneration
from linvt.hub.self_contained import save_self_contained


QUESTION = "What is it?"


def _mipha():
    llava, processor = tiny_llava()
    settings = llava.config.to_dict()
    settings.pop("model_type")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MiphaForConditionalGeneration(MiphaConfig(**settings))
        torch.nn.init.normal_(model.lm_head.bias)
    return model.eval(), processor


CASES = {
    "llava": (lambda: build_image_llm("llava"), SMALL),
    "qwen2_vl": (lambda: build_image_llm("qwen2_vl"), SMALL),
    "mipha": (_mipha, SMALL),
    "red_villm": (tiny_llava, {"model_type": "red_villm_video", "num_frames": 5, "num_frame_tokens": 16}),
}


def build(name: str):
    """The model and the processor of a case."""
    build_image_llm_and_processor, video_config = CASES[name]
    image_llm, image_llm_processor = build_image_llm_and_processor()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = LinVTForConditionalGeneration.from_image_llm(image_llm, video_config)
    model.generation_config.eos_token_id = None  # random weights must not end an answer early
    processor = LinVTProcessor.from_image_llm_processor(
        image_llm_processor,
        num_video_tokens=model.config.num_video_tokens,
        frame_size={"height": 56, "width": 56},
        num_frames=5,
    )
    return model, processor


def write_case(name: str, folder: Path) -> Path:
    """Writes `model/`, `clip.mp4`, the inputs and logits `expected.safetensors` and the answer `expected.json`."""
    folder.mkdir(parents=True)
    model, processor = build(name)
    save_self_contained(model, processor, folder / "model")
    shots = random_video(20, seed=1) // 4, 255 - random_video(20, seed=2) // 4
    clip = write_video(folder / "clip.mp4", np.concatenate(shots))
    inputs = processor.apply_chat_template(
        user_turn(clip, QUESTION),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    with torch.no_grad():
        logits = model(**inputs).logits
    output = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    save_file({"logits": logits, **inputs}, folder / "expected.safetensors")
    expected = {"question": QUESTION, "answer": answer.removeprefix(" ")}
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


if __name__ == "__main__":
    torch.set_num_threads(1)  # as load_self_contained.py
    for case in CASES:
        write_case(case, Path(sys.argv[1]) / case)
