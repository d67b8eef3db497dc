"""Learning rates that fall towards the input."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from adapters.backbone import depths
from adapters.builtin.weights import Full
from adapters.builtin.wrapping import Wrapping
from adapters.strategy import AnyStrategy, strategies

if TYPE_CHECKING:
    from torch import nn


@strategies.register("layerwise_rates")
class LayerwiseRates(Wrapping):
    """Another strategy with a learning rate for each layer (discriminative fine-tuning).

    Attributes:
        base: What learns: every weight, or any other strategy, such as ``{name: lora}``.
        decay: A layer's rate is this times that of the layer above it; the head has the recipe's.
    """

    paper: ClassVar[str] = "Howard and Ruder, 2018, arXiv:1801.06146"

    base: AnyStrategy = Full()
    decay: float = Field(default=0.8, gt=0, le=1)

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """Return one group for each layer, its learning rate among it."""
        depth = depths(model)
        top = max(depth.values())
        groups = defaultdict(list)
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                groups[depth[name]].append(weight)
        return [
            {"params": groups[level], "lr": learning_rate * self.decay ** (top - level)}
            for level in sorted(groups)
        ]
