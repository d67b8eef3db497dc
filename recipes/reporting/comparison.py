"""What the cells of a comparison came to, side by side: numbers, table, files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from recipes.ledger import Ledger, Row
from recipes.problems.metrics import higher_is_better
from recipes.reporting.bootstrap import Gain
from recipes.reporting.comparison_chart import comparison_chart
from recipes.reporting.comparison_students import student_cells, student_figures, student_legend
from recipes.reporting.learning_curve import curve_cells, is_curve, learning_curve
from recipes.reporting.summary import named
from recipes.reporting.table import print_table
from recipes.reporting.units import headed
from recipes.tasks.wording import shown
from recipes.whole_files import write_json

_BASELINES = ("majority", "tfidf-logreg", "frozen-logreg")
CURVE = "learning_curve.png"
#: What incremental learning adds, as the row ``teacher`` names it.
_PHASES = ("average_accuracy", "forgetting", "forward_transfer")


@dataclass(frozen=True)
class Outcome:
    """One seed of one cell.

    Attributes:
        seed: The seed.
        folder: The run's folder, relative to the comparison's.
        figures: What was measured, by name; see `figures`. Empty if the run failed.
        fault: Why it failed; empty if it did not.
    """

    seed: int
    folder: str
    figures: dict[str, float] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Result:
    """All seeds of one cell.

    Attributes:
        label: What sets the cell apart.
        overrides: Laid over the recipe, the seed aside.
        outcomes: One a seed.
        gain: What the student gains on the one without a teacher; None if that is not known.
    """

    label: str
    overrides: Sequence[str]
    outcomes: Sequence[Outcome]
    gain: Gain | None = None

    @property
    def failed(self) -> int:
        """How many seeds failed."""
        return sum(bool(outcome.fault) for outcome in self.outcomes)

    @property
    def title(self) -> str:
        """The label, and how many seeds failed if any did."""
        some = f" ({self.failed} of {len(self.outcomes)} failed)" if self.failed else ""
        return f"{self.label}{some}"

    def mean(self, name: str) -> float | None:
        """Return a figure's mean over the seeds that have it; None if none has."""
        values = self._values(name)
        return fmean(values) if values else None

    def deviation(self, name: str) -> float | None:
        """Return a figure's sample standard deviation; None with fewer than two seeds."""
        values = self._values(name)
        return stdev(values) if len(values) > 1 else None

    def spread(self, name: str) -> str:
        """Write the mean of a fraction and its deviation in percent; nothing if it is unknown.

        What is better the less it is is no fraction, and is written as it is.
        """
        mean, deviation = self.mean(name), self.deviation(name)
        if mean is None:
            return ""
        if not higher_is_better(re.split(r"(?:^|_)(?:validation|test)_", name)[-1]):
            return f"{mean:.4f}" + (f" ±{deviation:.4f}" if deviation is not None else "")
        return f"{100 * mean:.2f}" + (f" ±{100 * deviation:.2f}" if deviation is not None else "")

    def _values(self, name: str) -> list[float]:
        return [o.figures[name] for o in self.outcomes if name in o.figures]


@dataclass(frozen=True)
class Comparison:
    """The cells side by side.

    Attributes:
        recipe: Name of the recipe.
        results: One a cell, in the order given.
        baselines: What cells are chosen by on the validation and on the test split, by baseline's
            name.
        notes: What a reader should know.
        headline: The metric that the data's problem is judged by.
        metric: What the recipes choose by instead of it; None if they do not.
        rarest: The name of the label whose recall is told; empty if none is.
    """

    recipe: str
    results: Sequence[Result]
    baselines: dict[str, tuple[float, float]]
    notes: Sequence[str] = ()
    headline: str = "accuracy"
    metric: str | None = None
    rarest: str = ""

    @property
    def chosen_by(self) -> str:
        """The metric whose validation value says which cell is best."""
        return self.metric or self.headline

    @property
    def drawn_by(self) -> str:
        """The metric of the learning curve, which is drawn for fractions."""
        return self.chosen_by if higher_is_better(self.chosen_by) else self.headline

    @property
    def judged(self) -> str:
        """Whose validation metric says which cell is best: ``student`` or ``teacher``."""
        students = any(result.mean("gain") is not None for result in self.results)
        return "student" if students else "teacher"

    @cached_property
    def best(self) -> Result | None:
        """The cell with the best mean validation metric of those without a failed seed.

        None where the cells have learnt from different numbers of rows, or where one has another
        kind of answers and no such metric.
        """
        if is_curve(self.results):  # more rows are better; and of few, few are to choose by
            return None
        name = f"validation_{self.chosen_by}"
        name = f"student_{name}" if self.judged == "student" else name
        means = [(result, result.mean(name)) for result in self.results if not result.failed]
        known = [(result, mean) for result, mean in means if mean is not None]
        if len(known) < len(means):
            return None
        choose = max if higher_is_better(self.chosen_by) else min
        return choose(known, key=lambda one: one[1], default=(None, 0.0))[0]

    def overhead(self, result: Result) -> float | None:
        """Return a cell's tokens a second as a multiple of the first cell's."""
        own, first = (r.mean("tokens_per_second") for r in (result, self.results[0]))
        return own / first if own and first else None


