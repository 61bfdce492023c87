"""Prompts and pictures to model inputs for xGen-MM, with the prompts that it was tuned on."""

from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin


ADDED_TOKENS = ("<image>", "<image placeholder>", "<|endofchunk|>")
"""What the published code adds to Phi-3's tokens when it runs; their rows in the embedding stand in this order."""

SYSTEM_TEXT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|system|>\\nSYSTEM_TEXT<|end|>\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' }}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% for part in parts %}"
    "{% if part['type'] == 'image' %}{{ '<image>AFTER_IMAGE' }}{% elif part['type'] == 'text' %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] }}{% endgeneration %}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endif %}{% endfor %}{{ '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def chat_template(after_image: str) -> str:
    r"""
    The published prompt as a chat template.

    Args:
        after_image (`str`): What stands between an image and what follows it: `" "` for interleave-r-v1.5, `"\n"` for
            r-v1.
    """
    text = SYSTEM_TEXT.replace("'", "\\'")
    return _TEMPLATE.replace("SYSTEM_TEXT", text).replace("AFTER_IMAGE", after_image.replace("\n", "\\n"))


class XGenMMProcessor(ProcessorMixin):
    r"""
    Args:
        image_processor ([`XGenMMImageProcessor`]): Cuts pictures into crops.
        tokenizer (`PreTrainedTokenizerBase`): Phi-3's, with `ADDED_TOKENS`.
        num_latents (`int`, *optional*, defaults to 128): Tokens of a crop; that of the model's configuration.
        chat_template (`str`, *optional*): See `chat_template` in this module.

    Raises:
        `ValueError`: If the tokenizer does not know the placeholder of an image.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_latents: int = 128,
        chat_template: str | dict | None = None,
    ):
        self.image_token = ADDED_TOKENS[0]
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        if self.image_token_id in (None, tokenizer.unk_token_id):
            raise ValueError(
                f"The tokenizer does not know {self.image_token}; add {', '.join(ADDED_TOKENS)} to it, in this order."
            )
        self.num_latents = num_latents
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """A placeholder for each token: those of the view of all of the picture, then those of its crops."""
        rows, columns = (int(number) for number in image_inputs["crop_grids"][image_idx])
        return self.image_token * ((1 + rows * columns) * self.num_latents)


__all__ = ["ADDED_TOKENS", "XGenMMProcessor", "chat_template"]
