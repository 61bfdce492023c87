"""Values in the model's inputs on which processors, model and training agree."""

IGNORED_LABEL = -100
"""The label of tokens without loss, as in Transformers and in `torch.nn.CrossEntropyLoss`."""

__all__ = ["IGNORED_LABEL"]
