"""The charts of the report with what they say, in sentences made from the numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipes.long_text import told
from recipes.problems.metrics import higher_is_better
from recipes.reporting import charts, label_charts
from recipes.reporting.summary import Summary, accuracy, called, latency, merit, speed
from recipes.reporting.units import apart, headed, megabytes, one_line, percent
from recipes.tasks.wording import counted, listed
from recipes.workspace import Workspace

#: Characters of a split whose tokens are counted for the chart of lengths: about half a second.
_COUNTED = 1_000_000
#: What ``ce`` is where it is not called so; see `distill.builtin.prediction.CrossEntropy`.
_OWN_LOSSES = {"multi_label": "binary cross-entropy", "regression": "the squared distance"}
_TRAININGS = ("teacher", "joint", "student", "student-alone")


@dataclass(frozen=True)
class Panel:
    """A chart with its words.

    Attributes:
        key: Name of the function in `charts`; ids in the chart begin with it.
        title: What it shows.
        takeaway: What it says.
        chart: Inline SVG; empty if there is nothing to draw.
        wide: Whether it takes the page's whole width.
    """

    key: str
    title: str
    takeaway: str
    chart: str = ""
    wide: bool = False


def tradeoff(work: Workspace, summary: Summary) -> Panel:
    """What an artefact costs in time and what it gives for it."""
    title = f"{headed(called(summary.shipped))} against latency"
    timed = [(row, time) for row in work.ledger if (time := latency(row))]
    if not timed or latency(summary.shipped) is None:
        return Panel("tradeoff", title, "This run took no timings.", wide=True)
    own, remarks = summary.shipped, [_bargain(summary)]
    better = [
        row.name
        for row, time in timed
        if row.stage != "bundle"
        and row.name != own.name
        and time <= (latency(own) or 0)
        and accuracy(row) >= accuracy(own)
    ]
    remarks.append(
        f"{listed(better)} gives at least as much in no more time."
        if better
        else "Nothing else measured is both as fast and as accurate."
    )
    others = [accuracy(row) for row, _ in timed if row.name != "majority"]
    # Drawn to scale, the majority class would press all other points into one line.
    low = [row for row, _ in timed if row.name == "majority" and accuracy(row) < min(others) - 0.1]
    remarks += [f"Below the chart: {row.name}, {percent(accuracy(row))}." for row in low]
    spots = [
        charts.Spot(
            name=row.name,
            text=f"{row.name} · {megabytes(row.size_bytes)}" if row.size_bytes else row.name,
            latency=time,
            accuracy=accuracy(row),
            shipped=row.name == own.name,
        )
        for row, time in timed
        if row not in low
    ]
    return Panel(
        "tradeoff",
        title,
        " ".join(remarks),
        charts.tradeoff(spots, f"test {called(summary.shipped)}, %"),
        wide=True,
    )


def _bargain(summary: Summary) -> str:
    words = merit(summary.gained, called(summary.shipped))
    if summary.faster is None:
        return f"{summary.shipped.name} has {words} compared with {summary.teacher.name}."
    return f"{summary.shipped.name} is {speed(summary.faster)} {summary.teacher.name}, at {words}."


def trainings(work: Workspace) -> list[Panel]:
    """How the teacher and both students learnt, and what the teacher's phases are held against."""
    logs = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in _TRAININGS
        if (path := work.folder / "curves" / f"{name}.json").exists()
    }
    usual = work.problem.headline
    metrics = {name: _settings(work, name).metric or usual for name in logs}
    metric = metrics.get("teacher", usual)
    if any(other != metric for other in metrics.values()) or not higher_is_better(metric):
        metric = usual  # what the chart is scaled for
    curves = {name: _curve(log, f"eval_{metric}") for name, log in logs.items()}
    losses = {name: _curve(log, "loss") for name, log in logs.items()}
    if not all(curves.values()) or not all(losses.values()) or not logs:
        return []
    parts = {name: _by_phase(work, name, curve) for name, curve in curves.items()}
    kept = {}
    for name, log in logs.items():
        chosen = _by_phase(work, name, _curve(log, f"eval_{metrics[name]}"))
        bests = [[value for _, value in curve] for curve in chosen]
        choose = max if higher_is_better(metrics[name]) else min
        kept[name] = [values.index(choose(values)) for values in bests]
    remarks = [_kept(work, name, phases, kept[name]) for name, phases in parts.items()]
    falls = [f"{name} {log[0][1]:.2f} → {log[-1][1]:.2f}" for name, log in losses.items()]
    terms = _terms(work)
    added = " and what the strategy adds to it" if work.rows.phases else ""
    return [
        Panel(
            "validation",
            "Learning: validation",
            " ".join(remarks),
            charts.validation(parts, kept, metric.replace("_", " ")),
        ),
        Panel(
            "losses",
            "Learning: training loss",
            f"From first to last: {listed(falls)}. Scales differ: the student's loss is "
            f"{terms}, the others' is {_label_losses(work)}{added}.",
            charts.losses(losses),
        ),
    ]


