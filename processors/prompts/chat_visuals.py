"""The images and videos of a conversation, and the conversation with an image in place of each video.

Messages and parts may be dicts or objects (dataclasses, pydantic models), and a key whose value is `None` is no key:
data sets of Arrow give every part the keys of all parts. Every key of a part takes effect or is refused by name.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


IMAGE_KEYS = ("image", "url", "path", "base64")
VIDEO_KEYS = ("video", "url", "path")

_KINDS = ("text", "image", "video", "image_url", "video_url")
_AUDIO_KINDS = ("audio", "audio_url", "input_audio")  # which some image-LLMs take where there is no video
_MEDIA_KEYS = {*IMAGE_KEYS, *VIDEO_KEYS, *_KINDS, *_AUDIO_KINDS, "input_image", "input_video"}

# Settings of one video that other libraries put into its part, and what to do instead.
_INSTEAD_OF_SETTINGS = {
    **dict.fromkeys(
        ("fps", "sample_fps", "nframes", "num_frames", "min_frames", "max_frames"),
        "choose frames for all videos of a call, with num_frames= or fps= in processor_kwargs",
    ),
    **dict.fromkeys(("video_start", "video_end"), "cut the video beforehand"),
    **dict.fromkeys(
        ("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width"),
        "choose the size of all frames, with size= in processor_kwargs",
    ),
}
_MAX_TEXT = 60  # characters of a text that an error shows


@dataclass
class ChatVisuals:
    """
    Args:
        messages (`list[dict]`): The conversation, for a chat template that knows images but not videos.
        kinds (`list[str]`): `"image"` or `"video"` for each visual, in the order of the conversation.
        images (`list`), videos (`list`): What the parts named.
    """

    messages: list[dict] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    images: list = field(default_factory=list)
    videos: list = field(default_factory=list)


def read_conversations(conversation: Any) -> tuple[list[list[dict]], bool]:
    """
    Reads one conversation or a list of them, each as [`read_messages`] does.

    Returns:
        The conversations, and whether a list of them was given.
    """
    first = conversation[0] if isinstance(conversation, (list, tuple)) and conversation else None
    is_batch = isinstance(first, (list, tuple)) or hasattr(first, "messages")
    return [read_messages(one) for one in (conversation if is_batch else [conversation])], is_batch


def read_messages(conversation: Any) -> list[dict]:
    """
    Returns a conversation as a list of dicts whose content is a string or a list of dicts, without keys that are
    `None`. Images, videos and other values stay as they are, and so do the caller's objects.

    Args:
        conversation: A list of messages, or an object that has them as `messages`, as Transformers takes it.

    Raises:
        `ValueError`: If there is no message, or a message or a part of one is neither a dict nor such an object.
    """
    messages = _as_plain(getattr(conversation, "messages", conversation))
    if not isinstance(messages, (list, tuple)):
        found = "one message" if isinstance(messages, dict) and "role" in messages else type(messages).__name__
        raise ValueError(f"A conversation was given as {found}; expected a list of messages.")
    if not messages:
        raise ValueError("A conversation without messages was given; expected at least one.")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise ValueError(
                f"Message {number} of a conversation is {_described(message)}; expected a dict such as "
                "{'role': 'user', 'content': ...}."
            )
    messages = [_without_none(message) for message in messages]
    for number, message in enumerate(messages):
        if isinstance(message.get("content"), (list, tuple)):
            message["content"] = [_read_part(part, number) for part in message["content"]]
    return messages


def may_name_video(messages: list[dict], chat_template: str = "") -> bool:
    """
    Returns whether a conversation may contain a video, and is therefore for [`chat_visuals`] and not for the
    image-LLM's own processor, which silently ignores parts that it does not know.

    Args:
        messages (`list[dict]`): As [`read_messages`] gives them.
        chat_template (`str`, *optional*): That of the image-LLM; types of parts that it mentions are known to it.

    Returns:
        `bool`: True if a message or a part has a key with "video" in it, or a part such a type, or no type, or an
            unknown type and more than text.
    """
    for message in messages:
        parts = message["content"] if isinstance(message.get("content"), list) else ()
        if _video_keys(message) or any(_may_be_video(part, chat_template) for part in parts):
            return True
    return False


def chat_visuals(messages: list[dict]) -> ChatVisuals:
    """
    Reads the images and videos of one conversation.

    Args:
        messages (`list[dict]`): As [`read_messages`] gives them.

    Raises:
        `ValueError`: If a part has no type or an unknown one, names no video or several, or has a key that belongs
            into a part of another type or asks for what cannot be done.
    """
    chat = ChatVisuals()
    for number, message in enumerate(messages):
        if _video_keys(message):
            raise ValueError(
                f"Message {number} of a conversation has the key {', '.join(map(repr, _video_keys(message)))}; a "
                "video goes into its content, as a part {'type': 'video', 'video': ...}."
            )
        if isinstance(message.get("content"), list):
            message = {**message, "content": [_visit(part, chat) for part in message["content"]]}
        chat.messages.append(message)
    return chat


def describe_part(part: Any) -> str:
    """Returns a part of a message for an error: the start of its texts, and of media no more than the type."""
    if not isinstance(part, Mapping):
        return _described(part)
    return "{" + ", ".join(f"{key!r}: {_described(value)}" for key, value in part.items()) + "}"


def _read_part(part: Any, number: int) -> dict:
    if not isinstance(part, dict):
        raise ValueError(
            f"Message {number} of a conversation has the part {_described(part)}; expected a dict such as "
            "{'type': 'text', 'text': ...}."
        )
    return _without_none(part)


def _may_be_video(part: dict, chat_template: str) -> bool:
    kind = part.get("type")
    if kind is None or "video" in str(kind).lower() or _video_keys(part):
        return True
    if kind in (*_KINDS, *_AUDIO_KINDS) or f"'{kind}'" in chat_template or f'"{kind}"' in chat_template:
        return False
    return not part.keys() <= {"type", "text"}


def _video_keys(value: dict) -> list:
    return [key for key in value if "video" in str(key).lower()]


def _visit(part: dict, chat: ChatVisuals) -> dict:
    """Notes what a part shows, and returns the part for the chat template."""
    kind = part.get("type")
    if kind is None:
        raise ValueError(
            f"A part of the conversation has no 'type': {describe_part(part)}. Give 'text', 'image' or 'video'."
        )
    if kind not in _KINDS:
        raise ValueError(
            f"A part of the conversation has the unknown type {kind!r}: {describe_part(part)}. Give 'text', 'image', "
            "'video', 'image_url' or 'video_url'."
        )
    if kind.endswith("_url"):  # the form of OpenAI's API
        part = _with_address(part, kind)
        kind = part["type"]
    keys = {"text": (), "image": IMAGE_KEYS, "video": VIDEO_KEYS}[kind]
    # Beside a video every other key is wrong, since nothing reads it. Texts and images go on to the chat template.
    wrong = [key for key in part if key not in (*keys, "type", kind) and (kind == "video" or key in _MEDIA_KEYS)]
    if wrong:
        raise ValueError(_wrong_keys(part, wrong))
    named = [key for key in keys if key in part]
    if len(named) > 1:
        raise ValueError(f"A {kind} is named {len(named)} times ({', '.join(named)}) in one part; name it once.")
    if kind == "video" and not named:
        raise ValueError(f"A video part of a conversation names no video: {describe_part(part)}. Give it as 'video'.")
    if kind == "text":
        return part
    chat.kinds.append(kind)
    if kind == "image":
        chat.images += [part[key] for key in named]
        return part
    chat.videos.append(part[named[0]])
    return {"type": "image"}


def _with_address(part: dict, kind: str) -> dict:
    """`{"type": "video_url", "video_url": {"url": ...}}` as `{"type": "video", "url": ...}`."""
    beside = {key: value for key, value in part.items() if key != kind}
    address = part.get(kind, {})
    inside = _without_none(address) if isinstance(address, Mapping) else {"url": address}
    return {**beside, **inside, "type": kind.removesuffix("_url")}


def _wrong_keys(part: dict, wrong: list[str]) -> str:
    ways_out = list(dict.fromkeys(_INSTEAD_OF_SETTINGS[key] for key in wrong if key in _INSTEAD_OF_SETTINGS))
    reason = "is not supported yet" if ways_out else "does not belong there"
    ways_out = ways_out or ["give every text, image and video in a part of its own type"]
    return (
        f"A part of type {part['type']!r} has the key {', '.join(map(repr, wrong))}, which {reason}: "
        f"{describe_part(part)}. Instead, {'; '.join(ways_out)}."
    )


def _as_plain(value: Any) -> Any:
    """Dataclasses and pydantic models, wherever they stand in messages, as dicts; everything else as it is."""
    if isinstance(value, Mapping):
        return {key: _as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not by `asdict`, which would copy a video in a field.
        return {item.name: _as_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):
        return _as_plain(value.model_dump())
    return value


def _without_none(value: Mapping) -> dict:
    return {key: item for key, item in value.items() if item is not None}


def _described(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]!r}..."
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return f"<{type(value).__name__}>"


__all__ = [
    "IMAGE_KEYS",
    "VIDEO_KEYS",
    "ChatVisuals",
    "chat_visuals",
    "describe_part",
    "may_name_video",
    "read_conversations",
    "read_messages",
]
