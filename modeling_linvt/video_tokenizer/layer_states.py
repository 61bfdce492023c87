"""Refuses the states of layers, which Transformers' models return on request and a video tokenizer does not."""

from collections.abc import Callable
from functools import wraps
from typing import Any


_WHY = {
    "output_hidden_states": "its layers work on different things, so their states are no row of one shape, and those "
    "of a long video take more memory than the model",
    "output_attentions": "attentions inside its layers are not kept; output_token_weights=True asks LinVT for W, by "
    "which frame tokens are averaged",
}


def refuse_layer_states(forward: Callable[..., Any]) -> Callable[..., Any]:
    """
    Wraps the `forward` of a video tokenizer: `output_hidden_states` and `output_attentions` may be given, but not
    `True`. In a configuration they are left to the image-LLM, since Transformers sets them in all parts of a model.
    """

    @wraps(forward)
    def wrapper(self, *args, **kwargs):
        for name, why in _WHY.items():
            if kwargs.pop(name, None):
                raise ValueError(f"{type(self).__name__} returns nothing for {name}: {why}.")
        return forward(self, *args, **kwargs)

    return wrapper