def _label_losses(work: Workspace) -> str:
    """Name the losses of those that learn from labels alone."""
    from distill import objectives
    from distill.builtin.prediction import CrossEntropy
    from recipes.imbalance import called_here, label_terms

    recipe = work.recipe
    terms = [recipe.train.loss or CrossEntropy(), *label_terms(recipe.distill.objectives)]
    names = [objectives.name_of(type(term)) for term in called_here(work.problem, terms)]
    words = {
        "ce": _OWN_LOSSES.get(work.rows.problem, "cross-entropy"),
        "focal": "focal loss",
        "soft_ordinal": "cross-entropy with soft labels",
    }
    return " or ".join(dict.fromkeys(words.get(name, name) for name in names))


def _settings(work: Workspace, name: str) -> Any:
    return work.recipe.train if name in ("teacher", "joint") else work.recipe.distill.train


def _terms(work: Workspace) -> str:
    from distill import objectives
    from recipes.imbalance import called_here

    terms = called_here(work.problem, work.recipe.distill.objectives)
    return " + ".join(f"{one.weight:g} × {objectives.name_of(type(one))}" for one in terms)


def _curve(log: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    return [(entry["epoch"], entry[key]) for entry in log if key in entry]


def _by_phase(work: Workspace, name: str, curve: charts.Curve) -> list[charts.Curve]:
    """Cut the teacher's curve where a phase ends; all other trainings have one phase."""
    if name != "teacher" or not work.rows.phases:
        return [curve]
    length = work.recipe.train.epochs
    phases = range(len(work.rows.phases))
    return [[p for p in curve if math.ceil(p[0] / length - 1e-6) == n + 1] for n in phases]


def _kept(work: Workspace, name: str, phases: Sequence[charts.Curve], bests: Sequence[int]) -> str:
    wanted = _settings(work, name).epochs
    if len(phases) > 1:
        numbers = listed(str(best + 1) for best in bests)
        last = phases[-1][bests[-1]][1]
        return (
            f"{name}: in its {len(phases)} phases epochs {numbers} of {wanted} were kept; the last "
            f"gets {percent(last)} of all rows right."
        )
    curve, best = phases[0], bests[0]
    epoch, value = curve[best]
    sentence = f"{name}: epoch {epoch:.0f} of {len(curve)} was kept ({percent(value)})"
    if len(curve) < wanted:
        return f"{sentence}, stopped early of {wanted}."
    if best == len(curve) - 1 > 0:
        return f"{sentence}; it was still getting better, so more epochs may pay."
    return f"{sentence}."


def lengths(work: Workspace) -> Panel:
    """How long the texts are, and what is not read of them at once."""
    import numpy as np

    from recipes.tasks import Split

    tokens = {}
    for name in ("train", "validation", "test"):
        split: Split = getattr(work.rows, name)
        step = -(-sum(map(len, split.texts)) // _COUNTED)
        part = Split(split.texts[::step], split.labels[::step])
        examples = work.task.features(part, work.tokenizer, work.max_length)
        tokens[name] = [len(example["input_ids"]) for example in examples]
    every = np.concatenate(list(tokens.values()))
    limit, long = work.max_length, work.recipe.data.long
    full = float((every > limit if long.way == "windows" else every >= limit).mean())
    if long.way == "head":
        cut = f"{percent(full)} reach the limit of {limit} and are cut there."
    else:
        cut = f"{percent(full)} are long: {told(long, limit)}."
    if not full:
        cut = f"none is longer than {limit}."
    sentence = (
        f"Half of the texts have at most {np.median(every):.0f} tokens, 95% at most "
        f"{np.percentile(every, 95):.0f}, the longest {every.max()}; {cut}"
    )
    if len(every) < sum(len(getattr(work.rows, name)) for name in tokens):
        sentence += f" Counted on {len(every):,} rows, spread evenly."
    chart = charts.lengths(tokens, work.max_length)
    return Panel("lengths", "Length of the texts", sentence, chart)


def classes(work: Workspace) -> Panel:
    """How many rows each label has."""
    import numpy as np

    several, size = work.rows.problem == "multi_label", len(work.rows.labels)
    labels = {name: getattr(work.rows, name).labels for name in ("train", "validation", "test")}
    counts = {
        name: np.sum(given, axis=0) if several else np.bincount(given, minlength=size)
        for name, given in labels.items()
    }
    train = counts["train"]
    order = np.argsort(-train, kind="stable")
    first, last = order[0], order[-1]
    called = [one_line(label, 40) for label in work.rows.labels]
    shares = {name: values / max(1, len(labels[name])) for name, values in counts.items()}
    most = max(float(np.abs(shares[name] - shares["train"]).max()) for name in shares)
    sentence = (
        f"{called[first]} is the largest label with {percent(shares['train'][first])} of the "
        f"training rows, {called[last]} the smallest with {percent(shares['train'][last])} "
        f"({counted(int(train[last]), 'row')}); shares in the splits differ by at most "
        f"{apart(most)}."
    )
    chart = label_charts.classes(
        {name: [int(values[i]) for i in order] for name, values in counts.items()},
        [work.rows.labels[i] for i in order],
    )
    return Panel("classes", "Rows by label", sentence, chart)
