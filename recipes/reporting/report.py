"""The report of a run: one page that says whether to ship, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from recipes.gate import GateCheck, gate_checks
from recipes.ledger import Row
from recipes.reading import plain
from recipes.reporting import answers, panels
from recipes.reporting.card import model_card
from recipes.reporting.data import data_part
from recipes.reporting.distillation import distillation_part
from recipes.reporting.drawing import COLORS
from recipes.reporting.honesty import between, certainty_part
from recipes.reporting.ladder import ladder_panel, rungs
from recipes.reporting.phases import phases_part
from recipes.reporting.rendering import render
from recipes.reporting.summary import Summary, accuracy, called, latency, speed, summarize
from recipes.reporting.table import ledger_cells
from recipes.reporting.units import (
    duration,
    headed,
    megabytes,
    milliseconds,
    one_line,
    percent,
    points,
    times,
)
from recipes.tasks.wording import counted
from recipes.whole_files import write_text
from recipes.workspace import Workspace

#: Columns of the ledger's table that hold words.
_WORDS = ("row", "stage", "before")


def write_report(work: Workspace, reasons: list[str]) -> None:
    """Write ``report.html`` and the model card ``README.md`` into the run's folder.

    Args:
        work: A run whose stages have finished.
        reasons: Why the gate says no; empty if the model is shipped.
    """
    summary = summarize(work.ledger, reasons)
    environment = json.loads((work.folder / "environment.json").read_text(encoding="utf-8"))
    write_text(work.folder / "report.html", _page(work, summary, environment))
    write_text(work.folder / "README.md", model_card(work, summary, environment))


def _page(work: Workspace, summary: Summary, environment: Mapping[str, Any]) -> str:
    return render(
        "report.html.j2",
        name=work.folder.resolve().name,
        colors=COLORS,
        words=_WORDS,
        reasons=summary.reasons,
        shipped=summary.shipped,
        teacher=summary.teacher,
        lead=_lead(work, summary),
        tiles=_tiles(summary),
        cells=ledger_cells(work.ledger),
        legend=_legend(work, summary),
        notes=_notes(work),
        tradeoff=panels.tradeoff(work, summary),
        trainings=panels.trainings(work),
        phases=phases_part(work),
        distillation=distillation_part(work, summary),
        **answers.answers_part(work, summary),
        **certainty_part(work, summary),
        lengths=panels.lengths(work),
        data=data_part(work),
        proofs=_proofs(work),
        proofs_takeaway=_proven(work),
        gate=_gate(work),
        score=called(summary.shipped),
        rungs=rungs(summary.shipped),
        frontier=ladder_panel(summary.shipped),
        facts=_facts(environment),
        data_facts=_data_facts(environment),
        data_notes=environment["data"]["notes"],
        recipe=yaml.safe_dump(plain(work.recipe), sort_keys=False, allow_unicode=True),
    )


def _lead(work: Workspace, summary: Summary) -> str:
    own, packed, rival = summary.shipped, summary.packed, summary.rival
    sentences = [_achieved(work, own)]
    if rival is not None:
        better = accuracy(own) > accuracy(rival)
        sentences.append(
            f"The best baseline, {rival.name}, reaches {percent(accuracy(rival))}"
            + ("." if better else ": ship that, or give the model more to learn.")
        )
    if packed is not None:
        time = latency(packed)
        taken = f" and takes {milliseconds(time)}" if time else ""
        sentences.append(
            f"As it leaves, asked one text at a time with tokenizing included, the bundle has "
            f"{called(packed)} {percent(accuracy(packed))}{taken}."
        )
    if summary.reasons:
        sentences.append("Nothing was packed; everything is kept in the run's folder:")
    return " ".join(sentences)


def _achieved(work: Workspace, row: Row) -> str:
    rows, score = counted(row.examples, "test row"), percent(accuracy(row))
    labels = counted(len(work.rows.labels), "label")
    if work.rows.problem == "regression":
        return f"{row.name} explains {score} of what differs between {rows}."
    if work.rows.problem == "multi_label":
        return f"{row.name} gives texts any of {labels} with {called(row)} {score} on {rows}."
    return f"{row.name} tells {labels} apart and is right on {score} of {rows}."


def _tiles(summary: Summary) -> list[dict[str, str]]:
    own, teacher, judged = summary.shipped, summary.teacher, summary.judged
    second = "mae" if "mae" in own.metrics and "macro_f1" not in own.metrics else "macro_f1"
    time, other = latency(own), latency(teacher)
    tiles = [
        {
            "title": f"{headed(called(own))}, test",
            "value": percent(accuracy(judged)),
            "detail": f"{points(summary.gained)} against {teacher.name}"
            + (f"; 95% interval {ends}" if (ends := between(judged)) else ""),
        },
        {
            "title": "Macro F1, test" if second == "macro_f1" else "Mean distance, test",
            "value": _second(judged, second),
            "detail": f"{teacher.name} {_second(teacher, second)}",
        },
        {
            "title": "Size of the file",
            "value": megabytes(own.size_bytes),
            "detail": f"{times(summary.smaller)} smaller than {teacher.name}, "
            f"{megabytes(teacher.size_bytes)}",
        },
        {"title": "Latency, batch 1", "value": "not timed", "detail": ""},
    ]
    if time and other and summary.faster:
        tiles[-1] |= {
            "value": milliseconds(time),
            "detail": f"{speed(summary.faster)} {teacher.name}, {milliseconds(other)}; 95% within "
            f"{milliseconds(own.latency_ms['batch_1']['p95'])}",
        }
    return tiles


def _second(row: Row, metric: str) -> str:
    value = row.metrics[metric]
    return percent(value) if metric == "macro_f1" else f"{value:.3g}"


def _legend(work: Workspace, summary: Summary) -> list[str]:
    seconds, what = sum(row.seconds for row in work.ledger), called(summary.shipped)
    shift = "a probability, in points"
    if work.rows.problem == "regression":
        shift = "a number, in hundredths of a deviation"
    notes = [
        f"Scores are percent, differences points of test {what}. Choices are made on the "
        "validation split; the test split is only reported.",
        "before: the row that an artefact is compared with. agree: share of test rows on which "
        f"both give the same answer. max shift: the largest difference of {shift}.",
        "95%: intervals from a bootstrap over the test rows; of differences, with both models on "
        "the same rows. A difference whose interval holds 0 may be chance.",
        f"All rows together took {duration(seconds)}.",
    ]
    if latency(summary.shipped):
        notes.insert(
            2,
            f"Latency: one text at a time on {counted(summary.shipped.threads, 'thread')}, the "
            "artefacts taking turns; baselines and bundle are timed from the text on, all others "
            "from its tokens on.",
        )
    return notes


def _notes(work: Workspace) -> dict[str, list[str]]:
    """Return what rows note, with the names of the rows: many share a note."""
    notes: dict[str, list[str]] = {}
    for row in work.ledger:
        for note in row.notes:
            notes.setdefault(note, []).append(row.name)
    return notes


def _proofs(work: Workspace) -> list[dict[str, Any]]:
    return [_proof(row) for row in work.ledger if row.agreement]


def _proof(row: Row) -> dict[str, Any]:
    found = row.agreement
    shares = ("labels", "max_probability_shift", "batches_labels")
    cells = [
        ("" if key not in found else percent(found[key], 2))
        if key in shares
        else ("" if key not in found else _small(found[key]))
        for key in (
            "labels",
            "max_probability_shift",
            "max_logit_difference",
            "batches_answers",
            "batches_labels",
            "batches_max_logit_difference",
        )
    ]
    return {
        "name": row.name,
        "other": found["with"],
        "cells": cells,
        "worst": found.get("batches_worst", ""),
    }


def _small(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _proven(work: Workspace) -> str:
    parts = []
    for name in ("student-onnx", "student-int8"):
        found = work.ledger[name].agreement if name in work.ledger else {}
        if "batches_labels" in found:
            parts.append(
                f"{name} gives the label of {found['with']} in "
                f"{percent(found['batches_labels'], 2)} of {found['batches_answers']:,} answers, "
                f"its logits within {found['batches_max_logit_difference']:.2g}"
            )
    return f"In batches of every size, length and padding {'; '.join(parts)}." if parts else ""


def _gate(work: Workspace) -> list[dict[str, Any]]:
    """Return the gate's checks in words; without quantization only goals of size and time."""
    return [
        {
            "what": f"{check.what}: {check.where}",
            "measured": _measured(check, check.measured),
            "allowed": f"at {'most' if check.at_most else 'least'} "
            f"{_measured(check, check.allowed)}",
            "passed": check.passed,
        }
        for check in gate_checks(work)
    ]


def _measured(check: GateCheck, value: float) -> str:
    return f"{value:.3g}\u00a0{check.unit}" if check.unit else percent(value, 2)


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    there = {True: "yes", False: "no"}
    return {
        "processor": f"{environment['processor']}, {counted(environment['threads'], 'thread')}",
        "trained on": environment["device"],
        "vector extensions": ", ".join(environment["processor_flags"]) or "none that matter here",
        "bfloat16": there[environment["bf16"]],
        "int8 without saturation": there[environment["vnni"]],
        "asked for, not there": "; ".join(environment["missing"]) or "nothing",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in environment["seeds"].items()),
        "system": f"{environment['system']}, Python {environment['python']}",
        "versions": ", ".join(f"{name} {v}" for name, v in environment["versions"].items()),
    }


def _data_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    data, backbone = environment["data"], environment["backbone"]
    return {
        "source": one_line(data["source"]),
        "license": data["license"],
        "fingerprint": data["fingerprint"][:16],
        "weights": one_line(backbone["source"]),
        "license of the weights": backbone["license"],
        "their fingerprint": backbone["fingerprint"][:16],
    }
