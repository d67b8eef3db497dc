"""One training loop for teacher and student, on transformers' Trainer.

A run that was cut off and resumed ends where an unbroken one ends. For that, three things differ
from the Trainer as it comes. A checkpoint holds only what learns, by name, so
that it is small and means the same for every strategy. Batches are bucketed by length in an order
that depends on seed and epoch alone. And a checkpoint counts only once it is complete.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from adapters.hardware import Hardware
from adapters.strategy import learned_state, load_learned_state
from recipes.console import say
from recipes.recipe import TrainSettings
from recipes.tasks import Task

#: How many batches are sorted by length together; the more, the less padding and the less chance.
_BUCKET = 50
_WEIGHTS = "learned.safetensors"

Example = Mapping[str, Any]


class Classifier(nn.Module):
    """A classifier with the task's loss, as the training loop wants it.

    Args:
        model: Answers inputs with ``logits``.
        task: Has the loss.
    """

    accepts_loss_kwargs = False

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(
        self, labels: Tensor, texts: Sequence[str] | None = None, **inputs: Tensor
    ) -> dict[str, Tensor]:
        """Return ``loss`` and ``logits`` of a batch; the texts are not looked at."""
        logits = self.model(**inputs).logits
        return {"loss": self._task.loss(logits, labels), "logits": logits}


class LengthBuckets(Sampler[int]):
    """Yields rows so that neighbours are of similar length, in an order fixed by seed and epoch.

    Args:
        lengths: Length of each row, in tokens.
        batch_size: Rows that will be batched together.
        seed: Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield every row once."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        rows = torch.randperm(len(self.lengths), generator=generator).tolist()
        window = self.batch_size * _BUCKET
        batches = []
        for first in range(0, len(rows), window):
            part = sorted(rows[first : first + window], key=self.lengths.__getitem__)
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # The one batch that is not full stays last, so that no other batch is shifted.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [row for batch in batches if len(batch) < self.batch_size for row in batch]
        for place in torch.randperm(len(full), generator=generator).tolist():
            yield from full[place]
        yield from rest


def fit(
    module: nn.Module,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    title: str,
    folder: Path,
    settings: TrainSettings,
    task: Task,
    collate: Callable[[Sequence[Example]], dict[str, Any]],
    hardware: Hardware,
    allow_fallback: bool,
    seed: int,
) -> list[dict[str, float]]:
    """Train a module and leave it with the weights of its best epoch.

    Args:
        module: Answers a collated batch with ``loss`` and ``logits``; see `Classifier`.
        train: Examples to learn from.
        validation: Examples that pick the best epoch.
        title: What progress lines call this training.
        folder: Where checkpoints go. If it holds some, training goes on from the last whole one.
        settings: Epochs, rates and so on.
        task: Has the metrics.
        collate: Makes a batch of examples.
        hardware: The machine.
        allow_fallback: Whether bfloat16 may be left out where the machine lacks it.
        seed: Seed of order and dropout.

    Returns:
        What was logged, one entry a point: ``epoch`` with ``loss`` or with ``eval_…`` metrics.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=hardware.bf16_for(settings.precision, allow_fallback),
        use_cpu=hardware.device == "cpu",
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{settings.metric}",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        logging_strategy="steps",
        logging_steps=max(1, len(train) // settings.batch_size // 10),
        label_names=["labels"],
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=hardware.device == "cuda",
        disable_tqdm=True,
        report_to=[],
    )
    callbacks: list[TrainerCallback] = [_Progress(title, settings.metric)]
    if settings.patience is not None:
        callbacks.append(EarlyStoppingCallback(settings.patience))
    trainer = _Trainer(
        model=module,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collate,
        compute_metrics=lambda answer: task.metrics(answer.predictions, answer.label_ids),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(folder, arguments.world_size)
    if checkpoint is None or not trainer.take_up_stopped(Path(checkpoint)):
        trainer.train(resume_from_checkpoint=checkpoint)
    return [
        {key: value for key, value in entry.items() if key != "step"}
        for entry in trainer.state.log_history
        if "loss" in entry or f"eval_{settings.metric}" in entry
    ]


def set_dropout(model: nn.Module, probability: float | None) -> None:
    """Set the probability of every dropout layer; None leaves the model as it is.

    Args:
        model: A model before a strategy adds layers of its own.
        probability: From `TrainSettings.dropout`.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout) and probability is not None:
            module.p = probability


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
        best = folder / Path(state.get("best_model_checkpoint") or path).name / _WEIGHTS
        if best.exists() and all(
            (path / name).exists() for name in [_WEIGHTS, "optimizer.pt", *rng]
        ):
            return str(path)
    return None


class _Trainer(Trainer):  # type: ignore[misc, unused-ignore]
    """The Trainer, with checkpoints of what learns and batches bucketed by length."""

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

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBuckets:
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(row["input_ids"]) for row in rows]
        return LengthBuckets(lengths, self.args.train_batch_size, self.args.seed)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from safetensors.torch import save_file

        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: t.contiguous() for name, t in learned_state(self.model).items()}
        save_file(state, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_learned(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_learned(self.state.best_model_checkpoint)

    def _load_learned(self, folder: str) -> None:
        from safetensors.torch import load_file

        load_learned_state(self.model, load_file(Path(folder) / _WEIGHTS))


class _Progress(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """A bar on a terminal, and one line an epoch anywhere."""

    def __init__(self, title: str, metric: str) -> None:
        self.title = title
        self.metric = metric
        self.bar: Any = None
        self.loss = float("nan")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc=self.title,
                unit="step",
                disable=None,
                leave=False,
                file=sys.stderr,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        value = metrics[f"eval_{self.metric}"]
        say(
            f"  {self.title}: epoch {state.epoch:.0f} of {args.num_train_epochs:.0f}, "
            f"loss {self.loss:.3f}, validation {self.metric} {value:.4f}"
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()
