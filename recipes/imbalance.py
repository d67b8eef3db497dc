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
from recipes.recipe import Resample, TrainSettings
from recipes.tasks import UNLABELLED, Split
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
        asked = [name for name in _MEASURES if getattr(settings, name) != _default(name)]
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
    """Return how much a row with each label counts; one without rows weighs 1.

    Where a row has exactly one label, the weights are 1 on the average of the rows that are drawn,
    and ``balanced`` lets all labels weigh the same in sum, as scikit-learn's ``balanced`` does.

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
    if settings.class_weights is None:
        return ()
    if isinstance(settings.class_weights, Mapping):
        given = {label: settings.class_weights.get(label, 1.0) for label in problem.labels}
    else:
        given = {}
    classes = problem.classes(labels) or []
    counts = Counter(label for label in classes if label != UNLABELLED)
    drawn = shares(counts, settings.resample)
    if not problem.exclusive:
        there = [0.0] * len(problem.labels)
        for row, label in zip(labels, classes, strict=True):
            for place in range(len(there)) if label != UNLABELLED else ():
                there[place] += row[place] * drawn[label] / counts[label]
        even = [1 / share - 1 if 0 < share < 1 else 1.0 for share in there]
        return tuple(given.values()) or tuple(even)
    raw = {
        label: given[problem.labels[label]] if given else 1 / (len(counts) * share)
        for label, share in drawn.items()
    }
    mean = math.fsum(share * raw[label] for label, share in drawn.items())
    return tuple(raw[label] / mean if label in raw else 1.0 for label in range(len(problem.labels)))


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
        if form not in objective.takes:
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
        counts = Counter(label for label in problem.classes(labels) or () if label != UNLABELLED)
        drawn = _by_name(names, draws(counts, settings.resample), ",")
        each = "" if problem.exclusive else ", each counted as its rarest label"
        say(f"  rows an epoch{each}: {drawn}")


def shares(counts: Mapping[int, int], resample: Resample | None) -> dict[int, float]:
    """Return which share of all draws each class has.

    Args:
        counts: Rows of each class, at least one.
        resample: How often classes are drawn; None for as often as they have rows.
    """
    power = {None: 1.0, "sqrt": 0.5, "balanced": 0.0}[resample]
    total = sum(count**power for count in counts.values())
    return {label: count**power / total for label, count in counts.items()}


def draws(counts: Mapping[int, int], resample: Resample | None) -> dict[int, int]:
    """Return how many rows of each class an epoch draws, as many together as there are.

    Args:
        counts: Rows of each class; what stands under `UNLABELLED` keeps its number.
        resample: How often classes are drawn; None for as often as they have rows.
    """
    known = {label: count for label, count in counts.items() if label != UNLABELLED}
    total = sum(known.values())
    exact = {label: total * share for label, share in shares(known, resample).items()}
    found = {label: int(wanted) for label, wanted in exact.items()}
    # The largest remainders are rounded up; of equal ones, those of the first classes.
    short = total - sum(found.values())
    for label in sorted(exact, key=lambda label: (found[label] - exact[label], label))[:short]:
        found[label] += 1
    return {label: found.get(label, count) for label, count in sorted(counts.items())}


def copies_of(problem: Problem, settings: TrainSettings, rows: Split, seed: int) -> Sequence[int]:
    """Return how many new texts are made of each row.

    Rare classes, as `Problem.classes` counts them, are those with fewer rows than the mean of all.
    They get as many copies as they lack, at most `TrainSettings.copies` for each row, and their
    rows get the same number, give or take one.

    Args:
        problem: Says which class a row is of.
        settings: The training.
        rows: The training rows.
        seed: Decides which rows get the one more; not their order.
    """
    if settings.augment_classes == "all":
        return [settings.copies] * len(rows)
    classes = problem.classes(rows.labels) or []
    rows_of: dict[int, list[int]] = {}
    for row in sorted(range(len(rows)), key=lambda row: rows.texts[row]):
        rows_of.setdefault(classes[row], []).append(row)
    mean = round(len(rows) / len(rows_of))
    copies = [0] * len(rows)
    for own in rows_of.values():
        whole, rest = divmod(max(0, mean - len(own)), len(own))
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
#: Keys of a training that are about classes.
_MEASURES = ("loss", "class_weights", "resample", "augment_classes")


def _default(name: str) -> Any:
    return TrainSettings.model_fields[name].default


def _trainings(work: Workspace) -> list[tuple[str, TrainSettings]]:
    return [("train", work.recipe.train), ("distill.train", work.recipe.distill.train)]


def _form(problem: Problem) -> LabelForm:
    if problem.exclusive:
        return "id"
    return "number" if problem.classes(()) is None else "several"


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
