"""The student becomes an ONNX graph."""

from __future__ import annotations

import json
import time

from export.graph import export_onnx
from export.parity import compare, require_equal
from export.session import open_model
from recipes.ledger import Row
from recipes.proof import agreement, answer_splits, count, measured, size
from recipes.several_students import STUDENT, float_row, students
from recipes.workspace import Workspace, load_tokenizer, torch_call

#: The largest difference of a logit between PyTorch and the float graph.
TOLERANCE = 1e-4
FLOAT = "onnx/model.onnx"


def run(work: Workspace) -> None:
    """Export, prove the graph against PyTorch on real rows, write the row ``student-onnx``."""
    (work.folder / FLOAT).parent.mkdir(exist_ok=True)
    for name in students(work):
        _export(work, name, FLOAT if name == STUDENT else f"onnx/{name}.onnx")


def _export(work: Workspace, name: str, file: str) -> None:
    start = time.perf_counter()
    student = work.load(path=work.folder / name).cpu()
    tokenizer = load_tokenizer(work.folder / name)
    collate = work.task.collator(tokenizer)
    examples = work.examples("test", tokenizer)
    longest = max(examples, key=lambda row: len(row["input_ids"]))
    batch = collate([longest, *examples[:3]])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    path = work.folder / file
    metadata = {
        "labels": json.dumps(list(work.rows.labels), ensure_ascii=False),
        "problem_type": work.rows.problem,
        "processing": json.dumps(work.task.processing(tokenizer, work.max_length, list(inputs))),
    }
    notes = export_onnx(
        student, inputs, path, optimize=work.recipe.export.optimize, max_length=work.max_length,
        metadata=metadata,
    )  # fmt: skip
    call = open_model(path, work.hardware.threads)
    parity = compare(torch_call(student), call, examples, collate, work.problem.same)
    require_equal(parity, TOLERANCE, "float ONNX against PyTorch")
    logits = answer_splits(work, call, tokenizer)
    work.ledger.put(
        Row(
            stage="export",
            name=float_row(name),
            path=file,
            parameters=count(student),
            size_bytes=size(path),
            threads=work.hardware.threads,
            seconds=time.perf_counter() - start,
            agreement={
                **agreement(work, name, logits),
                "batches_max_logit_difference": parity.max_logit_difference,
                "batches_labels": parity.labels,
                "batches_answers": parity.answers,
                "batches_worst": parity.worst,
            },
            notes=notes,
            **measured(work, float_row(name), logits, before=name),
        )
    )
