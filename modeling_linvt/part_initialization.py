"""Initialises a model part by part, each part by its own rules."""

from transformers import PreTrainedModel


class PartInitializationMixin:
    """
    Starts weights that a checkpoint lacks as the models of Transformers inside start them, for classes outside of
    Transformers around such models. Transformers looks at the outermost class alone, and where that is not its own, it
    takes a module without weights of its own for loaded: the attention of CLIP, say, whose linear layers each have a
    standard deviation of their own.
    """

    def initialize_weights(self) -> None:
        for part in self.children():  # type: ignore[attr-defined]  # it stands before a PreTrainedModel
            if isinstance(part, PreTrainedModel):
                part.initialize_weights()
        super().initialize_weights()  # type: ignore[misc]  # as above; what has started is left as it is
