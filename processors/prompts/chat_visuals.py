"""The images and videos of a conversation, and the conversation with an image in place of each video."""

from dataclasses import dataclass, field


IMAGE_KEYS = ("image", "url", "path", "base64")
VIDEO_KEYS = ("video", "url", "path")


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


def chat_visuals(conversation: list[dict]) -> ChatVisuals:
    """
    Reads one conversation; the caller's objects are left as they are.

    Raises:
        `ValueError`: If a part has no type, or a video part names no video.
    """
    chat = ChatVisuals()
    for message in conversation:
        content = message.get("content")
        if isinstance(content, (list, tuple)):
            message = {**message, "content": [_visit(part, chat) for part in content]}
        chat.messages.append(message)
    return chat


def _visit(part: dict, chat: ChatVisuals) -> dict:
    kind = part.get("type")
    if kind is None:
        raise ValueError(f"A part of the conversation has no 'type': {part}. Give 'text', 'image' or 'video'.")
    if kind in ("image_url", "video_url"):  # the form of OpenAI's API
        address = part[kind]
        kind = kind.removesuffix("_url")
        part = {"type": kind, "url": address["url"] if isinstance(address, dict) else address}
    if kind == "image":
        chat.images += [part[key] for key in IMAGE_KEYS if part.get(key) is not None][:1]
    elif kind == "video":
        named = [part[key] for key in VIDEO_KEYS if part.get(key) is not None]
        if not named:
            raise ValueError(f"A video part of the conversation names no video: {part}. Give it as 'video' or 'url'.")
        chat.videos.append(named[0])
        part = {"type": "image"}
    else:
        return part
    chat.kinds.append(kind)
    return part


__all__ = ["IMAGE_KEYS", "VIDEO_KEYS", "ChatVisuals", "chat_visuals"]
