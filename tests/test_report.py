from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from adapters.hardware import Hardware
from recipes.assets import Asset
from recipes.ledger import Row
from recipes.proof import agreement
from recipes.reading import check
from recipes.reporting import charts, panels
from recipes.reporting.card import bundle_card
from recipes.reporting.rendering import markdown
from recipes.reporting.report import write_report
from recipes.reporting.summary import summarize
from recipes.reporting.table import ledger_cells, print_ledger
from recipes.reporting.units import (
    breadth,
    duration,
    headed,
    megabytes,
    milliseconds,
    narrow,
    one_line,
    points,
)
from recipes.tasks import Rows, Split
from recipes.workspace import Workspace

HOSTILE = [
    "<script>alert(1)</script>",
    "cost $EU_1$ | `x` *y*",
    "漢字の長いラベルの名前です、本当に",
    "naïve & \"quoted\" 'label' \\frac{1}{2} https://example.org",
    "  line\nbreak\tand \x07 bell  ",
]
#: Name, stage, how often it is right, bytes, p50, compared with.
ROWS: list[tuple[str, str, float, int, float, str | None]] = [
    ("majority", "baseline", 0.3, 0, 0.002, None),
    ("tfidf-logreg", "baseline", 0.7, 900_000, 0.9, None),
    ("teacher", "finetune", 0.95, 94_000_000, 28.0, None),
    ("merged", "merge", 0.95, 90_000_000, 12.0, "teacher"),
    ("student", "distill", 0.9, 70_000_000, 6.0, "merged"),
    ("student-alone", "distill", 0.85, 70_000_000, 6.0, "merged"),
    ("student-onnx", "export", 0.9, 70_000_000, 2.0, "student"),
    ("student-int8", "quantize", 0.88, 18_000_000, 1.5, "student-onnx"),
    ("bundle", "bundle", 0.88, 18_500_000, 1.6, "student-int8"),
]
ENVIRONMENT = {
    "python": "3.11.7",
    "system": "Linux",
    "versions": {"torch": "2.13.0"},
    "device": "cpu",
    "processor": "A <fast> CPU",
    "processor_flags": [],
    "threads": 2,
    "bf16": False,
    "vnni": True,
    "seeds": {"training": 0, "splits": 0},
    "missing": ["no CUDA device: trained on the processor"],
    "data": {
        "source": "my.csv",
        "license": "unknown",
        "fingerprint": "d" * 64,
        "notes": ["Removed 3 duplicates | of <b>rows</b>."],
    },
    "backbone": {"source": "tiny (Me, 2026)", "license": "Apache-2.0", "fingerprint": "b" * 64},
}


def words(texts: list[str], max_length: int, **_: Any) -> dict[str, list[list[str]]]:
    """Stand in for a tokenizer."""
    return {"input_ids": [text.split()[:max_length] for text in texts]}


def make_run(
    folder: Path,
    labels: Sequence[str] = HOSTILE,
    without: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
) -> Workspace:
    """Make the folder of a finished run, its answers drawn from a seeded generator."""
    chance = np.random.default_rng(0)
    folder.mkdir()
    (folder / "predictions").mkdir()
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT), encoding="utf-8")
    recipe = {"data": {"train": "my.csv"}, "strategy": "lora", **(overrides or {})}
    hardware = Hardware("cpu", "A CPU", 2, False, True, ())
    work = Workspace(check(recipe, "test"), folder, hardware, offline=True)
    work.__dict__ |= {
        "rows": make_rows(chance, labels),
        "backbone": Asset("tiny", "model", folder, "Apache-2.0", "tiny (Me, 2026)", "b" * 64),
        "tokenizer": words,
        "max_length": 12,
    }
    for name, stage, right, size, p50, before in ROWS:
        if name in without:
            continue
        logits = {
            split: answers(chance, getattr(work.rows, split).labels, len(labels), right)
            for split in ("validation", "test")
        }
        work.save_logits(name, logits)
        accuracy = float(np.mean(logits["test"].argmax(1) == work.rows.test.labels))
        metrics = {"accuracy": accuracy, "macro_f1": 0.8, "precision": 0.8, "recall": 0.8}
        compared = agreement(work, before, logits) if before else {}
        if stage in ("export", "quantize"):
            compared |= {
                "batches_labels": 1.0,
                "batches_answers": 99,
                "batches_worst": "a row alone",
                "validation_labels": 0.99,
            }
            compared |= {"batches_max_logit_difference": 4e-6}
        work.ledger.put(
            Row(
                stage=stage,
                name=name,
                path=name,
                size_bytes=size,
                parameters=1000,
                examples=len(work.rows.test),
                metrics=metrics,
                validation=metrics,
                agreement=compared,
                latency_ms={"batch_1": {"p50": p50, "p95": 2 * p50}},
                threads=2,
                seconds=3.0,
                notes=[],
            )
        )
    for name in ("teacher", "student", "student-alone"):
        log = [{"epoch": e / 4, "loss": 1 / e} for e in range(1, 9)]
        log += [{"epoch": e, "eval_accuracy": 0.4 + 0.2 * e, "eval_macro_f1": 0.5} for e in (1, 2)]
        work.save_history(name, log)
    return work


