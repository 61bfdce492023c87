"""Fixtures: models of their own for every test, clips that the tests make, the shared videos where there are any."""

import copy
import gc
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from tiny_families import (
    FAMILIES,
    SMALL,
    build_image_llm,
    move_from_merging,
    random_video,
    user_turn,
    write_video,
)

from linvt import LinVTForConditionalGeneration, LinVTProcessor
from linvt_cli.cli_main import main


torch.set_num_threads(1)  # models this small only get slower with more


def pytest_collection_finish() -> None:
    """Spares every garbage collection, and trainers ask for some, the million objects of imported modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _image_llms():
    return {name: build_image_llm(name) for name in FAMILIES}


@pytest.fixture
def make_linvt(_image_llms):
    """`make_linvt(family, **settings of the video tokenizer)`: a model, as after training, and a processor."""

    def make(family: str, **video_config):
        image_llm, image_llm_processor = _image_llms[family]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            model = LinVTForConditionalGeneration.from_image_llm(copy.deepcopy(image_llm), {**SMALL, **video_config})
            move_from_merging(model.video_tokenizer)
        model.generation_config.eos_token_id = None  # random weights must not end an answer early
        processor = LinVTProcessor.from_image_llm_processor(
            image_llm_processor,
            num_video_tokens=model.config.num_video_tokens,
            frame_size={"height": 56, "width": 56},
            num_frames=5,
            shot_detection="uniform",  # noise has no shots
        )
        return model, processor

    return make


@pytest.fixture
def make_untrained(_image_llms, make_linvt):
    """As `make_linvt`, with the video tokenizer as it is before training."""

    def make(family: str, **video_config):
        model, processor = make_linvt(family, **video_config)
        image_llm = copy.deepcopy(_image_llms[family][0])
        untrained = LinVTForConditionalGeneration.from_image_llm(image_llm, {**SMALL, **video_config})
        untrained.generation_config = model.generation_config
        return untrained, processor

    return make


@pytest.fixture
def image_llm(_image_llms):
    """`image_llm(family)`: the image-LLM that `make_linvt` wraps, and its processor."""

    def get(family: str):
        model, processor = _image_llms[family]
        return copy.deepcopy(model), processor

    return get


@pytest.fixture
def video_file(tmp_path):
    """`video_file(num_frames, seed)`: path of a clip."""

    def write(num_frames: int = 12, seed: int = 0, **kwargs) -> Path:
        return write_video(tmp_path / f"clip_{num_frames}_{seed}.mp4", random_video(num_frames, seed), **kwargs)

    return write


@pytest.fixture
def run(capsys):
    """`run(arguments...)`: exit code, standard output, standard error of the `linvt` command."""

    def call(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            code = error.code
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub for the client in this process, with an empty cache; `hub.run` starts another that knows only the Hub."""
    with HubServer() as server:
        constants = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }
        for name, value in constants.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it keeps the Hub that it was made for
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
        yield server


@pytest.fixture
def ask():
    """`ask(processor, part, ..., **kwargs)`: model inputs of one user turn of videos (arrays) and texts (strings)."""

    def inputs(processor, *parts, **kwargs):
        kwargs = {"add_generation_prompt": True, **kwargs}
        fps = {"video_metadata": [{"fps": 2.0, "total_num_frames": len(p)} for p in parts if not isinstance(p, str)]}
        return processor.apply_chat_template(
            user_turn(*parts), tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=fps, **kwargs
        )

    return inputs


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    folder = Path(__file__).parents[2] / "shared" / "videos"
    if not folder.is_dir():
        pytest.skip("the shared test videos are not beside this checkout")
    return folder


@pytest.fixture
def encoded_frames(monkeypatch):
    """Counts the frames that go through the vision encoder."""
    counts = []
    encode = LinVTForConditionalGeneration.get_frame_tokens

    def counted(self, frames, *args, **kwargs):
        counts.append(len(frames))
        return encode(self, frames, *args, **kwargs)

    monkeypatch.setattr(LinVTForConditionalGeneration, "get_frame_tokens", counted)
    return counts
