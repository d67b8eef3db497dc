"""One training loop for teacher and student, on transformers' Trainer.

Batches are bucketed by length in an order that depends on seed and epoch alone, so that a training
that was cut off and resumed meets the rows that an unbroken one meets. What a checkpoint holds is
said in `adapters.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from adapters.hardware import Hardware
from adapters.strategy import Strategy
from adapters.strategy_methods import callbacks_of, groups_of, penalty_of
from adapters.training import PartTrainer, last_checkpoint
from distill.learner import Learner
from distill.windows import Windows, answers
from recipes.callbacks import Clock, Patience, Progress, Speed, watchers
from recipes.imbalance import label_loss, say_measures
from recipes.long_text import Drawn
from recipes.problems import Problem
from recipes.problems.classes import Classes
from recipes.problems.metrics import higher_is_better
from recipes.recipe import Resample, TrainSettings
from recipes.sampling import LengthBuckets, epoch_tokens
from recipes.workspace import Workspace

#: After which share of a training without validation it is saved, again and again.
_SAVED_SHARE = 0.1

Example = Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """What a training has to tell.

    Attributes:
        history: What was logged, one entry a point: ``epoch`` with ``loss`` or ``eval_…`` metrics.
        tokens_per_second: Training tokens a second, padding and evaluation not counted; 0 if
            everything had been learnt before.
        peak_memory_bytes: The most memory that the process, or the GPU, has held in training.
    """

    history: list[dict[str, float]]
    tokens_per_second: float
    peak_memory_bytes: int


class Classifier(nn.Module):
    """A classifier with the loss of its problem, as the training loop wants it.

    Args:
        model: Answers inputs with ``logits``.
        problem: Has the loss.
        penalty: Returns what a strategy adds to the loss of a step, or None.
        absent: Classes that take no part in the loss.
        loss: What is minimized instead of the problem's own loss, from
            `recipes.imbalance.label_loss`.
    """

    accepts_loss_kwargs = False

    def __init__(
        self,
        model: nn.Module,
        problem: Problem,
        penalty: Callable[[nn.Module], Tensor | None] | None = None,
        absent: Sequence[int] = (),
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._loss = loss or problem.loss
        self._penalty = penalty
        self._absent = list(absent)

    def forward(
        self,
        labels: Tensor,
        texts: Sequence[str] | None = None,
        windows: Windows | None = None,
        **inputs: Tensor,
    ) -> dict[str, Tensor]:
        """Return ``loss`` and ``logits`` of a batch's texts; what they say is not looked at.

        Args:
            labels: What each text says, in the form of the problem.
            texts: The batch's texts.
            windows: Which rows of the inputs are of which text; None if each text is one row.
            **inputs: The model's inputs, ``[rows, length]`` each.
        """
        logits = answers(self.model, inputs, windows)
        counted = logits
        # An evaluation, which needs no gradient, asks about all classes.
        if self._absent and torch.is_grad_enabled():
            places = torch.tensor(self._absent, device=logits.device)
            counted = logits.index_fill(1, places, torch.finfo(logits.dtype).min)
        loss = self._loss(counted, labels)
        added = self._penalty(self.model) if self._penalty and self.training else None
        return {"loss": loss if added is None else loss + added, "logits": logits}


def fit(
    module: nn.Module,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    title: str,
    folder: Path,
    settings: TrainSettings,
    problem: Problem,
    collate: Callable[[Sequence[Example]], dict[str, Any]],
    hardware: Hardware,
    allow_fallback: bool,
    seed: int,
    strategy: Strategy | None = None,
    sampler: Sampler[int] | None = None,
) -> Trained:
    """Train a module and leave it with the weights of its best epoch.

    Args:
        module: Answers a collated batch with ``loss`` and ``logits``; see `Classifier`.
        train: Examples to learn from.
        validation: Examples that pick the best epoch; none to keep the last.
        title: What progress lines call this training.
        folder: Where checkpoints go. If it holds some, training goes on from the last whole one.
        settings: Epochs, rates and so on.
        problem: Has the metrics.
        collate: Makes a batch of examples.
        hardware: The machine.
        allow_fallback: Whether bfloat16 may be left out where the machine lacks it.
        seed: Seed of order and dropout.
        strategy: Whose learning rates and callbacks are used for ``module.model``, if it has any.
        sampler: The order of the examples; None for `LengthBuckets`.
    """
    precision = hardware.bf16_for(settings.precision, allow_fallback)
    classes = problem.classes([row["labels"] for row in train]) if settings.resample else None
    speed = Speed(epoch_tokens(train, classes, settings.resample), hardware.device)
    train = Drawn(train, seed)
    metric = settings.metric or problem.headline
    callbacks: list[TrainerCallback] = [Progress(title, metric), speed]
    callbacks += [found for watch in watchers if (found := watch(title, metric))]
    if isinstance(module, Learner):
        callbacks.append(Clock(module))
    if settings.patience is not None and validation:
        callbacks.append(Patience(settings.patience, since=_last_begin(module)))
    inner: Any = getattr(module, "model", module)
    switches = callbacks_of(strategy, inner) if strategy is not None else ()
    arguments = _arguments(folder, settings, hardware, precision, seed, len(train), metric)
    if not validation:
        arguments.eval_strategy, arguments.load_best_model_at_end = IntervalStrategy.NO, False
        # Nothing is waited for at the end of an epoch, and one may be long.
        arguments.save_strategy, arguments.save_steps = SaveStrategy.STEPS, _SAVED_SHARE
    # What is switched off for a while leaves weights without a gradient.
    arguments.ddp_find_unused_parameters = bool(switches) or _comes_and_goes(module)
    trainer = _Trainer(
        model=module,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collate,
        compute_metrics=lambda answer: problem.metrics(answer.predictions, answer.label_ids),
        callbacks=callbacks,
        strategy_callbacks=switches,
        groups=None if strategy is None else partial(groups_of, strategy, inner),
        classes=classes,
        resample=settings.resample,
        sampler=sampler,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(folder, arguments.world_size)
    if checkpoint is None or not trainer.take_up_stopped(Path(checkpoint)):
        trainer.train(resume_from_checkpoint=checkpoint)
    history = [
        {key: value for key, value in entry.items() if key != "step"}
        for entry in trainer.state.log_history
        if "loss" in entry or f"eval_{metric}" in entry
    ]
    return Trained(history, speed.tokens_per_second(), speed.peak_memory_bytes)


def fit_adapter(
    work: Workspace,
    model: nn.Module,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    title: str,
    folder: Path,
    memory: Mapping[str, Tensor] | None = None,
    absent: Sequence[int] = (),
    known: Sequence[str] | None = None,
) -> Trained:
    """Train a prepared backbone as the recipe says, and leave it with its best epoch.

    Args:
        work: The run.
        model: From `adapters.strategy.prepare`, by the recipe's strategy.
        train: Examples to learn from.
        validation: Examples that pick the best epoch.
        title: What progress lines call this training.
        folder: Where it keeps its checkpoints, in a folder of that name.
        memory: What the strategy remembers of earlier tasks.
        absent: Classes that take no part in the loss.
        known: The first of the data's labels only, as long as the model has no others.
    """
    recipe = work.recipe
    problem = work.problem if known is None else type(work.problem)(known)
    labels = [row["labels"] for row in train]
    say_measures(problem, recipe.train, labels)
    penalty = None
    if type(work.strategy).penalty is not Strategy.penalty:
        kept = {name: t.to(work.hardware.device) for name, t in (memory or {}).items()}
        penalty = partial(_penalty, work.strategy, kept)
    return fit(
        Classifier(model, problem, penalty, absent, label_loss(problem, recipe.train, labels)),
        train,
        validation,
        title=title,
        folder=folder / "checkpoints",
        settings=recipe.train,
        problem=problem,
        collate=work.task.collator(work.tokenizer),
        hardware=work.hardware,
        allow_fallback=recipe.allow_fallback,
        seed=recipe.seed,
        strategy=work.strategy,
    )


def _arguments(
    folder: Path,
    settings: TrainSettings,
    hardware: Hardware,
    bf16: bool,
    seed: int,
    steps: int,
    metric: str,
) -> TrainingArguments:
    """Return the Trainer's settings."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=bf16,
        use_cpu=hardware.device == "cpu",
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{metric}",
        greater_is_better=higher_is_better(metric),
        restore_callback_states_from_checkpoint=True,
        logging_strategy="steps",
        logging_steps=max(1, steps // settings.batch_size // 10),
        label_names=["labels"],
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=hardware.device == "cuda",
        disable_tqdm=True,
        log_level_replica="error",  # which Trainer sets for all of transformers, for good
        report_to=[],
    )


