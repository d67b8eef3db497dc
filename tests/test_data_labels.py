"""The look at labels of every problem type: planted faults are found, and named by their label."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data import alarms, found
from tiny_work import CPU, workspace

from recipes.decide import check_decide
from recipes.errors import RecipeError
from recipes.imbalance import check_measures
from recipes.look.findings import Look
from recipes.look.looking import look_at_recipe, look_at_rows
from recipes.reading import read_recipe
from recipes.tasks import tasks
from recipes.workspace import Workspace

Make = Callable[[str], Path]
TOPICS = ("billing", "delivery", "refund", "login")
#: How often a row has each topic.
SHARES = (0.5, 0.4, 0.3, 0.12)
ENDS = ("bel", "cor", "dun", "fal", "gim", "hos", "jur", "kep", "lim", "nor")
WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "mu", "ra") for b in ENDS]


def tell(topic: str, chance: random.Random, count: int) -> list[str]:
    """Return words that only texts about a topic have."""
    return [topic[0] + "x" + end for end in chance.choices(ENDS, k=count)]


def several(count: int = 500) -> list[dict[str, Any]]:
    """Return distinct texts, each about any number of topics."""
    chance, rows = random.Random(0), {}
    while len(rows) < count:
        topics = [
            topic for topic, share in zip(TOPICS, SHARES, strict=True) if chance.random() < share
        ]
        words = chance.choices(WORDS, k=6)
        words += [word for topic in topics for word in tell(topic, chance, 5)]
        chance.shuffle(words)
        rows[" ".join(words)] = topics
    return [{"text": text, "label": topics} for text, topics in rows.items()]


def measured(count: int = 500) -> list[dict[str, Any]]:
    """Return distinct texts and numbers that go by how many of some words they have."""
    chance, rows = random.Random(0), {}
    while len(rows) < count:
        good = chance.randint(0, 8)
        words = tell("good", chance, good) + tell("bad", chance, 8 - good)
        words += chance.choices(WORDS, k=3)
        chance.shuffle(words)
        rows[" ".join(words)] = round(10 * good + chance.random(), 2)
    return [{"text": text, "label": number} for text, number in rows.items()]


def starred(count: int = 400) -> list[dict[str, Any]]:
    """Return distinct texts and one to four stars."""
    chance, rows = random.Random(0), {}
    while len(rows) < count:
        stars = len(rows) % 4 + 1
        words = tell("abcd"[stars - 1], chance, 4) + chance.choices(WORDS, k=5)
        chance.shuffle(words)
        rows[" ".join(words)] = stars
    return [{"text": text, "stars": stars} for text, stars in rows.items()]


@pytest.fixture
def look(tmp_path: Path, tiny_backbone: Make) -> Callable[..., Look]:
    def call(rows: Sequence[dict[str, Any]], *overrides: str) -> Look:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        backbone = f"backbone.model={tiny_backbone('bert')}"
        return look_at_recipe(
            read_recipe("lora_cls", [f"data.train={path}", backbone, *overrides]), offline=True
        )

    return call


@pytest.mark.parametrize("rows", [several, measured, starred])
def test_clean_rows_give_no_alarm(
    rows: Callable[[], list[dict[str, Any]]], look: Callable[..., Look]
) -> None:
    told = look(rows())
    assert not alarms(told)
    assert not told.left_out


def test_each_of_several_labels_is_counted(look: Callable[..., Look]) -> None:
    rows = several()
    told = look(rows)
    has = sum("billing" in row["label"] for row in rows)
    assert f'"billing" {has} ({has / len(rows):.1%})' in told.facts["balance"]
    assert told.facts["labels"].startswith("4, in 1")
    none = sum(not row["label"] for row in rows)
    assert told.facts["labels"].endswith(f"{none} rows none")


def test_a_flipped_label_of_several_is_named_with_its_rows(look: Callable[..., Look]) -> None:
    rows = several()
    flipped = [7, 118, 240, 371, 488]  # 1 %
    for row in flipped:
        rows[row]["label"] = sorted({*rows[row]["label"]} ^ {"refund"})
    told = look(rows)
    finding = found(told, "label-errors")
    assert alarms(told) == {"label-errors"}
    assert sorted(number for _, number in finding.rows) == [row + 1 for row in flipped]
    assert finding.what.startswith('The label "refund" is likely wrong')


def test_a_column_that_gives_one_of_several_labels_away_is_named(look: Callable[..., Look]) -> None:
    rows = several()
    for number, row in enumerate(rows):
        row["id"] = f"q{number + 9000 * ('login' in row['label']):05d}"
        row["harmless"] = f"{number * 7919 % 601}"
    told = look(rows, "data.text=text", "data.label=label")
    finding = found(told, "leaking-column")
    assert alarms(told) == {"leaking-column"}
    assert '"id"' in finding.what
    assert '"login"' in finding.what
    assert '"refund"' not in finding.what


def test_the_name_of_one_of_several_labels_in_its_texts(look: Callable[..., Look]) -> None:
    rows = several()
    for row in rows:
        row["text"] += " #delivery" * ("delivery" in row["label"])
    told = look(rows)
    assert '"delivery" in 100% of its texts' in found(told, "label-in-text").what
    assert alarms(told) == {"label-in-text", "telling-word"}


def test_rare_constant_and_uneven_ones_of_several_labels_are_named(
    look: Callable[..., Look],
) -> None:
    rows = several()
    rows[3]["label"] = [*rows[3]["label"], "lonely"]
    for row in range(100, 106):
        rows[row]["label"] = [*rows[row]["label"], "seldom"]
    for row in rows:
        row["label"] = [*row["label"], "always"]
    told = look(rows)
    assert '"always"' in found(told, "constant-label").what
    assert '"lonely" (1)' in found(told, "rare-class").what
    assert '"seldom" (6)' in found(told, "small-class").what
    assert '"lonely" 1:' in found(told, "imbalance").what
    (check,) = [check for check in told.left_out if "label errors" in check]
    assert '"lonely"' in check
    assert '"seldom"' in check


def test_labels_in_columns_and_with_separators_are_counted_one_by_one(
    look: Callable[..., Look],
) -> None:
    rows = several(200)
    ticked = [
        {"text": row["text"], **{topic: int(topic in row["label"]) for topic in TOPICS}}
        for row in rows
    ]
    parted = [{"text": row["text"], "label": "; ".join(row["label"])} for row in rows]
    # A field without any name counts as a row without a label.
    parted = [row for row in parted if row["label"]]
    by_column = look(ticked, "data.text=text", f"data.label=[{','.join(TOPICS)}]")
    by_part = look(parted, "data.separator=;")
    for told in (by_column, by_part):
        for topic in TOPICS:
            has = sum(topic in row["label"] for row in rows)
            assert f'"{topic}" {has} (' in told.facts["balance"]


def test_a_wrong_number_is_named(look: Callable[..., Look]) -> None:
    rows = measured()
    moved = sorted(range(len(rows)), key=lambda row: rows[row]["label"])
    wrong = [*moved[10:13], *moved[-12:-10]]  # 1 %
    for row in wrong:
        rows[row]["label"] = round(85 - rows[row]["label"], 2)
    told = look(rows)
    finding = found(told, "label-errors")
    assert alarms(told) == {"label-errors"}
    assert sorted(number for _, number in finding.rows) == sorted(row + 1 for row in wrong)


@pytest.mark.parametrize(
    "leak", [lambda number: f"{2 * number:.1f} EUR", lambda number: f"band {number // 10:.0f}"]
)
def test_a_column_that_gives_a_number_away_is_named(
    leak: Callable[[float], str], look: Callable[..., Look]
) -> None:
    rows = [
        {**row, "key": leak(row["label"]), "harmless": f"{place * 7919 % 601}"}
        for place, row in enumerate(measured())
    ]
    told = look(rows, "data.text=text", "data.label=label")
    finding = found(told, "leaking-column")
    assert alarms(told) == {"leaking-column"}
    assert '"key"' in finding.what


def test_ordered_labels_get_all_that_others_get(look: Callable[..., Look]) -> None:
    rows = starred()
    flipped = [17, 100, 230, 371]
    for row in flipped:
        rows[row]["stars"] = (rows[row]["stars"] + 1) % 4 + 1
    rows = [{**row, "key": str(1000 * row["stars"] + place)} for place, row in enumerate(rows)] + [
        {"text": "a row by itself", "stars": 5, "key": "1"}
    ]
    told = look(rows, "data.text=text", "data.label=stars")
    assert alarms(told) == {"label-errors", "leaking-column", "rare-class", "imbalance"}
    assert sorted(number for _, number in found(told, "label-errors").rows) == [
        row + 1 for row in flipped
    ]
    # A label of several has no place in an order.
    assert "data.min_rows=N" in found(told, "rare-class").change
    assert "merge" not in found(told, "rare-class").change


def uneven(problem: str) -> list[dict[str, Any]]:
    """Return rows of which few have one of the labels."""
    if problem == "multi_label":
        return several(160)[:100] + [
            {"text": f"a row {n}", "label": ["billing"]} for n in range(99)
        ]
    name = "stars" if problem == "ordinal" else "label"
    kept = [row for row in starred() if row["stars"] != 4 or "dxbel" in row["text"]]
    return [{"text": row["text"], name: row["stars"]} for row in kept]


@pytest.mark.parametrize("recipe", ["lora_cls", "distill_only"])
@pytest.mark.parametrize("problem", ["single_label", "ordinal", "multi_label"])
def test_advice_against_imbalance_is_what_a_run_takes(
    problem: str, recipe: str, tmp_path: Path, tiny_backbone: Make
) -> None:
    path, model = tmp_path / "rows.jsonl", f"backbone.model={tiny_backbone('bert')}"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in uneven(problem)))
    source = "data.source=null" if recipe == "distill_only" else "seed=0"
    base = [source, f"data.train={path}", f"data.problem={problem}", model]
    told = look_at_recipe(read_recipe(recipe, base), offline=True)
    advice = found(told, "imbalance").change
    keys = re.findall(r"[\w.]+=\w+", advice)
    assert len(keys) == {"single_label": 5, "ordinal": 4, "multi_label": 5}[problem] - (
        recipe == "distill_only"
    )
    for key in keys:
        work = Workspace(read_recipe(recipe, [*base, key]), tmp_path, CPU, offline=True)
        check_measures(work)
        check_decide(work)
        blank = np.zeros((len(work.rows.validation), len(work.rows.labels)))
        known = work.problem.metrics(blank, work.rows.validation.labels)
        metrics = (work.recipe.train.metric, work.recipe.distill.train.metric)
        assert {metric for metric in metrics if metric} <= known.keys()


def table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a run's rows where `workspace` looks for them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in rows:
            label = row["label"]
            writer.writerow([row["text"], ";".join(label) if isinstance(label, list) else label])
    return path


@pytest.mark.parametrize("problem", ["multi_label", "regression"])
def test_a_run_looks_at_its_rows_as_closely(
    problem: str, tmp_path: Path, tiny_backbone: Make
) -> None:
    rows = [row for row in (several() if problem == "multi_label" else measured()) if row["label"]]
    wrong = 33
    said = rows[wrong]["label"]
    rows[wrong]["label"] = (
        sorted({*said} ^ {"refund"}) if isinstance(said, list) else round(85 - said, 2)
    )
    table(tmp_path / "run.csv", rows)
    separator = ["data.separator=;"] if problem == "multi_label" else []
    work = workspace(tmp_path / "run", tiny_backbone("bert"), *separator)
    chance = np.random.default_rng(0)
    embeddings = {
        split: chance.normal(size=(len(getattr(work.rows, split)), 8)).astype(np.float32)
        for split in ("train", "validation", "test")
    }
    told = look_at_rows(work)
    finding = found(told, "label-errors")
    (where,) = [
        (f"the {'training' if split == 'train' else split} split", part.texts.index(text) + 1)
        for text in [rows[wrong]["text"]]
        for split in ("train", "validation", "test")
        if text in (part := getattr(work.rows, split)).texts
    ]
    assert list(finding.rows) == [where]
    if problem == "multi_label":
        assert '"refund"' in finding.what
    # Vectors of noise lower the certainty, and nothing else.
    assert not {"leaking-column"} & alarms(look_at_rows(work, embeddings))


def test_words_agree_with_numbers(look: Callable[..., Look], tmp_path: Path) -> None:
    rows = starred()
    test = tmp_path / "test.jsonl"
    test.write_text("".join(f"{json.dumps(row)}\n" for row in rows[:40]))
    told = look([*rows[39:], rows[-1], {"text": " ", "stars": 1}], f"data.test={test}")
    assert "1 text of the test data (2.50%) is in the train data" in found(told, "overlap").what
    assert found(told, "overlap").does == "A run takes it out of the train data."
    assert "1 row (0.25%) repeats the text" in found(told, "duplicates").what
    assert "leave it out" in found(told, "unusable").change
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(f"{json.dumps(row)}\n" for row in [*rows, {"text": "by itself", "stars": 5}])
    )
    alone = read_recipe("lora_cls", [f"data.train={path}"])
    with pytest.raises(RecipeError, match=r"1 of the 5 classes of rows\.jsonl has too few rows"):
        tasks.get(alone.task)().read(alone.data, offline=True)
