"""The student becomes an ONNX graph."""

from __future__ import annotations

import json
import time

from export.graph import export_onnx
from export.parity import compare, require_equal
from export.session import open_model
from recipes.ledger import Row
from recipes.proof import agreement, answer_splits, count, measured, size
from recipes.workspace import Workspace, load_tokenizer, torch_call

#: The largest difference of a logit between PyTorch and the float graph.
TOLERANCE = 1e-4
FLOAT = "onnx/model.onnx"


def run(work: Workspace) -> None:
    """Export, prove the graph against PyTorch on real rows, write the row ``student-onnx``."""
    start = time.perf_counter()
    student = work.load(path=work.folder / "student").cpu()
    tokenizer = load_tokenizer(work.folder / "student")
    collate = work.task.collator(tokenizer)
    examples = work.examples("test", tokenizer)
    longest = max(examples, key=lambda row: len(row["input_ids"]))
    batch = collate([longest, *examples[:3]])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    path = work.folder / FLOAT
    path.parent.mkdir(exist_ok=True)
    metadata = {
        "labels": json.dumps(list(work.rows.labels), ensure_ascii=False),
        "problem_type": work.task.problem_type,
        "processing": json.dumps(work.task.processing(tokenizer, work.max_length, list(inputs))),
    }
    notes = export_onnx(
        student, inputs, path, optimize=work.recipe.export.optimize, metadata=metadata
    )
    call = open_model(path, work.hardware.threads)
    parity = compare(torch_call(student), call, examples, collate)
    require_equal(parity, TOLERANCE, "float ONNX against PyTorch")
    logits = answer_splits(work, call, tokenizer)
    work.ledger.put(
        Row(
            stage="export",
            name="student-onnx",
            path=FLOAT,
            parameters=count(student),
            size_bytes=size(path),
            threads=work.hardware.threads,
            seconds=time.perf_counter() - start,
            agreement={
                **agreement(work, "student", logits),
                "batches_max_logit_difference": parity.max_logit_difference,
                "batches_labels": parity.labels,
                "batches_answers": parity.answers,
                "batches_worst": parity.worst,
            },
            notes=notes,
            **measured(work, "student-onnx", logits),
        )
    )
