"""What the parts of a chat say is read, or refused by its name; nothing of it is left out in silence."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, random_video, user_turn

from linvt.processors.prompts.chat_visuals import chat_visuals, may_name_video, read_conversations, read_messages
from linvt.training.row_checks import check_rows
from linvt.training.training_rows import BadRowError
from linvt.training.video_chat_collator import VideoChatCollator


each_family = pytest.mark.parametrize("family", FAMILIES)
OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
FRAMES, PICTURE = random_video(4), Image.fromarray(random_video(1)[0])
VIDEO, TEXT = {"type": "video", "video": FRAMES}, {"type": "text", "text": "What is it?"}
ANSWER = {"role": "assistant", "content": "A cat."}

# Parts that stand beside a text, and what the error has to name.
WRONG_PARTS = {
    "unknown type": ({"type": "input_video", "input_video": "clip.mp4"}, "'input_video'"),
    "misspelt type": ({"type": "viedo", "video": FRAMES}, "'viedo'"),
    "misspelt type, other key": ({"type": "viedo", "url": "clip.mp4"}, "'viedo'"),
    "type in capitals": ({"type": "Video", "path": "clip.mp4"}, "'Video'"),
    "unknown type with a file": ({"type": "file", "file": {"file_id": "clip"}}, "'file'"),
    "no type": ({"video": FRAMES}, "no 'type'"),
    "video in a text": ({"type": "text", "text": "What?", "video": FRAMES}, "'text' has the key 'video'"),
    "video in an image": ({"type": "image", "image": PICTURE, "video": FRAMES}, "'image' has the key 'video'"),
    "address of a video in a text": ({**TEXT, "video_url": {"url": "clip.mp4"}}, "'text' has the key 'video_url'"),
    "image in a video": ({**VIDEO, "image": PICTURE}, "'video' has the key 'image'"),
    "text in a video": ({**VIDEO, "text": "What?"}, "'video' has the key 'text'"),
    "two names": ({**VIDEO, "url": "clip.mp4"}, r"named 2 times \(video, url"),
    "no name": ({"type": "video"}, "names no video|there is none for it"),
    "no address": ({"type": "video_url"}, "names no video"),
    "no address inside": ({"type": "video_url", "video_url": {"detail": None}}, "names no video"),
    "base64": ({"type": "video", "base64": "AAAA"}, "'base64'|there is none for it"),
    **{
        key: ({**VIDEO, key: 1}, f"'video' has the key '{key}', which is not supported yet.*{instead}")
        for key, instead in {
            "fps": "num_frames= or fps= in processor_kwargs",
            "nframes": "num_frames=",
            "num_frames": "num_frames=",
            "sample_fps": "num_frames=",
            "max_frames": "num_frames=",
            "video_start": "cut the video",
            "video_end": "cut the video",
            "max_pixels": "size=",
            "resized_height": "size=",
        }.items()
    },
    "any other key": ({**VIDEO, "loop": True}, "'video' has the key 'loop'"),
    "key beside an address": (
        {"type": "video_url", "video_url": {"url": "clip.mp4"}, "fps": 2},
        "'video' has the key 'fps'",
    ),
    "key inside an address": ({"type": "video_url", "video_url": {"url": "clip.mp4", "fps": 2}}, "has the key 'fps'"),
    "two keys": ({**VIDEO, "video_start": 1.0, "video_end": 2.0}, "'video_start', 'video_end'"),
}


def user(*parts) -> list[dict]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("name", WRONG_PARTS)
def test_what_a_part_says_is_never_left_out(make_linvt, family, name):
    _, processor = make_linvt(family)
    part, named = WRONG_PARTS[name]
    for chat in (user(part, TEXT), user(VIDEO, part, TEXT), [*user(TEXT), ANSWER, *user(TEXT, part)]):
        for options in ({}, OPTIONS):
            with pytest.raises(ValueError, match=named):
                processor.apply_chat_template(chat, **options)
    with pytest.raises(ValueError, match=named):
        processor.apply_chat_template([user(VIDEO, TEXT), user(part, TEXT)], **OPTIONS)


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_rows_with_such_parts_are_bad_before_training_and_in_it(make_linvt, name):
    _, processor = make_linvt("llava")
    part, named = WRONG_PARTS[name]
    row = {"messages": [*user(part, TEXT), ANSWER]}
    (error,) = check_rows([row], processor).values()
    with pytest.raises(BadRowError, match=named):
        raise error
    with pytest.raises(BadRowError, match=named):
        VideoChatCollator(processor)([row])


@pytest.mark.parametrize("key", ["video", "videos", "video_url"])
def test_a_video_beside_the_content_of_a_message_is_refused(make_linvt, key):
    _, processor = make_linvt("llava")
    message = {"role": "user", "content": "What is it?", key: ["clip.mp4"]}
    with pytest.raises(ValueError, match=f"Message 0 .* the key '{key}'"):
        processor.apply_chat_template([message])
    (error,) = check_rows([{"messages": [message, ANSWER]}], processor).values()
    assert f"'{key}'" in error.reason


def test_a_wrong_part_is_shown_without_the_video_in_it():
    with pytest.raises(ValueError) as raised:
        chat_visuals(user({"type": "video", "video": bytes(10**6), "caption": "x" * 10**6}))
    assert len(str(raised.value)) < 500 and "'caption'" in str(raised.value)


# Keys without a value


@each_family
def test_keys_without_a_value_are_no_keys(make_linvt, family):
    _, processor = make_linvt(family)
    nothing = dict.fromkeys(["text", "image", "video", "url", "fps", "video_start", "anything"])
    chat = user(VIDEO, {"type": "image", "image": PICTURE}, TEXT)
    padded = [{**chat[0], "tool_calls": None, "content": [nothing | part for part in chat[0]["content"]]}]
    expected, got = (processor.apply_chat_template(one, **OPTIONS) for one in (chat, padded))
    assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)


def test_callers_keep_their_messages():
    chat = user({**VIDEO, "image": None}, dict(TEXT))
    before = copy.deepcopy(chat)
    chat_visuals(read_messages(chat))
    assert chat[0]["content"][0]["video"] is FRAMES
    assert [list(part) for part in chat[0]["content"]] == [list(part) for part in before[0]["content"]]


# Messages as objects


@dataclass
class Message:
    role: str
    content: Any
    name: str | None = None


@dataclass
class Part:
    type: str
    text: str | None = None
    video: Any = None
    image: Any = None
    video_url: Any = None


@dataclass
class Address:
    url: str


@dataclass
class Conversation:
    messages: list = field(default_factory=list)


class Pydantic:
    """As pydantic's models give themselves away."""

    def __init__(self, **fields):
        self.fields = fields

    def model_dump(self) -> dict:
        return dict(self.fields)


