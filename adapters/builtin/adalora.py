"""LoRA whose rank is dealt out among the layers while it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from adapters.builtin.peft_base import OverPeft
from adapters.strategy import strategies

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel, TrainerCallback

#: peft wants to know the number of steps before anybody can; the callback puts in the real one.
_UNKNOWN_STEPS = 10**9


@strategies.register("adalora")
class AdaLora(OverPeft):
    """LoRA that moves its rank to the layers that need it, by a budget that shrinks in training.

    The training keeps the best epoch by the recipe's metric; one before the budget has shrunk may
    be it.

    Attributes:
        initial_rank: Rank of every layer at first.
        rank: Mean rank of the layers at the end.
        alpha: The update is scaled by ``alpha / initial_rank``.
        dropout: Probability with which an input of the update is dropped in training.
        warmup: Share of the steps before the budget begins to shrink.
        settled: Share of the steps after it has shrunk.
        orthogonality: Weight of the penalty that keeps the singular vectors orthogonal.
    """

    paper: ClassVar[str] = "Zhang et al., 2023, arXiv:2303.10512"

    initial_rank: int = Field(default=16, ge=1)
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    settled: float = Field(default=0.3, ge=0, lt=1)
    orthogonality: float = Field(default=0.1, ge=0)

    @model_validator(mode="after")
    def _shrinks(self) -> AdaLora:
        if self.rank >= self.initial_rank:
            raise ValueError("rank, the one at the end, has to be smaller than initial_rank")
        if self.warmup + self.settled >= 1:
            raise ValueError("warmup and settled together have to leave steps for shrinking")
        return self

    def config(self, model: PreTrainedModel) -> PeftConfig:
        """Return peft's configuration for this model."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.initial_rank,
            target_r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            total_step=_UNKNOWN_STEPS,
            target_modules=self.layers(model),
        )

    def callbacks(self, model: nn.Module) -> Sequence[TrainerCallback]:
        """Return what shrinks the budget after every step."""
        return [_budget(model, self.warmup, self.settled)]

    def penalty(self, model: nn.Module, memory: Mapping[str, Tensor]) -> Tensor | None:
        """Return how far the singular vectors of all layers are from orthogonal, on average."""
        from torch import eye, linalg, stack

        found = []
        for name, weight in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                product = weight @ weight.T if "lora_A" in name else weight.T @ weight
                found.append(linalg.norm(product - eye(len(product), device=product.device)))
        return self.orthogonality * stack(found).mean()


def _budget(model: Any, warmup: float, settled: float) -> TrainerCallback:
    from transformers import TrainerCallback

    tuner = model.base_model
    config, allocator = tuner.peft_config["default"], tuner.rankallocator

    class Budget(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Tells peft how many steps there are, and lets it deal out the rank after each."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            config.total_step = state.max_steps
            config.tinit = int(warmup * state.max_steps)
            config.tfinal = int(settled * state.max_steps)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            tuner.update_and_allocate(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # The rows that were given up are zeros; the adapter is saved whole.
            config.rank_pattern = None

        def state_dict(self) -> dict[str, Any]:
            return {
                "importance": allocator.exp_avg_ipt,
                "uncertainty": allocator.exp_avg_unc,
                "rank_pattern": config.rank_pattern,
            }

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            allocator.exp_avg_ipt = dict(state["importance"])
            allocator.exp_avg_unc = dict(state["uncertainty"])
            # peft wants to see a latest value of its own for each name it averages.
            allocator.ipt = dict(state["importance"])
            config.rank_pattern = state["rank_pattern"]

    return Budget()
