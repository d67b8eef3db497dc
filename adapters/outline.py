"""What a plain model is made of, so that it can be told whether it is plain again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Outline:
    """The names and kinds of a model's parts.

    Attributes:
        modules: The class of each module.
        weights: The shape of each parameter.
        hooked: The modules that something hooks into.
    """

    modules: Mapping[str, type]
    weights: Mapping[str, tuple[int, ...]]
    hooked: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module) -> Outline:
        """Look at a model."""
        modules = dict(model.named_modules())
        return cls(
            {name: type(module) for name, module in modules.items()},
            {name: tuple(weight.shape) for name, weight in model.named_parameters()},
            frozenset(name for name, module in modules.items() if _hooked(module)),
        )

    def fault(self, other: Outline, *, may_add: bool) -> str | None:
        """Return what sets another model apart from this one, and what to do; None for nothing.

        Args:
            other: What should be equal.
            may_add: Whether it may have more modules, parameters and hooks.
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
        if may_add:
            return None
        more = (set(other.modules) - set(self.modules)) | (set(other.weights) - set(self.weights))
        if left := _first(more):
            return f"leaves {left}; fold it, or declare adds_layers = True"
        if left := _first(other.hooked - self.hooked):
            return f"leaves hooks on {left}; remove them"
        return None


def _first(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)[:3])


def _hooked(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds) or "forward" in vars(module)
