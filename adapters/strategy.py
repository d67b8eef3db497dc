"""The contract of a strategy: how a backbone learns, and what it leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from adapters.errors import AdapterError
from adapters.registry import Registry

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Strategy(BaseModel):
    """One way to adapt a backbone; its fields are its hyper-parameters.

    Subclass it, give the fields types and defaults, write the two methods and register the class::

        @strategies.register("scale")
        class Scale(Strategy):
            \"\"\"One line that `python -m recipes.list strategies` shows.\"\"\"

            start: float = 1.0

            def prepare(self, model): ...
            def finish(self, model): ...

    Fields are checked strictly when the recipe is read: an unknown one or a wrong type is refused
    before anything is loaded. An instance is frozen; whatever learns lives in the model.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    #: Whether `prepare` needs weights that can take gradients, and so a backbone that is not
    #: quantized. A recipe that asks for both is refused before anything is loaded.
    needs_float_weights: ClassVar[bool] = False

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Make the model ready to learn.

        Args:
            model: The backbone with its head, every parameter frozen. Linear layers may be
                bitsandbytes' quantized ones.

        Returns:
            The model, or a wrapper with the same call signature, in which only what should learn
            has ``requires_grad``. The head need not be switched on: it always learns.
        """
        raise NotImplementedError

    def finish(self, model: nn.Module) -> PreTrainedModel:
        """Fold what was learnt into plain weights.

        Args:
            model: What `prepare` returned, trained, on float weights.

        Returns:
            A plain transformers model with equal logits, in which nothing of the strategy is left.
        """
        raise NotImplementedError


strategies: Registry[type[Strategy]] = Registry(
    "strategy", group="potstill.strategies", base=Strategy
)


def prepare(model: PreTrainedModel, strategy: Strategy) -> nn.Module:
    """Freeze the model, let the strategy switch on what should learn, and switch on the head.

    Args:
        model: From `adapters.backbone.load_backbone`.
        strategy: The strategy to apply.

    Returns:
        The model to train.

    Raises:
        AdapterError: The strategy returned something that is not a module, or lost the head.
    """
    from torch import nn

    from adapters.backbone import head_modules

    head = [model.get_submodule(name) for name in head_modules(model)]
    model.requires_grad_(False)
    prepared: Any = strategy.prepare(model)
    name = type(strategy).__name__
    if not isinstance(prepared, nn.Module):
        raise AdapterError(
            f"The strategy {name} returned {type(prepared).__name__} from prepare(); "
            "it has to return the model."
        )
    inside = set(map(id, prepared.modules()))
    if not all(id(module) in inside for module in head):
        raise AdapterError(
            f"The strategy {name} replaced the model's head in prepare(); leave the head in place, "
            "it is trained in any case."
        )
    for module in head:
        module.requires_grad_(True)
    return prepared


def learned_state(model: nn.Module) -> dict[str, Any]:
    """Return what training changes: name to tensor, for every parameter that learns."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def load_learned_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `learned_state` gave, into a model prepared by the same strategy.

    Raises:
        AdapterError: The names or shapes are not those of this model's learning parameters.
    """
    own = dict(model.named_parameters())
    expected = {name for name, p in own.items() if p.requires_grad}
    if expected != set(state):
        odd = sorted(expected ^ set(state))[:3]
        raise AdapterError(
            f"The saved adapter does not fit this backbone and strategy: {', '.join(odd)} "
            "is on one side only. Use the recipe that it was trained with."
        )
    for name, tensor in state.items():
        if own[name].shape != tensor.shape:
            raise AdapterError(
                f"The saved adapter does not fit: {name} is {tuple(tensor.shape)} in the file and "
                f"{tuple(own[name].shape)} in the model. Use the recipe that it was trained with."
            )
        own[name].data.copy_(tensor)