@pytest.mark.parametrize(
    ("problem", "loss"),
    [
        ("single_label", "cross-entropy."),
        ("ordinal", "cross-entropy with soft labels."),
        ("multi_label", "binary cross-entropy."),
    ],
)
def test_losses_are_called_as_they_are(problem: str, loss: str, tmp_path: Path) -> None:
    chosen = {"train": {"metric": "accuracy"}, "distill": {"train": {"metric": "accuracy"}}}
    work = make_run(tmp_path / "run", overrides=chosen)
    del work.__dict__["problem"]
    work.__dict__["rows"] = replace(work.rows, problem=problem)
    losses = panels.trainings(work)[1]
    assert losses.takeaway.endswith(f"the others' is {loss}")


def test_headings_keep_the_capitals_of_a_metric() -> None:
    assert headed("micro F1") == "Micro F1"
    assert headed("") == ""


def make_rows(chance: np.random.Generator, labels: Sequence[str]) -> Rows:
    def split(count: int) -> Split:
        ids = [int(i) for i in chance.integers(0, len(labels), count)]
        texts = [f"<img src=x onerror=alert({i})> " + "word " * (i % 15) for i in range(count)]
        return Split(texts, ids)

    return Rows(split(300), split(60), split(120), labels, ["60 rows"], "unknown", "my.csv", "f")


def answers(
    chance: np.random.Generator, truth: Sequence[int], classes: int, right: float
) -> np.ndarray:
    logits = chance.normal(0, 1, (len(truth), classes)).astype(np.float32)
    given = np.where(chance.random(len(truth)) < right, truth, chance.integers(0, classes))
    logits[np.arange(len(truth)), given] += 4
    return logits