def as_objects(chat: list[dict]) -> list[list]:
    """The same conversation in several forms."""
    return [
        [Message(message["role"], message["content"]) for message in chat],
        [Message(message["role"], [Part(**part) for part in message["content"]]) for message in chat],
        [{**message, "content": [Part(**part) for part in message["content"]]} for message in chat],
        [Pydantic(**message, refusal=None) for message in chat],
        [Message(message["role"], tuple(Pydantic(**part) for part in message["content"])) for message in chat],
        Conversation([Message(message["role"], message["content"]) for message in chat]),
    ]


@each_family
@pytest.mark.parametrize("visual", ["video", "image", "text"])
def test_messages_may_be_objects(make_linvt, image_llm, family, visual):
    """With a video, and without one: then what the image-LLM's own processor makes of the dicts."""
    _, processor = make_linvt(family)
    _, original = image_llm(family)
    parts = {"video": [VIDEO], "image": [{"type": "image", "image": PICTURE}], "text": []}[visual]
    chat = user(*parts, TEXT)
    expected = (processor if visual == "video" else original).apply_chat_template(chat, **OPTIONS)
    for form in as_objects(chat):
        got = processor.apply_chat_template(form, **OPTIONS)
        assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)
    batch = processor.apply_chat_template(as_objects(chat)[:-1], **OPTIONS)
    assert torch.equal(batch["input_ids"], expected["input_ids"].expand(5, -1))


