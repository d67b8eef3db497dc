"""How the bundle makes answers of logits: fitted on validation rows, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recipes.console import say
from recipes.errors import RecipeError
from recipes.problems.decision import Decision
from recipes.several_students import float_row, student_of
from recipes.workspace import SPLITS, Workspace

if TYPE_CHECKING:
    import numpy as np


def check_decide(work: Workspace) -> None:
    """Refuse what a problem type has no decision for.

    Raises:
        RecipeError: The recipe asks for it.
    """
    settings, problem, kind = work.recipe.decide, work.problem, work.rows.problem
    for key in type(settings).model_fields:
        default = type(settings).model_fields[key].default
        means = {"confidence": "precision"}.get(key, key) in problem.decides
        if getattr(settings, key) != default and not means:
            raise RecipeError(
                f"decide.{key} has no effect on a problem of the type {kind}, whose answers have "
                f"{', '.join(sorted(problem.decides)) or 'nothing'} to be fitted. Leave it out."
            )
    search = problem.offset_search
    if settings.offsets and search and settings.offsets not in search.metrics:
        raise RecipeError(
            f"decide.offsets={settings.offsets} is no metric that offsets are found for on a "
            f"problem of the type {kind}. Give one of {', '.join(search.metrics)}."
        )


def decide(
    work: Workspace, shipped: str, logits: Mapping[str, np.ndarray]
) -> tuple[Decision, dict[str, Any]]:
    """Fit temperature, offsets and thresholds as the recipe asks.

    Args:
        work: The run.
        shipped: Name of the row whose file the bundle carries.
        logits: The bundle's own logits by split, ``[rows, outputs]``.

    Returns:
        The decision, and what the ledger says of it: its fields; ``fitted_on``, validation rows;
        ``calibration``, the expected calibration error by row and split, before and after the
        temperature; ``calibration_noise``, the error by split that a perfectly calibrated model
        would be seen with, and which 95% of such stay below; ``log_loss``, by split, before and
        after; ``offsets_fit``, what offsets gained on validation rows that they were not
        fitted on, by repeat, whether they were kept, and the metric by split without and with them;
        ``precision_fit``, what was wished, the threshold, and coverage and precision by split.
        Nothing for a problem type without decisions.
    """
    from recipes.problems.metrics import (
        calibration_noise,
        expected_calibration_error,
        probability_metrics,
    )

    problem, settings = work.problem, work.recipe.decide
    truth = {split: getattr(work.rows, split).labels for split in SPLITS}
    decision, fits = problem.decided(logits["validation"], truth["validation"], settings)
    if not problem.decides:
        return decision, {}
    facts = {**decision.plain(), "fitted_on": len(work.rows.validation)}
    names = dict.fromkeys((float_row(student_of(work.ledger[shipped])), shipped))
    files = {name: work.logits(name) for name in names} | {"bundle": dict(logits)}
    chosen = {
        name: {split: _before_and_after(work, found, split, decision) for split in SPLITS}
        for name, found in files.items()
    }
    facts["calibration"] = {
        name: {
            split: [expected_calibration_error(each, right) for each in both]
            for split, (both, right) in found.items()
        }
        for name, found in chosen.items()
    }
    facts["calibration_noise"] = {
        split: list(calibration_noise(after)) for split, ((_, after), _) in chosen["bundle"].items()
    }
    facts["log_loss"] = {
        split: [probability_metrics(each, right)["log_loss"] for each in both]
        for split, (both, right) in chosen["bundle"].items()
    }
    _tell_calibration(facts)
    if "offsets" in fits:
        fit = fits["offsets"]
        without = Decision(decision.temperature)
        fit["splits"] = {
            split: [
                problem.all_metrics(logits[split], truth[split], one)[fit["metric"]]
                for one in (without, decision)
            ]
            for split in SPLITS
        }
        facts["offsets_fit"] = fit
        gain = sum(fit["gains"]) / len(fit["gains"])
        done = "kept" if fit["kept"] else "left out, as that is no gain in every repeat"
        say(f"  offsets for {fit['metric']}: {100 * gain:+.2f} points across folds; {done}")
    if "precision" in fits:
        fit = fits["precision"]
        fit["splits"] = {
            split: problem.selective(logits[split], truth[split], decision) for split in SPLITS
        }
        facts["precision_fit"] = fit
        _tell_precision(fit)
    return decision, facts


def _before_and_after(
    work: Workspace, logits: Mapping[str, np.ndarray], split: str, decision: Decision
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the probabilities of choices without and with the temperature, and what is right."""
    from export.edge import probabilities

    scores, right = work.problem.choices(logits[split], getattr(work.rows, split).labels)
    both = [probabilities(scores / by, "single_label") for by in (1.0, decision.temperature)]
    return both, right


def _tell_calibration(facts: Mapping[str, Any]) -> None:
    before, after = facts["calibration"]["bundle"]["test"]
    say(
        f"  temperature {facts['temperature']:.3f}: expected calibration error on test "
        f"{100 * before:.2f} → {100 * after:.2f} % (a perfect one on so many rows: "
        f"{100 * facts['calibration_noise']['test'][0]:.2f} %)"
    )


def _tell_precision(fit: Mapping[str, Any]) -> None:
    wished = f"{100 * fit['wished']:g} % precision"
    if fit["threshold"] is None:
        say(f"  no threshold gives {wished} on the validation rows: none is withheld")
        return
    found = fit["splits"]["test"]
    reached = f"{100 * found['precision']:.2f}" if "precision" in found else "no"
    say(
        f"  {wished}: labels are given from a probability of {fit['threshold']:.4f} on; on test "
        f"{100 * found['coverage']:.2f} % of the labels, {reached} % precision"
    )
