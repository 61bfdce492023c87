"""Processors of converted checkpoints: pictures by the published rules (with PIL and numpy), prompts to the letter."""

import json

import numpy as np
import published_checkpoints as published
import pytest
import sentencepiece
import torch
from PIL import Image
from tiny_families import random_video, user_turn
from transformers import AutoProcessor, GenerationConfig

from linvt import LinVTProcessor
from linvt.conversion.convert import convert_checkpoint


IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
HALF = np.array([0.5, 0.5, 0.5])
PHI3_TOKENS = ["<|endoftext|>", "<|assistant|>", "<|step|>", "<|system|>", "<|end|>", "<|user|>"]
SYSTEM = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
MIPHA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
BASES = ("internvl2-1b", "internvl2-2b", "internvl2-4b", "aquila_vl", "mipha")


def write_source(folder, base: str):
    if base == "internvl2-1b":
        config, tensors = published.internvl2("Qwen2ForCausalLM")
    elif base == "internvl2-2b":
        config, tensors = published.internvl2("InternLM2ForCausalLM")
    elif base == "internvl2-4b":
        config, tensors = published.internvl2("Phi3ForCausalLM", vocab_size=320 + len(PHI3_TOKENS) + 9)
        for key in ("model.embed_tokens", "lm_head"):
            tensors[f"language_model.{key}.weight"] = tensors[f"language_model.{key}.weight"][: 320 + 6 + 9].clone()
    elif base == "aquila_vl":
        config, tensors = published.aquila_vl()
    else:
        config, tensors = published.mipha(False, 0.4)
    source = published.write_checkpoint(folder, config, tensors)
    if base in ("internvl2-1b", "aquila_vl"):
        special = published.INTERNVL2_TOKENS if base == "internvl2-1b" else []
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special]
        ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        published.write_byte_tokenizer(source, "Qwen2Tokenizer", special, **ends)
    elif base == "internvl2-2b":
        special = ["<|im_end|>", "<|im_start|>", *published.INTERNVL2_TOKENS]
        code = {"auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}}
        published.write_sentencepiece(source, "InternLM2Tokenizer", special, renamed=2, **code)
    elif base == "internvl2-4b":
        special = [*PHI3_TOKENS, *published.INTERNVL2_TOKENS]
        published.write_sentencepiece(source, "LlamaTokenizer", special, add_bos_token=False, legacy=False)
    else:
        published.write_byte_tokenizer(source, "CodeGenTokenizer", [])
    return source


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Folder of a converted base."""
    folders = {}

    def get(base: str):
        if base not in folders:
            folder = tmp_path_factory.mktemp("converted")
            result = convert_checkpoint(write_source(folder / "source", base), folder / "output")
            assert result.has_processor
            folders[base] = folder / "output"
        return folders[base]

    return get


def conversation(*turns: str, system: str | None = None) -> list[dict]:
    """A picture and a question, an answer, a question, ..."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
    messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    messages[0]["content"].insert(0, {"type": "image"})
    return ([{"role": "system", "content": system}] if system else []) + messages


@pytest.mark.parametrize(
    ("base", "first", "later"),
    [
        (
            "internvl2-1b",
            f"<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\n<IMG_CONTEXT>\nWhat?<|im_end|>"
            "<|im_start|>assistant\n",
            "A cat.<|im_end|><|im_start|>user\nWhere?<|im_end|><|im_start|>assistant\n",
        ),
        (
            "internvl2-4b",
            f"<|system|>\n{SYSTEM}<|end|><|user|>\n<IMG_CONTEXT>\nWhat?<|end|><|assistant|>\n",
            "A cat.<|end|><|user|>\nWhere?<|end|><|assistant|>\n",
        ),
        (
            "aquila_vl",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nWhat?<|im_end|>\n"
            "<|im_start|>assistant\n",
            "A cat.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "mipha",
            f"{MIPHA_SYSTEM} USER: <image>\nWhat? ASSISTANT:",
            " A cat.<|endoftext|>USER: Where? ASSISTANT:",
        ),
    ],
)
def test_prompts(converted, base, first, later):
    processor = AutoProcessor.from_pretrained(converted(base))
    prompt = processor.apply_chat_template(conversation("What?"), add_generation_prompt=True)
    assert prompt == first
    prompt = processor.apply_chat_template(conversation("What?", "A cat.", "Where?"), add_generation_prompt=True)
    assert prompt == first + later
    # A text instead of a list of parts.
    without_picture = first.replace("<image>\n", "").replace("<IMG_CONTEXT>\n", "")
    text_only = processor.apply_chat_template([{"role": "user", "content": "What?"}], add_generation_prompt=True)
    assert text_only == without_picture


def test_the_same_turns_for_2b_as_for_1b(converted):
    prompts = {
        AutoProcessor.from_pretrained(converted(base)).apply_chat_template(
            conversation("What?"), add_generation_prompt=True
        )
        for base in ("internvl2-1b", "internvl2-2b")
    }
    assert len(prompts) == 1


@pytest.mark.parametrize(
    ("base", "start"),
    [
        ("internvl2-2b", "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n"),
        ("internvl2-4b", "<|system|>\nBe brief.<|end|><|user|>\n"),
        ("aquila_vl", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"),
        ("mipha", "Be brief. USER: "),
    ],
)
def test_system_text_of_the_conversation(converted, base, start):
    processor = AutoProcessor.from_pretrained(converted(base))
    assert processor.apply_chat_template(conversation("What?", system="Be brief.")).startswith(start + "<")


def test_tokens_of_internlm2(converted):
    """As SentencePiece and the tokens by themselves, with one in front, without the code of the checkpoint."""
    folder = converted("internvl2-2b")
    processor = AutoProcessor.from_pretrained(folder)
    pieces = sentencepiece.SentencePieceProcessor(str(folder.parent / "source" / "tokenizer.model"))
    text = " What is  in the picture?\n猫"
    ids = processor.tokenizer(f"<|im_start|>user\n<IMG_CONTEXT>{text}<|im_end|>")["input_ids"]
    assert ids == [1, 319, *pieces.encode("user\n"), 322, *pieces.encode(text), 318]
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == "user\n" + text


@pytest.mark.parametrize(("base", "bos"), [("internvl2-1b", None), ("internvl2-2b", 1), ("internvl2-4b", None)])
def test_first_token_of_internvl2(converted, base, bos):
    processor = AutoProcessor.from_pretrained(converted(base))
    ids = processor.tokenizer("<img>")["input_ids"]
    assert ids == [*([] if bos is None else [bos]), processor.tokenizer.convert_tokens_to_ids("<img>")]


@pytest.mark.parametrize("base", BASES)
def test_the_model_knows_the_image_token(converted, base):
    processor = AutoProcessor.from_pretrained(converted(base))
    config = json.loads((converted(base) / "config.json").read_text())
    image_id = config.get("image_token_id", config.get("image_token_index"))
    assert processor.image_token_id == image_id < config["text_config"]["vocab_size"]
    token = "<IMG_CONTEXT>" if "internvl2" in base else "<image>"
    assert processor.tokenizer.encode(token, add_special_tokens=False) == [image_id]


def test_mipha_writes_the_text_around_a_picture_as_two_texts(converted):
    processor = AutoProcessor.from_pretrained(converted("mipha"))
    prompt = processor.apply_chat_template(conversation("What?"), add_generation_prompt=True)
    inputs = processor(images=picture(60, 30), text=prompt, return_tensors="pt")
    before, after = (processor.tokenizer(part)["input_ids"] for part in prompt.split("<image>"))
    assert inputs["input_ids"][0].tolist() == [*before, *[processor.image_token_id] * 4, *after]


def test_generation_ends_where_the_source_says(tmp_path):
    source = write_source(tmp_path / "source", "internvl2-2b")
    published_ids = {"_from_model_config": True, "eos_token_id": [318, 319], "transformers_version": "4.37.2"}
    (source / "generation_config.json").write_text(json.dumps(published_ids))
    convert_checkpoint(source, tmp_path / "output")
    config = GenerationConfig.from_pretrained(tmp_path / "output")
    assert config.eos_token_id == [318, 319] and config.pad_token_id == 2


@pytest.mark.parametrize(("base", "eos"), [("mipha", 50256), ("internvl2-1b", 258), ("aquila_vl", 258)])
def test_generation_ends(converted, base, eos):
    assert GenerationConfig.from_pretrained(converted(base)).eos_token_id == eos


@pytest.mark.parametrize("base", BASES)
def test_without_a_tokenizer_the_model_is_converted_alone(tmp_path, base):
    source = write_source(tmp_path / "source", base)
    for name in ("vocab.json", "merges.txt", "tokenizer.model", "tokenizer_config.json"):
        (source / name).unlink(missing_ok=True)
    assert not convert_checkpoint(source, tmp_path / "output").has_processor
    assert not list((tmp_path / "output").glob("*process*"))


def test_unknown_templates_are_an_error(tmp_path):
    source = write_source(tmp_path / "source", "internvl2-1b")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "template": "vicuna"}))
    with pytest.raises(ValueError, match="names the template 'vicuna'; expected one of Hermes-2"):
        convert_checkpoint(source, tmp_path / "output")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_sentencepiece_model_needs_its_package(tmp_path, monkeypatch):
    source = write_source(tmp_path / "source", "internvl2-2b")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install sentencepiece protobuf"):
        convert_checkpoint(source, tmp_path / "output")


