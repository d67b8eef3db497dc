"""The graph becomes 8-bit, and the gate says whether it may leave."""

from __future__ import annotations

import time
from dataclasses import dataclass

from export.parity import compare
from export.quantize import quantize_int8
from export.session import open_model
from recipes.ledger import Row
from recipes.proof import agreement, answer_splits, measured, size
from recipes.stages.export import FLOAT
from recipes.workspace import Workspace, load_tokenizer

INT8 = "onnx/model.int8.onnx"


def run(work: Workspace) -> None:
    """Quantize, compare with the float file on real rows, write the row ``student-int8``."""
    if work.recipe.export.quantization == "none":
        (work.folder / INT8).unlink(missing_ok=True)
        return
    start = time.perf_counter()
    source, target = work.folder / FLOAT, work.folder / INT8
    quantize_int8(source, target, embeddings=work.recipe.export.embeddings)
    tokenizer = load_tokenizer(work.folder / "student")
    call = open_model(target, work.hardware.threads)
    parity = compare(
        open_model(source, work.hardware.threads),
        call,
        work.examples("validation", tokenizer),
        work.task.collator(tokenizer),
    )
    logits = answer_splits(work, call, tokenizer)
    on_validation = agreement(work, "student-onnx", logits, split="validation")
    work.ledger.put(
        Row(
            stage="quantize",
            name="student-int8",
            path=INT8,
            size_bytes=size(target),
            parameters=work.ledger["student-onnx"].parameters,
            threads=work.hardware.threads,
            seconds=time.perf_counter() - start,
            agreement={
                **agreement(work, "student-onnx", logits),
                "validation_labels": on_validation["labels"],
                "batches_max_logit_difference": parity.max_logit_difference,
                "batches_labels": parity.labels,
                "batches_answers": parity.answers,
                "batches_worst": parity.worst,
            },
            notes=["dynamic int8 per channel, weights in 7 bits: no saturation without VNNI"],
            **measured(work, "student-int8", logits),
        )
    )


@dataclass(frozen=True)
class GateCheck:
    """One thing that the gate asks of the int8 file.

    Attributes:
        what: What is compared.
        measured: What was found, a fraction.
        allowed: The recipe's bound, a fraction.
        at_most: Whether the bound is an upper one.
        where: On which rows.
    """

    what: str
    measured: float
    allowed: float
    at_most: bool
    where: str

    @property
    def passed(self) -> bool:
        """Whether the bound holds; a difference of two fractions is only exact to rounding."""
        over = self.measured - self.allowed
        return over <= 1e-9 if self.at_most else over >= -1e-9


def gate_checks(work: Workspace) -> list[GateCheck]:
    """Return what the gate finds, on validation rows only; nothing if nothing was quantized."""
    if "student-int8" not in work.ledger:
        return []
    gate = work.recipe.gate
    whole, small = work.ledger["student-onnx"], work.ledger["student-int8"]
    drop = whole.validation["accuracy"] - small.validation["accuracy"]
    rows, batches = small.agreement["validation_labels"], small.agreement["batches_labels"]
    worst = small.agreement["batches_worst"]
    least = gate.min_label_agreement
    return [
        GateCheck("gate.max_drop", drop, gate.max_drop, True, "accuracy on the validation rows"),
        GateCheck("gate.min_label_agreement", rows, least, False, "the validation rows"),
        GateCheck("gate.min_label_agreement", batches, least, False, f"batches, worst at {worst}"),
    ]


def verdict(work: Workspace) -> list[str]:
    """Return why the int8 file may not be shipped; nothing if it may."""
    return [
        f"int8 against float: {check.measured:.4f} ({check.where}), {check.what} asks for at "
        f"{'most' if check.at_most else 'least'} {check.allowed:g}"
        for check in gate_checks(work)
        if not check.passed
    ]
