"""Prompts and images for Qwen-VL, first version."""

from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor


CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}"
    "{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% set pictures = namespace(count=0) %}"
    "{% for part in parts %}{% if part['type'] == 'image' %}"
    "{% set pictures.count = pictures.count + 1 %}{{ 'Picture ' ~ pictures.count ~ ': <imgpad>\\n' }}"
    "{% elif part['type'] == 'text' %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] }}{% endgeneration %}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endif %}{% endfor %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, in which the pictures of a turn are numbered."""


class QwenVLProcessor(ProcessorMixin):
    """
    Writes the tokens of an image into the prompt where `<imgpad>` stands: `<img>`, `num_image_tokens` times
    `<imgpad>`, `</img>`.

    Args:
        image_processor (`CLIPImageProcessor`): That squashes images to one size.
        tokenizer: With the tokens named above.
        num_image_tokens (`int`, *optional*, defaults to 256): That of the model's configuration.
        chat_template (`str`, *optional*): [`CHAT_TEMPLATE`] by default.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_image_tokens: int = 256,
        chat_template: str | None = None,
    ):
        self.image_token = "<imgpad>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.num_image_tokens = num_image_tokens
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        return "<img>" + self.image_token * self.num_image_tokens + "</img>"


__all__ = ["CHAT_TEMPLATE", "QwenVLProcessor"]