class Page(HTMLParser):
    """Reads a page: its tags balance; what it would fetch, its ids and its words are kept."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.fetched.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    work = make_run(tmp_path_factory.mktemp("runs") / "my_run")
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


@pytest.fixture(scope="module")
def card(work: Workspace) -> str:
    return (work.folder / "README.md").read_text(encoding="utf-8")


def front_matter(card: str) -> dict[str, Any]:
    head: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return head


def test_the_page_needs_nothing_from_elsewhere(html: str, page: Page) -> None:
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "image"})
    assert all(target.startswith("#") for target in page.fetched)
    assert not re.search(r"url\((?!#)|@import", html)


def test_ids_are_unique_and_every_reference_has_one(html: str, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    named = {target[1:] for target in page.fetched} | set(re.findall(r"url\(#([^)]+)\)", html))
    named |= set(re.findall(r'aria-labelledby="([^"]+)"', html))
    assert named <= set(page.ids)


def test_every_row_and_every_chart_is_there(work: Workspace, html: str, page: Page) -> None:
    for row in work.ledger:
        assert f'<th scope="row">{row.name}</th>' in html
    assert html.count("<svg") == 9
    assert "None" not in page.text
    assert "nan" not in page.text


def test_labels_and_texts_are_shown_and_never_run(html: str, page: Page) -> None:
    assert "<script" not in html
    assert "<img" not in html
    assert "<script>alert(1)</script>" in page.text
    assert "<img src=x onerror=alert(" in page.text
    assert re.search(r"<text[^>]*>cost \$EU_1\$ \|", html)  # in a chart, and not as mathematics
    assert "\x07" not in html


def test_factors_come_from_the_ledger(work: Workspace, page: Page) -> None:
    summary = summarize(work.ledger, [])
    assert summary.shipped.name == "student-int8"
    assert summary.faster == pytest.approx(12.0 / 1.5)
    assert summary.smaller == pytest.approx(5.0)
    own, merged = (work.ledger[name].metrics["accuracy"] for name in ("student-int8", "merged"))
    assert summary.gained == pytest.approx(own - merged)
    text = page.text.replace("\u00a0", " ")
    assert "8.0× faster than merged, 12.0 ms" in text
    assert "5.0× smaller than merged, 90.0 MB" in text
    assert f"{100 * (merged - own):.1f} pt less accuracy" in text


def test_an_early_stop_and_a_last_epoch_are_told(page: Page) -> None:
    assert "teacher: epoch 2 of 2 was kept (80.0%), stopped early of 4." in page.text


def test_equal_runs_give_equal_reports(work: Workspace, tmp_path: Path) -> None:
    again = make_run(tmp_path / "my_run")
    write_report(again, [])
    for name in ("report.html", "README.md"):
        assert (again.folder / name).read_bytes() == (work.folder / name).read_bytes()


def test_a_refused_run_says_so_and_why(tmp_path: Path) -> None:
    work = make_run(tmp_path / "run", without=["bundle"])
    write_report(work, ["int8 loses <too much>"])
    page = Page((work.folder / "report.html").read_text(encoding="utf-8"))
    assert "refused by the gate" in page.text
    assert "int8 loses <too much>" in page.text
    card = (work.folder / "README.md").read_text(encoding="utf-8")
    assert "**Not shipped.**" in card
    assert "bundle/edge.py" not in card


def test_a_float_run_without_timings_or_curves_is_reported(tmp_path: Path) -> None:
    work = make_run(
        tmp_path / "run",
        without=["student-int8", "bundle", "student-alone"],
        overrides={"export": {"quantization": "none"}},
    )
    for row in list(work.ledger):
        work.ledger.update(row.name, latency_ms={})
    for path in (work.folder / "curves").iterdir():
        path.unlink()
    write_report(work, [])
    page = Page((work.folder / "report.html").read_text(encoding="utf-8"))
    assert "This run took no timings." in page.text
    assert "student-onnx tells 5 labels apart" in page.text
    assert "Gate" not in page.text
    assert "int8" not in front_matter((work.folder / "README.md").read_text("utf-8"))["tags"]


def test_fifty_labels_and_a_perfect_model(tmp_path: Path) -> None:
    work = make_run(tmp_path / "run", labels=[f"DESC:kind number {i}" for i in range(50)])
    truth = work.rows.test.labels
    work.save_logits("student-int8", {s: 9 * np.eye(50)[truth] for s in ("validation", "test")})
    write_report(work, [])
    page = Page((work.folder / "report.html").read_text(encoding="utf-8"))
    assert "0 of 120 test rows are answered wrongly" in page.text
    assert "Most confident mistakes" not in page.text
    assert "DESC:kind number 49" in (work.folder / "README.md").read_text(encoding="utf-8")


def test_the_card_has_front_matter_as_the_hub_reads_it(work: Workspace, card: str) -> None:
    head = front_matter(card)
    assert head["license"] == "apache-2.0"
    assert {"text-classification", "lora", "int8"} <= set(head["tags"])
    assert head["metrics"] == ["accuracy", "f1", "precision", "recall"]
    results = head["model-index"][0]["results"][0]
    own = work.ledger["student-int8"].metrics["accuracy"]
    assert results["metrics"][0] == {"type": "accuracy", "name": "accuracy", "value": round(own, 4)}
    assert "base_model" not in head


def test_the_card_is_markdown_whatever_the_labels_are(work: Workspace, card: str) -> None:
    body = card.split("---\n", 2)[2]
    assert "<" not in body
    tables = re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    for row in work.ledger:
        assert f"| {row.name} |" in body
    assert "python -m recipes.run recipe.yaml --out" in body


def test_the_bundle_card_names_its_licenses(work: Workspace) -> None:
    text = bundle_card(work, "student-int8")
    assert "license: Apache-2.0" in text
    assert "python edge.py --self-test" in text
    assert "<script" not in text


def test_a_row_is_held_against_the_artefact_it_was_made_from(work: Workspace) -> None:
    cells = {row["row"]: row for row in ledger_cells(work.ledger)}
    assert cells["majority"]["before"] == ""
    assert cells["tfidf-logreg"]["before"] == "majority"
    assert cells["student-onnx"]["before"] == "student"
    gained = [work.ledger[n].metrics["accuracy"] for n in ("student-onnx", "student")]
    assert cells["student-onnx"]["± before"] == f"{100 * (gained[0] - gained[1]):+.2f}"


def test_the_terminal_table_is_whole(
    work: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_ledger(work.ledger)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(row.name in shown for row in work.ledger)


def test_labels_of_crowded_points_do_not_cover_each_other() -> None:
    chance = np.random.default_rng(1)
    spots = [
        charts.Spot("student", f"artefact-{i} · 17.7 MB", 1 + x, 0.9 + y / 50, i == 0)
        for i, (x, y) in enumerate(chance.random((9, 2)))
    ]
    svg = charts.tradeoff([*spots, charts.Spot("merged", "merged", 90.0, 0.95, False)])
    boxes = []
    for style, x, y, text in re.findall(
        r'<text style="([^"]*)" x="([\d.]+)" y="([\d.]+)"[^>]*>(artefact[^<]*)<', svg
    ):
        wide = 10 * breadth(text)
        shift = {"start": 0, "middle": -wide / 2, "end": -wide}
        left = float(x) + shift[re.search(r"text-anchor: (\w+)", style).group(1)]  # type: ignore[union-attr]
        boxes.append((left, float(y) - 8, left + wide, float(y) + 2))
    assert len(boxes) == 9
    for number, one in enumerate(boxes):
        for other in boxes[:number]:
            apart = one[2] <= other[0] or other[2] <= one[0]
            assert apart or one[3] <= other[1] or other[3] <= one[1]


def test_a_light_and_a_dark_color_stand_behind_every_color(html: str) -> None:
    drawn = set(re.findall(r"var\(--([a-z]+)\)", html))
    light, dark = html.split("prefers-color-scheme: dark")
    for name in drawn - {"font", "mono"}:
        assert f"--{name}: #" in light
        assert f"--{name}: #" in dark
    assert not re.findall(r'style="[^"]*#[0-9a-f]{6}', html)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (points(-0.0149), "\u22121.5\u00a0pt"),
        (points(0.00001), "0\u00a0pt"),
        (milliseconds(0.00204), "0.002\u00a0ms"),
        (megabytes(17_731_590), "17.7\u00a0MB"),
        (duration(488), "8\u00a0min 8\u00a0s"),
        (one_line("a\n b\x00c", 4), "a b…"),
        (narrow("漢字漢字漢字", 4), "漢字漢…"),
        (markdown("a|b <i> _c_ d_e *f*"), "a\\|b &lt;i&gt; \\_c\\_ d_e \\*f\\*"),
    ],
)
def test_numbers_and_foreign_text_are_written_to_be_read(written: str, expected: str) -> None:
    assert written == expected


def test_nothing_but_the_two_files_is_left(work: Workspace) -> None:
    names = {path.name for path in work.folder.iterdir()}
    assert names == {
        "README.md", "report.html", "curves", "environment.json", "ledger.json", "predictions",
    }  # fmt: skip
