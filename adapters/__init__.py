"""How a backbone learns: quantized loading, strategies and their registry."""

from __future__ import annotations

from adapters import full, head, lora
from adapters.errors import AdapterError
from adapters.registry import Registry, RegistryError
from adapters.strategy import Strategy, strategies

__all__ = [
    "AdapterError",
    "Registry",
    "RegistryError",
    "Strategy",
    "full",
    "head",
    "lora",
    "strategies",
]
