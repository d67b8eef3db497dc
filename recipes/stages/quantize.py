"""The graph becomes 8-bit, and the gate says whether it may leave."""

from __future__ import annotations

import time

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
        return
    start = time.perf_counter()
    source, target = work.folder / FLOAT, work.folder / INT8
    quantize_int8(source, target)
    tokenizer = load_tokenizer(work.folder / "student")
    call = open_model(target, work.hardware.threads)
    parity = compare(
        open_model(source, work.hardware.threads),
        call,
        work.examples("test", tokenizer),
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
            },
            notes=[
                "dynamic int8 per channel, weights in 7 bits: no saturation without VNNI",
                f"batches: worst at {parity.worst}",
            ],
            **measured(work, "student-int8", logits),
        )
    )


def verdict(work: Workspace) -> list[str]:
    """Return why the int8 file may not be shipped; nothing if it may.

    The gate looks at the validation split only, and at the batches of the parity check.
    """
    if "student-int8" not in work.ledger:
        return []
    gate = work.recipe.gate
    whole, small = work.ledger["student-onnx"], work.ledger["student-int8"]
    drop = whole.validation["accuracy"] - small.validation["accuracy"]
    agree = small.agreement["validation_labels"]
    reasons = []
    if drop > gate.max_drop:
        reasons.append(
            f"int8 loses {drop:.4f} of validation accuracy, gate.max_drop allows {gate.max_drop:g}"
        )
    if agree < gate.min_label_agreement:
        reasons.append(
            f"int8 gives the float file's label on {agree:.4f} of the validation rows, "
            f"gate.min_label_agreement asks for {gate.min_label_agreement:g}"
        )
    return reasons
