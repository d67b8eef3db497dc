from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from recipes.errors import RecipeError
from recipes.tasks.splits import Splits, fingerprint, split

SETTINGS: dict[str, Any] = {
    "test_fraction": 0.2,
    "validation_fraction": 0.1,
    "seed": 0,
    "overlap": "remove",
    "names": {"all": "my.csv", "train": "my.csv", "validation": "v.csv", "test": "t.csv"},
}


def rows(count: int, label: str, start: str = "") -> list[tuple[str, str]]:
    return [(f"{start}{label} text {number}", label) for number in range(count)]


def frame(*pairs: tuple[str, str]) -> pd.DataFrame:
    lines = pd.Index(range(2, len(pairs) + 2), name="line")
    return pd.DataFrame(pairs, columns=["text", "label"], index=lines)


def parted(frames: dict[str, pd.DataFrame], **changed: Any) -> Splits:
    return split(frames, **{**SETTINGS, **changed})


def refused(frames: dict[str, pd.DataFrame], **changed: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parted(frames, **changed)
    return str(caught.value)


def texts(part: pd.DataFrame) -> list[str]:
    return list(part["text"])


TWO = [*rows(30, "a"), *rows(30, "b")]


def test_draws_are_those_of_scikit_learn_on_unique_rows_in_file_order() -> None:
    pairs = [*rows(5381 - 86, "x"), *rows(86, "y")]
    labels = [label for _, label in pairs]
    rest, test = train_test_split(range(5381), test_size=0.2, random_state=0, stratify=labels)
    train, validation = train_test_split(
        rest, test_size=0.1, random_state=0, stratify=[labels[row] for row in rest]
    )
    splits = parted({"all": frame(*pairs, *pairs[:71])})
    assert texts(splits.test) == [pairs[row][0] for row in test]
    assert texts(splits.validation) == [pairs[row][0] for row in validation]
    assert texts(splits.train) == [pairs[row][0] for row in train]
    assert [len(part) for part in (train, validation, test)] == [3873, 431, 1077]
    assert "71 duplicates from the 5,452 rows of my.csv" in splits.notes[0]
    assert "another label" not in splits.notes[0]


def test_rows_keep_their_numbers_and_another_seed_draws_others() -> None:
    data = {"all": frame(*TWO)}
    splits = parted(data)
    for part in (splits.train, splits.validation, splits.test):
        assert all(texts(part) == data["all"].loc[part.index, "text"])
    assert set(splits.test.index) != set(parted(data, seed=1).test.index)


def test_duplicates_leave_the_first_and_contradictions_are_told() -> None:
    splits = parted({"all": frame(*TWO, TWO[0], ("a text 1", "b"), ("a text 1", "b"))})
    every = pd.concat([splits.train, splits.validation, splits.test])
    assert sorted(zip(every["text"], every["label"], strict=True)) == sorted(TWO)
    assert "3 duplicates from the 63 rows of my.csv" in splits.notes[0]
    assert "2 of them had another label" in splits.notes[0]
    assert "(lines 63 and 64)" in splits.notes[0]


def test_given_splits_stay_and_missing_ones_are_drawn() -> None:
    test = frame(*rows(4, "a", "new "), *rows(4, "b", "new "))
    splits = parted({"train": frame(*TWO), "test": test})
    assert texts(splits.test) == texts(test)
    assert len(splits.validation) == 6
    splits = parted({"train": frame(*TWO), "validation": test})
    assert texts(splits.validation) == texts(test)
    assert len(splits.test) == 12
    splits = parted({"train": frame(*TWO), "validation": frame(*rows(3, "a", "v ")), "test": test})
    assert texts(splits.train) == [text for text, _ in TWO]


def test_overlaps_leave_what_is_learned_from() -> None:
    test = frame(*rows(4, "a", "new "), *TWO[:2], ("v 1", "b"))
    validation = frame(("v 1", "b"), ("v 2", "b"), TWO[2])
    splits = parted({"train": frame(*TWO), "validation": validation, "test": test})
    assert texts(splits.test) == texts(test)
    assert texts(splits.validation) == ["v 2", TWO[2][0]]
    assert texts(splits.train) == [text for text, _ in TWO[3:]]
    assert "2 texts of my.csv also occur in t.csv: removed" in splits.notes[0]
    assert "1 text of v.csv also occurs in t.csv" in splits.notes[1]
    assert "1 text of my.csv also occurs in v.csv" in splits.notes[2]


def test_overlaps_are_refused_on_request() -> None:
    test = frame(*rows(4, "a", "new "), *TWO[:2])
    message = refused({"train": frame(*TWO), "test": test}, overlap="refuse")
    assert '2 texts of my.csv also occur in t.csv, for example "a text 0"' in message
    assert "(lines 2 and 3 of my.csv)" in message
    assert "data.overlap=remove" in message


def test_the_same_file_twice_is_refused() -> None:
    test = frame(*rows(4, "a", "new "), *rows(4, "b", "new "))
    message = refused({"train": frame(*TWO), "validation": test, "test": test})
    assert "Every text of v.csv also occurs in t.csv" in message
    assert "leave data.validation out" in message
    assert "leave data.test out" in refused({"train": frame(*TWO), "test": frame(*TWO)})


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_label_unknown_to_training_is_refused(name: str) -> None:
    held = frame(*rows(4, "a", "new "), ("odd", "c"), ("odder", "c"), ("oddest", "d"))
    message = refused({"train": frame(*TWO), name: held})
    file = {"validation": "v.csv", "test": "t.csv"}[name]
    assert f"3 rows of {file}" in message
    assert '"c" (lines 6 and 7) and "d" (line 8)' in message
    assert 'Known from training: "a" and "b"' in message


def test_a_label_is_unknown_once_its_only_rows_overlap() -> None:
    held = frame(*rows(4, "a", "new "), ("odd", "c"))
    message = refused({"train": frame(*TWO, ("odd", "c")), "test": held})
    assert '"c" (line 6)' in message


def test_one_class_is_refused() -> None:
    message = refused({"all": frame(*rows(9, "a"))})
    assert 'All 9 rows of my.csv have the label "a"' in message
    assert "at least two classes" in message


def test_rare_classes_are_named_with_their_counts() -> None:
    message = refused({"all": frame(*TWO, *rows(1, "c"), *rows(2, "d"), ("d text 0", "d"))})
    assert '2 of the 4 classes of my.csv have too few rows: "c" (1) and "d" (2)' in message
    assert "at least 3 different texts" in message
    parted({"all": frame(*TWO, *rows(3, "c"))})


def test_a_rare_class_may_be_in_a_given_training_file() -> None:
    held = {name: frame(*rows(4, "a", name)) for name in ("validation", "test")}
    splits = parted({"train": frame(*TWO, *rows(1, "c")), **held})
    assert splits.labels == ["a", "b", "c"]
    assert any('No row of t.csv has the label "b" and "c"' in note for note in splits.notes)


def test_a_label_column_of_identifiers_is_refused_briefly() -> None:
    message = refused({"all": frame(*((f"text {row}", f"id {row}") for row in range(5000)))})
    assert "5,000 of the 5,000 classes" in message
    assert "data.label=NAME" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"test_fraction": 0.0}, "data.test_fraction=0.0 must lie between 0 and 1"),
        ({"validation_fraction": 1.0}, "data.validation_fraction=1.0 must lie between 0 and 1"),
        ({"test_fraction": 0.01}, "would put 1 of 60 rows .* Raise it to 0.04"),
        ({"test_fraction": 0.98}, "leave 1, .* Lower it to 0.96"),
        ({"validation_fraction": 0.01}, "would put 1 of 48 rows .* Raise it"),
    ],
)
def test_fractions_that_cannot_be_drawn_are_refused(changed: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parted({"all": frame(*TWO)}, **changed)


def test_a_draw_that_takes_a_whole_class_is_refused() -> None:
    data = {"all": frame(*rows(300, "a"), *rows(3, "c"))}
    assert '"c"' in refused(data, test_fraction=0.9)


def test_labels_that_differ_in_case_are_noted() -> None:
    splits = parted({"all": frame(*TWO, *rows(9, "B", "x "))})
    assert any('and count as different classes: "B" and "b"' in note
               for note in splits.notes)  # fmt: skip


def test_the_fingerprint_follows_texts_labels_and_order() -> None:
    splits = parted({"all": frame(*TWO)})
    assert fingerprint(splits) == fingerprint(parted({"all": frame(*TWO)}))
    others = [
        parted({"all": frame(*TWO)}, seed=1),
        parted({"all": frame(*TWO[:-1], ("b text 29!", "b"))}),
        parted({"all": frame(*TWO[:-1], ("b text 29", "a"))}),
    ]
    assert len({fingerprint(other) for other in [splits, *others]}) == 4