def figures(ledger: Ledger, metric: str | None = None) -> dict[str, float]:
    """Return what a run measured, by name; what its ledger does not know is left out.

    The headline metric is told by its name, such as ``validation_accuracy`` and ``test_accuracy``.
    ``trainable_share`` and ``merge_agreement`` (equal test answers before and after the adapter was
    merged) are fractions.

    Args:
        ledger: The run's.
        metric: A metric that is told as the headline is, such as ``validation_macro_f1``.
    """
    teacher = ledger["teacher"]
    found = {
        f"validation_{teacher.headline}": teacher.validation_score,
        f"test_{teacher.headline}": teacher.score,
        **({"macro_f1": f1} if (f1 := teacher.metrics.get("macro_f1")) is not None else {}),
        "seconds": teacher.seconds,
    }
    if teacher.trainable_parameters:  # none of a teacher that has learnt elsewhere
        found["trainable_parameters"] = teacher.trainable_parameters
        found["trainable_share"] = teacher.trainable_parameters / teacher.parameters
    if metric is not None:
        found[f"validation_{metric}"], found[f"test_{metric}"] = scores(teacher, metric)
    for name in ("tokens_per_second", "peak_memory_bytes"):
        if value := getattr(teacher, name):  # zero stands for not measured
            found[name] = value
    if "merged" in ledger:
        drift = ledger["merged"].agreement
        found["merge_agreement"] = drift["labels"]
        found["merge_logit_difference"] = drift["max_logit_difference"]
    found |= {name: value for name in _PHASES if (value := teacher.phases.get(name)) is not None}
    if "joint" in ledger and "average_accuracy" in (bound := ledger["joint"].phases):
        found["joint_average_accuracy"] = bound["average_accuracy"]
    return found | student_figures(ledger, metric)


def scores(row: Row, metric: str | None) -> tuple[float, float]:
    """Return a row's metric on the validation and on the test split; None for its headline."""
    name = metric or row.headline
    return row.validation[name], row.metrics[name]


def baselines(
    ledgers: Sequence[Ledger], metric: str | None = None
) -> dict[str, tuple[float, float]]:
    """Return a cell's baselines: means of `scores` on validation and test rows, by name.

    Where rows are drawn by each seed anew (`data.fraction`, `data.per_class`), the baselines of
    one seed say no more than its teacher does.

    Args:
        ledgers: Of the cell's runs, a seed each.
        metric: As of `scores`.
    """
    found: dict[str, tuple[float, float]] = {}
    for name in _BASELINES:
        told = [scores(ledger[name], metric) for ledger in ledgers if name in ledger]
        if told:
            valid, test = map(fmean, zip(*told, strict=True))
            found[name] = valid, test
    return found


def print_comparison(comparison: Comparison) -> None:
    """Print the tables and what goes with them."""
    best = comparison.best
    place = None if best is None else list(comparison.results).index(best)
    for cells in _tables(comparison):
        print_table(cells, bold=place)
    for line in legend(comparison):
        print(line)


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.json``, ``.md`` and ``.png`` and return their paths.

    Where cells have learnt from different numbers of rows, ``learning_curve.png`` lies beside them.
    """
    paths = [folder / f"comparison.{end}" for end in ("json", "md", "png")]
    write_json(paths[0], _plain(comparison))
    paths[1].write_text(_markdown(comparison), encoding="utf-8")
    paths[2].write_bytes(comparison_chart(comparison))
    if is_curve(comparison.results):
        paths.append(folder / CURVE)
        paths[-1].write_bytes(learning_curve(comparison.results, comparison.drawn_by))
    return paths


def table_cells(comparison: Comparison) -> list[dict[str, str]]:
    """Return the table's cells by column, row by row; columns that nobody fills are left out."""
    return _filled([_row(comparison, result) for result in comparison.results])


def legend(comparison: Comparison) -> list[str]:
    """Return the lines below the tables."""
    lines, chosen_by = [], named(comparison.chosen_by)
    if comparison.best is not None:
        lines.append(
            f"* best on validation, by the {comparison.judged}'s mean of {chosen_by}: "
            f"{comparison.best.label}."
        )
    lines.append(f"valid. and test: {named(comparison.headline)}, in percent.")
    if (comparison.headline, comparison.metric) == ("micro_f1", "accuracy"):
        lines.append("accuracy: the share of rows with every label right.")
    if comparison.rarest:
        lines.append(
            f"rarest: test rows with the label {shown(comparison.rarest)}, which the fewest have, "
            "that the teacher finds (its recall)."
        )
    lines += student_legend(comparison.results, comparison.headline)
    if comparison.baselines:
        told = ", ".join(
            f"{name} {written(valid, comparison.chosen_by)} / {written(test, comparison.chosen_by)}"
            for name, (valid, test) in comparison.baselines.items()
        )
        first = comparison.results[0]
        mean = ", mean over its seeds" if len(first.outcomes) - first.failed > 1 else ""
        lines.append(f"Baselines of {first.label}{mean}, {chosen_by}, valid. / test: {told}.")
    return [*lines, *comparison.notes]


