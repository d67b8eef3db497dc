"""The best trial as a recipe that runs."""

from __future__ import annotations

from pathlib import Path

import yaml

from recipes.reading import plain, read_recipe
from recipes.tuning.study import Study, Trial
from recipes.whole_files import write_text

BEST = "best.yaml"


def write_best(study: Study) -> Path | None:
    """Write the best trial's recipe, resolved, with what it reached in its header.

    Returns:
        Its path; None as long as no trial is complete.
    """
    with study.lock:  # another process may have told a better one
        trials = study.trials
        best = study.best
        if best is None:
            return None
        path = study.folder / BEST
        plan = study.plan
        given = [*plan.fixed, *best.words, f"seed={plan.seeds[0]}"]
        tree = plain(read_recipe(plan.recipe, given, plan.plugins))
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        write_text(path, _header(study, path, best, trials) + text)
        return path


def _header(study: Study, path: Path, best: Trial, trials: list[Trial]) -> str:
    plan, name = study.plan, Path(study.plan.recipe).stem
    states = [trial.state for trial in trials]
    lines = [
        f"{name} as a search over {', '.join(d.key for d in plan.space)} found it best.",
        f"  python -m recipes.run {path} --out {Path('runs') / f'{name}-tuned'}",
        f"Trial {best.number}: the {plan.target}'s {study.figure} is {best.value:.4f}"
        + (f", the mean of seeds {', '.join(map(str, plan.seeds))}" if plan.seeds[1:] else "")
        + f"; the best of {states.count('complete')} trials that were trained to their end, and so "
        "a little too good.",
        _compared(best, trials),
    ]
    return "".join(f"# {line}\n" for line in lines if line)


def _compared(best: Trial, trials: list[Trial]) -> str:
    if best.plain:
        return "It is the recipe as it stands: nothing else was better."
    own = trials[0].value
    reached = f", which reached {own:.4f}" if own is not None else ""
    return f"It differs from the recipe as it stands{reached}, in {' '.join(best.words)}."
