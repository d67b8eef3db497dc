"""A subspace of its own for each task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from adapters.builtin.low_rank import Lora
from adapters.strategy import strategies

if TYPE_CHECKING:
    from torch import Tensor, nn

_PAST = "past"


@strategies.register("olora")
class OLora(Lora):
    """LoRA with a new update for each task, kept orthogonal to the frozen ones before it.

    A new update starts orthogonal to them too, from a draw of its own, as long as a layer is wide
    enough for another ``rank`` directions. After that it starts as LoRA does, and nothing but the
    penalty keeps it apart.

    Attributes:
        orthogonality: Weight of the overlap with the subspaces of earlier tasks.
        decay: Weight of the squared size of the update.
        isolate: Leave classes that a task does not have out of its loss.
    """

    paper: ClassVar[str] = "Wang et al., 2023, arXiv:2310.14152"
    fresh_for_each_task: ClassVar[bool] = True

    orthogonality: float = Field(default=0.5, ge=0)
    decay: float = Field(default=0.0, ge=0)
    isolate: bool = True

    @property
    def isolates_tasks(self) -> bool:  # type: ignore[override]
        """Whether absent classes are left out of a task's loss."""
        return self.isolate

    def penalty(self, model: nn.Module, memory: Mapping[str, Tensor]) -> Tensor | None:
        """Return the overlap of this task's updates with earlier ones, summed over layers."""
        from torch import zeros

        if not memory:
            return None
        total = zeros((), device=next(model.parameters()).device)
        for layer in _layers(model).values():
            new, past = layer.lora_A["default"].weight, layer.lora_A[_PAST].weight
            total = total + self.orthogonality * (past @ new.T).abs().sum()
            if self.decay:
                total = total + self.decay * (new**2).sum()
                total = total + self.decay * (layer.lora_B["default"].weight ** 2).sum()
        return total

    def between_tasks(
        self, model: nn.Module, losses: Iterable[Tensor], memory: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the updates of all tasks so far, one below the other."""
        from torch import cat

        kept = {}
        for name, layer in _layers(model).items():
            names = [key for key in (_PAST, "default") if key in layer.lora_A]
            down = [layer.lora_A[key].weight.detach() for key in names]
            up = [layer.lora_B[key].weight.detach() for key in names]
            kept[f"{name}.lora_A"], kept[f"{name}.lora_B"] = cat(down), cat(up, dim=1)
        return kept

    def recall(self, model: Any, memory: Mapping[str, Tensor]) -> None:
        """Add the updates of earlier tasks, frozen, beside the new one."""
        import copy

        rank = next(tensor.shape[0] for name, tensor in memory.items() if name.endswith("lora_A"))
        config = copy.deepcopy(model.peft_config["default"])
        config.r, config.lora_alpha = rank, self.alpha / self.rank * rank
        model.add_adapter(_PAST, config)
        model.base_model.set_adapter(["default", _PAST])
        for name, layer in _layers(model).items():
            for part in (layer.lora_A, layer.lora_B):
                part[_PAST].requires_grad_(False)
            layer.lora_A[_PAST].weight.data.copy_(memory[f"{name}.lora_A"])
            layer.lora_B[_PAST].weight.data.copy_(memory[f"{name}.lora_B"])
            _start_apart(layer.lora_A["default"].weight, layer.lora_A[_PAST].weight)


def _start_apart(new: Tensor, past: Tensor) -> None:
    """Take the part of an update's start that lies where past ones do away from it."""
    import torch

    if len(past) + len(new) > new.shape[1]:
        return  # nothing is left apart from them
    # Every task loads its model with the same seed, and so with the same start; in another order
    # it is as good as another draw.
    generator = torch.Generator().manual_seed(len(past))
    drawn = new.data[:, torch.randperm(new.shape[1], generator=generator)]
    basis = torch.linalg.svd(past.data, full_matrices=False)[2]
    new.data.copy_(drawn - drawn @ basis.T @ basis)


def _layers(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
