"""Prompts and images for Molmo, first version."""

from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor


CHAT_TEMPLATE = (
    "{{ '<|endoftext|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('Molmo knows the roles user and assistant only; put what it shall know into a user turn.') }}"
    "{% endif %}"
    "{% if message['content'] is string %}{% set text = message['content'] %}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<im_patch>' }}{% endfor %}"
    "{% set text = message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('') %}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' User: ' + text }}{% else %}{{ ' Assistant: ' }}"
    "{% generation %}{{ text + '<|endoftext|>' }}{% endgeneration %}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' Assistant:' }}{% endif %}"
)
"""`<|endoftext|>`, the images, ` User: question Assistant:`, as published, where there is one turn. The model ends an
answer with `<|endoftext|>`, so that is how further turns follow."""


class MolmoProcessor(ProcessorMixin):
    """
    Writes the tokens of an image into the prompt where `<im_patch>` stands: the whole, then the joined crops, each
    between `<im_start>` and `<im_end>`, row by row with `<im_col>` after each row.

    Args:
        image_processor ([`MolmoImageProcessor`]), tokenizer: With the tokens named above.
        chat_template (`str`, *optional*): [`CHAT_TEMPLATE`] by default.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
    ):
        self.image_token = "<im_patch>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        side = round(image_inputs["image_token_order"].shape[1] ** 0.5)
        rows, columns = image_inputs["image_grids"][image_idx].tolist()
        return self._view(side, side) + self._view(rows, columns)

    def _view(self, rows: int, columns: int) -> str:
        return "<im_start>" + (self.image_token * columns + "<im_col>") * rows + "<im_end>"

    @property
    def unused_input_names(self) -> list[str]:
        return ["image_grids"]


__all__ = ["CHAT_TEMPLATE", "MolmoProcessor"]
