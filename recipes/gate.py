"""What the recipe's gate asks of a file, and whether it holds."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.ledger import Row, held_in
from recipes.problems.metrics import higher_is_better
from recipes.recipe import GateSettings, Recipe
from recipes.several_students import float_row, student_of
from recipes.workspace import Workspace


@dataclass(frozen=True)
class GateCheck:
    """One thing that the gate asks of a file.

    Attributes:
        what: The recipe's key.
        measured: What was found.
        allowed: The recipe's bound.
        at_most: Whether the bound is an upper one.
        where: What was measured, and on which rows.
        unit: ``"ms"`` or ``"MB"``; empty for a fraction.
    """

    what: str
    measured: float
    allowed: float
    at_most: bool
    where: str
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the bound holds; a difference of two fractions is only exact to rounding."""
        over = self.measured - self.allowed
        return over <= 1e-9 if self.at_most else over >= -1e-9

    @property
    def told(self) -> str:
        """The check in words, for a person whose file it refuses."""
        number = f"{self.measured:.4g} {self.unit}" if self.unit else f"{self.measured:.4f}"
        return (
            f"{number} ({self.where}), {self.what} asks for at "
            f"{'most' if self.at_most else 'least'} {self.allowed:g}"
        )


@dataclass(frozen=True)
class Found:
    """What was measured of a file, on validation rows only.

    Attributes:
        drop: How much less it has of `guarded_metric` than the float file, a fraction.
        rows: Share of rows to which both give the same answer.
        batches: The same over batches of every size, length and padding.
        worst: The batch in which both are farthest apart.
        size_bytes: Size of the file.
        p50: Median milliseconds of one row; None if it was not timed.
    """

    drop: float
    rows: float
    batches: float
    worst: str
    size_bytes: int
    p50: float | None


def guarded_metric(recipe: Recipe, headline: str) -> str:
    """Return the metric that `GateSettings.max_drop` is about.

    Args:
        recipe: The recipe; what is shipped is the student, whose training is asked first.
        headline: The metric of the data's problem, where the recipe chooses by no other.
    """
    for settings in (recipe.distill.train, recipe.train):
        # What is better the less it is has a unit of its own, and no fraction that may be lost.
        if settings.metric is not None and higher_is_better(settings.metric):
            return settings.metric
    return headline


def checks(gate: GateSettings, found: Found, metric: str) -> list[GateCheck]:
    """Hold a quantized file against all that the gate asks for.

    Args:
        gate: The recipe's gate.
        found: What was measured.
        metric: From `guarded_metric`: what `Found.drop` is of.
    """
    name = metric.replace("_", " ")
    least = gate.min_label_agreement
    return [
        GateCheck(
            "gate.max_drop", found.drop, gate.max_drop, True, f"{name} on the validation rows"
        ),
        GateCheck("gate.min_label_agreement", found.rows, least, False, "the validation rows"),
        GateCheck(
            "gate.min_label_agreement", found.batches, least, False,
            f"batches, worst at {found.worst}",
        ),
        *goals(gate, found.size_bytes, found.p50),
    ]  # fmt: skip


def goals(gate: GateSettings, size_bytes: int, p50: float | None) -> list[GateCheck]:
    """Hold a file's size and speed against the goals that the recipe sets for them.

    Args:
        gate: The recipe's gate.
        size_bytes: Size of the file.
        p50: Median milliseconds of one row; None if it was not timed, as without such a goal.
    """
    found = []
    if gate.max_latency_ms is not None and p50 is not None:
        found.append(
            GateCheck(
                "gate.max_latency_ms", p50, gate.max_latency_ms, True,
                "median of single validation rows", "ms",
            )
        )  # fmt: skip
    if gate.max_size_mb is not None:
        megabytes = size_bytes / 1e6
        found.append(
            GateCheck("gate.max_size_mb", megabytes, gate.max_size_mb, True, "the file", "MB")
        )
    return found


def gate_checks(work: Workspace) -> list[GateCheck]:
    """Return what the gate finds of the file that would be shipped.

    If nothing was quantized, only size and speed can be asked for.
    """
    gate = work.recipe.gate
    if "student-int8" in work.ledger:
        small = work.ledger["student-int8"]
        whole = work.ledger[float_row(student_of(small))]
        metric = guarded_metric(work.recipe, small.headline)
        found = Found(
            drop=whole.validation[metric] - small.validation[metric],
            rows=small.agreement["validation_labels"],
            batches=small.agreement["batches_labels"],
            worst=small.agreement["batches_worst"],
            size_bytes=small.size_bytes,
            p50=gate_latency(small),
        )
        return checks(gate, found, metric)
    if "student-onnx" in work.ledger:
        whole = work.ledger["student-onnx"]
        return goals(gate, whole.size_bytes, gate_latency(whole))
    return []


def gate_latency(row: Row) -> float | None:
    """Return the median milliseconds that the gate goes by; None if they were not measured.

    They are of single validation rows, from when the file was chosen. ``batch_1`` is measured
    later, on test rows and in turn with all other artefacts.
    """
    return row.latency_ms.get("gate", {}).get("p50")


def verdict(work: Workspace) -> list[str]:
    """Return why the file may not be shipped; nothing if it may."""
    form = held_in(work.ledger["student-int8"]) if "student-int8" in work.ledger else "float32"
    return [
        check.told if check.unit else f"{form} against float: {check.told}"
        for check in gate_checks(work)
        if not check.passed
    ]
