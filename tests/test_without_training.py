"""A wrapped image-LLM answers before any training, and says that it only merges; one step of training ends both."""

import json

import pytest
import torch
from make_clip import CLIP
from tiny_families import FAMILIES, SMALL, VARIANTS, build_image_llm, random_video, user_turn

from linvt import LinVTForConditionalGeneration


each_merging = pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.endswith("_random")])
CLIP_FILE = "examples/shapes.mp4"
IMAGE_LLM = "docs/small_world_runs/image_llm"


@pytest.mark.parametrize("family", FAMILIES)
def test_wrap_then_ask(run, video_file, tmp_path, family):
    image_llm, processor = build_image_llm(family)
    for part in (image_llm, processor):
        part.save_pretrained(tmp_path / "image_llm")
    settings = {**SMALL, "top_k": 20}
    code, output, errors = run(
        "wrap", tmp_path / "image_llm", tmp_path / "linvt", "--video-tokenizer", json.dumps(settings)
    )
    assert code == 0 and errors == "" and "nothing was trained; frame tokens are merged" in " ".join(output.split())
    asked = ("ask", video_file(12), "What is it?", "--model", tmp_path / "linvt", "--max-new-tokens", 4)
    asked = (*asked, "--uniform", "--num-frames", 8)
    result = json.loads(run(*asked, "--json")[1])
    number = result["videos"][0]["num_frame_tokens"]
    assert result["only_merges"] and result["merged_frame_tokens"] == 20 < number and result["num_video_tokens"] == 12
    for options, video_tokens in (((), 12), (("--tokens", 17), 17)):
        code, output, errors = run(*asked, *options)
        output = " ".join(output.split())
        assert code == 0 and errors == "" and output.startswith("note nothing was trained in the video tokenizer; ")
        assert f"20 frame tokens, of {number}, are merged into {video_tokens} video tokens" in output
        assert f"{number} of the frames -> {video_tokens} of the video" in output


@pytest.mark.parametrize(
    ("frames", "tokens", "said"),
    [
        (2, 32, "32 frame tokens are merged into 32 video tokens"),
        (2, 33, "32 frame tokens are fewer than 33 video tokens, so they are repeated"),
        (4, 12, "64 frame tokens are merged into 12 video tokens"),
    ],
)
def test_the_note_is_true_of_short_videos(run, make_untrained, video_file, tmp_path, frames, tokens, said):
    for part in make_untrained("llava", top_k=64):
        part.save_pretrained(tmp_path / "linvt")
    options = ("--model", tmp_path / "linvt", "--num-frames", frames, "--tokens", tokens, "--max-new-tokens", 2)
    code, output, _ = run("ask", video_file(12), "What?", *options)
    assert code == 0 and said in " ".join(output.split())


def test_what_is_trained_or_random_says_nothing_of_merging(run, make_untrained, video_file, tmp_path):
    models = {"random": make_untrained("llava", start="random"), "trained": make_untrained("llava")}
    models["trained"][0].video_tokenizer.refiner.score_weight.data[0] = 0.01
    for name, parts in models.items():
        for part in parts:
            part.save_pretrained(tmp_path / name)
        options = ("--model", tmp_path / name, "--max-new-tokens", 2)
        code, output, _ = run("ask", video_file(12), "What?", *options)
        assert code == 0 and "nothing was trained" not in output and "merge" not in output
        result = json.loads(run("ask", video_file(12), "What?", *options, "--json")[1])
        assert (result["only_merges"], result["merged_frame_tokens"]) == (False, None)
    models["random"][0].image_llm.save_pretrained(tmp_path / "image_llm")
    build_image_llm("llava")[1].save_pretrained(tmp_path / "image_llm")
    wrap = ("wrap", tmp_path / "image_llm", tmp_path / "wrapped", "--video-tokenizer")
    code, output, _ = run(*wrap, json.dumps({**SMALL, "start": "random"}))
    assert code == 0 and "untrained" in output and "merge" not in output


