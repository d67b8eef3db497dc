"""transformers' Trainer for models of which only a part learns.

A training that was cut off and resumed ends where an unbroken one ends. For that, two things
differ from the Trainer as it comes. A checkpoint holds only what learns, by name, so that it is
small and means the same for every strategy. And a checkpoint counts only once it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState

from adapters.strategy import copy_state

WEIGHTS = "learned.safetensors"
_CALLBACKS = "callbacks.pt"

#: From the recipe's learning rate to groups of parameters; see
#: `adapters.strategy_methods.groups_of`.
Groups = Callable[[float], list[dict[str, Any]] | None]


class PartTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """The Trainer, with checkpoints of what learns, and a strategy's groups and callbacks.

    Args:
        model: What is trained; the parameters with ``requires_grad`` are those that learn, even if
            a callback switches some of them off for a while.
        groups: Learning rates of the strategy's own.
        strategy_callbacks: From `Strategy.callbacks`; what they have in ``state_dict()`` travels in
            the checkpoints.
        **arguments: As for the Trainer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        groups: Groups | None = None,
        strategy_callbacks: Sequence[TrainerCallback] = (),
        **arguments: Any,
    ) -> None:
        callbacks = [*strategy_callbacks, *arguments.pop("callbacks", ())]
        super().__init__(model=model, callbacks=callbacks, **arguments)
        self._learns = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._groups = groups
        self._stateful = [c for c in strategy_callbacks if hasattr(c, "state_dict")]

    def train(self, *arguments: Any, **named: Any) -> Any:
        """Train, and leave switched on afterwards what was switched on before."""
        try:
            return super().train(*arguments, **named)
        finally:
            for weight in self._learns.values():
                weight.requires_grad_(True)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Build the optimizer, with the strategy's groups if it has any."""
        groups = self._groups(self.args.learning_rate) if self._groups is not None else None
        if groups is None:
            default: torch.optim.Optimizer = super().create_optimizer(model)
            return default
        names = {id(weight): name for name, weight in self._learns.items()}
        decayed = set(self.get_decay_parameter_names(self.model))
        parts: list[dict[str, Any]] = []
        for group in groups:
            for decays in (True, False):
                chosen = [w for w in group["params"] if (names.get(id(w)) in decayed) == decays]
                decay = self.args.weight_decay if decays else 0.0
                if chosen:
                    parts.append({"weight_decay": decay, **group, "params": chosen})
        optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        optimizer: torch.optim.Optimizer = optimizer_class(parts, **arguments)
        self.optimizer = optimizer
        return optimizer

    def take_up_stopped(self, checkpoint: Path) -> bool:
        """Load the best epoch if the training of a checkpoint had stopped early.

        The Trainer forgets at its start that a restored training was over, and would go on.
        """
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
        if not control.get("should_training_stop"):
            return False
        self.state = state
        # The run's folder may have been moved since.
        state.best_model_checkpoint = str(
            checkpoint.parent / Path(str(state.best_model_checkpoint)).name
        )
        self._load_best_model()
        return True

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from safetensors.torch import save_file

        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: weight.detach().contiguous() for name, weight in self._learns.items()}
        if self._stateful:
            torch.save([c.state_dict() for c in self._stateful], folder / _CALLBACKS)
        save_file(state, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_learned(resume_from_checkpoint)
        if self._stateful:
            file = Path(resume_from_checkpoint) / _CALLBACKS
            states = torch.load(file, weights_only=True, map_location=self.args.device)
            for callback, state in zip(self._stateful, states, strict=True):
                callback.load_state_dict(state)

    def _load_best_model(self) -> None:
        self._load_learned(self.state.best_model_checkpoint)

    def _load_learned(self, folder: str) -> None:
        from safetensors.torch import load_file

        copy_state(self._learns, load_file(Path(folder) / WEIGHTS))


def last_checkpoint(folder: Path, processes: int = 1) -> str | None:
    """Return the newest checkpoint that was written to its end; None if there is none.

    The Trainer writes ``trainer_state.json`` last; a process that died on the way leaves a
    checkpoint without it, or with half of it. One whose best epoch is gone does not count either.
    """
    rng = ["rng_state.pth"] if processes == 1 else [f"rng_state_{i}.pth" for i in range(processes)]
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in reversed(found):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        best = folder / Path(state.get("best_model_checkpoint") or path).name / WEIGHTS
        if best.exists() and all(
            (path / name).exists() for name in [WEIGHTS, "optimizer.pt", *rng]
        ):
            return str(path)
    return None
