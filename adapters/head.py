"""Training of the head alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from adapters.strategy import Strategy, strategies

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@strategies.register("head")
class Head(Strategy):
    """Only the head learns on a frozen backbone (linear probing; Alain and Bengio, 2016)."""

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Leave the frozen model as it is: the head is switched on for every strategy."""
        return cast("nn.Module", model)

    def finish(self, model: nn.Module) -> PreTrainedModel:
        """Nothing to fold: the head is part of the plain model."""
        return cast("PreTrainedModel", model)
