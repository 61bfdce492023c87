"""Initialises a model part by part, each part by its own rules."""

from transformers import PreTrainedModel


class PartInitializationMixin:
    """
    For classes outside of Transformers around models of Transformers: weights that a checkpoint lacks start as those
    models start them. Transformers looks at the outermost class alone, and where that is not its own, it takes a
    module without weights of its own for loaded, such as the attention of CLIP, which has a spread for each of its
    linear layers.
    """

    def initialize_weights(self) -> None:
        for part in self.children():  # type: ignore[attr-defined]  # it stands before a PreTrainedModel
            if isinstance(part, PreTrainedModel):
                part.initialize_weights()
        super().initialize_weights()  # type: ignore[misc]  # as above; what has started is left as it is
