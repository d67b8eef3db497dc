"""Comparisons of cells that learn from different numbers of rows."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from test_compare import QUICK, InProcess, outcome

from recipes.compare import main
from recipes.ledger import Ledger, Row
from recipes.reporting.comparison import Comparison, Outcome, Result, legend, write_comparison
from recipes.reporting.learning_curve import (
    curve_cells,
    curve_figures,
    is_curve,
    learning_curve,
)


def result(label: str, rows: int, *accuracies: float, **found: float) -> Result:
    outcomes = [
        outcome(seed, training_rows=rows, test_accuracy=accuracy, frozen_test_accuracy=0.5, **found)
        for seed, accuracy in enumerate(accuracies)
    ]
    return Result(label, (), outcomes)


def test_rows_and_baselines_come_from_the_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    ledger.put(Row("baseline", "frozen-logreg", metrics={"accuracy": 0.4}))
    assert curve_figures(ledger, 96) == {"frozen_test_accuracy": 0.4, "training_rows": 96}
    assert curve_figures(ledger, None) == {}  # a run of an earlier version


def test_cells_of_one_size_are_no_curve(tmp_path: Path) -> None:
    same = [result("rank=2", 90, 0.8), result("rank=4", 90, 0.9)]
    assert not is_curve(same)
    assert Comparison("r", same, {}).best is same[0]
    assert len(write_comparison(Comparison("r", same, {}), tmp_path)) == 3


def test_the_table_says_how_far_the_teacher_is_above() -> None:
    results = [
        result("fraction=0.1", 30, 0.5, 0.6),
        result("fraction=1", 300, 0.9, 0.9, student_test_accuracy=0.88),
        Result("fraction=2", (), [Outcome(0, "c", fault="killed")]),
    ]
    first, second, failed = curve_cells(results, [r.title for r in results])
    assert first["rows"] == "30"
    assert first["teacher"].startswith("55.00 ±7.07")
    assert first["frozen-logreg"].startswith("50.00")
    assert (first["teacher above"], second["teacher above"]) == ("+5.00", "+40.00")
    assert (first["student"], second["student"][:5]) == ("", "88.00")
    assert set(failed.values()) == {"fraction=2 (1 of 1 failed)", ""}


def test_each_other_setting_has_a_line_and_the_baselines_one() -> None:
    results = [
        result("fraction=1 lora", 300, 0.9),
        result("fraction=0.1 lora", 30, 0.6),
        result("fraction=0.1 full", 30, 0.7),
        result("fraction=1 full", 300, 0.8),
    ]
    axes = inspect.unwrap(learning_curve)(results).axes[0]
    lines = {c.get_label(): c[0] for c in axes.containers}
    assert list(lines) == ["teacher, lora", "frozen-logreg", "teacher, full"]
    assert list(lines["teacher, lora"].get_xdata()) == [30, 300]
    assert list(lines["teacher, lora"].get_ydata()) == [60, 90]
    assert axes.get_xscale() == "log"


def test_baselines_of_other_backbones_have_lines_of_their_own() -> None:
    """What a backbone knows without learning is no rival of another's teacher."""
    frozen = {"small": 0.5, "large": 0.7}
    results = [
        replace(one, outcomes=[replace(o, figures=o.figures | own) for o in one.outcomes])
        for model, score in frozen.items()
        for rows in (30, 300)
        for one in [result(f"model={model} fraction={rows / 300:g}", rows, 0.9)]
        for own in [{"frozen_test_accuracy": score, "tfidf_test_accuracy": 0.6}]
    ]
    axes = inspect.unwrap(learning_curve)(results).axes[0]
    lines = {c.get_label(): list(c[0].get_ydata()) for c in axes.containers}
    assert lines["frozen-logreg, model=small"] == [50, 50]
    assert lines["frozen-logreg, model=large"] == [70, 70]
    assert [name for name in lines if name.startswith("tfidf")] == ["tfidf-logreg"]


def test_no_cell_is_called_the_best_for_having_more_rows(tmp_path: Path) -> None:
    results = [result("per_class=8", 48, 0.6), result("per_class=16", 96, 0.8)]
    comparison = Comparison("few_shot_cls", results, {})
    assert comparison.best is None
    assert not any("best" in line for line in legend(comparison))
    paths = write_comparison(comparison, tmp_path)
    assert paths[-1].name == "learning_curve.png"
    assert paths[-1].read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "comparison.md").read_text()
    assert "(learning_curve.png)" in text
    assert "teacher above" in text


@pytest.mark.chain
def test_the_command_draws_a_curve_on_the_same_test_rows(
    tiny_backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.child.Popen", InProcess)
    data = tiny.table(tmp_path / "rows.csv", count=120)
    out = tmp_path / "out"
    given = [f"data.train={data}", f"backbone.model={tiny_backbone('bert')}", *QUICK]
    given += ["data.fraction=0.2,1", "--to", "finetune", "--out", str(out)]
    assert main(["lora_cls", *given]) == 0
    story = json.loads((out / "comparison.json").read_text())
    assert story["notes"] == []  # nothing is said of different splits
    small, whole = (cell["mean"] for cell in story["cells"])
    assert small["training_rows"] < whole["training_rows"] == 86
    assert small["frozen_test_accuracy"] > 0
    assert (out / "learning_curve.png").exists()
    kept = [json.loads(path.read_text()) for path in out.glob("*/*/progress.json")]
    assert len({entry["test"] for entry in kept}) == 1
    assert len({entry["data"] for entry in kept}) == 2