# Pictures. Transformers resizes with torchvision, which rounds otherwise than PIL: by a level of 255 here and there.


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(random_video(1, seed=3, height=height - height % 4, width=width - width % 4)[0]).resize(
        (width, height)
    )


def normalised(image: Image.Image, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return ((np.asarray(image.convert("RGB")) / 255 - mean) / std).transpose(2, 0, 1)


def check_pixels(found: torch.Tensor, expected: np.ndarray, std: np.ndarray):
    assert found.shape == expected.shape
    levels = np.abs(found.numpy() - expected) * 255 * std.reshape(-1, 1, 1)
    assert levels.max() < 8 and levels.mean() < 0.1, (levels.max(), levels.mean())


WIDE, TALL = (150, 61), (47, 121)


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_internvl2_takes_a_picture_whole(converted, size):
    processor = AutoProcessor.from_pretrained(converted("internvl2-2b"))
    found = processor.image_processor(picture(*size), crop_to_patches=False, return_tensors="pt")["pixel_values"]
    expected = normalised(picture(*size).resize((56, 56), Image.Resampling.BICUBIC), IMAGENET_MEAN, IMAGENET_STD)
    check_pixels(found[0], expected, IMAGENET_STD)


@pytest.mark.parametrize(
    ("size", "columns", "rows"), [(WIDE, 5, 2), (TALL, 2, 5), ((100, 99), 2, 2), ((40, 39), 1, 1), ((171, 57), 3, 1)]
)
def test_internvl2_tiles(converted, size, columns, rows):
    """
    Up to 12 tiles in the grid whose shape is nearest to the picture's (of two equal ones the finer if the picture is
    large), and the whole picture behind them.
    """
    grids = sorted(
        {(i, j) for n in range(1, 13) for i in range(1, n + 1) for j in range(1, n + 1) if 1 <= i * j <= 12},
        key=lambda grid: grid[0] * grid[1],
    )
    best, smallest = None, float("inf")
    for i, j in grids:
        difference = abs(size[0] / size[1] - i / j)
        if difference < smallest or (difference == smallest and size[0] * size[1] > 0.5 * 56**2 * i * j):
            best, smallest = (i, j), difference
    assert best == (columns, rows)
    resized = picture(*size).resize((56 * columns, 56 * rows), Image.Resampling.BICUBIC)
    boxes = [(56 * i, 56 * j, 56 * i + 56, 56 * j + 56) for j in range(rows) for i in range(columns)]
    tiles = [resized.crop(box) for box in boxes]
    if len(tiles) > 1:
        tiles.append(picture(*size).resize((56, 56), Image.Resampling.BICUBIC))
    processor = AutoProcessor.from_pretrained(converted("internvl2-2b"))
    inputs = processor(images=picture(*size), text="<IMG_CONTEXT>", return_tensors="pt")
    assert len(inputs["pixel_values"]) == len(tiles)
    for found, tile in zip(inputs["pixel_values"], tiles, strict=True):
        check_pixels(found, normalised(tile, IMAGENET_MEAN, IMAGENET_STD), IMAGENET_STD)
    ids = inputs["input_ids"][0].tolist()
    assert ids == [1, 320, *[322] * 4 * len(tiles), 321]


@pytest.mark.parametrize(("size", "pinpoint"), [(WIDE, (28, 84)), (TALL, (84, 28)), ((54, 50), (56, 56))])
def test_aquila_vl_pictures(converted, size, pinpoint):
    """The whole picture squashed, then crops of it at the best size, with black where its shape leaves room."""
    processor = AutoProcessor.from_pretrained(converted("aquila_vl"))
    found = processor.image_processor(picture(*size), return_tensors="pt")
    height, width = pinpoint
    scale = min(width / size[0], height / size[1])
    if width / size[0] < height / size[1]:
        new = (width, min(int(np.ceil(size[1] * scale)), height))
    else:
        new = (min(int(np.ceil(size[0] * scale)), width), height)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(picture(*size).resize(new, Image.Resampling.BICUBIC), ((width - new[0]) // 2, (height - new[1]) // 2))
    views = [picture(*size).resize((28, 28), Image.Resampling.BICUBIC)]
    views += [canvas.crop((x, y, x + 28, y + 28)) for y in range(0, height, 28) for x in range(0, width, 28)]
    (pixels,) = found["pixel_values"]
    assert len(pixels) == len(views)
    for view, expected in zip(pixels, views, strict=True):
        check_pixels(view, normalised(expected, HALF, HALF), HALF)
    assert found["image_sizes"].tolist() == [[size[1], size[0]]]


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_mipha_pictures(converted, size):
    """On a grey square of 127, in its middle, then resized."""
    processor = AutoProcessor.from_pretrained(converted("mipha"))
    side = max(size)
    square = Image.new("RGB", (side, side), (127, 127, 127))
    square.paste(picture(*size), ((side - size[0]) // 2, (side - size[1]) // 2))
    expected = normalised(square.resize((28, 28), Image.Resampling.BICUBIC), HALF, HALF)
    found = processor(images=picture(*size), text="<image>", return_tensors="pt")["pixel_values"]
    check_pixels(found[0], expected, HALF)


@pytest.mark.parametrize(("base", "frame"), [*((base, 56) for base in BASES[:3]), ("aquila_vl", 28), ("mipha", 28)])
def test_linvt_finds_the_turns_and_presents_videos_as_pictures(converted, base, frame):
    processor = LinVTProcessor.from_image_llm_processor(
        AutoProcessor.from_pretrained(converted(base)), num_video_tokens=12, num_frames=4, shot_detection="uniform"
    )
    assert dict(processor.video_processor.size) == {"height": frame, "width": frame}
    inputs = processor.apply_chat_template(
        user_turn(random_video(8), "What happens?"),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"video_metadata": [{"fps": 2.0, "total_num_frames": 8}]},
    )
    assert inputs["pixel_values_videos"].shape == (4, 3, frame, frame)
    assert (inputs["mm_token_type_ids"] == 2).sum() == 12
    turn = inputs["input_ids"][(inputs["instruction_turns"] == 1) & (inputs["mm_token_type_ids"] == 0)]
    assert processor.tokenizer.decode(turn, skip_special_tokens=True).strip() == "What happens?"
