"""Rows that arrive in phases: the recipe's section, and what reading makes of it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny

from recipes.errors import RecipeError
from recipes.reading import check, plain, read_recipe
from recipes.recipe import DataSettings, PhasesSettings
from recipes.tasks import Rows
from recipes.tasks.text_classification import TextClassification

Row = tuple[str, ...]
SPLITS = ("train", "validation", "test")


def rows(label: str, count: int, *more: str, start: str = "") -> list[Row]:
    return [(f"{start}{label} text {number} {more}", label, *more) for number in range(count)]


def write(file: Path, content: Sequence[Row], *columns: str) -> str:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", *columns])
        writer.writerows(content)
    return str(file)


def read(phases: dict[str, Any] | None, **data: Any) -> Rows:
    settings = None if phases is None else PhasesSettings(**phases)
    return TextClassification().read(DataSettings(**data), settings, offline=True)


def refused(phases: dict[str, Any], **data: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        read(phases, **data)
    return str(caught.value)


def told(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe("lora_cls", overrides)
    return str(caught.value)


def phase_of(read: Rows) -> dict[str, int]:
    parts = [getattr(read, split) for split in SPLITS]
    return {text: n for part in parts for text, n in zip(part.texts, part.phases, strict=True)}


def label_of(read: Rows, split: str) -> dict[str, str]:
    part = getattr(read, split)
    return {text: read.labels[n] for text, n in zip(part.texts, part.labels, strict=True)}


@pytest.fixture
def letters(tmp_path: Path) -> str:
    """Return a file with 30 rows of each of the labels a to e."""
    return write(tmp_path / "letters.csv", [row for label in "edcba" for row in rows(label, 30)])


MONTHS = ("2024-2", "2024-10", "2024-1")


@pytest.fixture
def months(tmp_path: Path) -> str:
    """Return a file with three months; the label c comes with the last of them only."""
    content = [row for month in MONTHS for label in "ba" for row in rows(label, 40, month)]
    return write(tmp_path / "months.csv", [*content, *rows("c", 40, "2024-10")], "month")


# The section


def test_the_last_word_on_phases_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "child.yaml").write_text("extends: lora_cls\nphases: {classes: 3}\n")
    assert read_recipe("lora_cls").phases is None
    assert read_recipe("child.yaml").phases == PhasesSettings(classes=3)
    by_column = read_recipe("child.yaml", ["phases.column=month"])
    assert by_column.phases == PhasesSettings(column="month")
    assert read_recipe("child.yaml", ["phases=null"]).phases is None


def test_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    recipe = read_recipe("lora_cls", ["data.train=a.csv", "phases.files=[b.csv]"])
    assert recipe.phases == PhasesSettings(files=(str(tmp_path / "b.csv"),))
    assert 'There is no file "c.csv"' in told("data.train=a.csv", "phases.files=[b.csv, c.csv]")
    assert "b.csv twice" in told("data.train=a.csv", "phases.files=[b.csv, ./b.csv]")
    assert "a.csv twice" in told("data.train=a.csv", "phases.files=[a.csv]")
    with_test = told("data.train=a.csv", "data.test=b.csv", "phases.files=[b.csv]")
    assert "phases.files go without data.validation and data.test" in with_test


@pytest.mark.parametrize("words", ["3", "[[A, 2], [true]]"])
def test_the_section_reads_back_to_itself(words: str) -> None:
    recipe = read_recipe("lora_cls", [f"phases.classes={words}"])
    assert check(plain(recipe), "again") == recipe


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("phases={}", "give exactly one of classes"),
        ("phases={classes: 2, column: month}", "give exactly one of classes"),
        ("phases.classes=1", "phases.classes: 1 is neither a number of phases, at least 2"),
        ("phases.classes=[A, B]", "['A', 'B'] is neither"),
        ("phases.classes=[[A, B]]", "[['A', 'B']] is neither"),
        ("phases.classes=[[A], []]", "[['A'], []] is neither"),
        ("phases.files=b.csv", "should be a list: "),
        ("phases.files=[b.csv]", "phases.files go with data.train"),
    ],
)
def test_wrong_sections_are_refused(override: str, said: str) -> None:
    assert said in told(override)


# Classes


def test_classes_part_evenly_and_leave_the_splits_as_they_are(letters: str) -> None:
    found, usual = read({"classes": 3}, train=letters), read(None, train=letters)
    assert found.phases == ["a", "b, c", "d, e"]
    assert found.labels == usual.labels
    for split in SPLITS:
        part, same = getattr(found, split), getattr(usual, split)
        assert (part.texts, part.labels) == (same.texts, same.labels)
        assert part.phases == [(0, 1, 1, 2, 2)[label] for label in part.labels]
    assert found.fingerprint != usual.fingerprint
    assert 'Phases: 1 "a" 30 rows (1 new label), 2 "b, c" 60 rows (2 new labels)' in found.notes[-1]


def test_labels_known_after_a_phase_come_before_those_of_the_next(letters: str) -> None:
    found = read({"classes": (("d", "b"), ("e",), ("c", "a"))}, train=letters)
    assert found.phases == ["d, b", "e", "c, a"]
    assert found.labels == ["b", "d", "e", "a", "c"]
    assert set(label_of(found, "test").values()) == set("abcde")
    assert all(text.startswith(label) for text, label in label_of(found, "test").items())


def test_labels_that_yaml_reads_as_numbers_are_found(tmp_path: Path) -> None:
    file = write(tmp_path / "stars.csv", [row for star in "0123" for row in rows(star, 20)])
    assert read({"classes": ((3, 1), (0, 2))}, train=file).labels == ["1", "3", "0", "2"]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (6, 'phases.classes=6 needs that many labels, and the data have 5: "a", "b"'),
        ((("a", "b"), ("c", "d", "E")), 'names "E", which no row has as its label. The labels are'),
        ((("a", "b"), ("c", "d")), 'leaves out "e"'),
        ((("a", "b"), ("b", "c", "d", "e")), 'names "b" more than once'),
    ],
)
def test_groups_that_are_not_those_of_the_data_are_refused(
    letters: str, classes: Any, said: str
) -> None:
    assert said in refused({"classes": classes}, train=letters)


def test_a_mistyped_label_is_told_the_right_one(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", [*rows("DESC", 20), *rows("ENTY", 20)])
    said = refused({"classes": (("DSEC",), ("ENTY",))}, train=file)
    assert 'Did you mean "DESC"?' in said


def test_given_splits_have_phases_too(letters: str, tmp_path: Path) -> None:
    held = [row for label in "ace" for row in rows(label, 5, start="new ")]
    test = write(tmp_path / "t.csv", held)
    found = read({"classes": 3}, train=letters, test=test)
    assert found.test.phases == [0] * 5 + [1] * 5 + [2] * 5
    said = refused({"classes": 5}, train=letters, test=test)
    assert 'Phase 2, "b", has 27 rows to train, 3 rows to validate and 0 rows to test' in said
    assert "add rows of it to t.csv" in said


def test_a_contradiction_is_kept_in_the_earliest_phase(letters: str, tmp_path: Path) -> None:
    content = [("both", "e"), *(row for label in "edcba" for row in rows(label, 30)), ("both", "a")]
    found = read({"classes": 5}, train=write(tmp_path / "twice.csv", content))
    assert phase_of(found)["both"] == 0
    note = next(note for note in found.notes if "Removed" in note)
    assert "in its earliest phase; 1 of them had another label" in note


# Columns


def test_values_of_a_column_are_phases_in_natural_order(months: str) -> None:
    found = read({"column": "month"}, train=months)
    assert found.phases == ["2024-1", "2024-2", "2024-10"]
    assert found.labels == ["a", "b", "c"]
    for text, place in phase_of(found).items():
        assert f"('{found.phases[place]}',)" in text
    assert found == read({"column": "month"}, train=months)


def test_new_labels_come_after_known_ones(tmp_path: Path) -> None:
    content = [*rows("z", 20, "1"), *rows("y", 20, "1"), *rows("b", 20, "2"), *rows("z", 20, "2")]
    file = write(tmp_path / "a.csv", [*content, *rows("a", 20, "2")], "day")
    found = read({"column": "day"}, train=file)
    assert found.labels == ["y", "z", "a", "b"]
    assert '1 "1" 40 rows (2 new labels), 2 "2" 60 rows (2 new labels)' in found.notes[-1]


def test_each_label_of_each_phase_has_its_share_of_the_drawn_splits(months: str) -> None:
    found = read({"column": "month"}, train=months)
    for split, low, high in (("test", 8, 8), ("validation", 3, 4)):
        part = getattr(found, split)
        cells = list(zip(part.labels, part.phases, strict=True))
        assert {low <= cells.count(cell) <= high for cell in set(cells)} == {True}
        assert len(set(cells)) == 7


@pytest.mark.parametrize("seed", range(5))
def test_a_label_rare_in_a_phase_leaves_a_row_to_learn(tmp_path: Path, seed: int) -> None:
    rare = [row for label in "cdefg" for row in rows(label, 3, "1")]
    single = [*rows("h", 1, "1"), *rows("h", 40, "2")]
    content = [*rows("a", 40, "1"), *rare, *single, *rows("a", 40, "2")]
    file = write(tmp_path / "a.csv", content, "day")
    found = read({"column": "day"}, train=file, split_seed=seed)
    learned = set(zip(found.train.labels, found.train.phases, strict=True))
    assert len(learned) == 9
    for split in ("validation", "test"):
        part = getattr(found, split)
        assert set(zip(part.labels, part.phases, strict=True)) <= learned
    assert "rows with a label that is rare in its phase stay out of the test" in str(found.notes)


def test_a_phase_without_its_share_is_refused(tmp_path: Path) -> None:
    content = [*rows("a", 40, "1"), *rows("b", 40, "1"), *rows("a", 4, "2"), *rows("b", 4, "2")]
    file = write(tmp_path / "a.csv", content, "day")
    said = refused({"column": "day"}, train=file)
    assert 'Phase 2, "2", has 7 rows to train, 0 rows to validate and 1 row to test' in said
    assert "raise data.validation_fraction or add rows of it" in said
    assert read({"column": "day"}, train=file, test_fraction=0.25, validation_fraction=0.25).phases


def test_one_row_alone_in_its_phase_is_refused(tmp_path: Path) -> None:
    content = [*rows("a", 20, "1"), *rows("b", 20, "1"), *rows("a", 1, "2")]
    said = refused({"column": "day"}, train=write(tmp_path / "a.csv", content, "day"))
    assert 'Phase 2, "2", has 1 row to train, 0 rows to validate and 0 rows to test' in said


def test_a_repeated_text_stays_in_its_earliest_phase(months: str, tmp_path: Path) -> None:
    content = [("again", "a", "2024-10"), ("again", "a", "2024-1"), ("again", "b", "2024-2")]
    content += [row for month in MONTHS for label in "ab" for row in rows(label, 20, month)]
    found = read({"column": "month"}, train=write(tmp_path / "again.csv", content, "month"))
    assert phase_of(found)["again"] == 0
    note = next(note for note in found.notes if "Removed" in note)
    assert "Removed 2 duplicates from the 123 rows of again.csv" in note
    assert "1 of them had another label than the row that was kept (line 4)" in note


def test_the_column_has_to_be_in_every_file(months: str, tmp_path: Path) -> None:
    content = [row for month in MONTHS for label in "ab" for row in rows(label, 5, month)]
    held = [(f"new {text}", label, month) for text, label, month in content]
    test = write(tmp_path / "t.csv", held, "month")
    assert read({"column": "month"}, train=months, test=test).test.phases == [
        place for place in (1, 2, 0) for _ in range(10)
    ]
    test = write(tmp_path / "t.csv", held, "mouth")
    said = refused({"column": "month"}, train=months, test=test)
    assert 't.csv has no column "month", which phases.column names. Did you mean "mouth"?' in said


def test_a_held_row_whose_label_is_learned_later_is_told(months: str, tmp_path: Path) -> None:
    held = [(f"new {n}", "a", month) for n, month in enumerate(MONTHS)]
    test = write(tmp_path / "t.csv", [*held, ("early", "c", "2024-1")], "month")
    found = read({"column": "month"}, train=months, test=test)
    assert (
        "1 row of the test split has a label that is first learned in a later phase"
        in (found.notes[-1])
    )


def test_rows_without_a_phase_are_unusable_rows(months: str, tmp_path: Path) -> None:
    content = [*rows("a", 30, "1"), *rows("b", 30, "2"), ("x", "a", ""), ("y", "b", " ")]
    file = write(tmp_path / "holes.csv", content, "day")
    said = refused({"column": "day"}, train=file)
    assert '2 without a value in "day" (lines 62 and 63)' in said
    assert "data.invalid_rows=drop" in said
    found = read({"column": "day"}, train=file, invalid_rows="drop")
    assert 'Left out 2 of the 62 rows of holes.csv: 2 without a value in "day"' in str(found.notes)
    assert set(phase_of(found)) == {text for text, *_ in content[:60]}


def test_columns_that_make_no_phases_are_refused(letters: str, tmp_path: Path) -> None:
    said = refused({"column": "text"}, train=letters)
    assert "has 150 different values" in said
    assert "coarser column" in said
    content = [*rows("a", 20, "1"), *rows("b", 20, "1")]
    said = refused({"column": "day"}, train=write(tmp_path / "a.csv", content, "day"))
    assert 'has only the value "1", which makes one phase' in said
    said = refused({"column": "day"}, train=letters)
    assert 'has no column "day", which phases.column names' in said


@pytest.mark.parametrize(
    "ordered",
    [
        ["9", "10", "100"],
        ["-1.5", "0", "2"],
        ["week 9", "week 10"],
        ["2023-12-31", "2024-01-01"],
        ["31.12.2023", "01.02.2024", "2.1.2025"],
        ["12.2023", "01.2024", "02.2024"],
        ["13/01/2024", "02/02/2024"],
        ["1/30/2024", "2/1/2024", "10/1/2024"],
        ["March", "April", "May"],
        ["Dec 2023", "Jan 2024"],
    ],
)
def test_numbers_and_dates_are_ordered_as_such(tmp_path: Path, ordered: list[str]) -> None:
    content = [row for value in sorted(ordered) for label in "ab" for row in rows(label, 15, value)]
    file = write(tmp_path / "a.csv", content, "when")
    assert read({"column": "when"}, train=file).phases == ordered


def test_dates_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    content = [row for day in ("01/12/2024", "02/11/2024") for row in rows("a", 9, day)]
    file = write(tmp_path / "a.csv", [*content, *rows("b", 9, "02/11/2024")], "when")
    said = refused({"column": "when"}, train=file)
    assert '"01/12/2024" can be read with the day or with the month first' in said
    assert "2024-12-31" in said


def test_numbers_and_days_of_a_parquet_file_make_phases(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        [row for value in "ab" for label in "cd" for row in rows(label, 20, value)],
        columns=["text", "label", "letter"],
    )
    frame["number"] = frame["letter"].map({"a": 10.0, "b": 9.0})
    frame["day"] = frame["letter"].map({"a": datetime(2024, 3, 1), "b": datetime(2024, 2, 1)})
    frame["list"] = [[1]] * len(frame)
    frame.to_parquet(tmp_path / "a.parquet")
    file = str(tmp_path / "a.parquet")
    assert read({"column": "number"}, train=file).phases == ["9", "10"]
    assert read({"column": "day"}, train=file).phases == ["2024-02-01", "2024-03-01"]
    assert "set phases.column to a column that has such" in refused({"column": "list"}, train=file)


# Files


def test_files_are_phases_in_the_order_given(tmp_path: Path) -> None:
    first = write(tmp_path / "february.csv", [*rows("b", 30), *rows("c", 30)])
    second = write(tmp_path / "march.csv", [("b text 0 ()", "c"), *rows("a", 30)])
    third = write(tmp_path / "april.csv", [*rows("a", 20, start="x "), *rows("c", 20, start="x ")])
    found = read({"files": (second, third)}, train=first)
    assert found.phases == ["february.csv", "march.csv", "april.csv"]
    assert found.source == "february.csv, march.csv, april.csv"
    assert found.labels == ["b", "c", "a"]
    phases = phase_of(found)
    assert (phases["b text 0 ()"], phases["a text 0 ()"], phases["x a text 0 ()"]) == (0, 1, 2)
    note = next(note for note in found.notes if "Removed" in note)
    assert "131 rows of february.csv, march.csv and april.csv" in note
    assert "(line 2 of march.csv)" in note


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = []
    for month in ("january", "february"):
        (tmp_path / month).mkdir()
        content = [row for label in "ab" for row in rows(label, 20, start=month)]
        files.append(write(tmp_path / month / "data.csv", content))
    found = read({"files": tuple(files[1:])}, train=files[0])
    assert found.phases == ["january/data.csv", "february/data.csv"]


def test_a_fault_in_a_later_file_names_it(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", [*rows("b", 30), *rows("c", 30)])
    second = write(tmp_path / "b.csv", [("x", ""), *rows("b", 30, start="x ")])
    said = refused({"files": (second,)}, train=first)
    assert "rows of b.csv cannot be used: 1 without a label (line 2)" in said
    unlabelled = write(tmp_path / "c.csv", [("x", ""), ("y", "")])
    assert "No row of c.csv can be used" in refused({"files": (unlabelled,)}, train=first)


# Without the section


def test_without_phases_rows_are_what_they_were(tmp_path: Path) -> None:
    found = read(None, train=str(tiny.table(tmp_path / "a.csv", 120)))
    assert found.fingerprint == "5a28f4739860539b161b908b387e28a2c2d3739cdcea9abf433655bd0f9c9aa1"
    assert found.phases == found.train.phases == found.test.phases == ()
    assert found.notes == ["86 / 10 / 24 rows to train, validate, test; 3 labels"]
