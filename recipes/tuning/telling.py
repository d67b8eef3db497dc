"""What is said of a trial while a search runs."""

from __future__ import annotations

from recipes.cells import short_labels
from recipes.tuning.study import Study, Trial


def title(trial: Trial) -> str:
    """Return what sets a trial apart, short."""
    if trial.plain:
        return "the recipe as it stands"
    return short_labels([trial.words], "")[0]


def outcome(trial: Trial, study: Study, *, better: bool = False) -> str:
    """Say what came of a trial."""
    figure = f"{study.plan.target}, {study.figure}"
    if trial.state == "failed":
        return f"failed: {trial.fault}"
    if trial.state == "pruned":
        return (
            f"{figure} {trial.value:.4f} after epoch {max(trial.curve)}: pruned, "
            f"{trial.seconds:.1f} s"
        )
    return f"{figure} {trial.value:.4f}, {trial.seconds:.1f} s{', the best so far' * better}"
