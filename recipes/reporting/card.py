"""The words that go with a model: the run's model card and the bundle's own README."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from recipes.ledger import Row, held_in
from recipes.long_text import told
from recipes.reading import plain
from recipes.reporting.answers import scores_by_label
from recipes.reporting.honesty import between, decision_lines
from recipes.reporting.ladder import rungs
from recipes.reporting.phases import phases_table
from recipes.reporting.rendering import render
from recipes.reporting.summary import (
    Summary,
    accuracy,
    called,
    known_phases,
    latency,
    named,
    phases_line,
    speed,
)
from recipes.reporting.table import ledger_cells
from recipes.reporting.units import milliseconds, percent, times
from recipes.several_students import student_of, students
from recipes.students import described
from recipes.workspace import Workspace

_RESULTS = (
    "row", "valid.", "test", "test 95%", "± before", "± 95%", "± teacher", "macro F1", "MB",
    "params M", "p50 ms", "p95 ms",
)  # fmt: skip
#: Parts of the recipe that say how the model was trained.
_TRAINING = ("backbone", "strategy", "train", "merge", "distill", "export", "gate", "seed")


def model_card(work: Workspace, summary: Summary, environment: Mapping[str, Any]) -> str:
    """Return the run's model card, in Markdown with the Hugging Face Hub's front matter.

    Args:
        work: A finished run.
        summary: What it came to.
        environment: The content of ``environment.json``.
    """
    own, judged = summary.shipped, summary.judged
    cells = ledger_cells(work.ledger)
    return render(
        "card.md.j2",
        front=_front_matter(work, summary),
        name=work.folder.resolve().name,
        own=own,
        teacher=summary.teacher,
        reasons=summary.reasons,
        packed=summary.packed is not None,
        made=_made(work, summary),
        bargain=_bargain(summary),
        interval=between(judged),
        decisions=[] if summary.packed is None else decision_lines(summary.packed),
        judged=judged,
        accuracy=percent(accuracy(judged)),
        score=called(own),
        problem=work.rows.problem,
        more=_more(judged),
        long=told(work.recipe.data.long, work.max_length),
        labels=_labels(work, summary),
        phases=phases_table(work, own.name),
        phases_line=phases_line(work.ledger),
        sizes={n: len(getattr(work.rows, n)) for n in ("train", "validation", "test")},
        columns=_RESULTS,
        results=[[row[column] for column in _RESULTS] for row in cells],
        rungs=rungs(own),
        training=_training(work),
        environment=environment,
    )


def bundle_card(work: Workspace, shipped: str) -> str:
    """Return the README of the bundle.

    Args:
        work: The run.
        shipped: Name of the row whose file the bundle carries.
    """
    row = work.ledger["bundle" if "bundle" in work.ledger else shipped]
    return render(
        "bundle.md.j2",
        name=work.folder.resolve().name,
        row=row,
        accuracy=percent(accuracy(row)),
        score=called(row),
        problem=work.rows.problem,
        pairs=work.task.pairs,
        decisions=decision_lines(row),
        withheld=bool(row.decision.get("thresholds")),
        more=_more(row),
        labels=work.rows.labels,
        phases=known_phases(work.ledger),
        long=told(work.recipe.data.long, work.max_length),
        weights=work.backbone,
        data=work.rows,
    )


def _more(row: Row) -> str:
    """Say what else was measured, beside the headline."""
    if row.headline == "r2":
        return f"a mean distance of {row.metrics['mae']:.3g}"
    return f"a macro F1 of {percent(row.metrics['macro_f1'])}"


def _front_matter(work: Workspace, summary: Summary) -> str:
    recipe, own, judged = work.recipe, summary.shipped, summary.judged
    plain_recipe = plain(recipe)
    tags = ["text-classification", "onnx", "distillation"]
    if plain_recipe["strategy"] is not None:
        tags.append(plain_recipe["strategy"]["name"])
    tags += ["int8"] if held_in(own) == "int8" else []
    source = recipe.data.source
    measured = _on_the_hub(work, judged)
    results = [
        {"type": kind, "name": words, "value": round(judged.metrics[name], 4)}
        for kind, name, words in measured
    ]
    head: dict[str, Any] = {
        "license": work.backbone.license.lower(),
        "pipeline_tag": "text-classification",
        "tags": [*tags, "potstill"],
        "metrics": list(dict.fromkeys(kind for kind, _, _ in measured)),
    }
    if recipe.backbone.model.startswith("hub:"):
        head["base_model"] = recipe.backbone.model.removeprefix("hub:")
    if source is not None and source.startswith("hub:"):
        head["datasets"] = [source.removeprefix("hub:")]
    head["model-index"] = [
        {
            "name": work.folder.resolve().name,
            "results": [
                {
                    "task": {"type": "text-classification"},
                    "dataset": {
                        "name": work.rows.source,
                        "type": (source or "own-data").removeprefix("hub:"),
                        "split": "test",
                    },
                    "metrics": results,
                }
            ],
        }
    ]
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True)


def _on_the_hub(work: Workspace, row: Row) -> list[tuple[str, str, str]]:
    """Return the figures that the Hub shows: its own name of each, ours, and words.

    First comes the headline metric.
    """
    several = work.rows.problem == "multi_label"
    kinds = {"accuracy": "accuracy", "macro_f1": "f1", "precision": "precision"}
    kinds |= {"recall": "recall", "r2": "r_squared", "spearman": "spearmanr", "mae": "mae"}
    kinds = {row.headline: {"micro_f1": "f1"}.get(row.headline, row.headline)} | kinds
    return [
        (kind, name, "all labels right" if several and name == "accuracy" else named(name))
        for name, kind in kinds.items()
        if name in row.metrics
    ]


def _made(work: Workspace, summary: Summary) -> str:
    """Say in a sentence how the file came about."""
    recipe = work.recipe
    chosen = students(work)[student_of(summary.shipped)].recipe.distill
    small = f"a student ({described(chosen)})"
    form = held_in(summary.shipped)
    learnt = f"{small} learnt from it and was exported to ONNX in {form}."
    if recipe.strategy is None:
        return f"The classifier {recipe.backbone.model} was taken as it is; {learnt}"
    held = recipe.backbone.quantization
    on = "" if held == "none" else f" on weights held in {held}"
    strategy = plain(recipe)["strategy"]["name"]
    if work.rows.phases:
        strategy += f" in {len(work.rows.phases)} phases"
    return (
        f"The backbone {recipe.backbone.model} was fine-tuned ({strategy}{on}) and merged into "
        f"plain weights; {learnt}"
    )


def _bargain(summary: Summary) -> str:
    own, teacher = summary.shipped, summary.teacher
    size = f"The file is {times(summary.smaller)} smaller than the merged teacher"
    time = latency(own)
    if summary.faster is None or time is None:
        return f"{size}."
    return (
        f"{size} and answers one text in {milliseconds(time)} on {own.threads} threads, "
        f"{speed(summary.faster)} {teacher.name} in PyTorch."
    )


def _labels(work: Workspace, summary: Summary) -> list[dict[str, Any]]:
    if work.rows.problem == "regression":
        return []
    scores, there = scores_by_label(work, summary.judged.name)
    several = work.rows.problem == "multi_label"
    splits = []
    for name in ("train", "validation", "test"):
        given = getattr(work.rows, name).labels
        splits.append(
            Counter(place for row in given for place, one in enumerate(row) if one)
            if several
            else Counter(given)
        )
    return [
        {
            "name": label,
            "rows": [f"{split[number]:,}" for split in splits],
            "f1": percent(scores[number]) if there[number] else "",
        }
        for number, label in enumerate(work.rows.labels)
    ]


def _training(work: Workspace) -> list[tuple[str, Any]]:
    """Return dotted keys and values of the recipe's parts that shape the training."""
    tree = plain(work.recipe)
    return [pair for part in _TRAINING for pair in _leaves(part, tree[part])]


def _leaves(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [pair for name, inner in value.items() for pair in _leaves(f"{key}.{name}", inner)]
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return [(key, text.removesuffix("\n").removesuffix("\n...").strip())]
