"""Trying the forms of a file on validation rows, and choosing one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.ladder import Form, Step, steps
from export.latency import interleaved
from export.parity import compare
from export.quantize import QuantizerError
from export.session import open_model
from recipes.console import say
from recipes.gate import Found, GateCheck, checks, guarded_metric
from recipes.proof import size
from recipes.several_students import float_row
from recipes.workspace import Workspace, by_length, load_tokenizer

if TYPE_CHECKING:
    import numpy as np

#: Training rows that the ranges of static quantization are taken from, one at a time.
_CALIBRATION_ROWS = 128
#: Validation rows that the sensitivity of nodes is measured on, and how many at a time.
_SCANNED_ROWS, _SCANNED_BATCH = 128, 32
#: Validation rows that are asked for one by one when a form is timed, and how often in turn.
_TIMED_ROWS, _TIMED_ROUNDS = 100, 4


@dataclass(frozen=True)
class Tried:
    """A form of a file that was written and measured, or could not be.

    Attributes:
        step: Its name.
        form: What its weights are held in.
        path: The file; None if it could not be written.
        student: Of whom.
        reasons: Why it is left; empty if it holds.
        refused: What the gate asks in vain of it.
        kept_float: Names of the nodes that stay in float on purpose.
        metrics: On the validation rows.
        metric: The one of them that it is chosen by; see `recipes.gate.guarded_metric`.
        agreement: With the float file, on the validation rows: the fields of the ledger's row.
        size_bytes: Size of the file.
        latency: Milliseconds of single validation rows, ``p50`` and ``p95``.
    """

    step: str
    form: Form
    path: Path | None
    student: str
    reasons: Sequence[str]
    refused: Sequence[GateCheck] = ()
    kept_float: Sequence[str] = ()
    metrics: Mapping[str, float] | None = None
    metric: str = "accuracy"
    agreement: Mapping[str, Any] | None = None
    size_bytes: int = 0
    latency: Mapping[str, float] | None = None

    @property
    def held(self) -> bool:
        """Whether it holds all that the gate asks for."""
        return not self.reasons

    @property
    def only_too_much(self) -> bool:
        """Whether it is like enough to the float file, and too large or too slow."""
        return bool(self.refused) and all(check.unit for check in self.refused)

    @property
    def score(self) -> float:
        """What it is chosen by on the validation rows; less than any if it was not written."""
        return -math.inf if self.metrics is None else self.metrics[self.metric]

    @property
    def likeness(self) -> float:
        """The lesser share of labels in which it agrees with the float file."""
        found = self.agreement or {"validation_labels": -1.0, "batches_labels": -1.0}
        return float(min(found["validation_labels"], found["batches_labels"]))


class Bench:
    """What all forms of one float file are measured with, made when it is first needed.

    Args:
        work: The run; the student's float file has its row.
        student: The student's name.
    """

    def __init__(self, work: Workspace, student: str) -> None:
        self.work = work
        self.student = student
        self.row = work.ledger[float_row(student)]
        self.source = work.folder / self.row.path
        self.metric = guarded_metric(work.recipe, self.row.headline)
        self.tokenizer = load_tokenizer(work.folder / student)
        self.collate = work.task.collator(self.tokenizer)

    @cached_property
    def whole(self) -> Callable[[Mapping[str, Any]], np.ndarray]:
        """The float file as a function."""
        return open_model(self.source, self.work.hardware.threads)

    @cached_property
    def validation(self) -> list[dict[str, Any]]:
        """The validation rows as examples."""
        return self.work.examples("validation", self.tokenizer)

    @cached_property
    def singles(self) -> list[dict[str, Any]]:
        """Validation rows that are asked for one by one."""
        return [self.collate([example]) for example in self.validation[:_TIMED_ROWS]]

    def steps(self) -> Iterator[Step]:
        """Yield the forms that the recipe allows, the fastest first."""
        export = self.work.recipe.export
        return steps(
            self.source,
            floats=export.quantization == "auto",
            embeddings=export.embeddings,
            calibration=self._calibration,
            validation=self._scanned,
            threads=self.work.hardware.threads,
        )

    def measure(self, step: Step, target: Path) -> Tried:
        """Write a form and hold it against the float file and the gate."""
        several = bool(self.work.recipe.distill.others)
        name = f"{self.student}: {step.name}" if several else step.name
        try:
            kept_float = step.write(target)
        except QuantizerError as error:
            told = f"it could not be written: {error}"
            return Tried(name, step.form, None, self.student, [told])
        call = open_model(target, self.work.hardware.threads)
        # One by one, as an edge server is asked: an 8-bit model scales what goes at once alike.
        answers = by_length(call, self.validation, self.collate, batch_size=1)
        metrics = self.work.problem.metrics(answers, self.work.rows.validation.labels)
        agreement, latency = self._likeness(call, answers), self.time(call)
        found = Found(
            drop=self.row.validation[self.metric] - metrics[self.metric],
            rows=agreement["validation_labels"],
            batches=agreement["batches_labels"],
            worst=agreement["batches_worst"],
            size_bytes=size(target),
            p50=latency["p50"],
        )
        refused = [c for c in checks(self.work.recipe.gate, found, self.metric) if not c.passed]
        reasons = [check.told for check in refused]
        return Tried(
            name, step.form, target, self.student, reasons, refused, kept_float, metrics,
            self.metric, agreement, found.size_bytes, latency,
        )  # fmt: skip

    def _likeness(
        self, call: Callable[[Mapping[str, Any]], np.ndarray], answers: np.ndarray
    ) -> dict[str, Any]:
        """Compare a form with the float file, row by row and in batches of all kinds."""
        whole = self.work.logits(self.row.name)["validation"]
        parity = compare(self.whole, call, self.validation, self.collate, self.work.problem.same)
        return {
            "validation_labels": float(self.work.problem.same(answers, whole).mean()),
            "batches_max_logit_difference": parity.max_logit_difference,
            "batches_labels": parity.labels,
            "batches_answers": parity.answers,
            "batches_worst": parity.worst,
        }

    def time(self, call: Callable[[Mapping[str, Any]], Any]) -> dict[str, float]:
        """Return ``p50`` and ``p95`` of single validation rows, in milliseconds."""
        rows = self.singles
        times = interleaved({"": lambda row: call(rows[row])}, len(rows), _TIMED_ROUNDS)
        return times[""]

    def _calibration(self) -> list[dict[str, Any]]:
        examples = self.work.examples("train", self.tokenizer)
        every = max(1, len(examples) // _CALIBRATION_ROWS)
        chosen = examples[::every][:_CALIBRATION_ROWS]
        return [_inputs(self.collate([example])) for example in chosen]

    def _scanned(self) -> list[dict[str, Any]]:
        rows = self.validation[:_SCANNED_ROWS]
        return [
            self.collate(rows[first : first + _SCANNED_BATCH])
            for first in range(0, len(rows), _SCANNED_BATCH)
        ]


def climb(bench: Bench, folder: Path) -> list[Tried]:
    """Try the forms in their order, and say what comes of each.

    With ``export.choose=first`` the first that holds is the last that is tried, and so is one that
    is only too large or too slow, as all after it are larger or slower. With ``pareto`` all are
    tried, but for those that are only there to rescue what nothing before them has.

    Args:
        bench: What they are measured with.
        folder: Where to write them.
    """
    first, tried = bench.work.recipe.export.choose == "first", list[Tried]()
    for number, step in enumerate(bench.steps()):
        enough = any(one.held or one.only_too_much for one in tried)
        if enough and first:
            break
        if enough and step.rescue:
            continue
        tried.append(bench.measure(step, folder / f"{bench.student}.{number}.onnx"))
        say(f"  {told(tried[-1])}")
    return tried


def told(tried: Tried) -> str:
    """Say in a sentence what was tried and what came of it."""
    said = tried.step
    if tried.metrics is not None:
        what = tried.metric.replace("_", " ")
        said += (
            f": {what} {100 * tried.score:.2f} %, {100 * tried.likeness:.2f} % of the labels, "
            f"{tried.size_bytes / 1e6:.1f} MB"
        )
    return said + ("" if tried.held else f"; rejected: {'; '.join(tried.reasons)}")


def choose(tried: Sequence[Tried], way: str, max_drop: float) -> tuple[Tried, str]:
    """Choose a form, and say why.

    Args:
        tried: The forms in their order.
        way: ``"first"``; or ``"pareto"``: of those that hold and are within `max_drop` of the best
            of them, the smallest file. Its size is the same every time, which a time is
            not; a goal for the time is the recipe's ``gate.max_latency_ms``.
        max_drop: How much of `Tried.metric` may be given away, as a fraction.

    Returns:
        The form and the reason. If none holds, it is the one that is most like the float file.

    Raises:
        QuantizerError: Not one of them could be written.
    """
    written = [one for one in tried if one.path is not None]
    if not written:
        raise QuantizerError(tried[0].reasons[0])
    held = [one for one in written if one.held]
    if not held:
        nearest = max(written, key=lambda one: (one.likeness, one.score))
        return nearest, "none holds; this one is most like the float file"
    if way == "first":
        return held[0], "the first that holds"
    best = max(one.score for one in held)
    near = [one for one in held if one.score >= best - max_drop - 1e-9]
    return (
        min(near, key=lambda one: one.size_bytes),
        f"the smallest of {len(near)} that hold within {100 * max_drop:g} points of the best",
    )


def entries(tried: Sequence[Tried], chosen: Tried, why: str) -> list[dict[str, Any]]:
    """Return what the ledger keeps of the forms; their times are kept beside it."""
    return [
        {
            "step": one.step,
            "student": one.student,
            "form": one.form,
            "held": one.held,
            "chosen": one is chosen,
            "reason": "; ".join([*one.reasons, *([why] if one is chosen else [])]),
            "kept_float": list(one.kept_float),
            "metrics": _without_nan(one.metrics or {}),
            "agreement": _without_nan(one.agreement or {}),
            "size_bytes": one.size_bytes,
        }
        for one in tried
    ]


def _without_nan(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with None in the place of NaN: JSON knows none, a form that collapsed does."""
    return {name: None if value != value else value for name, value in found.items()}


def times(tried: Sequence[Tried], chosen: Tried) -> dict[str, Mapping[str, float]]:
    """Return the times of the forms by their names, and as ``gate`` those of the chosen one."""
    found = {one.step: one.latency for one in [*tried, replace(chosen, step="gate")]}
    return {name: latency for name, latency in found.items() if latency is not None}


def _inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file takes of a batch."""
    return {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
