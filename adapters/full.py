"""Training of every weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from adapters.strategy import Strategy, strategies

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@strategies.register("full")
class Full(Strategy):
    """Every weight learns (Devlin et al., 2019, arXiv:1810.04805); needs a backbone in float."""

    needs_float_weights: ClassVar[bool] = True

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Switch everything on."""
        return cast("nn.Module", model.requires_grad_(True))

    def finish(self, model: nn.Module) -> PreTrainedModel:
        """Nothing to fold: the weights themselves have learnt."""
        return cast("PreTrainedModel", model)
