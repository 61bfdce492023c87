"""Loads self-contained checkpoints where `linvt` is not installed, and compares with what the original model said.

`python tests/load_self_contained.py [--hide] CASE...`, for folders of `self_contained_cases.py`. It needs nothing but
transformers, torch, torchvision and av, and cannot be told from a user's script; with `--hide`, `linvt` and what only
`linvt` brings are made invisible where they are installed.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import torch


OPTIONAL = ("linvt", "peft", "trl", "accelerate", "datasets", "bitsandbytes")


class _Hiding:
    """A finder that does not find what is hidden, as if it were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in OPTIONAL else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def hide_optional_packages() -> None:
    sys.meta_path[:] = [_Hiding(finder) for finder in sys.meta_path]


def check_is_refused_without_trust(folder: Path) -> None:
    for auto_class in AUTO_CLASSES:
        try:
            auto_class.from_pretrained(folder, trust_remote_code=False)
        except ValueError as error:
            assert "trust_remote_code=True" in str(error), error
        else:
            raise AssertionError(f"{auto_class.__name__} ran code of a checkpoint that nobody trusted")


def load(name, **hub):
    """Through every Auto class; returns the last model and processor."""
    hub = {"trust_remote_code": True, **hub}
    config = transformers.AutoConfig.from_pretrained(name, **hub)
    assert type(config).__name__ == "LinVTConfig" and "transformers_modules" in type(config).__module__
    for auto_class in MODEL_CLASSES:
        model, info = auto_class.from_pretrained(name, output_loading_info=True, **hub)
        assert not any(info.values()), info
        assert type(model).__name__ == "LinVTForConditionalGeneration" and not model.training
        # One copy of the code: what one class made must be known to the others.
        assert type(model.config) is type(config) is type(model).config_class
    processor = transformers.AutoProcessor.from_pretrained(name, **hub)
    video_processor = transformers.AutoVideoProcessor.from_pretrained(name, **hub)
    assert type(processor.video_processor) is type(video_processor)
    assert video_processor.to_dict() == processor.video_processor.to_dict()
    return model, processor


def check_answers(model, processor, case: Path) -> None:
    """Same inputs of a video file, same logits, bit for bit."""
    expected = load_file(case / "expected.safetensors")
    question = json.loads((case / "expected.json").read_text())["question"]
    content = [{"type": "video", "video": str(case / "clip.mp4")}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    with torch.no_grad():
        found = {"logits": model(**inputs).logits, **inputs}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), f"{key} differs"


def check_pipeline(name, case: Path, **hub) -> None:
    expected = json.loads((case / "expected.json").read_text())
    pipe = transformers.pipeline("video-text-to-text", model=str(name), trust_remote_code=True, **hub)
    options = {"max_new_tokens": 6, "do_sample": False}
    (answer,) = pipe(str(case / "clip.mp4"), text=expected["question"], **options)
    assert answer["generated_text"] == expected["answer"], answer


def check_case(case: Path, scratch: Path) -> None:
    folder = case / "model"
    check_is_refused_without_trust(folder)
    model, processor = load(folder)
    check_answers(model, processor, case)
    check_pipeline(folder, case)
    for again in ("saved_again", "saved_twice"):
        model.save_pretrained(scratch / again)
        processor.save_pretrained(scratch / again)
        assert {path.name for path in (scratch / again).iterdir()} == {path.name for path in folder.iterdir()}
        model, processor = load(scratch / again)
        check_answers(model, processor, case)
    check_pipeline(scratch / again, case)
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    config.save_pretrained(scratch / "config_alone")
    processor.save_pretrained(scratch / "config_alone")  # without the weights, as for a model that is trained anew
    transformers.AutoModel.from_config(config, trust_remote_code=True)
    transformers.AutoProcessor.from_pretrained(scratch / "config_alone", trust_remote_code=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--hide" in arguments:
        arguments.remove("--hide")
        hide_optional_packages()
    absent = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
    assert "linvt" in absent, "linvt is installed here; give --hide"

import transformers  # noqa: E402 - after the hiding
from safetensors.torch import load_file  # noqa: E402


MODEL_CLASSES = (
    transformers.AutoModel,
    transformers.AutoModelForImageTextToText,
    transformers.AutoModelForMultimodalLM,
)
AUTO_CLASSES = (
    transformers.AutoConfig,
    *MODEL_CLASSES,
    transformers.AutoProcessor,
    transformers.AutoVideoProcessor,
)

if __name__ == "__main__":
    torch.set_num_threads(1)  # sums in another order have other bits
    transformers.logging.disable_progress_bar()
    for case in map(Path, arguments):
        with tempfile.TemporaryDirectory() as scratch:
            check_case(case, Path(scratch))
        sys.stdout.write(f"{case.name}: loads and answers as the original\n")
    sys.stdout.write(f"transformers {transformers.__version__}, without {', '.join(absent)}\n")
