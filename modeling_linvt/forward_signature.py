"""Names the inputs of the image-LLM in the signature of `forward`, which passes them on.

`Trainer` keeps the columns that `inspect.signature(model.forward)` names and drops all others without a word, images
among them; exporters and people read it too. What an image-LLM takes differs from class to class.
"""

from collections.abc import Callable
from inspect import Parameter, signature
from types import FunctionType, MethodType

from torch import nn


class ForwardOfWrapper:
    """
    A descriptor for the `forward` of a model with an `image_llm`, whose signature also has the names of
    `image_llm.forward` and of `inputs`, keyword-only.

    Args:
        inputs (`list[str]`): Names of inputs that `forward` takes as `**kwargs`.
    """

    def __init__(self, function: Callable, inputs: list[str]):
        self.function = function
        self.inputs = inputs
        # By class of the image-LLM. Not kept in the model: functions like these cannot be pickled.
        self.functions: dict[type[nn.Module], Callable] = {}
        self.__doc__ = function.__doc__

    def __get__(self, model: nn.Module | None, owner: type | None = None) -> Callable:
        if model is None:
            return self.function
        image_llm = model._modules.get("image_llm")  # not yet there while the model is made
        if image_llm is None:
            return MethodType(self.function, model)
        if type(image_llm) not in self.functions:
            self.functions[type(image_llm)] = self._with_inputs_of(image_llm)
        return MethodType(self.functions[type(image_llm)], model)

    def _with_inputs_of(self, image_llm: nn.Module) -> Callable:
        of_wrapper, of_image_llm = signature(self.function), signature(image_llm.forward).parameters
        names = dict.fromkeys([*self.inputs, *of_image_llm])
        # Videos never reach the image-LLM's own inputs for them.
        added = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None)
            for name in names
            if name in self.inputs or not (name in of_wrapper.parameters or "video" in name or name in _VARIADIC)
        ]
        *parameters, rest = of_wrapper.parameters.values()
        if "kwargs" in of_image_llm:
            rest = of_image_llm["kwargs"]  # its annotation names further arguments, such as output_attentions
        copied = FunctionType(
            self.function.__code__,
            self.function.__globals__,
            self.function.__name__,
            self.function.__defaults__,
            self.function.__closure__,
        )
        copied.__dict__.update(self.function.__dict__)
        copied.__doc__, copied.__qualname__ = self.function.__doc__, self.function.__qualname__
        told = of_wrapper.replace(parameters=[*parameters, *added, rest])
        copied.__signature__ = told  # type: ignore[attr-defined]  # `inspect` looks for it on any callable
        return copied


_VARIADIC = {"args", "kwargs"}


def forward_with_inputs(inputs: list[str]) -> Callable[[Callable], ForwardOfWrapper]:
    """Decorates `forward` with [`ForwardOfWrapper`]."""
    return lambda function: ForwardOfWrapper(function, inputs)


__all__ = ["ForwardOfWrapper", "forward_with_inputs"]
