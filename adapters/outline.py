"""What a plain model is made of, so that it can be told whether it is plain again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Outline:
    """The names and kinds of a model's parts, and what is set on them.

    Attributes:
        modules: The class of each module.
        weights: The shape of each parameter.
        hooked: The modules that something hooks into.
        tensors: The buffers, and the attributes of modules that hold other tensors.
        config: The model's configuration, but for what this project writes into it.
        dropouts: The probability of each dropout.
    """

    modules: Mapping[str, type]
    weights: Mapping[str, tuple[int, ...]]
    hooked: frozenset[str]
    tensors: frozenset[str]
    config: Mapping[str, Any]
    dropouts: Mapping[str, float]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Outline:
        """Look at a model."""
        from torch.nn.modules.dropout import _DropoutNd

        modules = dict(model.named_modules())
        config = model.config.to_dict()
        config.pop("potstill_strategy", None)
        return cls(
            {name: type(module) for name, module in modules.items()},
            {name: tuple(weight.shape) for name, weight in model.named_parameters()},
            frozenset(name for name, module in modules.items() if _hooked(module)),
            frozenset({*dict(model.named_buffers()), *_loose_tensors(modules)}),
            config,
            {name: module.p for name, module in modules.items() if isinstance(module, _DropoutNd)},
        )

    def fault(self, other: Outline, *, may_add: bool) -> str | None:
        """Return what sets another model apart from this one, and what to do; None for nothing.

        Args:
            other: What should be equal.
            may_add: Whether it may have more modules, parameters, hooks and tensors.
        """
        if lost := _first(set(self.weights) - set(other.weights)):
            return f"lost {lost}; put every weight of the plain model back"
        for name, shape in self.weights.items():
            if other.weights[name] != shape:
                return f"gave {name} the shape {other.weights[name]} instead of {shape}"
        for name, kind in self.modules.items():
            if (found := other.modules.get(name)) is not kind:
                told = "nothing" if found is None else f"a {found.__name__}"
                return f"leaves {name or 'the model'} {told} instead of a {kind.__name__}"
        left = [said.format(_first(names)) for said, names in self._left(other, may_add) if names]
        return f"leaves {', and '.join(left)}" if left else None

    def _left(self, other: Outline, may_add: bool) -> Iterator[tuple[str, Collection[str]]]:
        """Yield what another model, with all parts of this one, has besides, and what to do."""
        dropouts = {name: other.dropouts[name] for name in self.dropouts}
        yield "{} in the model's config; set it back", _changed(self.config, other.config)
        yield "the dropouts {}; set them back", _changed(self.dropouts, dropouts)
        if may_add:
            return
        more = {*other.modules, *other.weights} - {*self.modules, *self.weights}
        yield "{}; fold it, or declare adds_layers = True", more
        yield "hooks on {}; remove them", other.hooked - self.hooked
        yield "the tensors {}; remove them", other.tensors - self.tensors - more


def _first(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3])


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    return [f"{name}={after.get(name)!r}" for name in names]


def _loose_tensors(modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """Name what modules keep tensors in beside their parameters and buffers."""
    for name, module in modules.items():
        for key, value in vars(module).items():
            if key not in ("_parameters", "_buffers") and _holds_tensors(value):
                yield f"{name}.{key}".lstrip(".")


def _holds_tensors(value: Any) -> bool:
    from torch import Tensor

    inside = value.values() if isinstance(value, dict) else value
    held = inside if isinstance(value, (dict, list, tuple)) else (value,)
    return any(isinstance(one, Tensor) for one in held)


def _hooked(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds) or "forward" in vars(module)
