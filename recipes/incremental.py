"""Learning phase after phase, and what is forgotten on the way."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.files import FACTS, continue_adapter, load_adapter, read_memory, save_adapter
from adapters.strategy import prepare
from adapters.strategy_methods import memory_after, rows_again
from recipes.console import is_main, say
from recipes.distributed import wait
from recipes.proof import answer_splits, count, learning
from recipes.tasks import Split
from recipes.training import Classifier, Trained, fit_adapter, set_dropout
from recipes.workspace import SPLITS, Workspace, torch_call

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

#: Before the first phase: the model that has learnt nothing.
_UNTRAINED = "phase-0"


def learn_phases(work: Workspace) -> tuple[nn.Module, Mapping[str, Tensor], Trained]:
    """Let the recipe's strategy learn each phase on the model that the one before has left.

    A phase sees its own rows and what the strategy rehearses. The best epoch of each is picked on
    the validation rows of all phases so far: the measuring stick is kept, whatever is forgotten.
    Rows whose label comes later are left out; no epoch could get them right.

    Returns:
        The model after the last phase, what its strategy remembers, and the last training.
    """
    names = work.rows.phases
    trained = Trained([], 0.0, 0)
    for phase, name in enumerate(names):
        folder = _folder(work, phase)
        if not (folder / FACTS).exists():
            say(f"  phase {phase + 1} of {len(names)}: {name}")
            trained = _learn_phase(work, phase)
        if is_main():  # also those of a run that was killed while it removed them
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        wait()
    last = _folder(work, len(names) - 1)
    backbone = work.load(work.quantization)
    model = load_adapter(last, backbone, work.strategy, work.rows.labels)
    return model, read_memory(last), replace(trained, history=_history(work))


def _history(work: Workspace) -> list[dict[str, float]]:
    """Return the curves of all phases, one after the other."""
    curves = (work.history(f"phase-{phase + 1}") for phase in range(len(work.rows.phases)))
    return [
        {**entry, "epoch": entry["epoch"] + phase * work.recipe.train.epochs}
        for phase, curve in enumerate(curves)
        for entry in curve
    ]


def _learn_phase(work: Workspace, phase: int) -> Trained:
    strategy, folder = work.strategy, _folder(work, phase)
    labels = known_labels(work, phase)
    memory: Mapping[str, Tensor] = {}
    if phase:
        memory = _remember(work, phase - 1)
    backbone = work.load(work.quantization, labels=labels)
    set_dropout(backbone, work.recipe.train.dropout)
    if phase:
        model = continue_adapter(_folder(work, phase - 1), backbone, strategy, memory)
    else:
        model = prepare(backbone, strategy)
        _keep_answers(work, _UNTRAINED, model)
    again = rehearsed(work, phase)
    rows = [row for row, at in enumerate(work.rows.train.phases) if at == phase]
    say(
        f"  {len(rows):,} rows and {len(again):,} of earlier phases ({len(set(again)):,} kept); "
        f"{learning(model):,} of {count(model):,} weights learn"
    )
    train, validation = (work.examples(split, work.tokenizer) for split in ("train", "validation"))
    trained = fit_adapter(
        work,
        model,
        [train[row] for row in (*rows, *again)],
        [
            row
            for row, at in zip(validation, work.rows.validation.phases, strict=True)
            if at <= phase and row["labels"] < len(labels)
        ],
        title=f"phase {phase + 1}",
        folder=folder,
        memory=memory,
        absent=_absent(work, labels, (*rows, *again)) if strategy.isolates_tasks else (),
        known=labels,
    )
    if is_main():
        _keep_answers(work, f"phase-{phase + 1}", model)
        work.save_history(f"phase-{phase + 1}", trained.history)
        save_adapter(folder, model, strategy, labels, memory)
    return trained


def _absent(work: Workspace, labels: Sequence[str], rows: Sequence[int]) -> Sequence[int]:
    """Return the ids of known labels that none of some training rows has.

    None are where all rows have one label: apart from the others there is nothing to learn of it.
    """
    present = {work.rows.train.labels[row] for row in rows}
    if len(present) == 1:
        return []
    return [label for label in range(len(labels)) if label not in present]


def _remember(work: Workspace, phase: int) -> Mapping[str, Tensor]:
    """Return what the strategy remembers after a phase."""
    folder, labels = _folder(work, phase), known_labels(work, phase)
    backbone = work.load(work.quantization, labels=labels)
    model = load_adapter(folder, backbone, work.strategy, labels)
    losses = _losses(work, model, phase)
    return memory_after(work.strategy, model, losses, read_memory(folder))


def _losses(work: Workspace, model: nn.Module, phase: int) -> Iterator[Tensor]:
    """Yield the losses of a phase's rows, one by one, in a random order."""
    rows = [row for row, at in enumerate(work.rows.train.phases) if at == phase]
    random.Random(work.recipe.seed).shuffle(rows)
    examples = work.examples("train", work.tokenizer)
    collate = work.task.collator(work.tokenizer)
    labels = known_labels(work, phase)
    absent = _absent(work, labels, rows) if work.strategy.isolates_tasks else ()
    module = Classifier(model, work.problem, absent=absent).eval()
    device = next(model.parameters()).device
    for row in rows:
        batch = collate([examples[row]])
        batch = {k: v.to(device) if hasattr(v, "to") else v for k, v in batch.items()}
        yield module(**batch)["loss"]


