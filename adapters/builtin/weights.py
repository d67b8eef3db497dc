"""Training of weights that the model has: all of them, or a few kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from adapters.backbone import in_head
from adapters.errors import UnsuitableBackboneError
from adapters.strategy import Strategy, strategies

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class InPlace(Strategy):
    """Base of strategies that train weights of the model itself: nothing has to be folded."""

    def finish(self, model: nn.Module) -> PreTrainedModel:
        """Return the model: its own weights have learnt."""
        return cast("PreTrainedModel", model)


@strategies.register("full")
class Full(InPlace):
    """Every weight learns; needs a backbone in float."""

    paper: ClassVar[str] = "Devlin et al., 2019, arXiv:1810.04805"
    needs_float_weights: ClassVar[bool] = True

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Switch everything on."""
        return cast("nn.Module", model.requires_grad_(True))


@strategies.register("head")
class Head(InPlace):
    """Only the head learns, on a frozen backbone (linear probing)."""

    paper: ClassVar[str] = "Alain and Bengio, 2016, arXiv:1610.01644"
    trains_head_only: ClassVar[bool] = True

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Leave the frozen model as it is: the head is switched on for every strategy."""
        return cast("nn.Module", model)


@strategies.register("bitfit")
class BitFit(InPlace):
    """Only the encoder's biases learn; on an architecture without any, choose another strategy."""

    paper: ClassVar[str] = "Ben Zaken et al., 2022, arXiv:2106.10199"

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Switch the biases on.

        Raises:
            UnsuitableBackboneError: The encoder has none.
        """
        named = model.named_parameters()
        biases = [p for name, p in named if name.endswith("bias") and not in_head(model, name)]
        if not biases:
            raise UnsuitableBackboneError(
                f"The encoder of {type(model).__name__} has no biases, which are all that bitfit "
                "trains. Choose another strategy, such as norms or lora."
            )
        for bias in biases:
            bias.requires_grad_(True)
        return cast("nn.Module", model)


@strategies.register("norms")
class Norms(InPlace):
    """Only the encoder's normalization layers learn."""

    paper: ClassVar[str] = "Zhao et al., 2024, arXiv:2312.11420"

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Switch the normalization layers on."""
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                module.requires_grad_(True)
        return cast("nn.Module", model)
