"""Strategies around another strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapters.builtin.low_rank import Lora
from adapters.strategy import AnyStrategy, Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, TrainerCallback


def remembers(strategy: Strategy) -> bool:
    """Tell whether a strategy does anything from one task to the next."""
    own = type(strategy)
    if own.between_tasks not in (Strategy.between_tasks, Wrapping.between_tasks):
        return True
    if own.rehearse not in (Strategy.rehearse, Wrapping.rehearse):
        return True
    return isinstance(strategy, Wrapping) and remembers(strategy.base)


class Wrapping(Strategy):
    """Does what `base` does; a subclass changes a part of it.

    Attributes:
        base: The strategy inside.
    """

    base: AnyStrategy = Lora()

    @property
    def needs_float_weights(self) -> bool:  # type: ignore[override]
        """Whether the strategy inside needs a backbone that is not quantized."""
        return self.base.needs_float_weights

    @property
    def trains_head_only(self) -> bool:  # type: ignore[override]
        """Whether the strategy inside trains nothing but the head."""
        return self.base.trains_head_only

    @property
    def adds_layers(self) -> bool:  # type: ignore[override]
        """Whether the strategy inside leaves layers in the model."""
        return self.base.adds_layers

    @property
    def fresh_for_each_task(self) -> bool:  # type: ignore[override]
        """Whether the strategy inside starts each task with fresh weights."""
        return self.base.fresh_for_each_task

    @property
    def isolates_tasks(self) -> bool:  # type: ignore[override]
        """Whether the strategy inside leaves absent classes out of a task's loss."""
        return self.base.isolates_tasks

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Prepare as the strategy inside does."""
        return self.base.prepare(model)

    def finish(self, model: nn.Module) -> PreTrainedModel:
        """Finish as the strategy inside does."""
        return self.base.finish(model)

    def parameter_groups(
        self, model: nn.Module, learning_rate: float
    ) -> list[dict[str, Any]] | None:
        """Return the groups of the strategy inside."""
        return self.base.parameter_groups(model, learning_rate)

    def callbacks(self, model: nn.Module) -> Sequence[TrainerCallback]:
        """Return the callbacks of the strategy inside."""
        return self.base.callbacks(model)

    def penalty(self, model: nn.Module, memory: Mapping[str, Tensor]) -> Tensor | None:
        """Return the penalty of the strategy inside."""
        return self.base.penalty(model, memory)

    def between_tasks(
        self, model: nn.Module, losses: Iterable[Tensor], memory: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what the strategy inside remembers."""
        return self.base.between_tasks(model, losses, memory)

    def recall(self, model: nn.Module, memory: Mapping[str, Tensor]) -> None:
        """Recall as the strategy inside does."""
        self.base.recall(model, memory)

    def rehearse(
        self, past: Sequence[int], new: Sequence[int], total: int, seed: int
    ) -> Sequence[int]:
        """Return the rows that the strategy inside learns again."""
        return self.base.rehearse(past, new, total, seed)
