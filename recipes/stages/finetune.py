"""The backbone learns the task: the teacher."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapters.builtin.wrapping import remembers
from adapters.files import WEIGHTS, load_adapter, save_adapter
from adapters.strategy import prepare, strategies
from recipes.console import is_main, say
from recipes.contrast import KEPT, bring_together
from recipes.incremental import joint_phases, learn_phases, phase_scores
from recipes.ledger import Row
from recipes.proof import answer_splits, check_reload, count, learning, measured, size
from recipes.tasks.wording import counted
from recipes.texts import training_rows
from recipes.training import Trained, fit_adapter, set_dropout
from recipes.workspace import Workspace, torch_call

if TYPE_CHECKING:
    from torch import Tensor, nn


def run(work: Workspace) -> None:
    """Train the strategy on the quantized backbone and write the row ``teacher``.

    Where the data arrive in phases, the strategy learns one after the other; the row ``joint`` is
    the same strategy on all rows at once, which is what the phases are held against.
    """
    if work.recipe.strategy is None:
        _take(work)
        return
    if not work.rows.phases:
        _learn_at_once(work, "teacher")
        return
    _learn_at_once(work, "joint")
    if "teacher" not in work.ledger:
        start = time.perf_counter()
        model, memory, trained = learn_phases(work)
        if is_main():
            _write(work, "teacher", model, memory, trained, start)
    _tidy(work, "teacher")


def _take(work: Workspace) -> None:
    """Write the row of a teacher that has learnt elsewhere."""
    if not is_main():
        return
    model = work.load_taught()
    logits = answer_splits(work, torch_call(model), work.tokenizer)
    work.ledger.put(
        Row(
            stage="finetune",
            name="teacher",
            parameters=count(model),
            size_bytes=size(work.backbone.path),
            threads=work.hardware.threads,
            notes=[
                f"taken as it is from {work.recipe.backbone.model}; if it has learnt from rows "
                "that are validation or test rows here, its figures are too good"
            ],
            **measured(work, "teacher", logits),
        )
    )


def _learn_at_once(work: Workspace, name: str) -> None:
    """Learn all rows together; what was finished before the run was cut off is left alone."""
    if name not in work.ledger:
        start = time.perf_counter()
        backbone = work.load(work.quantization)
        set_dropout(backbone, work.recipe.train.dropout)
        model = prepare(backbone, work.strategy)
        say(f"  {learning(model):,} of {count(model):,} weights learn")
        rows = training_rows(work, work.recipe.train)
        bring_together(work, model, rows, name, work.folder / name)
        trained = fit_adapter(
            work,
            model,
            work.task.features(rows, work.tokenizer, work.max_length),
            work.examples("validation", work.tokenizer),
            title=name,
            folder=work.folder / name,
        )
        if is_main():
            _write(work, name, model, {}, trained, start)
    _tidy(work, name)


def _write(
    work: Workspace,
    name: str,
    model: nn.Module,
    memory: Mapping[str, Tensor],
    trained: Trained,
    start: float,
) -> None:
    """Save an adapter, prove that it reloads, and write its row."""
    folder = work.folder / name
    save_adapter(folder, model, work.strategy, work.rows.labels, memory)
    work.save_history(name, trained.history)
    logits = answer_splits(work, torch_call(model), work.tokenizer)
    fresh = work.load(work.quantization)
    fresh = load_adapter(folder, fresh, work.strategy, work.rows.labels)
    check_reload(work, fresh, work.tokenizer, logits, f"The adapter in {folder}")
    row = Row(
        stage="finetune",
        name=name,
        path=name,
        parameters=count(model),
        size_bytes=size(work.backbone.path, folder / WEIGHTS),
        trainable_parameters=learning(model),
        threads=work.hardware.threads,
        seconds=time.perf_counter() - start,
        tokens_per_second=trained.tokens_per_second,
        peak_memory_bytes=trained.peak_memory_bytes,
        phases=_phases(work, name, logits),
        notes=[*work.missing_capabilities(), *_remarks(work)],
        **measured(work, name, logits),
    )
    work.ledger.put(row)


def _remarks(work: Workspace) -> list[str]:
    """Say what was done before, and so where a strategy for phases has met none."""
    if work.recipe.contrast is not None:
        epochs = counted(work.recipe.contrast.epochs, "epoch")
        return [f"{epochs} of contrast before; the head began as a logistic regression"]
    if remembers(work.strategy) and not work.rows.phases:
        name = strategies.name_of(type(work.strategy))
        return [f"{name} is for data in phases: on all rows at once it had nothing to do"]
    return []


def _phases(work: Workspace, name: str, logits: Mapping[str, Any]) -> dict[str, Any]:
    if not work.rows.phases:
        return {}
    return joint_phases(work, logits) if name == "joint" else phase_scores(work)


def _tidy(work: Workspace, name: str) -> None:
    """Remove checkpoints, also those of a run that was killed while it did so."""
    if is_main():
        for part in ("checkpoints", "contrast"):
            shutil.rmtree(work.folder / name / part, ignore_errors=True)
        (work.folder / name / KEPT).unlink(missing_ok=True)