def _row(comparison: Comparison, result: Result) -> dict[str, str]:
    def single(name: str, write: Callable[[float], str]) -> str:
        mean = result.mean(name)
        return "" if mean is None else write(mean)

    overhead, headline = comparison.overhead(result), comparison.headline
    metric = comparison.metric or ""
    return {
        "cell": _title(comparison, result),
        "valid.": result.spread(f"validation_{headline}") or ("failed" if result.failed else ""),
        "test": result.spread(f"test_{headline}"),
        f"valid. {named(metric)}": result.spread(f"validation_{metric}"),
        f"test {named(metric)}": result.spread(f"test_{metric}"),
        "macro F1": "" if metric == "macro_f1" else result.spread("macro_f1"),
        "rarest": result.spread("rarest_recall"),
        "avg phases": result.spread("average_accuracy"),
        "forgetting": result.spread("forgetting"),
        "transfer": result.spread("forward_transfer"),
        "joint": result.spread("joint_average_accuracy"),
        "learn": single("trainable_parameters", lambda value: f"{value:,.0f}"),
        "share %": single("trainable_share", lambda value: f"{100 * value:.2f}"),
        "s": single("seconds", lambda value: f"{value:.1f}"),
        "tokens/s": single("tokens_per_second", lambda value: f"{value:,.0f}"),
        "× first": "" if overhead is None else f"{overhead:.2f}",
        "peak GB": single("peak_memory_bytes", lambda value: f"{value / 1e9:.2f}"),
        "merge agrees": single("merge_agreement", lambda value: f"{100 * value:.2f}"),
        "max Δ logit": single("merge_logit_difference", lambda value: f"{value:.2g}"),
    }


def written(value: float, metric: str) -> str:
    """Write a metric: in percent if it is a fraction."""
    return f"{100 * value:.2f}" if higher_is_better(metric) else f"{value:.4f}"


def _title(comparison: Comparison, result: Result) -> str:
    return f"{result.title}{' *' if result is comparison.best else ''}"


def _tables(comparison: Comparison) -> list[list[dict[str, str]]]:
    """Return the cells of the tables that have any: teachers, students, learning curve."""
    tables = [table_cells(comparison)]
    if comparison.judged == "student":
        titles = [_title(comparison, result) for result in comparison.results]
        named_by = comparison.headline, comparison.metric
        tables.append(_filled(student_cells(comparison.results, titles, *named_by)))
    if is_curve(comparison.results):
        titles = [result.title for result in comparison.results]
        tables.append(_filled(curve_cells(comparison.results, titles, comparison.drawn_by)))
    return tables


def _filled(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Leave out the columns that nobody fills."""
    filled = [column for column in rows[0] if any(row[column] for row in rows)]
    return [{column: row[column] for column in filled} for row in rows]


def _markdown(comparison: Comparison) -> str:
    lines = [f"# {comparison.recipe}, compared", ""]
    for rows in _tables(comparison):
        columns = list(rows[0])
        lines += [_line(columns), f"|:---|{'---:|' * (len(columns) - 1)}"]
        lines += [*(_line(list(row.values())) for row in rows), ""]
    lines += [f"{_escaped(line)}\n" for line in legend(comparison)]
    lines.append("![The cells side by side](comparison.png)")
    if is_curve(comparison.results):
        curve = headed(named(comparison.drawn_by))
        lines += ["", f"![{curve} over the rows learnt from]({CURVE})"]
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    return re.sub(r"([|*_<])", r"\\\1", text)


def _plain(comparison: Comparison) -> dict[str, Any]:
    metric = comparison.chosen_by
    return {
        "recipe": comparison.recipe,
        "headline": comparison.headline,
        "metric": metric,
        "rarest": comparison.rarest or None,
        "best": comparison.best.label if comparison.best else None,
        "cells": [_plain_result(comparison, result) for result in comparison.results],
        "baselines": {
            name: {f"validation_{metric}": valid, f"test_{metric}": test}
            for name, (valid, test) in comparison.baselines.items()
        },
        "notes": list(comparison.notes),
    }


def _plain_result(comparison: Comparison, result: Result) -> dict[str, Any]:
    names = dict.fromkeys(name for outcome in result.outcomes for name in outcome.figures)
    return {
        "label": result.label,
        "overrides": list(result.overrides),
        "mean": {name: result.mean(name) for name in names},
        "deviation": {name: result.deviation(name) for name in names},
        "overhead": comparison.overhead(result),
        "gain": asdict(result.gain) if result.gain is not None else None,
        "runs": [
            {"seed": o.seed, "folder": o.folder, "fault": o.fault or None, **o.figures}
            for o in result.outcomes
        ],
    }
