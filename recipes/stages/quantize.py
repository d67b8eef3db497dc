"""The graph becomes 8-bit, as far down the ladder as the gate lets it."""

from __future__ import annotations

import shutil
import time

from export.session import open_model
from recipes.gate import gate_latency
from recipes.ladder import Bench, Tried, choose, climb, entries, times
from recipes.ledger import Row
from recipes.proof import agreement, answer_splits, measured
from recipes.several_students import STUDENT, students
from recipes.workspace import Workspace

#: Where a file of each form lies; a float one is there already.
FILES = {"int8": "onnx/model.int8.onnx", "float16": "onnx/model.float16.onnx"}
_TRIED = "onnx/tried"


def run(work: Workspace) -> None:
    """Try the forms that the recipe allows on validation rows, write the row ``student-int8``."""
    folder, start = work.folder / _TRIED, time.perf_counter()
    _clear(work)
    if work.recipe.export.quantization == "none":
        _time_float(work)
        return
    folder.mkdir()
    benches = {name: Bench(work, name) for name in students(work)}
    tried = [one for bench in benches.values() for one in climb(bench, folder)]
    export, gate = work.recipe.export, work.recipe.gate
    chosen, why = choose(tried, export.choose, gate.max_drop)
    assert chosen.path is not None
    bench = benches[chosen.student]
    target = FILES[chosen.form] if chosen.form != "float32" else bench.row.path
    if chosen.form != "float32":
        chosen.path.replace(work.folder / target)
    shutil.rmtree(folder)
    call = open_model(work.folder / target, work.hardware.threads)
    logits = answer_splits(work, call, bench.tokenizer, batch_size=1)
    work.ledger.put(
        Row(
            stage="quantize",
            name="student-int8",
            path=target,
            size_bytes=chosen.size_bytes,
            parameters=bench.row.parameters,
            threads=work.hardware.threads,
            seconds=time.perf_counter() - start,
            agreement={**agreement(work, bench.row.name, logits), **(chosen.agreement or {})},
            latency_ms=times(tried, chosen),
            ladder=entries(tried, chosen, why),
            notes=_notes(work, chosen, tried),
            **measured(work, "student-int8", logits, before=bench.row.name),
        )
    )


def _clear(work: Workspace) -> None:
    """Remove what an earlier attempt has left."""
    shutil.rmtree(work.folder / _TRIED, ignore_errors=True)
    for path in FILES.values():
        (work.folder / path).unlink(missing_ok=True)


def _time_float(work: Workspace) -> None:
    """Time the float file for the gate, which can only ask for size and speed then."""
    bench = Bench(work, STUDENT)
    row = bench.row
    found = {name: entry for name, entry in row.latency_ms.items() if name != "gate"}
    if work.recipe.gate.max_latency_ms is not None:
        found["gate"] = bench.time(bench.whole)
    if gate_latency(row) is not None or "gate" in found:
        work.ledger.update(row.name, latency_ms=found)
        work.ledger.write()


def _notes(work: Workspace, chosen: Tried, tried: list[Tried]) -> list[str]:
    """Say what the file is, what was rejected before it, and on which processor it was proven."""
    rejected = [one.step for one in tried if one is not chosen and not one.held]
    notes = [chosen.step + (f"; rejected: {', '.join(rejected)}" if rejected else "")]
    if chosen.form == "int8":
        notes.append("weights in 7 bits: no saturation without VNNI")
    if chosen.kept_float:
        notes.append(f"left in float: {', '.join(chosen.kept_float)}")
    flags = ", ".join(work.hardware.flags) or "none that matter here"
    return [*notes, f"proven on {work.hardware.name}; vector extensions: {flags}"]