@each_merging
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_step_of_training_shows_in_the_weights(make_untrained, ask, tmp_path, variant, dtype):
    model, processor = make_untrained("llava", **VARIANTS[variant])
    model.to(dtype).save_pretrained(tmp_path / "fresh")
    model = LinVTForConditionalGeneration.from_pretrained(tmp_path / "fresh", dtype=torch.float32)
    assert model.video_tokenizer.only_merges
    inputs = ask(processor, random_video(6), "What is it?")
    model.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
    torch.optim.SGD(model.image_llm.parameters(), 1.0).step()
    assert model.video_tokenizer.only_merges  # the LLM alone has learnt
    torch.optim.SGD(model.video_tokenizer.parameters(), 1e-3).step()
    assert not model.video_tokenizer.only_merges
    model.to(dtype).save_pretrained(tmp_path / "trained")
    loaded = LinVTForConditionalGeneration.from_pretrained(tmp_path / "trained", dtype=dtype)
    assert not loaded.video_tokenizer.only_merges
    random, _ = make_untrained("llava", **VARIANTS[variant], start="random")
    assert not random.video_tokenizer.only_merges


@each_merging
def test_no_weight_changes_what_is_merged_unseen(make_untrained, ask, variant):
    """But for the sharpness of the merging itself."""
    model, processor = make_untrained("llava", **VARIANTS[variant])
    given = {}
    model.video_tokenizer.register_forward_pre_hook(
        lambda _, arguments, named: given.update(arguments=arguments, named=named), with_kwargs=True
    )
    with torch.no_grad():
        model(**ask(processor, random_video(6), "What is it?"))
        arguments, named = given["arguments"], given["named"]
        merged = model.video_tokenizer(*arguments, **named).video_tokens
        for name, parameter in model.video_tokenizer.named_parameters():
            before = parameter.clone()
            parameter += torch.randn_like(parameter)
            seen = not model.video_tokenizer.only_merges
            changed = not torch.equal(model.video_tokenizer(*arguments, **named).video_tokens, merged)
            assert seen or not changed or name == "aggregator.log_sharpness", name
            parameter.copy_(before)


def test_average_tokens_have_nothing_to_train(make_untrained):
    plain = {"use_svr": False, "use_tta": False, "multi_scale": "single", "text_conditioning": False}
    assert make_untrained("llava", **plain)[0].video_tokenizer.only_merges


@pytest.fixture(scope="module")
def small_world(request, tmp_path_factory):
    """The image-LLM of the small world's runs, wrapped and not trained, with the runs' sizes."""
    from small_world.variants import LINVT
    from transformers import AutoProcessor

    from linvt import LinVTProcessor

    source = request.config.rootpath / IMAGE_LLM
    model = LinVTForConditionalGeneration.from_image_llm(source, {**LINVT, "start": "merge"}).eval()
    return model, LinVTProcessor.from_image_llm_processor(AutoProcessor.from_pretrained(source), model=model)


@pytest.mark.parametrize("num_video_tokens", [14, 28, 56, 112])
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What colour is the circle?", CLIP.shots[1].shapes[0].colour),
        ("What shape is the yellow one?", CLIP.shots[1].shapes[1].kind),
        ("Is there a red square?", "yes"),
        ("Is there a red circle?", "no"),
        ("How many circle shapes are there?", "one"),
        ("Where is the yellow ring?", CLIP.shots[1].shapes[1].corner),
        ("Which comes first, the red square or the blue circle?", f"the {CLIP.shots[0].shapes[0].name}"),
    ],
)
def test_answers_without_training_are_true(small_world, request, question, answer, num_video_tokens):
    model, processor = small_world
    inputs = processor.apply_chat_template(
        user_turn(request.config.rootpath / CLIP_FILE, question),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"num_frames": 8, "num_video_tokens": num_video_tokens},
    )
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(output, skip_special_tokens=True).strip() == answer
