"""The modules that the strategy ``bottleneck`` adds to a model's linear layers.

An added module is a child of the linear layer that it follows and is called by a hook of it. So
every weight of the plain model keeps its name, and a checkpoint of the plain model still fits.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Narrow(nn.Module):
    """Narrow, bend, widen: ``scale * up(f(down(x)))``, zero at first.

    Args:
        width: Values that come in and go out.
        narrow: Values in between.
        scale: What the result is multiplied by.
        nonlinearity: ``relu`` or ``gelu``.
        device: Where its weights live.
    """

    def __init__(
        self, width: int, narrow: int, scale: float, nonlinearity: str, device: Any
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, narrow, device=device)
        self.bend = nn.ReLU() if nonlinearity == "relu" else nn.GELU()
        self.up = nn.Linear(narrow, width, device=device)
        self.scale = scale
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Return what is to be added, of the shape of ``states`` ``[..., width]``."""
        added: Tensor = self.up(self.bend(self.down(states))) * self.scale
        return added


def add_behind(layer: nn.Module, width: int, narrow: int, scale: float, nonlinearity: str) -> None:
    """Let a layer's output pass through an added module, beside a direct way."""
    device = next(layer.parameters()).device
    layer.add_module("bottleneck", Narrow(width, narrow, scale, nonlinearity, device))
    layer.register_forward_hook(_through)


def add_beside(
    start: nn.Module, end: Any, width: int, narrow: int, scale: float, nonlinearity: str
) -> None:
    """Let what enters one layer pass through an added module to the output of a later one."""
    device = next(end.parameters()).device
    end.add_module("bottleneck", Narrow(width, narrow, scale, nonlinearity, device))
    # In a list, so that the start does not become a part of the end.
    end.potstill_start = [start]
    start.register_forward_pre_hook(_keep)
    end.register_forward_hook(_join)


def _through(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    added: Tensor = layer.bottleneck(output)  # type: ignore[operator]
    return output + added


def _keep(start: Any, inputs: tuple[Tensor, ...]) -> None:
    start.potstill_seen = inputs[0]


def _join(end: Any, inputs: Any, output: Tensor) -> Tensor:
    start = end.potstill_start[0]
    seen = start.potstill_seen
    start.potstill_seen = None
    added: Tensor = end.bottleneck(seen)
    return output + added
