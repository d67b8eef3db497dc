"""Everything is timed in turn, and what passed the gate is packed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.files import load_adapter
from export.bundle import FLOAT_TOLERANCE, INT8_TOLERANCE, pack
from export.edge import Model
from export.latency import interleaved
from export.session import open_model, session_settings
from recipes.console import say
from recipes.decide import decide
from recipes.gate import verdict
from recipes.ledger import Row, held_in
from recipes.problems.decision import AS_IT_IS, Decision
from recipes.proof import agreement, measured, size
from recipes.reporting.card import bundle_card
from recipes.reporting.summary import known_phases
from recipes.several_students import STUDENT, float_row, student_of, students
from recipes.slices import sliced
from recipes.stages.baseline import BASELINES
from recipes.workspace import SPLITS, Workspace, load_tokenizer, torch_call

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

#: Test rows that are asked for in turn when artefacts are timed.
_TIMED_ROWS = 100
#: Validation rows that may become golden: real ones of every label.
_GOLDEN_ROWS = 200
#: The backbone as it was before a strategy added layers to it: timed, and nothing else.
_PLAIN = "backbone"
_ADDED = "latency_ms.without_added_layers: the same model without the layers of its strategy"
_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "onnx", "onnxscript")


def run(work: Workspace) -> None:
    """Pack what the gate let through, write the row ``bundle``, and time every artefact."""
    start = time.perf_counter()
    work.ledger.drop_stages(["bundle"])
    shipped = "student-onnx" if work.recipe.export.quantization == "none" else "student-int8"
    passed = not verdict(work)
    folder = work.folder / "bundle"
    calls = _calls(work)
    decision = AS_IT_IS
    if passed:
        # Packed twice: what the first answers decides how the second does, and the timings of the
        # first belong into the ledger that the second carries.
        _pack(work, folder, shipped)
        edge = Model(folder, work.hardware.threads)
        calls["bundle"] = lambda row: edge.predict([work.rows.test.texts[row]])
        logits = {split: _alone(edge, getattr(work.rows, split).texts) for split in SPLITS}
        decision, facts = decide(work, shipped, logits)
        work.ledger.put(
            Row(
                stage="bundle",
                name="bundle",
                path="bundle",
                size_bytes=size(folder / "model.onnx", folder / "tokenizer.json"),
                parameters=work.ledger[shipped].parameters,
                threads=work.hardware.threads,
                agreement=_agreement(work, shipped, logits, decision),
                decision=facts,
                notes=["answers of edge.py, a text at a time; its time includes tokenizing"],
                **measured(work, "bundle", logits, before=shipped, decision=decision),
            )
        )
    own = "bundle" if passed else shipped
    moved = decision.moved(work.logits(own)["test"], work.rows.labels)
    work.ledger.update(own, slices=sliced(work, moved, work.logits("teacher")["test"]))
    rows = min(_TIMED_ROWS, len(work.rows.test))
    times = interleaved(calls, rows)
    plain = times.pop(_PLAIN, None)
    for name, measured_times in times.items():
        known = {**work.ledger[name].latency_ms, "batch_1": measured_times}
        work.ledger.update(name, latency_ms=known, threads=work.hardware.threads)
    if plain is not None:
        _note_added_layers(work, plain)
    if passed:
        work.ledger.update("bundle", seconds=time.perf_counter() - start)
        _pack(work, folder, shipped, decision)
    work.ledger.write()


def _agreement(
    work: Workspace, name: str, logits: Mapping[str, np.ndarray], decision: Decision
) -> dict[str, Any]:
    """Compare the bundle with its file: logits as they are, labels as they are given."""
    moved = decision.moved(logits["test"], work.rows.labels)
    same = float(work.problem.same(moved, work.logits(name)["test"]).mean())
    return {**agreement(work, name, logits), "labels": same}


def _note_added_layers(work: Workspace, plain: dict[str, float]) -> None:
    """Say what the layers that the strategy has added cost, timed in the same turns."""
    merged = work.ledger["merged"]
    times = {**merged.latency_ms, "without_added_layers": plain}
    notes = dict.fromkeys((*merged.notes, _ADDED))
    work.ledger.update("merged", latency_ms=times, notes=tuple(notes))
    extra = times["batch_1"]["p50"] - plain["p50"]
    say(f"  the strategy's layers cost {extra:+.2f} ms on {plain['p50']:.2f} ms at the median")


def _calls(work: Workspace) -> dict[str, Callable[[int], Any]]:
    """Return one function for each artefact that answers test row ``i`` alone."""
    texts = work.rows.test.texts
    calls: dict[str, Callable[[int], Any]] = {}
    for name, fit in BASELINES.items():
        answer, _ = fit(work)
        calls[name] = lambda row, answer=answer: answer([texts[row]])  # type: ignore[misc]
    models = {"teacher": _teacher(work), "merged": work.load(path=work.folder / "merged")}
    models |= {
        name: work.load(path=work.folder / name) for name in (*students(work), "student-alone")
    }
    if work.recipe.strategy is not None and work.strategy.adds_layers:
        models[_PLAIN] = work.load()
    # On the processor, where the files run too: only there do ratios mean something.
    functions = {name: (torch_call(model.cpu()), name) for name, model in models.items()}
    for name in (*map(float_row, students(work)), "student-int8"):
        if name in work.ledger:
            file = work.folder / work.ledger[name].path
            function = open_model(file, work.hardware.threads)
            functions[name] = (function, student_of(work.ledger[name]))
    for name, (function, reads) in functions.items():
        own = reads.startswith(STUDENT)
        tokenizer = load_tokenizer(work.folder / reads) if own else work.tokenizer
        collate = work.task.collator(tokenizer)
        examples = work.examples("test", tokenizer)[:_TIMED_ROWS]
        batches = [collate([example]) for example in examples]
        calls[name] = lambda row, f=function, b=batches: f(b[row])  # type: ignore[misc]
    return calls


def _teacher(work: Workspace) -> PreTrainedModel:
    if work.recipe.strategy is None:
        return work.load_taught()
    backbone = work.load(work.quantization)
    return load_adapter(work.folder / "teacher", backbone, work.strategy, work.rows.labels)


def _alone(edge: Model, texts: Any) -> Any:
    """Return the edge runtime's logits of texts that are asked one by one, as an edge server is."""
    import numpy as np

    return np.concatenate([edge.logits([text]) for text in texts])


def _pack(work: Workspace, folder: Path, shipped: str, decision: Decision = AS_IT_IS) -> None:
    tokenizer = load_tokenizer(work.folder / student_of(work.ledger[shipped]))
    inputs = ["input_ids", "attention_mask"]
    pack(
        folder,
        name=work.folder.name,
        model=work.folder / work.ledger[shipped].path,
        tokenizer=tokenizer.backend_tokenizer,
        labels=work.rows.labels,
        processing=work.task.processing(tokenizer, work.max_length, inputs),  # type: ignore[arg-type]
        # The machine that it runs on has its own number of cores.
        session=session_settings(threads=0),
        golden_texts=work.rows.validation.texts[:_GOLDEN_ROWS],
        tolerance=INT8_TOLERANCE if held_in(work.ledger[shipped]) == "int8" else FLOAT_TOLERANCE,
        ledger=work.ledger.plain(),
        versions={name: version(name) for name in _VERSIONS},
        licenses={"weights": work.backbone.license, "data": work.rows.license},
        card=bundle_card(work, shipped),
        phases=known_phases(work.ledger),  # type: ignore[arg-type]
        **decision.plain(),
        problem=work.rows.problem,
        scale=work.rows.facts.get("scale"),
    )
