"""How a backbone learns: quantized loading, strategies and their registry."""

from __future__ import annotations

from adapters.errors import AdapterError, NeedsFloatWeightsError, UnsuitableBackboneError
from adapters.registry import Registry, RegistryError
from adapters.strategy import AnyStrategy, Strategy, strategies

from adapters import builtin  # isort: skip  (registers the strategies that come with the project)

__all__ = [
    "AdapterError",
    "AnyStrategy",
    "NeedsFloatWeightsError",
    "Registry",
    "RegistryError",
    "Strategy",
    "UnsuitableBackboneError",
    "builtin",
    "strategies",
]
