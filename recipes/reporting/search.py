"""What a search came to: lines, numbers, and a page with its charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipes.reporting import search_charts as charts
from recipes.reporting.drawing import COLORS
from recipes.reporting.panels import Panel
from recipes.reporting.rendering import render
from recipes.reporting.units import MINUS, duration
from recipes.tasks.wording import counted, listed
from recipes.tuning.best import BEST
from recipes.tuning.importance import importances
from recipes.tuning.plan import Plan
from recipes.tuning.study import Study, Trial, best_of
from recipes.whole_files import write_json, write_text

REPORT, TRIALS = "report.html", "trials.json"
_STATES = ("complete", "pruned", "failed", "running")


def print_search(study: Study) -> None:
    """Print how many trials there were, the best of them, and how to run it."""
    trials, best = study.trials, study.best
    print(f"{_counts(trials)}.")
    if best is None:
        print("No trial was trained to its end: nothing can be said.")
        return
    print(f"best: {_reached(study, best)}{_against(best, trials)}")
    print(f"  {' '.join(best.words) or 'the recipe as it stands'}")
    print(f"run it: python -m recipes.run {study.folder / BEST} --out runs/tuned")


def write_search(study: Study) -> list[Path]:
    """Write ``trials.json`` and ``report.html``; return what there is to look at."""
    trials = study.trials
    write_json(study.folder / TRIALS, _plain(study, trials))
    names = [TRIALS]
    if study.best is not None:
        write_text(study.folder / REPORT, _page(study, trials))
        names = [BEST, REPORT, TRIALS]
    return [study.folder / name for name in names]


def _plain(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    plan, best = study.plan, best_of(trials)
    return {
        "recipe": plan.recipe,
        "target": plan.target,
        "metric": study.metric,
        "split": "validation",
        "seeds": list(plan.seeds),
        "best": best.number if best is not None else None,
        "importance": importances(study),
        "trials": [_plain_trial(study, trial) for trial in trials],
    }


def _plain_trial(study: Study, trial: Trial) -> dict[str, Any]:
    kept = asdict(trial)
    kept["overrides"] = list(kept.pop("words"))
    del kept["stored"]
    return {**kept, "folder": str(study.place(trial.number).relative_to(study.folder))}


def _page(study: Study, trials: Sequence[Trial]) -> str:
    plan, best = study.plan, best_of(trials)
    assert best is not None
    ended = [trial for trial in trials if trial.state != "running"]
    return render(
        "search.html.j2",
        name=study.folder.resolve().name,
        colors=COLORS,
        lead=_lead(study, best, trials),
        tiles=_tiles(study, best, trials),
        command=f"python -m recipes.run {study.folder / BEST} --out runs/tuned",
        history=_history(study, ended),
        panels=[_importance(study), _epochs(study, ended)],
        wide=[_slices(study, ended), _parallel(study, ended)],
        keys=[dimension.key for dimension in plan.space],
        space=[(d.key, d.said.partition("=")[2], _own(plan, d.key)) for d in plan.space],
        fixed=plan.fixed,
        rows=[_row(plan, trial) for trial in trials],
        best=best.number,
        figure=study.figure,
        recipe=(study.folder / BEST).read_text(encoding="utf-8"),
    )


def _lead(study: Study, best: Trial, trials: Sequence[Trial]) -> str:
    changed, whole = " ".join(best.words), counted(len(trials), "trial")
    said = (
        f"The best of {whole} is the recipe as it stands."
        if best.plain
        else f"The best of {whole} is trial {best.number}: {changed}."
    )
    return (
        f"{said} What counts is the {study.plan.target}'s {study.figure}; test rows chose "
        "nothing. The best of many is chosen by the rows that measure it, so its figure is a "
        "little too good: compare it with the recipe as it stands over several seeds before you "
        "rely on a small gain."
    )


def _tiles(study: Study, best: Trial, trials: Sequence[Trial]) -> list[dict[str, str]]:
    own, seeds = next((t.value for t in trials if t.plain), None), study.plan.seeds
    value = best.value or 0.0
    gain = "" if own is None else f"{value - own:+.4f}".replace("-", MINUS)
    seconds = [trial.seconds for trial in trials]
    return [
        {
            "title": f"{study.plan.target}, {study.figure}",
            "value": f"{value:.4f}",
            "detail": f"trial {best.number}"
            + (f", mean of {counted(len(seeds), 'seed')}" if seeds[1:] else ""),
        },
        {
            "title": "Against the recipe as it stands",
            "value": gain or "unknown",
            "detail": f"which reached {own:.4f}" if own is not None else "it has not ended yet",
        },
        {
            "title": "Trials",
            "value": str(len(trials)),
            "detail": _counts(trials).partition(": ")[2] or "all complete",
        },
        {
            "title": "Time of all trials",
            "value": duration(sum(seconds)),
            "detail": f"the longest {duration(max(seconds))}",
        },
    ]


def _counts(trials: Sequence[Trial]) -> str:
    states = [trial.state for trial in trials]
    parts = [f"{states.count(state)} {state}" for state in _STATES if state in states]
    whole = counted(len(trials), "trial")
    return whole if parts == [f"{len(trials)} complete"] else f"{whole}: {listed(parts)}"


def _reached(study: Study, trial: Trial) -> str:
    return f"trial {trial.number}, {study.plan.target}, {study.figure} {trial.value:.4f}"


def _against(best: Trial, trials: Sequence[Trial]) -> str:
    own = next((t.value for t in trials if t.plain), None)
    if best.plain or own is None:
        return ""
    return f" (the recipe as it stands: {own:.4f})"


def _own(plan: Plan, key: str) -> str:
    dimension = next(d for d in plan.space if d.key == key)
    stored = plan.inside.get(key)
    return "not in the space" if stored is None else dimension.text(stored)


def _history(study: Study, trials: Sequence[Trial]) -> Panel:
    bests: list[Trial] = []
    for trial in trials:
        if trial.state == "complete" and (not bests or (trial.value or 0) > (bests[-1].value or 0)):
            bests.append(trial)
    said = (
        f"Trial {bests[-1].number} is the best; before it "
        f"{counted(len(bests) - 1, 'trial')} had been the best so far."
    )
    if len(bests) == 1:
        said = f"Nothing was better than trial {bests[0].number}."
    return Panel("history", "Trials", said, charts.history(trials, study.figure), wide=True)


def _importance(study: Study) -> Panel:
    title, shares = "What matters", importances(study)
    if not shares:
        said = (
            "There is one key only."
            if len(study.plan.space) == 1
            else "Too few trials were trained to their end, or all came to the same: which key "
            "matters cannot be told."
        )
        return Panel("importance", title, said)
    first = next(iter(shares))
    said = (
        f"{first} explains most of what sets the complete trials apart (fANOVA; of few trials it "
        "is a guess)."
    )
    return Panel("importance", title, said, charts.importance(shares))


def _epochs(study: Study, trials: Sequence[Trial]) -> Panel:
    title, pruned = "By epoch", [trial for trial in trials if trial.state == "pruned"]
    if not any(trial.curve for trial in trials):
        return Panel("epochs", title, "Epochs were not told: the search was run without a pruner.")
    said = f"{counted(len(pruned), 'trial')} ended early, poorer than the others at that epoch."
    if not pruned:
        said = "No trial was ended early."
    return Panel("epochs", title, said, charts.epochs(trials, study.figure))


def _slices(study: Study, trials: Sequence[Trial]) -> Panel:
    said = "Each key by itself; what the others were at the time differs from point to point."
    chart = charts.slices(trials, study.plan.space, study.figure)
    return Panel("slices", "Key by key", said, chart, wide=True)


def _parallel(study: Study, trials: Sequence[Trial]) -> Panel:
    title = "All keys at once"
    keys = {dimension.key for dimension in study.plan.space}
    whole = [t for t in trials if t.state == "complete" and keys <= set(t.stored)]
    if len(whole) < 2:
        return Panel("parallel", title, "Fewer than two complete trials.", wide=True)
    said = "A line for each complete trial; the best is thick, the best quarter is blue."
    return Panel(
        "parallel", title, said, charts.parallel(whole, study.plan.space, study.figure), wide=True
    )


def _row(plan: Plan, trial: Trial) -> dict[str, Any]:
    shown = {d.key: d.text(trial.stored[d.key]) for d in plan.space if d.key in trial.stored}
    remark = trial.fault
    if trial.same_as is not None:
        remark = f"the same as trial {trial.same_as}"
    elif trial.plain:
        remark = "the recipe as it stands"
    elif trial.state == "pruned":
        remark = f"ended after epoch {max(trial.curve)}"
    return {
        "number": trial.number,
        "state": trial.state,
        "values": [shown.get(d.key, "as in the recipe") for d in plan.space],
        "figure": "" if trial.value is None else f"{trial.value:.4f}",
        "seconds": f"{trial.seconds:.1f}",
        "remark": remark,
    }
