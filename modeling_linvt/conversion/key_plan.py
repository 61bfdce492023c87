"""Plans which tensors of a source make which of the result; every key is accounted for before anything is read."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from linvt.conversion.checkpoint_kinds import JoinRule, KeyRule, Shapes


_MAX_PROBLEMS = 8


@dataclass(frozen=True)
class Step:
    """Makes tensors of the result from tensors of the source; `make` takes and gives them in this order."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    make: Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]


def expected_shapes(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> Shapes:
    """Lists keys and shapes of a checkpoint of this model; of tied tensors the first one only."""
    with torch.device("meta"):
        model = model_class(config)
    model.tie_weights()
    seen, shapes = set(), {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            shapes[key] = tuple(tensor.shape)
    return shapes


def plan_conversion(
    shapes: Shapes, rules: Sequence[KeyRule | JoinRule], config: PreTrainedConfig, expected: Shapes
) -> list[Step]:
    """
    Plans how the tensors of the result are made.

    Args:
        shapes (`dict[str, tuple[int, ...]]`): Tensors of the source; the steps are in their order.
        rules (`Sequence[KeyRule | JoinRule]`): What becomes of them.
        config (`PreTrainedConfig`): Configuration of the result.
        expected (`dict[str, tuple[int, ...]]`): Tensors of the result.

    Raises:
        `ValueError`: If a key is missing, unexpected or misshapen; names the first of them, and what was expected.
    """
    key_rules = [(re.compile(rule.pattern), rule) for rule in rules if isinstance(rule, KeyRule)]
    joins = {source: rule for rule in rules if isinstance(rule, JoinRule) for source in rule.sources}
    steps: list[Step] = []
    problems: list[str] = []
    makers: dict[str, str] = {}
    for key in shapes:
        if key in joins:
            join = joins[key]
            absent = [source for source in join.sources if source not in shapes]
            if absent or key != join.sources[0]:
                continue  # what is absent shows below, as a missing target
            step = Step(join.sources, (join.target,), _joiner(join, config))
        else:
            found = next(((match, rule) for regex, rule in key_rules if (match := regex.fullmatch(key))), None)
            if found is None:
                problems.append(f"unexpected {key} {shapes[key]}")
                continue
            match, rule = found
            if not rule.targets:
                continue
            step = Step((key,), tuple(map(match.expand, rule.targets)), _splitter(rule, config))
        steps.append(step)
        for target in step.targets:
            if target not in expected:
                problems.append(f"unexpected {key} {shapes[key]}: the model has no {target}")
            elif target in makers:
                problems.append(f"both {makers[target]} and {key} make {target}")
            makers[target] = key
        problems += _shape_problems(step, shapes, expected)
    missing = [target for target in expected if target not in makers]
    problems += [f"missing {_sources_of(target, rules)} for {target} {expected[target]}" for target in missing]
    if problems:
        more = len(problems) - _MAX_PROBLEMS
        raise ValueError("; ".join(problems[:_MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else ""))
    return steps


def _joiner(rule: JoinRule, config: PreTrainedConfig) -> Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]:
    return lambda given: [rule.join(given, config)]


def _splitter(rule: KeyRule, config: PreTrainedConfig) -> Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]:
    return lambda given: given if rule.split is None else rule.split(given[0], config)


def _shape_problems(step: Step, shapes: Shapes, expected: Shapes) -> list[str]:
    """Tries a step on tensors without values, and lists the wrong shapes."""
    found = ", ".join(f"{source} {shapes[source]}" for source in step.sources)
    wanted = ", ".join(f"{target} {expected[target]}" for target in step.targets if target in expected)
    try:
        made = list(step.make([torch.empty(shapes[source], device="meta") for source in step.sources]))
    except (RuntimeError, ValueError, IndexError) as error:
        return [f"shape of {found} does not make {wanted}: {error}"]
    if len(made) != len(step.targets):
        return [f"{found} makes {len(made)} tensors, expected {wanted}"]
    return [
        f"shape of {found}: it makes {target} {tuple(tensor.shape)}, expected {expected[target]}"
        for target, tensor in zip(step.targets, made, strict=True)
        if target in expected and tuple(tensor.shape) != expected[target]
    ]


def _sources_of(target: str, rules: Sequence[KeyRule | JoinRule]) -> str:
    """Lists the keys of the source that would make this target, as far as the rules tell."""
    for rule in rules:
        if isinstance(rule, JoinRule):
            if rule.target == target:
                return " or ".join(rule.sources)
            continue
        for template in rule.targets:
            # The template turned round: its groups take what stands at their place in the target.
            literals = re.split(r"\\(\d)", template)
            turned = "".join("(.+)" if place % 2 else re.escape(part) for place, part in enumerate(literals))
            match = re.fullmatch(turned, target)
            if match:
                groups = dict(zip(literals[1::2], match.groups(), strict=True))
                return _fill_groups(rule.pattern, groups)
    return "a key"


def _fill_groups(pattern: str, groups: dict[str, str]) -> str:
    """Returns a pattern as a plain key, with the matches of its groups `"1"`, `"2"`, ... matched."""
    numbers = iter(range(1, 10))
    key = re.sub(r"\((?!\?)[^()]*\)", lambda group: groups.get(str(next(numbers)), group[0]), pattern)
    return key.replace("\\.", ".")


__all__ = ["Step", "expected_shapes", "plan_conversion"]
