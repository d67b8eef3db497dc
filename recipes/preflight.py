"""Everything that can be known to be impossible before a minute is spent on it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.errors import AdapterError
from adapters.strategy import Strategy, called, finish, prepare
from adapters.strategy_methods import check_signatures, groups_of, penalty_of
from distill.objective import Objective, Pair, asked, call, check_declared
from distill.signals import Signals, Wants
from distill.taps import ask
from recipes.decide import check_decide
from recipes.errors import RecipeError
from recipes.imbalance import called_here, check_measures
from recipes.several_students import STUDENT, students
from recipes.students import Start, make, trimmed
from recipes.tasks import Split
from recipes.texts import check_texts
from recipes.workspace import Workspace, torch_call

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

#: On how many rows strategies and objectives are tried, and how far logits may be apart after a
#: strategy's `finish`, against the largest of them or 1. A fold that is right is off by rounding
#: errors only.
_TRIED, _TOLERANCE = 2, 1e-2


def check_possible(work: Workspace) -> Start:
    """Try what later stages will do, on models that have learnt nothing.

    Returns:
        The students, cut from a teacher that knows nothing.

    Raises:
        RecipeError: Data, backbone or student cannot be used as the recipe says.
        AdapterError: The strategy does not fit the backbone.
        DistillError: An objective cannot hold for this teacher and this student.
    """
    # What these modules train with takes seconds to load, and a wrong command is told at once.
    from recipes.contrast import check_contrast
    from recipes.imitation import imitation_pair
    from recipes.long_text import check_pool

    recipe, imitate = work.recipe, work.recipe.distill.imitate
    _ = work.rows, work.max_length
    check_decide(work)
    check_pool(recipe.data.long, work.problem, work.task.pairs)
    for key, settings in recipe.trainings.items():
        work.hardware.bf16_for(settings.precision, recipe.allow_fallback, f"{key}.precision")
    if recipe.strategy is None:
        work.load_taught()
    else:
        if work.quantization != "none":
            prepare(work.load(work.quantization), recipe.strategy)
        _check_finish(work)
    if work.rows.phases:
        from recipes.incremental import rehearsed

        for phase in range(len(work.rows.phases)):
            rehearsed(work, phase)
    check_contrast(work)
    _check_metrics(work)
    check_measures(work)
    for objective in (*recipe.distill.objectives, *(imitate.objectives if imitate else ())):
        check_declared(objective)
    called_here(work.problem, recipe.distill.objectives)
    _check_knowledge(work)
    teacher, labels = work.load(), _few(work, work.rows.train)["labels"]
    starts = {name: _check_student(one, teacher, labels) for name, one in students(work).items()}
    start = starts[STUDENT]
    if imitate is not None:
        pair = imitation_pair(work, start)
        parent = teacher if imitate.parent == "teacher" else work.load(path=start.origin)
        _check_objectives(imitate.objectives, pair, start.student, parent, labels)
    return start


def _check_student(work: Workspace, teacher: PreTrainedModel, labels: Tensor) -> Start:
    """Cut a student from a teacher that knows nothing, and let its objectives look at both."""
    from recipes.teachers import check_signals

    start = make(work, teacher)
    trimmed(work, start, work.rows.train.texts)
    check_signals(work, start.pair)
    _check_objectives(work.recipe.distill.objectives, start.pair, start.student, teacher, labels)
    return start


def _check_objectives(
    objectives: Sequence[Objective],
    pair: Pair,
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    labels: Tensor,
) -> None:
    """Let objectives look at a pair, and let each answer once for texts with these labels.

    Raises:
        DistillError: An objective cannot hold, or a model does not offer what it wants.
        AdapterError: An objective fails.
    """
    import torch

    from distill.learner import Learner

    for objective in objectives:
        call(objective, "parts", pair)
    tokens = torch.ones(len(labels), 4, dtype=torch.long, device=student.device)
    inputs = {"input_ids": tokens, "attention_mask": tokens}
    wants = asked(objectives, pair)[1]
    with torch.no_grad():
        taught = _Answered(ask(teacher, inputs, wants, Signals), wants)
    for objective in objectives:
        learner = Learner(student, [objective], taught, pair).to(student.device).train()
        learner.progress = (objective.since + objective.until) / 2
        learner(labels.to(student.device), **inputs)
    student.eval()


@dataclass(frozen=True)
class _Answered:
    """A teacher that has said all that it will say."""

    signals: Signals
    wants: Wants

    def __call__(self, texts: Any, inputs: Any, windows: Any = None) -> Signals:
        return self.signals


def _check_metrics(work: Workspace) -> None:
    """Look for the metrics that epochs are chosen by among those of the problem.

    Raises:
        RecipeError: One is not there.
    """
    import numpy as np

    rows = work.rows.validation
    blank = np.zeros((len(rows), len(work.rows.labels)), np.float32)
    known = sorted(work.problem.metrics(blank, rows.labels))
    for where, settings in (
        ("train", work.recipe.train),
        ("distill.train", work.recipe.distill.train),
    ):
        if settings.metric is not None and settings.metric not in known:
            near = difflib.get_close_matches(settings.metric, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise RecipeError(
                f"{where}.metric={settings.metric} is no metric of {work.rows.problem} data.{hint} "
                f"Known: {', '.join(known)}."
            )


def _check_knowledge(work: Workspace) -> None:
    """Look at the further texts and teachers that a student learns from."""
    from recipes.folds import drawn
    from recipes.teachers import further_teacher

    settings = work.recipe.distill
    if work.task.pairs and settings.text:
        raise RecipeError(
            "Rows are pairs of texts, and distill.text may hold single ones. Leave it out."
        )
    check_texts(work)
    for name in settings.teachers:
        further_teacher(work, name)
    if settings.folds is not None:
        drawn(work, settings.folds)


def _check_finish(work: Workspace) -> None:
    """Let the strategy prepare and finish the backbone in float, and compare both's answers.

    Raises:
        AdapterError: The strategy does not fit, or what it finishes is not the model it prepared.
    """
    strategy, batch = work.strategy, _few(work, work.rows.validation)
    check_signatures(strategy)
    prepared = prepare(work.load(), strategy)
    groups_of(strategy, prepared, work.recipe.train.learning_rate)
    penalty_of(strategy, prepared, {})
    before = _answer(strategy, prepared, batch)
    after = _answer(strategy, finish(prepared, strategy), batch)
    difference = float(abs(after - before).max())
    if not difference <= _TOLERANCE * max(1.0, float(abs(before).max())):
        raise AdapterError(
            f"{called(strategy)} does not give an equal model back: before anything is learnt, "
            f"finish() changes the logits by {difference:.3g}. Fold all that prepare() put in."
        )


def _few(work: Workspace, rows: Split) -> dict[str, Any]:
    """Return the first rows as a batch."""
    few = Split(rows.texts[:_TRIED], rows.labels[:_TRIED])
    examples = work.task.features(few, work.tokenizer, work.max_length)
    return work.task.collator(work.tokenizer)(examples)


def _answer(strategy: Strategy, model: Any, batch: Mapping[str, Any]) -> np.ndarray:
    try:
        return torch_call(model)(batch)
    except Exception as error:
        raise AdapterError(
            f"{called(strategy)} leaves a model that does not answer: {type(error).__name__}: "
            f"{' '.join(str(error).split())}. Mend it (adapters.testing.check_strategy shows the "
            "whole story), or choose another strategy or backbone."
        ) from error
