"""Full fine-tuning that does not start everywhere at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field

from adapters.backbone import depths, in_head
from adapters.builtin.weights import Full
from adapters.strategy import strategies

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, TrainerCallback


@strategies.register("gradual_unfreezing")
class GradualUnfreezing(Full):
    """Full fine-tuning from the head down: one more layer learns after each interval.

    Attributes:
        every: Length of the interval, in `unit`; the embeddings come last. Null for what lets
            everything learn in the second half of the training.
        unit: Epochs (parts of one too) or optimizer steps.
    """

    paper: ClassVar[str] = "Howard and Ruder, 2018, arXiv:1801.06146"

    every: Annotated[float, Field(gt=0)] | None = None
    unit: Literal["epoch", "step"] = "epoch"

    def callbacks(self, model: nn.Module) -> Sequence[TrainerCallback]:
        """Return what opens one layer after the other."""
        depth = depths(cast("PreTrainedModel", model))
        top = max(depth.values())

        def learns(name: str, state: Any) -> bool:
            if self.every is None:
                opened = 2 * top * state.global_step / state.max_steps
            else:
                passed = state.global_step if self.unit == "step" else state.epoch or 0.0
                opened = passed / self.every
            # Rounded: epochs are sums of fractions.
            return depth[name] >= top - int(round(opened, 6))

        return [_switch(model, learns)]


@strategies.register("probe_then_full")
class ProbeThenFull(Full):
    """First the head alone, then everything (LP-FT), so that a random head spoils nothing.

    Attributes:
        probe: Share of the steps in which only the head learns.
    """

    paper: ClassVar[str] = "Kumar et al., 2022, arXiv:2202.10054"

    probe: float = Field(default=0.3, gt=0, lt=1)

    def callbacks(self, model: nn.Module) -> Sequence[TrainerCallback]:
        """Return what opens the encoder once the head has learnt."""
        plain = cast("PreTrainedModel", model)

        def learns(name: str, state: Any) -> bool:
            return in_head(plain, name) or state.global_step >= self.probe * state.max_steps

        return [_switch(model, learns)]


def _switch(model: nn.Module, learns: Callable[[str, Any], bool]) -> TrainerCallback:
    """Return a callback that asks before each step which parameters learn in it."""
    from transformers import TrainerCallback

    class Switch(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for name, weight in model.named_parameters():
                weight.requires_grad_(learns(name, state))

    return Switch()
