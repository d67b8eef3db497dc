"""What is done about classes of unequal size: weights, losses, draws, and copies of rare rows."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from distill import objectives
from distill.builtin.prediction import CrossEntropy
from distill.objective import LabelForm, Objective
from distill.signals import Outputs
from recipes.console import say
from recipes.errors import RecipeError
from recipes.problems import Problem, problems
from recipes.problems.classes import UNLABELLED, Classes
from recipes.recipe import Resample, TrainSettings
from recipes.recipe.teaching import OF_LABELS
from recipes.tasks import Split
from recipes.tasks.wording import listed, shown
from recipes.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

#: Of how many labels weights and draws are told one by one.
_TOLD = 12


def check_measures(work: Workspace) -> None:
    """Check what both trainings do about imbalance against the data.

    Raises:
        RecipeError: The rows have no labels, a weight is for a label that is not there, or a
            measure or a field of the loss has no effect.
    """
    for where, settings in _trainings(work):
        asked = [name for name in OF_LABELS if getattr(settings, name) != _default(name)]
        if asked and work.problem.classes(()) is None:
            raise RecipeError(
                f"{where}.{asked[0]} is for rows that have labels, and these are "
                f"{work.rows.problem} data. Leave it out."
            )
        if settings.class_weights == settings.resample == "balanced" and work.problem.exclusive:
            raise RecipeError(
                f"{where}.class_weights=balanced has no effect with {where}.resample=balanced, "
                "which draws all labels alike already. Leave one of them out."
            )
        if isinstance(settings.class_weights, Mapping):
            _check_names(f"{where}.class_weights", list(settings.class_weights), work.rows.labels)
        if settings.loss is not None:
            called_here(work.problem, [settings.loss])


def class_weights(
    problem: Problem, settings: TrainSettings, labels: Sequence[Any]
) -> tuple[float, ...]:
    """Return how much a row with each label counts.

    Where a row has exactly one label, the weights are 1 on the average of the rows that are drawn,
    and ``balanced`` lets all labels weigh the same in sum, as scikit-learn's ``balanced`` does. A
    label without rows weighs 1.

    Where it may have several, a weight is that of the rows that have the label in the question
    whether they have it, in which those that have not count 1 (torch's ``pos_weight``), and
    ``balanced`` lets both weigh the same in sum.

    Args:
        problem: Has the labels that weights are given for, in their order.
        settings: The training.
        labels: What the rows say that are learnt from; those without labels do not count.

    Returns:
        A weight for each label; nothing if none is asked for.
    """
    asked = settings.class_weights
    if asked is None:
        return ()
    given = (
        [asked.get(label, 1.0) for label in problem.labels] if isinstance(asked, Mapping) else []
    )
    if given and not problem.exclusive:
        return tuple(given)
    classes = _classes(problem, labels)
    drawn = shares(classes, settings.resample)
    if not problem.exclusive:
        return _yes_against_no(labels, classes, drawn)
    raw = {label: given[label] if given else 1 / (len(drawn) * drawn[label]) for label in drawn}
    mean = math.fsum(share * raw[label] for label, share in drawn.items())
    return tuple(raw[label] / mean if label in raw else 1.0 for label in range(len(problem.labels)))


def _yes_against_no(
    labels: Sequence[Any], classes: Classes, drawn: Mapping[int, float]
) -> tuple[float, ...]:
    """Return how often each label is not drawn against how often it is; 1 for never or always."""
    import numpy as np

    of = np.asarray(classes.of)
    there = np.asarray(labels)[of != UNLABELLED] == 1
    counts = Counter(classes.of)
    rates = np.array([drawn[label] / counts[label] for label in of[of != UNLABELLED].tolist()])
    share, every = rates @ there, there.all(axis=0)
    sometimes = there.any(axis=0) & ~every
    odds = np.divide(1 - share, share, out=np.ones_like(share), where=sometimes)
    return tuple(odds.tolist())


def label_loss(
    problem: Problem, settings: TrainSettings, labels: Sequence[Any]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a training that learns from labels alone.

    Args:
        problem: Has the loss that is used if the recipe does not ask for another, and says what
            ``ce`` stands for.
        settings: The training.
        labels: What the rows say that are learnt from.

    Returns:
        A function of logits ``[batch, outputs]`` and a batch of labels to a scalar.
    """
    import torch

    weights = class_weights(problem, settings, labels)
    if settings.loss is None and not weights:
        return problem.loss
    (objective,) = called_here(problem, [settings.loss or CrossEntropy()])
    objective = objective.weighted(weights)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        # As in distillation: every number in float32, whatever the model computes in.
        with torch.autocast(logits.device.type, enabled=False):
            return objective.loss(
                Outputs(logits.float()), None, labels, torch.ones_like(labels)[:, None], None
            )

    return loss


def called_here(problem: Problem, given: Sequence[Objective]) -> tuple[Objective, ...]:
    """Return terms of a loss as they are called for a kind of problem.

    Args:
        problem: Says which are called otherwise.
        given: The terms, as the recipe calls them.

    Raises:
        RecipeError: A term is for other labels, or a field of it means nothing in the one that
            takes its place.
    """
    found = []
    form = _form(problem)
    for objective in given:
        name = objectives.name_of(type(objective))
        if form not in objective.takes or name in _substitutes() - {*problem.objectives.values()}:
            raise RecipeError(
                f"The objective {name} is not for {problems.name_of(type(problem))} data, in which "
                f"{_FORMS[form]}. Leave it out, or take ce, which is for all."
            )
        other = problem.objectives.get(name, name)
        if other == name:
            found.append(objective)
            continue
        known = objectives.get(other)
        for key, field in type(objective).model_fields.items():
            if key not in known.model_fields and getattr(objective, key) != field.default:
                raise RecipeError(
                    f"{key} of the objective {name} has no effect here: for "
                    f"{problems.name_of(type(problem))} data {other} takes its place. Leave it out."
                )
        found.append(known(**{key: getattr(objective, key) for key in known.model_fields}))
    return tuple(found)


def label_terms(given: Sequence[Objective]) -> list[Objective]:
    """Return the terms of a student that learns from the labels alone, from begin to end.

    They are those that ask no teacher for anything, or cross-entropy if there are none.
    """
    whole = {"weight": 1.0, "since": 0.0, "until": 1.0, "schedule": "constant"}
    found = [term.model_copy(update=whole) for term in given if not term.needs]
    return found or [CrossEntropy()]


def say_measures(problem: Problem, settings: TrainSettings, labels: Sequence[Any]) -> None:
    """Say how much a row of each class counts, and how many an epoch draws."""
    names = (*problem.labels, "(no label)")
    if len(problem.labels) > _TOLD:
        return
    if weights := class_weights(problem, settings, labels):
        say(f"  class weights: {_by_name(names, dict(enumerate(weights)), '.2f')}")
    if settings.resample is not None:
        found = draws(_classes(problem, labels), settings.resample)
        found.pop(UNLABELLED, None)
        drawn = _by_name(names, found, ",")
        each = "" if problem.exclusive else ", each counted as its rarest label"
        say(f"  rows an epoch{each}: {drawn}")


def shares(classes: Classes, resample: Resample | None) -> dict[int, float]:
    """Return which share of all draws the rows of each class have; unlabelled rows are no class.

    A row is drawn the more often, the fewer rows have the label that its class stands for.

    Args:
        classes: The class of each row.
        resample: How often classes are drawn; None for as often as they have rows.
    """
    power = {None: 0.0, "sqrt": -0.5, "balanced": -1.0}[resample]
    counts = Counter(label for label in classes.of if label != UNLABELLED)
    drawn = {label: count * classes.sizes[label] ** power for label, count in counts.items()}
    return {label: part / sum(drawn.values()) for label, part in drawn.items()}


def draws(classes: Classes, resample: Resample | None) -> dict[int, int]:
    """Return how many rows of each class an epoch draws, as many together as there are.

    Args:
        classes: The class of each row; rows that are `UNLABELLED` keep their number.
        resample: How often classes are drawn; None for as often as they have rows.
    """
    counts = Counter(classes.of)
    total = len(classes.of) - counts[UNLABELLED]
    exact = {label: total * share for label, share in shares(classes, resample).items()}
    found = {label: int(wanted) for label, wanted in exact.items()}
    # The largest remainders are rounded up; of equal ones, those of the first classes.
    short = total - sum(found.values())
    for label in sorted(exact, key=lambda label: (found[label] - exact[label], label))[:short]:
        found[label] += 1
    return {label: found.get(label, count) for label, count in sorted(counts.items()) if count}


def copies_of(problem: Problem, settings: TrainSettings, rows: Split, seed: int) -> Sequence[int]:
    """Return how many new texts are made of each row.

    Rare labels are those with fewer rows than the mean label. They get as many copies as they lack,
    at most `TrainSettings.copies` for each row of their class, and these rows get the same number,
    give or take one.

    Args:
        problem: Says which class a row is of.
        settings: The training.
        rows: The training rows.
        seed: Decides which rows get the one more; not their order.
    """
    if settings.augment_classes == "all":
        return [settings.copies] * len(rows)
    classes = _classes(problem, rows.labels)
    rows_of: dict[int, list[int]] = {}
    for row in sorted(range(len(rows)), key=lambda row: rows.texts[row]):
        rows_of.setdefault(classes.of[row], []).append(row)
    sizes = [classes.sizes.get(label, 0) for label in range(len(problem.labels))]
    mean = round(sum(sizes) / sum(size > 0 for size in sizes))
    copies = [0] * len(rows)
    for label, own in rows_of.items():
        whole, rest = divmod(max(0, mean - classes.sizes[label]), len(own))
        more = set(Random(seed).sample(own, rest))
        for row in own:
            copies[row] = min(settings.copies, whole + (row in more))
    return copies


#: What rows say, in words.
_FORMS: dict[LabelForm, str] = {
    "id": "a row has one label",
    "several": "a row may have several labels",
    "number": "a row has a number",
}


def _default(name: str) -> Any:
    return TrainSettings.model_fields[name].default


def _trainings(work: Workspace) -> list[tuple[str, TrainSettings]]:
    return [("train", work.recipe.train), ("distill.train", work.recipe.distill.train)]


def _substitutes() -> set[str]:
    """Return the objectives that take another's place in some problems, and are for no others."""
    return {name for _, problem in problems for name in problem.objectives.values()}


def _form(problem: Problem) -> LabelForm:
    forms: dict[str | None, LabelForm] = {
        "multi_label_classification": "several", "regression": "number",
    }  # fmt: skip
    return forms.get(problem.kind, "id")


def _classes(problem: Problem, labels: Sequence[Any]) -> Classes:
    """Return the classes of rows that have labels; `check_measures` has refused others."""
    found = problem.classes(labels)
    assert found is not None
    return found


def _check_names(key: str, given: Sequence[str], names: Sequence[str]) -> None:
    unknown = [name for name in given if name not in names]
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], names, n=1)
    hint = f" Did you mean {shown(near[0])}?" if near else ""
    raise RecipeError(
        f"{key} names {listed(map(shown, unknown))}, which no row has as its label.{hint} The "
        f"labels are {listed(map(shown, names), 20)}."
    )


def _by_name(names: Sequence[str], values: Mapping[int, float], form: str) -> str:
    return ", ".join(f"{names[label]} {value:{form}}" for label, value in values.items())
