"""What a run came to: the file that would be shipped, and what it gained and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipes.ledger import Ledger, Row
from recipes.reporting.units import apart, percent, times
from recipes.tasks.wording import counted

#: Metrics as sentences call them.
_CALLED = {
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "r2": "explained variance",
    "mcc": "Matthews correlation (MCC)",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "expected calibration error",
}


@dataclass(frozen=True)
class Summary:
    """The file that leaves, or that the gate holds back, against what it was made from.

    Attributes:
        shipped: The row of that file.
        teacher: The merged teacher's row.
        packed: The bundle's row; None if the gate said no.
        rival: The best baseline.
        reasons: Why the gate says no; empty if it says yes.
    """

    shipped: Row
    teacher: Row
    packed: Row | None
    rival: Row | None
    reasons: list[str]

    @property
    def leaves(self) -> Row:
        """The bundle's row; if the gate said no, that of the file."""
        return self.packed or self.shipped

    @property
    def judged(self) -> Row:
        """The row whose answers count: the bundle's where its decision makes them others.

        Offsets do, and of labels with an order a temperature, which moves their median. Otherwise
        the bundle gives the file's answers, but for what a batch changes in int8.
        """
        if self.packed is None:
            return self.shipped
        made = self.packed.decision
        median = self.packed.problem == "ordinal" and made.get("temperature", 1.0) != 1
        return self.packed if made.get("offsets") or median else self.shipped

    @property
    def faster(self) -> float | None:
        """How many times faster than the teacher it answers one text; None if not timed."""
        own, other = latency(self.shipped), latency(self.teacher)
        return other / own if own and other else None

    @property
    def smaller(self) -> float:
        """How many times smaller than the teacher it is."""
        return self.teacher.size_bytes / max(1, self.shipped.size_bytes)

    @property
    def gained(self) -> float:
        """How much more of the headline metric it has than the teacher on the test rows."""
        return accuracy(self.judged) - accuracy(self.teacher)


def summarize(ledger: Ledger, reasons: list[str]) -> Summary:
    """Find the rows that matter.

    Args:
        ledger: Of a finished run.
        reasons: Why the gate says no.
    """
    rows = {row.name: row for row in ledger}
    baselines = [row for row in ledger if row.stage == "baseline"]
    return Summary(
        shipped=rows.get("student-int8", rows["student-onnx"]),
        teacher=rows["merged"],
        packed=rows.get("bundle"),
        rival=max(baselines, key=accuracy, default=None),
        reasons=reasons,
    )


def accuracy(row: Row) -> float:
    """Return a row's headline metric on the test split: the accuracy, where it is that."""
    return row.score


def called(row: Row) -> str:
    """Return what a row's headline metric is called in sentences."""
    return named(row.headline)


def named(metric: str) -> str:
    """Return what a metric is called in sentences."""
    return _CALLED.get(metric, metric.replace("_", " "))


def latency(row: Row) -> float | None:
    """Return the median milliseconds at batch 1; None if not timed."""
    return row.latency_ms.get("batch_1", {}).get("p50")


def speed(factor: float) -> str:
    """Say how many times faster or slower something is."""
    if 0.95 < factor < 1.05:
        return "as fast as"
    return f"{times(factor)} faster than" if factor > 1 else f"{times(1 / factor)} slower than"


def merit(difference: float, what: str) -> str:
    """Say how much more or less of a metric something has."""
    if abs(difference) < 0.0005:
        return f"the same {what}"
    return f"{apart(difference)} {'more' if difference > 0 else 'less'} {what}"


def found_phases(ledger: Ledger, name: str) -> Mapping[str, Any]:
    """Return what a row says of learning phase after phase; nothing if it is missing."""
    return ledger[name].phases if name in ledger else {}


def known_phases(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the ``name`` of each phase that was learnt and the ``labels`` that were new in it.

    Args:
        ledger: Of a run whose teacher is finished; nothing is returned if it has no phases.
    """
    found = found_phases(ledger, "teacher")
    if not found:
        return []
    known = [0, *map(len, found["labels"])]
    return [
        {"name": name, "labels": found["labels"][-1][known[phase] : known[phase + 1]]}
        for phase, name in enumerate(found["names"])
    ]


def phases_line(ledger: Ledger) -> str:
    """Return what the phases came to, in a line; nothing for a run without."""
    found = found_phases(ledger, "teacher")
    if not found:
        return ""
    return (
        f"{counted(len(found['names']), 'phase')}: average accuracy "
        f"{percent(found['average_accuracy'])}{_of_joint(ledger)}, "
        f"forgetting {apart(found['forgetting'])}"
    )


def _of_joint(ledger: Ledger) -> str:
    bound = found_phases(ledger, "joint").get("average_accuracy", 0)
    if not bound:
        return ""
    share = ledger["teacher"].phases["average_accuracy"] / bound
    return f" ({percent(share)} of joint's {percent(bound)})"
