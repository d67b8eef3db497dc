"""What kind of answer a label column holds: found, said aloud, or refused with the odd cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recipes.errors import RecipeError
from recipes.linear import Linear
from recipes.look.looking import look_at_recipe
from recipes.reading import read_recipe
from recipes.tasks import tasks
from recipes.tasks.columns import choose_columns, folded, number, unpacked
from recipes.tasks.kinds import find_problem
from recipes.tasks.wording import shown

TOPICS = ("refund", "billing", "login")


def recipe(path: Path, *overrides: str) -> Any:
    return read_recipe("lora_cls", [f"data.train={path}", *overrides])


def read(path: Path, *overrides: str) -> Any:
    return tasks.get("text_classification")().read(
        recipe(path, *overrides).data, None, offline=True
    )


def kind(values: list[Any], column: str = "label", *overrides: str) -> tuple[str, list[str]]:
    settings = read_recipe("lora_cls", overrides).data
    return find_problem(values, column, settings, "a.csv")


def written(path: Path, labels: list[Any], column: str = "label") -> Path:
    """Write a CSV or JSON-lines file with distinct texts."""
    rows = [{"text": f"text number {n}", column: label} for n, label in enumerate(labels)]
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PRICES = [f"{n}.5" for n in range(100)]


@pytest.mark.parametrize(
    ("values", "column", "found", "said"),
    [
        (PRICES, "price", "regression", "100 different ones"),
        ([str(n % 5) for n in range(60)], "label", "single_label", ""),
        ([str(n % 5) for n in range(60)], "stars", "ordinal", "labels with an order"),
        ([str(n) for n in range(150)] * 2, "score", "regression", "taken as a regression"),
        (["1", "2", "3"] * 20 + ["n/a"], "stars", "single_label", 'but for "n/a"'),
        (["1", "2", "3"] * 20 + ["n/a"], "label", "single_label", ""),
        (['["a", "b"]', "['b']", "[]"] * 9, "label", "multi_label", "holds lists"),
        (["[draft]", "[final]"] * 9, "label", "single_label", ""),
        (["a;b", "b;c", "a", "c"] * 9, "label", "single_label", 'data.separator=";"'),
        (["a, b", "b, c", "a", "c"] * 9, "label", "single_label", 'data.separator=","'),
        (["arts, music", "law, state", "sport"] * 9, "label", "single_label", ""),
        ([f"{n % 9},5" for n in range(99)], "stars", "single_label", "taken as names of classes"),
        (["5 %", "10 %"] * 9, "label", "single_label", "write them as 1234.5"),
        ([f"{year}-01-05" for year in range(1900, 1999)], "label", "single_label", ""),
    ],
)
def test_the_kind_is_found_and_what_is_odd_is_said(
    values: list[Any], column: str, found: str, said: str
) -> None:
    problem, notes = kind(values, column)
    assert problem == found
    assert said in " ".join(notes)
    assert bool(said) == bool(notes)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([*PRICES, "inf"], '1 row with "inf".*empty these fields'),
        ([*PRICES, "NA", "NA"], '2 rows with "NA"'),
        ([f"{n},5" for n in range(100)], 'written as "0,5"'),
        ([f"${n}.5" for n in range(100)], r'written as "\$0.5"'),
        ([f"{n}.5%" for n in range(100)], "written as"),
        ([f"{n},300" for n in range(100)], "Write them as 1234.5"),
    ],
)
def test_numbers_that_a_program_cannot_read_are_named(values: list[Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        kind(values, "price")
    assert kind(values, "price", "data.problem=single_label")[0] == "single_label"


def test_several_labels_asked_for_and_none_parted_are_told() -> None:
    problem, notes = kind(["a;b", "b;c", "a", "c"] * 9, "label", "data.problem=multi_label")
    assert problem == "multi_label"
    assert "data.separator" in notes[0]


def test_lists_written_as_text_are_lists(tmp_path: Path) -> None:
    texts = ['["refund", "login"]', "['login']", "[]", '["billing"]'] * 20
    rows = read(written(tmp_path / "a.csv", texts))
    assert rows.problem == "multi_label"
    assert sorted(rows.labels) == sorted(TOPICS)
    look = look_at_recipe(recipe(tmp_path / "a.csv"), offline=True)
    assert look.facts["problem"].startswith("multi_label")
    assert look.facts["labels"].startswith("3")
    assert '"text" (data.text)' in look.facts["columns"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("['refund' 'login']", ["refund", "login"]),  # as numpy prints it
        ("['refund'\n 'login']", ["refund", "login"]),
        ('["it\'s", "b"]', ["it's", "b"]),
        ("[\"it's\", 'b']", ["it's", "b"]),
        ("[1, 2]", [1, 2]),
        ("[]", []),
        ("[draft]", "[draft]"),
        ("[{{}}]", "[{{}}]"),
        ("['a' + 'b']", "['a' + 'b']"),
        ("'a', 'b'", "'a', 'b'"),
    ],
)
def test_what_spells_out_a_list(text: str, found: Any) -> None:
    assert unpacked(text) == found


def test_a_bare_label_among_lists_is_a_list_of_one(tmp_path: Path) -> None:
    for name, labels in (
        ("a.jsonl", [["refund", "login"], ["login"], "refund", ["billing"]]),
        ("a.csv", ['["refund", "login"]', '["login"]', "refund", '["billing"]']),
    ):
        rows = read(written(tmp_path / name, labels * 20))
        assert (rows.problem, sorted(rows.labels)) == ("multi_label", sorted(TOPICS))
    assert kind(['["a", "b"]', '["b"]'] * 9, "label", "data.problem=multi_label")[1] == []


def test_the_look_sees_what_a_run_sees(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["1", "2", "3"] * 20 + ["7"], "stars")
    look = look_at_recipe(recipe(path, "data.min_rows=3"), offline=True)
    assert not look.count("error")
    frame = pd.DataFrame({"text": [f"t{n}" for n in range(60)], "urgent": [0, 1] * 30})
    frame.to_csv(tmp_path / "b.csv", index=False)
    look = look_at_recipe(recipe(tmp_path / "b.csv", "data.label=[urgent]"), offline=True)
    assert '"urgent" 30' in look.facts["balance"]
    labels = ["1", "2", "3"] * 2800 + ["n/a"] * 20
    look = look_at_recipe(recipe(written(tmp_path / "c.csv", labels, "stars")), offline=True)
    assert [finding.code for finding in look.findings].count("other-problem") == 1


def test_an_order_may_name_what_was_too_rare(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["low", "high"] * 30 + ["top"] * 2)
    rows = read(path, "data.order=[low, high, top]", "data.min_rows=3")
    assert rows.labels == ["low", "high"]


def test_an_empty_field_among_several_labels_says_none(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["refund;login", "login", None, "billing"] * 20)
    rows = read(path, "data.separator=;")
    assert sum(sum(label) == 0 for label in rows.train.labels) > 5
    assert any("20 rows of a.csv with an empty" in note for note in rows.notes)
    assert "20 rows none" in look_at_recipe(recipe(path, "data.separator=;")).facts["labels"]


@pytest.mark.parametrize("label", [{"name": "pos"}, [["deep"]], [{"a": 1}]])
def test_objects_are_no_labels(label: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"lists or objects|is no label"):
        read(written(tmp_path / "a.jsonl", [label] * 40))


def test_a_whole_number_is_one_label_however_it_is_written(tmp_path: Path) -> None:
    rows = read(written(tmp_path / "a.csv", ["0", "1", "1.0", "2"] * 20))
    assert rows.labels == ["0", "1", "2"]
    columns = pd.DataFrame(
        {"text": [f"t{n}" for n in range(60)], "x": ["1.0", "0.0"] * 30, "y": ["yes", "no"] * 30}
    )
    columns.to_csv(tmp_path / "b.csv", index=False)
    rows = read(tmp_path / "b.csv", "data.label=[x, y]")
    assert rows.labels == ["x", "y"]
    assert {*rows.train.labels} == {(1, 1), (0, 0)}


def test_rare_steps_of_an_order_can_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["1", "2", "3"] * 20 + ["7"], "stars")
    with pytest.raises(RecipeError, match=r"data\.min_rows=3"):
        read(path)
    rows = read(path, "data.min_rows=3")
    assert (rows.problem, rows.labels) == ("ordinal", ["1", "2", "3"])
    assert any("1 label of fewer than 3 rows is left out" in note for note in rows.notes)
    with pytest.raises(RecipeError, match=r"data\.rare=merge"):
        read(path, "data.min_rows=3", "data.rare=merge")
    with pytest.raises(RecipeError, match="these are numbers"):
        read(written(tmp_path / "b.csv", PRICES), "data.min_rows=3")


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        (("question1", "question2", "is_duplicate"), "is_duplicate"),
        (("id", "text", "price"), "price"),
        (("text", "a", "b"), None),
        (("text", "author"), None),
        (("text", "id"), None),
    ],
)
def test_the_only_column_left_is_the_label(columns: tuple[str, ...], label: str | None) -> None:
    frame = pd.DataFrame({name: [f"{name} {n % 3}" for n in range(9)] for name in columns})
    frame["id"] = range(9)
    frame["author"] = [f"author {n}" for n in range(9)]
    frame = frame[list(columns)]
    pair = "question2" if "question2" in columns else None
    text = "question1" if pair else None
    if label is None:
        with pytest.raises(RecipeError, match=r"which the label|holds the label"):
            choose_columns(frame, text, None, "a.csv", (pair,))
        return
    assert choose_columns(frame, text, None, "a.csv", (pair,))[1] == label


def test_one_label_that_applies_or_not_is_answered_for_every_row() -> None:
    """sklearn tells two columns of a single label, and one of each of several."""
    features = [[float(n % 2), 1.0] for n in range(20)]
    model = Linear("multi_label", features, [(n % 2,) for n in range(20)])
    logits = model.logits(features)
    assert logits.shape == (20, 1)
    assert [logit > 0 for logit in logits[:, 0]] == [n % 2 == 1 for n in range(20)]


def test_names_that_look_alike_are_the_same_folded_and_shown_apart() -> None:
    assert folded("Pos\u200b") == folded(" pos ") == "pos"
    assert folded("cafe\u0301") == folded("caf\u00e9")
    assert folded("not\tgood") == folded("not good") != folded("notgood")
    assert shown("a\u200bb\x1b[31m") == '"a\\u200bb\\u001b[31m"'


def test_what_is_a_number() -> None:
    assert [number(value) for value in ("1.5", 2, "1_2", 10**400, "nan", True, None, "x")] == [
        1.5, 2.0, None, None, None, None, None, None,
    ]  # fmt: skip


def test_a_near_miss_of_ordered_labels_is_no_label_error(tmp_path: Path) -> None:
    """Texts of 1 and 2 are alike, and so are those of 4 and 5."""
    low, high = ["bad", "poor", "awful", "sad"], ["good", "fine", "great", "nice"]
    rows = []
    for n in range(300):
        words = low if n % 2 else high
        text = " ".join(words[(n // 2 * k + k) % 4] for k in (1, 3, 5, 7)) + f" number{n}"
        stars = (1 if n % 20 == 1 else 2) if n % 2 else (5 if n % 20 == 0 else 4)
        rows.append({"text": text, "stars": stars})
    rows[0]["stars"] = 1
    rows[2]["stars"] = 1
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    look = look_at_recipe(recipe(tmp_path / "a.csv"), offline=True)
    errors = [found for found in look.findings if found.code == "label-errors"]
    assert len(errors) == 1
    assert all('looks like "4"' in example for example in errors[0].examples)


def test_a_column_of_splits_is_told(tmp_path: Path) -> None:
    rows = [
        {"text": f"text number {n}", "label": "ab"[n % 2], "split": ["train", "test"][n % 3 == 0]}
        for n in range(60)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    look = look_at_recipe(recipe(tmp_path / "a.csv"), offline=True)
    (found,) = [finding for finding in look.findings if finding.code == "split-column"]
    assert '"test" (20) and "train" (40)' in found.what
    for name in ("train", "test"):
        own = [row for row in rows if row["split"] == name]
        pd.DataFrame(own).to_csv(tmp_path / f"{name}.csv", index=False)
    files = recipe(tmp_path / "train.csv", f"data.test={tmp_path / 'test.csv'}")
    look = look_at_recipe(files, offline=True)
    assert not [finding for finding in look.findings if finding.code == "split-column"]


def test_a_number_far_from_all_others_is_told(tmp_path: Path) -> None:
    numbers = [f"{n % 40 / 10}5" for n in range(119)]
    near = look_at_recipe(recipe(written(tmp_path / "a.csv", numbers, "score")), offline=True)
    assert not [finding for finding in near.findings if finding.code == "far-numbers"]
    path = written(tmp_path / "b.csv", [*numbers, "1e12"], "score")
    far = look_at_recipe(recipe(path), offline=True)
    (found,) = [finding for finding in far.findings if finding.code == "far-numbers"]
    assert "1 row has a number" in found.what
    assert found.where == "line 121 of b.csv"


def lines(path: Path, rows: list[tuple[str, str]]) -> Path:
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(path, index=False)
    return path


def test_few_rows_are_few_different_texts(tmp_path: Path) -> None:
    """Copies are taken out, so that they do not make a label frequent enough."""
    rows = [(f"text number {n}", "ab"[n % 2]) for n in range(40)]
    path = lines(tmp_path / "a.csv", [*rows, *[("the same", "rare")] * 6])
    assert read(path, "data.min_rows=3").labels == ["a", "b"]
    look = look_at_recipe(recipe(path, "data.min_rows=3"), offline=True)
    assert not look.count("error")
    # Nor do texts that the test data have, too: none of them is left to learn from.
    test = lines(tmp_path / "b.csv", [(f"odd {n}", "rare") for n in range(4)] + rows[:4])
    path = lines(tmp_path / "c.csv", [*rows, *[(f"odd {n}", "rare") for n in range(4)]])
    given = [f"data.test={test}", "data.min_rows=3"]
    found = read(path, *given)
    assert found.labels == ["a", "b"]
    assert len(found.test) == 4
    assert not look_at_recipe(recipe(path, *given), offline=True).count("error")


def test_a_label_that_no_rows_are_left_of(tmp_path: Path) -> None:
    rows = [(f"text number {n}", "ab"[n % 2]) for n in range(40)]
    path = lines(tmp_path / "a.csv", [*rows, ("odd", "rare")])
    with pytest.raises(RecipeError, match='of "rare", on 1 different text to learn from'):
        read(path, "data.min_rows=3", "data.rare=merge")
    test = lines(tmp_path / "b.csv", [("other", "rare"), ("others", "rare")])
    given = [f"data.test={test}", "data.min_rows=3"]
    with pytest.raises(RecipeError, match=r"no row of b\.csv.*leave out data\.test"):
        read(path, *given)
    assert look_at_recipe(recipe(path, *given), offline=True).count("error") == 1
    bare = written(tmp_path / "c.jsonl", [[]] * 40)
    some = written(tmp_path / "d.jsonl", [["a"]] * 4)
    with pytest.raises(RecipeError, match=r"No row of c\.jsonl has a label"):
        read(bare, f"data.validation={some}", "data.min_rows=2")


def test_numbers_without_a_finite_deviation_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [*PRICES, "1.7976931348623157e308"], "price")
    with pytest.raises(RecipeError, match=r"too far apart.*line 102"):
        read(path)
