"""Learning task after task: without care, with a memory of rows, with a memory of weights."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from adapters.builtin.wrapping import Wrapping
from adapters.errors import AdapterError
from adapters.strategy import Strategy, strategies

if TYPE_CHECKING:
    from torch import Tensor, nn


@strategies.register("naive")
class Naive(Wrapping):
    """Each task goes on where the last one ended, and forgets what it may: the lower bound.

    Attributes:
        base: The strategy that learns each task.
        isolate: Leave classes that a task does not have out of its loss: how much of what the
            others win is due to that alone.
    """

    paper: ClassVar[str] = "McCloskey and Cohen, 1989, doi:10.1016/S0079-7421(08)60536-8"

    isolate: bool = False

    @property
    def isolates_tasks(self) -> bool:  # type: ignore[override]
        """Whether absent classes are left out of a task's loss."""
        return self.isolate


@strategies.register("replay")
class Replay(Wrapping):
    """Some rows of earlier tasks are kept, as many of each class, and learnt again.

    The memory is bounded: of each class it keeps the rows with the smallest of random numbers that
    were drawn once for each row, which needs no look back (reservoir sampling). They are repeated
    until an earlier class is met as often as a new one.

    Attributes:
        base: The strategy that learns each task.
        memory: Rows that are kept, as a share of all training rows.
        repeats: A kept row is met at most so many times an epoch.
    """

    paper: ClassVar[str] = "Chaudhry et al., 2019, arXiv:1902.10486"

    memory: float = Field(default=0.05, gt=0, le=1)
    repeats: int = Field(default=8, ge=1)

    def rehearse(
        self, past: Sequence[int], new: Sequence[int], total: int, seed: int
    ) -> Sequence[int]:
        """Return the kept rows, repeated.

        Raises:
            AdapterError: The memory has not even one row for each class.
        """
        keys = random.Random(seed)
        by_class = defaultdict(list)
        for row, label in enumerate(past):
            by_class[label].append((keys.random(), row))
        if not by_class:
            return ()
        bound = int(self.memory * total)
        share = bound // len(by_class)
        if not share:
            raise AdapterError(
                f"strategy.memory={self.memory:g} of {total:,} training rows is {bound}, less than "
                f"one for each of {len(by_class)} classes. Raise strategy.memory."
            )
        kept = {label: [row for _, row in sorted(rows)[:share]] for label, rows in by_class.items()}
        wanted = len(new) / len(set(new))
        chosen: list[int] = []
        for rows in kept.values():
            times = min(self.repeats, max(1, round(wanted / max(1, len(rows)))))
            chosen += rows * times
        return chosen


@strategies.register("ewc")
class Ewc(Wrapping):
    """Weights that earlier tasks depend on are held near the values they had (diagonal Fisher).

    Attributes:
        base: The strategy that learns each task.
        strength: Weight of the penalty.
        rows: Training rows from which the Fisher information is estimated after each task.
        isolate: Leave classes that a task does not have out of its loss.
    """

    paper: ClassVar[str] = "Kirkpatrick et al., 2017, arXiv:1612.00796"

    strength: float = Field(default=50000.0, gt=0)
    rows: int = Field(default=200, ge=1)
    isolate: bool = True

    @model_validator(mode="after")
    def _only_one_remembers(self) -> Ewc:
        inner: Strategy = self.base
        while isinstance(inner, Wrapping):
            if isinstance(inner, Ewc):
                break
            inner = inner.base
        if type(inner).between_tasks is not Strategy.between_tasks:
            raise ValueError(
                "base keeps a memory of its own between tasks; choose one that does not, such as "
                "lora"
            )
        return self

    @property
    def isolates_tasks(self) -> bool:  # type: ignore[override]
        """Whether absent classes are left out of a task's loss."""
        return self.isolate

    def between_tasks(
        self, model: nn.Module, losses: Iterable[Tensor], memory: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return each weight's value and its importance, summed over all tasks so far."""
        import torch

        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        fisher = {name: torch.zeros_like(p) for name, p in learning.items()}
        counted = 0
        for loss in islice(losses, self.rows):
            for name, slope in zip(
                learning,
                torch.autograd.grad(loss, list(learning.values()), allow_unused=True),
                strict=True,
            ):
                if slope is not None:
                    fisher[name] += slope**2
            counted += 1
        kept = {}
        for name, weight in learning.items():
            importance = fisher[name] / max(1, counted)
            if (before := memory.get(f"importance.{name}")) is not None:
                _first(importance, before).add_(before.to(importance.device))
            kept[f"importance.{name}"] = importance
            kept[f"value.{name}"] = weight.detach().clone()
        return kept

    def penalty(self, model: nn.Module, memory: Mapping[str, Tensor]) -> Tensor | None:
        """Return the squared distance from the remembered values, weighted by importance."""
        terms = [p for p in (self.base.penalty(model, memory),) if p is not None]
        for name, weight in model.named_parameters():
            if weight.requires_grad and (value := memory.get(f"value.{name}")) is not None:
                importance = memory[f"importance.{name}"]
                # A head has grown since: its new rows are free.
                distance = (_first(weight, value) - value) ** 2
                terms.append(0.5 * self.strength * (importance * distance).sum())
        return sum(terms[1:], terms[0]) if terms else None


def _first(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the rows of a tensor that another, shorter one has too."""
    return tensor[: len(like)] if tensor.ndim else tensor
