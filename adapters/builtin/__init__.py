"""The strategies that come with the project; importing this package registers them."""

from __future__ import annotations

from adapters.builtin import (
    adalora,
    any_peft,
    bottleneck,
    continual,
    last_layers,
    layerwise_rates,
    low_rank,
    olora,
    pissa,
    scaling,
    unfreezing,
    weights,
)

__all__ = [
    "adalora",
    "any_peft",
    "bottleneck",
    "continual",
    "last_layers",
    "layerwise_rates",
    "low_rank",
    "olora",
    "pissa",
    "scaling",
    "unfreezing",
    "weights",
]
