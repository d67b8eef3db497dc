"""What the report, the cards and the terminal say of a run that learnt phase after phase."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import HOSTILE, Page, make_run

from recipes.ledger import Ledger, Row
from recipes.reporting.card import bundle_card
from recipes.reporting.report import write_report
from recipes.reporting.summary import known_phases, phases_line
from recipes.reporting.table import print_ledger
from recipes.tasks import Split
from recipes.workspace import Workspace

NAMES = ["<b>May</b>", "漢字の長い名前です、本当に長い", "$x_1$"]
MATRIX = [[0.9, 0.0, 0.25], [0.5, 0.8, 0.0], [0.4, 0.7, 0.95]]


def make_phases(
    folder: Path, matrix: Sequence[Sequence[float]] = MATRIX, names: Sequence[str] = NAMES
) -> Workspace:
    """Make a finished run of phases: two labels in the first, one in each other as far as it goes.

    Rows of the first phase's labels are in all phases, so that some are known early.
    """
    work = make_run(folder, overrides={"phases": {"column": "month"}, "train": {"epochs": 2}})
    count, labels = len(names), work.rows.labels

    def phased(split: Split) -> Split:
        turn = itertools.count()
        phases = [
            next(turn) % count if label < 2 else min(label - 1, count - 1) for label in split.labels
        ]
        return replace(split, phases=phases)

    parts = {n: phased(getattr(work.rows, n)) for n in ("train", "validation", "test")}
    work.__dict__["rows"] = replace(work.rows, **parts, phases=names)
    known = [list(labels[: min(len(labels), phase + 2)]) for phase in range(count)]
    known[-1] = list(labels)
    shared = {"names": list(names), "validation_matrix": []}
    last = len(matrix) - 1
    scores: dict[str, Any] = {
        **shared,
        "matrix": matrix,
        "average_accuracy": float(np.mean(matrix[-1])),
        "forgetting": float(
            np.mean([max(r[j] for r in matrix[j:last]) - matrix[-1][j] for j in range(last)])
        ),
        "forward_transfer": None,
        "rehearsed_rows": 15,
        "labels": known,
    }
    joint = {**shared, "matrix": [[0.9] * count], "average_accuracy": 0.9}
    plain = work.ledger["teacher"]
    work.ledger.update("teacher", phases=scores)
    work.ledger.put(replace(plain, name="joint", path="joint", latency_ms={}, phases=joint))
    log = [
        {"epoch": e / 4, "loss": 1 / (1 + e % 8)} | ({"eval_accuracy": a} if e % 4 == 0 else {})
        for e, a in zip(range(1, 8 * count + 1), np.linspace(0.9, 0.5, 8 * count), strict=True)
    ]
    work.save_history("teacher", log)
    work.save_history("joint", log[:8])
    return work


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    work = make_phases(tmp_path_factory.mktemp("runs") / "my_run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(work, [])
    return work


@pytest.fixture(scope="module")
def html(work: Workspace) -> str:
    return (work.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_says_what_the_phases_came_to(page: Page) -> None:
    text = page.text
    assert "After all 3 phases the teacher is right on 68.3% of a phase's test rows" in text
    assert "joint, which learnt all rows at once, on 90.0%" in text
    assert "Forgetting: 30.0 pt" in text
    assert "Forward transfer: not defined: every phase brings new labels" in text
    assert "at most 15 rows of earlier phases at once, 5.0% of the training rows" in text
    assert "Most is lost of 1 <b>May</b>: 50.0 pt" in text


def test_the_numbers_are_in_a_table_too(html: str) -> None:
    part = html.partition("<summary>")[2].partition("</table>")[0]
    rows = [re.findall(r'<td class="number">(.*?)</td>', row) for row in part.split("<tr>")[3:]]
    assert rows == [
        ["90.0%", "(0.0%)", "(25.0%)", "90.0%"],
        ["50.0%", "80.0%", "(0.0%)", "65.0%"],
        ["40.0%", "70.0%", "95.0%", "68.3%"],
        ["90.0%", "90.0%", "90.0%", "90.0%"],
    ]


def test_what_cannot_be_known_yet_is_left_open(tmp_path: Path) -> None:
    work = make_phases(tmp_path / "run")
    test = work.rows.test
    apart = replace(test, phases=[max(0, label - 1) if label < 4 else 2 for label in test.labels])
    work.__dict__["rows"] = replace(work.rows, test=apart)
    write_report(work, [])
    html = (work.folder / "report.html").read_text(encoding="utf-8")
    part = html.partition("<summary>")[2].partition("</table>")[0]
    assert part.count('<td class="number">\u2013</td>') == 3
    drawn = re.search(r'<svg[^>]*aria-labelledby="phase_matrix".*?</svg>', html, re.DOTALL)
    assert drawn is not None
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn.group())
    assert texts.count("\u2013") == 3
    assert {"90.0", "50.0", "80.0", "40.0", "70.0", "95.0", "joint"} <= set(texts)


def test_forward_transfer_and_no_memory_are_told(tmp_path: Path) -> None:
    work = make_phases(tmp_path / "run")
    scores = {**work.ledger["teacher"].phases, "forward_transfer": -0.125, "rehearsed_rows": 0}
    work.ledger.update("teacher", phases=scores)
    write_report(work, [])
    text = Page((work.folder / "report.html").read_text(encoding="utf-8")).text
    assert "Forward transfer: \u221212.5 pt on a phase before it is learnt" in text
    assert "Kept: no rows of earlier phases." in text


def test_charts_are_sound_and_nothing_runs(html: str, page: Page) -> None:
    assert html.count("<svg") == 11
    assert len(page.ids) == len(set(page.ids))
    named = {target[1:] for target in page.fetched} | set(re.findall(r"url\(#([^)]+)\)", html))
    named |= set(re.findall(r'aria-labelledby="([^"]+)"', html))
    assert named <= set(page.ids)
    assert not re.findall(r'style="[^"]*#[0-9a-f]{6}', html)
    assert "<b>May" not in html
    assert "$x_1$" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text


def test_each_phase_has_its_own_kept_epoch(page: Page) -> None:
    told = "teacher: in its 3 phases epochs 1, 1 and 1 of 2 were kept; the last gets"
    assert told in page.text
    assert "joint: epoch 1 of 2 was kept" in page.text


def test_many_phases_are_drawn(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    count = 20
    names = [f"2024-{n:02}" for n in range(1, count + 1)]
    work = make_phases(tmp_path / "run", chance.random((count, count)).tolist(), names)
    write_report(work, [])
    page = Page((work.folder / "report.html").read_text(encoding="utf-8"))
    assert page.text.count("20 2024-20") >= 4


def test_the_cards_say_which_phases_are_known(work: Workspace) -> None:
    card = (work.folder / "README.md").read_text(encoding="utf-8")
    assert "## Phases" in card
    assert "in 3 phases" in card
    lines = [line for line in card.splitlines() if line.startswith("| 1 &lt;b&gt;May")]
    assert len(lines) == 1
    test, given = work.rows.test, work.logits("student-int8")["test"].argmax(axis=1)
    first = np.array(test.phases) == 0
    right = float((given == test.labels)[first].mean())
    assert lines[0].endswith(f"| {first.sum()} | 90.0% | 40.0% | {100 * right:.1f}% |")
    bundle = bundle_card(work, "student-int8")
    assert "It has learnt 3 phases" in bundle
    assert (
        "2. 漢字の長い名前です、本当に長い (new labels: 漢字の長いラベルの名前です、本当に)"
        in bundle
    )


def test_the_terminal_has_a_line_under_the_table(
    work: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    print_ledger(work.ledger)
    last = capsys.readouterr().out.splitlines()[-1].replace("\u00a0", " ")
    assert last == "3 phases: average accuracy 68.3% (75.9% of joint's 90.0%), forgetting 30.0 pt"


def test_a_run_without_phases_says_nothing_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = make_run(tmp_path / "run")
    write_report(work, [])
    print_ledger(work.ledger)
    written = [(work.folder / name).read_text(encoding="utf-8") for name in
               ("report.html", "README.md")]  # fmt: skip
    for text in (*written, bundle_card(work, "student-int8"), capsys.readouterr().out):
        assert "phase" not in text.lower().replace("phases: null", "")
    assert known_phases(work.ledger) == []


def test_new_labels_are_those_of_no_phase_before(work: Workspace, tmp_path: Path) -> None:
    assert [phase["labels"] for phase in known_phases(work.ledger)] == [
        HOSTILE[:2], HOSTILE[2:3], HOSTILE[3:],
    ]  # fmt: skip
    empty = Ledger(tmp_path / "ledger.json")
    assert known_phases(empty) == []
    assert phases_line(empty) == ""
    scores = {**work.ledger["teacher"].phases, "labels": [HOSTILE] * 3}
    empty.put(Row("finetune", "teacher", phases=scores))
    assert [phase["labels"] for phase in known_phases(empty)] == [HOSTILE, [], []]
    assert "joint" not in phases_line(empty)
