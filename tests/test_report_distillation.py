"""What the report says of distillation, and the interval that it goes by."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import Page, make_run

from recipes.problems import problems
from recipes.reporting.bootstrap import paired_gain
from recipes.reporting.distillation import DistillationPart, distillation_part
from recipes.reporting.report import write_report
from recipes.reporting.summary import summarize
from recipes.workspace import Workspace

#: Test rows of `make_run`, and labels.
ROWS, LABELS = 120, 5


def taught(folder: Path, student: np.ndarray, alone: np.ndarray, teacher: np.ndarray) -> Workspace:
    """Make a run whose models are right on the test rows where these say so, ``[rows]``.

    Where the teacher is wrong, those that are wrong too give its answer.
    """
    work = make_run(folder)
    truth = np.array(work.rows.test.labels)
    models = {"student": student, "student-alone": alone, "merged": teacher}
    for name, right in models.items():
        given = np.where(right, truth, (truth + 1) % LABELS)
        sure = 1 + np.arange(ROWS)[:, None] / ROWS
        logits = {"validation": np.eye(LABELS)[:60], "test": sure * np.eye(LABELS)[given]}
        work.save_logits(name, logits)
    return work


def part_of(work: Workspace) -> DistillationPart:
    part = distillation_part(work, summarize(work.ledger, []))
    assert part is not None
    return part


def some(count: int, start: int = 0) -> np.ndarray:
    """Return an array that is false on ``count`` rows from ``start`` on."""
    rows = np.arange(ROWS)
    return (rows < start) | (rows >= start + count)


def test_an_interval_is_that_of_the_normal_approximation() -> None:
    chance = np.random.default_rng(1)
    one, other = chance.random((2, 1, 2000)) < np.array([0.9, 0.86])[:, None, None]
    gain = paired_gain(one, other)
    difference = one.astype(float) - other
    half = 1.96 * difference.std() / 2000**0.5
    assert gain.mean == pytest.approx(difference.mean())
    assert gain.low == pytest.approx(gain.mean - half, abs=0.1 * half)
    assert gain.high == pytest.approx(gain.mean + half, abs=0.1 * half)
    assert (gain.rows, gain.seeds) == (2000, 1)
    assert paired_gain(one, other) == gain


def test_the_order_of_the_rows_does_not_matter_and_pairs_stay_together() -> None:
    chance = np.random.default_rng(2)
    one, other = chance.random((2, 3, 500)) < 0.8
    order = chance.permutation(500)
    assert paired_gain(one[:, order], other[:, order]) == paired_gain(one, other)
    same = paired_gain(one, one)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_seeds_that_differ_widen_the_interval() -> None:
    """The rows leave no doubt here: each seed gains on all of them, or on none."""
    other = np.zeros((4, 100), dtype=bool)
    alike, apart = other.copy(), other.copy()
    alike[:, :50] = True
    apart[:2] = True
    gains = [paired_gain(one, other) for one in (alike, apart)]
    assert gains[0].mean == gains[1].mean == 0.5
    assert gains[0].high - gains[0].low < 0.25
    assert gains[1].high - gains[1].low > 0.8


@pytest.mark.parametrize(
    ("student", "alone", "verdict"),
    [
        (some(0), some(30), "Distillation earns its place: the student's test accuracy is +25.0"),
        (some(30), some(0), "Distillation does more harm than good here"),
        (some(5), some(6, 5), "Distillation makes no difference here that chance would not"),
    ],
)
def test_distillation_is_judged_by_more_than_chance(
    tmp_path: Path, student: np.ndarray, alone: np.ndarray, verdict: str
) -> None:
    work = taught(tmp_path / "run", student, alone, some(10))
    said = part_of(work).verdict
    assert verdict in said
    only, other = int((student & ~alone).sum()), int((alone & ~student).sum())
    assert f"right on {only} test rows where that one is wrong, and wrong on {other} where" in said
    write_report(work, [])
    page = (work.folder / "report.html").read_text(encoding="utf-8")
    assert html.escape(said, quote=False).replace("'", "&#39;") in page


def test_agreement_is_told_where_the_teacher_is_right_and_wrong(tmp_path: Path) -> None:
    work = taught(tmp_path / "run", some(8), some(4, 18), some(20))
    part = part_of(work)
    assert part.right == (100, 20)
    student, alone = part.students
    # The student shares 8 of the teacher's 20 mistakes; the other one 2, and makes 2 of its own.
    assert (student["agrees"], student["agrees_right"], student["agrees_wrong"]) == (
        "90.0%", "100.0%", "40.0%",
    )  # fmt: skip
    assert (student["mends"], alone["mends"]) == ("60.0%", "90.0%")
    assert (alone["agrees_right"], alone["agrees_wrong"]) == ("98.0%", "10.0%")


def test_a_perfect_teacher_leaves_no_share_of_its_mistakes(tmp_path: Path) -> None:
    part = part_of(taught(tmp_path / "run", some(3), some(9), some(0)))
    assert part.right == (120, 0)
    assert {row["agrees_wrong"] + row["mends"] for row in part.students} == {""}


def test_gains_by_label_are_recalls_and_add_up(tmp_path: Path) -> None:
    student, alone = some(4), some(31, 2)
    work = taught(tmp_path / "run", student, alone, some(0))
    part, truth = part_of(work), np.array(work.rows.test.labels)
    for row in part.by_label:
        labels = [" ".join(name.replace("\x07", "\ufffd").split()) for name in work.rows.labels]
        where = truth == labels.index(row["label"])
        assert row["rows"] == str(where.sum())
        assert row["student"] == f"{100 * student[where].mean():.1f}%"
        assert row["alone"] == f"{100 * alone[where].mean():.1f}%"
    assert sum(int(row["rows"]) for row in part.by_label) == ROWS
    gains = [float(row["gain"].replace("\u2212", "-").split("\u00a0")[0]) for row in part.by_label]
    assert gains == sorted(gains, reverse=True)
    assert "gains most" in part.classes.takeaway
    assert "<svg" in part.classes.chart


def test_rows_on_which_the_students_differ_are_shown_surest_first(tmp_path: Path) -> None:
    student, alone = some(2, 50), some(30, 60)
    part = part_of(taught(tmp_path / "run", student, alone, some(0)))
    titles = [title for title, _ in part.differences]
    assert titles == [
        "Right with a teacher, wrong without: 5 of 30 rows",
        "Wrong with a teacher, right without: 2 of 2 rows",
    ]
    for (_, rows), flags in zip(part.differences, ((True, False), (False, True)), strict=True):
        for row in rows:
            assert tuple(answer["right"] for answer in row["answers"][1:]) == flags
            own = row["answers"][1 if flags[0] else 2]
            assert own["label"] == row["true"]
        sure = [row["answers"][1]["sure"] for row in rows]
        assert sure == sorted(sure, reverse=True)
    assert part.differences[0][1][0]["text"].startswith("<img src=x onerror=alert(89)>")


def test_students_that_do_not_differ_are_no_puzzle(tmp_path: Path) -> None:
    work = taught(tmp_path / "run", some(6), some(6), some(2))
    part = part_of(work)
    assert part.differences == []
    assert "chance would not" in part.verdict
    assert "intervals of none of 5 labels leave out zero" in part.classes.takeaway
    write_report(work, [])
    assert "Where they differ" not in (work.folder / "report.html").read_text(encoding="utf-8")


def test_costs_and_notes_are_shown(tmp_path: Path) -> None:
    work = taught(tmp_path / "run", some(6), some(9), some(2))
    work.ledger.update(
        "student",
        seconds=61.0,
        teacher_seconds=7.0,
        tokens_read=2_340_000,
        tokens_per_second=1234.0,
        notes=["the teacher answered 40 <texts> in 3 s"],
    )
    write_report(work, [])
    page = Page((work.folder / "report.html").read_text(encoding="utf-8"))
    text = page.text.replace("\u00a0", " ")
    assert "The teacher itself took 6 s; its student 61 s, the one without a teacher 3 s." in text
    epochs = work.recipe.distill.train.epochs
    assert "answered each text once, which took 7 s" in text
    assert f"would have taken {7 * epochs} s" in text
    assert re.search(r"student 61 2\.34 1,234", text)
    assert "student : the teacher answered 40 <texts> in 3 s" in text


def test_without_a_student_alone_there_is_no_such_part(tmp_path: Path) -> None:
    work = make_run(tmp_path / "run", without=["student-alone"])
    assert distillation_part(work, summarize(work.ledger, [])) is None


def replaced(folder: Path, problem: str, truth: list[Any], **answers: Any) -> Workspace:
    """Make a run with other test rows, whose models give them these answers."""
    work = make_run(folder, labels=["1", "2", "3"])
    rows, kind = work.rows, problems.get(problem)
    split = replace(rows.test, texts=["a text"] * len(truth), labels=truth)
    del work.__dict__["problem"]
    number = problem == "regression"
    work.__dict__["rows"] = replace(
        rows,
        train=split,
        validation=split,
        test=split,
        labels=["1"] if number else ["1", "2", "3"],
        problem=problem,
        facts={"scale": {"mean": 2.0, "deviation": 3.0}} if number else {},
    )
    for name, logits in answers.items():
        row = name.replace("_", "-")
        work.save_logits(row, dict.fromkeys(("validation", "test"), np.array(logits)))
        scores = work.problem.metrics(np.array(logits), truth)
        work.ledger.update(row, headline=kind.headline, metrics=scores, validation=scores)
    return work


def told(folder: Path, problem: str, truth: list[Any], **answers: Any) -> str:
    """Return the verdict on such a run."""
    return part_of(replaced(folder, problem, truth, **answers)).verdict


def test_several_labels_are_judged_by_micro_f1(tmp_path: Path) -> None:
    """No answer is right in every label, and the student's are better all the same."""
    said = told(
        tmp_path / "run", "multi_label", [(1, 1, 1)] * 40,
        merged=[[5, 5, -5]] * 40, student=[[5, 5, -5]] * 40, student_alone=[[5, -5, -5]] * 40,
    )  # fmt: skip
    assert said.startswith("Distillation earns its place: the student's test micro F1 is +30.0")
    assert "right in every label on 0 test rows where that one is wrong" in said


def test_numbers_are_judged_by_the_variance_that_they_explain(tmp_path: Path) -> None:
    """They are not right or wrong: there is a verdict, and no row that is told apart."""
    truth = np.linspace(-1, 1, 40)
    work = replaced(
        tmp_path / "run", "regression", truth.tolist(), merged=truth[:, None],
        student=0.9 * truth[:, None], student_alone=0.2 * truth[:, None],
    )  # fmt: skip
    part = part_of(work)
    said = part.verdict.replace("\u00a0", " ")
    assert said.startswith(
        "Distillation earns its place: the student's test explained variance is +63.0 pt against "
    )
    assert said.endswith(" pt.")  # an interval, and nothing of right and wrong
    assert part.right is None
    assert [row["test"] for row in part.students] == ["99.00%", "36.00%"]
    assert not part.differences


def test_labels_with_an_order_are_judged_by_the_median(tmp_path: Path) -> None:
    torn, high = np.log([[0.45, 0.2, 0.35]] * 40), np.log([[0.1, 0.1, 0.8]] * 40)
    said = told(
        tmp_path / "run", "ordinal", [1] * 40, merged=torn, student=torn, student_alone=high
    )
    assert said.startswith("Distillation earns its place: the student's test accuracy is +100.0")
