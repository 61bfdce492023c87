"""`transformers serve` finds a LinVT model where `linvt` is imported, and gives its processor what it can take."""

import json
from inspect import signature

import pytest
from tiny_families import user_turn
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.utils import BaseHandler, GenerationState, Modality


QUESTION = "What is it?"
NUM_TOKENS = 5


@pytest.fixture
def folder(make_linvt, tmp_path):
    model, processor = make_linvt("llava")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def expected(make_linvt, video_file):
    """The answer about a clip with 32 frames, which is what the server asks for."""
    model, processor = make_linvt("llava")
    inputs = processor.apply_chat_template(
        user_turn(video_file(12), QUESTION),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"num_frames": 32},
    )
    output = model.generate(**inputs, max_new_tokens=NUM_TOKENS, do_sample=False)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def message(url: str) -> dict:
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    return {"role": "user", "content": content}


def test_the_server_loads_the_model_and_its_processor_takes_the_servers_arguments(folder, video_file, expected):
    manager = ModelManager(device="cpu", model_timeout=-1)
    model, processor = manager.load_model_and_processor(manager.process_model_name(folder))
    modality = manager.get_model_modality(model, processor)
    assert modality == Modality.MULTIMODAL
    inputs = processor.apply_chat_template(
        BaseHandler.get_processor_inputs_from_messages([message(str(video_file(12)))], modality),
        add_generation_prompt=True,
        tools=None,
        return_tensors="pt",
        return_dict=True,
        tokenize=True,
        load_audio_from_video=True,
        num_frames=32,
    )
    output = model.generate(**inputs, max_new_tokens=NUM_TOKENS, do_sample=False, tokenizer=processor)
    assert processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == expected


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_with_a_video(folder, video_file, expected, stream):
    for package in ("fastapi", "openai", "httpx"):
        pytest.importorskip(package, reason=f"{package}, which the server needs, is not installed")
    from fastapi.testclient import TestClient
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.server import build_server

    parts = {"model_manager": ModelManager(device="cpu", model_timeout=-1), "generation_state": GenerationState()}
    given = {"enable_cors": False, "chat_handler": ChatCompletionHandler(**parts), **parts}
    others = dict.fromkeys(signature(build_server).parameters)
    client = TestClient(build_server(**{**others, **given}))
    body = {"model": folder, "messages": [message(str(video_file(12)))], "temperature": 0.0, "max_tokens": NUM_TOKENS}
    response = client.post("/v1/chat/completions", json={**body, "stream": stream})
    assert response.status_code == 200
    if stream:
        events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
        assert "".join(delta.get("content") or "" for delta in deltas) == expected
    else:
        assert response.json()["choices"][0]["message"]["content"] == expected