def set_dropout(model: nn.Module, probability: float | None) -> None:
    """Set the probability of every dropout layer; None leaves the model as it is.

    Args:
        model: A model before a strategy adds layers of its own.
        probability: From `TrainSettings.dropout`.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout) and probability is not None:
            module.p = probability


def _penalty(strategy: Strategy, memory: Mapping[str, Tensor], model: nn.Module) -> Tensor | None:
    return penalty_of(strategy, model, memory)


class _Trainer(PartTrainer):
    """The Trainer, with batches bucketed by length and classes drawn as the recipe says.

    Args:
        classes: Class of each row; only for `resample`.
        resample: How often classes are drawn.
        sampler: Another order, if one is given.
        **named: The Trainer's own arguments.
    """

    def __init__(
        self,
        *,
        classes: Classes | None,
        resample: Resample | None,
        sampler: Sampler[int] | None,
        **named: Any,
    ) -> None:
        super().__init__(**named)
        self._classes = classes
        self._resample = resample
        self._sampler = sampler

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        if self._sampler is not None:
            return self._sampler
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        return LengthBuckets(
            rows.lengths,
            self.args.train_batch_size,
            self.args.seed,
            self._classes,
            self._resample,
            rows,
        )


def _comes_and_goes(module: nn.Module) -> bool:
    """Tell whether a term of the loss counts for a part of the training only."""
    terms = module.objectives if isinstance(module, Learner) else ()
    return any(term.since > 0 or term.until < 1 for term in terms)


def _last_begin(module: nn.Module) -> float:
    """Return the share of the training after which every term of the loss has begun."""
    terms = module.objectives if isinstance(module, Learner) else ()
    return max((term.since for term in terms), default=0.0)
