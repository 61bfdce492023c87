"""`pipeline("video-text-to-text")`: videos and questions in, text out."""

from transformers import AnyToAnyPipeline, GenerationConfig
from transformers.video_utils import is_valid_video_frame


class VideoTextToTextPipeline(AnyToAnyPipeline):
    """
    Answers questions about videos. Conversations, their answers and everything else are those of
    [`AnyToAnyPipeline`]; what is added is the plain form, a video and a question.

    Example:

    ```python
    >>> import linvt
    >>> from transformers import pipeline

    >>> pipe = pipeline("video-text-to-text", model="qwen2-vl-2b-linvt")
    >>> pipe("holiday.mp4", text="Who swims first?", num_frames=64, max_new_tokens=20)
    [{'input_text': 'Who swims first?', 'generated_text': 'The dog.'}]
    ```
    """

    def _sanitize_parameters(self, streamer=None, generate_kwargs: dict | None = None, **kwargs):
        generate_kwargs = dict(generate_kwargs or {})
        if streamer is not None:
            generate_kwargs["streamer"] = streamer
        generation_names = set(GenerationConfig().to_dict()) - {"max_new_tokens", "max_length"}
        generate_kwargs |= {name: kwargs.pop(name) for name in list(kwargs) if name in generation_names}
        return super()._sanitize_parameters(generate_kwargs=generate_kwargs, **kwargs)

    def __call__(self, videos=None, text=None, **kwargs):
        """
        Args:
            videos: A video (path, URL, bytes, frames as an array, a tensor or a list of pictures), or a list of
                videos, which are asked one by one.
            text (`str`, `list[str]` or conversations): The question, one for all videos or one for each. Or, without
                `videos`, a conversation or a list of conversations with `{"type": "video"}` parts.
            kwargs: Arguments of `generate`, such as `max_new_tokens`, `do_sample` or `streamer`, and of the
                processor, such as `num_frames`.

        Returns:
            `list[dict]`, or a list of those for a list of inputs: `input_text` and `generated_text`. For a video and
            a question `generated_text` is the answer; for a conversation it is the conversation with the answer,
            unless `return_full_text=False`.

        Raises:
            `ValueError`: If there is no question, or not one for each video.
        """
        if text is None and _is_conversation(videos):
            videos, text = None, videos
        if videos is None:
            if not _is_conversation(text):
                raise ValueError("Give a video and a question, or a conversation with a video part.")
            return super().__call__(text=text, **kwargs)
        if text is None or _is_conversation(text):
            raise ValueError("Give a question with the video, as text='...'; a conversation holds its own videos.")
        one = not isinstance(videos, (list, tuple)) or all(is_valid_video_frame(frame) for frame in videos)
        videos = [videos] if one else list(videos)
        texts = [text] * len(videos) if isinstance(text, str) else list(text)
        if len(texts) != len(videos):
            raise ValueError(f"{len(videos)} videos came with {len(texts)} questions; give one, or one for each.")
        chats = [_ask(video, question) for video, question in zip(videos, texts, strict=True)]
        kwargs.setdefault("return_full_text", False)
        answers = super().__call__(text=chats, **kwargs)
        for records, question in zip(answers, texts, strict=True):
            for record in records:
                record["input_text"] = question
                # The prompt was cut off a text that was decoded as a whole, which leaves the space before the answer.
                record["generated_text"] = record["generated_text"].removeprefix(" ")
        return answers[0] if one else answers


def _ask(video, question: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": question}]}]


def _is_conversation(value) -> bool:
    """Whether this is a conversation or a list of conversations."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return (isinstance(value[0], dict) and "role" in value[0]) or _is_conversation(value[0])


__all__ = ["VideoTextToTextPipeline"]
