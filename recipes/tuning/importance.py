"""How much each key of a space matters for what its trials came to."""

from __future__ import annotations

import warnings

from recipes.tuning.study import Study

#: Trials for each key that are needed before anything is said.
_TRIALS = 4


def importances(study: Study) -> dict[str, float]:
    """Return the share of the figures' variance that each key explains, the largest first.

    By functional analysis of variance over a random forest (Hutter et al., 2014, ICML), on the
    trials that were trained to their end.

    Returns:
        Nothing if there is one key only, or if the trials are too few or all alike.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    keys = [dimension.key for dimension in study.plan.space]
    whole = [t for t in study.trials if t.state == "complete" and set(keys) <= set(t.stored)]
    alike = len({trial.value for trial in whole}) < 2
    if len(keys) < 2 or len(whole) < _TRIALS * len(keys) or alike:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_param_importances(
            study.open(), evaluator=FanovaImportanceEvaluator(seed=0), params=keys
        )
