"""Mipha: LLaVA whose output layer has a bias, as Phi's has, which Transformers' class would lose."""

from torch import nn
from transformers import LlavaForConditionalGeneration

from linvt.configuration.configuration_mipha import MiphaConfig
from linvt.part_initialization import PartInitializationMixin


class MiphaForConditionalGeneration(PartInitializationMixin, LlavaForConditionalGeneration):
    r"""
    `LlavaForConditionalGeneration` with `lm_head.bias`, of shape `(vocab_size,)`.

    Args:
        config ([`MiphaConfig`]): Usually with a SigLIP as `vision_config` and a Phi as `text_config`.

    Example:

    ```python
    >>> from linvt import MiphaForConditionalGeneration

    >>> model = MiphaForConditionalGeneration.from_pretrained("mipha-3b")  # made by linvt convert
    ```
    """

    config_class = MiphaConfig
    config: MiphaConfig

    def __init__(self, config: MiphaConfig):
        super().__init__(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=True)
        self.post_init()


__all__ = ["MiphaForConditionalGeneration"]