def rehearsed(work: Workspace, phase: int) -> Sequence[int]:
    """Return which training rows of earlier phases the strategy learns again in a phase."""
    split: Split = work.rows.train
    # Phase by phase: a row has the same place in every later phase, so that a strategy which draws
    # a number for each place keeps rows that it has kept, and never looks back for others.
    past = sorted(
        (row for row, at in enumerate(split.phases) if at < phase), key=split.phases.__getitem__
    )
    new = [split.labels[row] for row, at in enumerate(split.phases) if at == phase]
    old = [split.labels[row] for row in past]
    chosen = rows_again(work.strategy, old, new, len(split), work.recipe.seed)
    return [past[place] for place in chosen]


def known_labels(work: Workspace, phase: int) -> Sequence[str]:
    """Return the labels that are known once a phase has been learnt."""
    split: Split = work.rows.train
    seen = (label for label, at in zip(split.labels, split.phases, strict=True) if at <= phase)
    return work.rows.labels[: 1 + max(seen)]


def phase_scores(work: Workspace) -> dict[str, Any]:
    """Return the forgetting matrix and what follows from it, for the ledger.

    Entry ``[i][j]`` of a matrix is the accuracy on the rows of phase ``j`` after phase ``i``; a row
    whose label is not known yet counts as wrong. Average accuracy and forgetting are those of
    Chaudhry et al., 2018 (arXiv:1801.10112), forward transfer that of Lopez-Paz and Ranzato, 2017
    (arXiv:1706.08840): the accuracy on a phase right before it is learnt, over that of a model that
    has learnt nothing. It is defined for phases without new labels only, and null if there is none.
    ``rehearsed_rows`` is how many rows of earlier phases were kept at once, at most; ``labels`` are
    those known after each phase.
    """
    phases = range(len(work.rows.phases))
    last = phases[-1]
    rows = [work.logits(f"phase-{phase + 1}") for phase in phases]
    matrix, on_validation = (
        [_accuracies(work, split, answers[split]) for answers in rows] for split in reversed(SPLITS)
    )
    untrained = _accuracies(work, "test", work.logits(_UNTRAINED)["test"])
    ready = [j for j in phases[1:] if _all_known(work, j)]
    gains = [matrix[j - 1][j] - untrained[j] for j in ready]
    lost = [max(matrix[i][j] for i in range(j, last)) - matrix[last][j] for j in range(last)]
    return {
        "names": list(work.rows.phases),
        "matrix": matrix,
        "validation_matrix": on_validation,
        "average_accuracy": _mean(matrix[last]),
        "validation_average_accuracy": _mean(on_validation[last]),
        "forgetting": _mean(lost),
        "forward_transfer": _mean(gains) if gains else None,
        "rehearsed_rows": max(len(set(rehearsed(work, phase))) for phase in phases),
        "labels": [list(known_labels(work, phase)) for phase in phases],
    }


def joint_phases(work: Workspace, logits: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the accuracies on each phase of a model that has learnt all of them at once."""
    scores = {split: _accuracies(work, split, logits[split]) for split in SPLITS}
    return {
        "names": list(work.rows.phases),
        "matrix": [scores["test"]],
        "validation_matrix": [scores["validation"]],
        "average_accuracy": _mean(scores["test"]),
        "validation_average_accuracy": _mean(scores["validation"]),
    }


def _accuracies(work: Workspace, split: str, logits: np.ndarray) -> list[float]:
    import numpy as np

    rows: Split = getattr(work.rows, split)
    right, phases = logits.argmax(1) == np.asarray(rows.labels), np.asarray(rows.phases)
    return [float(right[phases == phase].mean()) for phase in range(len(work.rows.phases))]


def _all_known(work: Workspace, phase: int) -> bool:
    """Tell whether every label of a phase was known before it."""
    known = len(known_labels(work, phase - 1))
    split: Split = work.rows.test
    return all(
        label < known for label, at in zip(split.labels, split.phases, strict=True) if at == phase
    )


def _keep_answers(work: Workspace, name: str, model: nn.Module) -> None:
    if is_main():
        work.save_logits(name, answer_splits(work, torch_call(model), work.tokenizer))


def _folder(work: Workspace, phase: int) -> Path:
    return work.folder / "teacher" / f"phase-{phase + 1}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
