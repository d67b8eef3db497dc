"""The strategies that come with the project; importing this package registers them."""

from __future__ import annotations

from adapters.builtin import (
    adalora,
    bottleneck,
    continual,
    last_layers,
    layerwise_rates,
    low_rank,
    olora,
    other_peft,
    pissa,
    scaling,
    unfreezing,
    weights,
)

__all__ = [
    "adalora",
    "bottleneck",
    "continual",
    "last_layers",
    "layerwise_rates",
    "low_rank",
    "olora",
    "other_peft",
    "pissa",
    "scaling",
    "unfreezing",
    "weights",
]