def test_addresses_may_be_objects(make_linvt, video_file):
    _, processor = make_linvt("llava")
    path = str(video_file(6))
    expected = processor.apply_chat_template(user({"type": "video", "video": path}, TEXT), **OPTIONS)
    for address in (path, {"url": path}, {"url": path, "detail": None}, Address(path), Pydantic(url=path)):
        got = processor.apply_chat_template(user(Part("video_url", video_url=address), TEXT), **OPTIONS)
        assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_rows_of_objects_are_rows(make_linvt):
    _, processor = make_linvt("llava")
    chat = [*user(VIDEO, TEXT), {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]
    expected = VideoChatCollator(processor)([{"messages": chat}])
    for form in as_objects(chat):
        assert not check_rows([{"messages": form}], processor)
        got = VideoChatCollator(processor)([{"messages": form}])
        assert all(torch.equal(got[name], expected[name]) for name in expected)


# What is no conversation


@pytest.mark.parametrize(
    ("conversation", "named"),
    [
        ([], "without messages"),
        ([[]], "without messages"),
        ([user(TEXT), []], "without messages"),
        (user(TEXT)[0], "given as one message"),
        (Message("user", [TEXT]), "given as one message"),
        ("What is it?", "given as str"),
        (None, "given as NoneType"),
        (["What is it?"], "Message 0 .* 'What is it[?]'"),
        ([*user(TEXT), 3], "Message 1 .* 3"),
        (user("What is it?"), "Message 0 .* the part 'What is it[?]'"),
        (user(VIDEO, "What is it?"), "Message 0 .* the part 'What is it[?]'"),
        (user(TEXT, None), "Message 0 .* the part None"),
        (user([TEXT]), "Message 0 .* the part <list>"),
        (user(FRAMES), "Message 0 .* the part <ndarray>"),
    ],
)
def test_what_is_no_conversation_is_one_clear_error(make_linvt, conversation, named):
    _, processor = make_linvt("llava")
    for options in ({}, OPTIONS):
        with pytest.raises(ValueError, match=named):
            processor.apply_chat_template(conversation, **options)


# Chats without videos


def test_types_that_the_image_llm_knows_stay_its_own(make_linvt, image_llm):
    """A chat without a video goes through the image-LLM's processor, with whatever that takes."""
    _, processor = make_linvt("llava")
    _, original = image_llm("llava")
    start = "{% if part['type'] == 'image' %}"
    assert start in original.chat_template
    knows_documents = "{% if part['type'] == 'document' %}{{ part['path'] }}{% endif %}"
    template = original.chat_template.replace(start, knows_documents + start)
    chat = user({"type": "document", "path": "notes.txt"}, {"type": "input_text", "text": "What?"}, TEXT)
    got, expected = (tool.apply_chat_template(chat, template) for tool in (processor, original))
    assert got == expected and "notes.txt" in got
    with pytest.raises(ValueError, match="'document'"):  # its own template drops it
        processor.apply_chat_template(chat)


@pytest.mark.parametrize(
    "part",
    [
        TEXT,
        {**TEXT, "cache_control": {"type": "ephemeral"}},
        {"type": "input_text", "text": "What?"},
        {"type": "image", "url": "cat.png", "detail": "low"},
        {"type": "image_url", "image_url": {"url": "cat.png"}},
        {"type": "image"},
        {"type": "audio", "path": "sound.wav"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "refusal", "text": "No."},
    ],
)
def test_chats_that_name_no_video(make_linvt, image_llm, part):
    assert not may_name_video(read_messages(user(part, TEXT)))
    _, processor = make_linvt("llava")
    _, original = image_llm("llava")
    got, expected = (tool.apply_chat_template(user(part, TEXT)) for tool in (processor, original))
    assert got == expected


def test_a_text_may_say_that_it_is_about_a_video(make_linvt):
    """A key that names no source is the template's, if it has a use for it."""
    _, processor = make_linvt("llava")
    chat = user({**TEXT, "about_video": True})
    assert processor.apply_chat_template(chat) == processor.apply_chat_template(user(TEXT))
    about, plain = (user(VIDEO, part) for part in (chat[0]["content"][0], TEXT))
    got, expected = (processor.apply_chat_template(one, **OPTIONS) for one in (about, plain))
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_one_conversation_is_told_from_several():
    chat = user(TEXT)
    assert read_conversations(chat) == ([chat], False)
    assert read_conversations([chat, chat]) == ([chat, chat], True)
    assert read_conversations(Conversation(chat)) == ([chat], False)
    assert read_conversations([Conversation(chat)]) == ([chat], True)
    assert read_conversations(tuple(chat)) == ([chat], False)


def test_everything_that_is_shown_is_listed_in_order():
    messages = [*user_turn("First ", FRAMES), ANSWER, *user(TEXT, {"type": "image_url", "image_url": "a.png"}, VIDEO)]
    chat = chat_visuals(read_messages(messages))
    assert chat.kinds == ["video", "image", "video"] and chat.images == ["a.png"]
    assert len(chat.videos) == 2 and all(np.array_equal(video, FRAMES) for video in chat.videos)
    kinds = [[part["type"] for part in message["content"]] for message in chat.messages if message["role"] == "user"]
    assert kinds == [["text", "image"], ["text", "image", "image"]] and chat.messages[1] == ANSWER
