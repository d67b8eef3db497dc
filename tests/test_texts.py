"""Texts without labels: what is read, what is made, and that none of it gives the test away."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import pandas as pd
import pytest
import tiny
from tiny_work import StopError, held_out, workspace

from recipes.augmentations import Augmentation, Source, augmentations
from recipes.errors import RecipeError
from recipes.reading import read_recipe
from recipes.several_students import students
from recipes.stages import finetune
from recipes.texts import check_texts, more_texts, plain_texts, training_rows, without
from recipes.workspace import Workspace

Make = Callable[..., Workspace]
NEW = "something quite new"


class Leaking(Augmentation):
    """By some accident it writes what validation and test rows say."""

    texts: ClassVar[list[str]] = []

    def vary(self, text: str, random: Random, source: Source) -> str:
        return random.choice(self.texts)


@pytest.fixture
def make(tmp_path: Path, tiny_backbone: Callable[[str], Path]) -> Make:
    return lambda *overrides: workspace(tmp_path / "run", tiny_backbone("bert"), *overrides)


def write(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def bare(text: str) -> str:
    return re.sub(r"[\W_]", "", text).casefold()


DISGUISES: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda text: f"  {text}  ",
    lambda text: text.replace(" ", " \t "),
    lambda text: text.replace(" ", ""),
    lambda text: f"«{text.title()}»!?",
    lambda text: text.replace(" ", ", "),
    lambda text: f"_{text.replace(' ', '_')}_",
    lambda text: "".join(chr(ord(c) + 0xFEE0) if c != " " else c for c in text),  # full width
]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_file_gives_no_validation_or_test_text_away(
    make: Make, tmp_path: Path, disguise: Callable[[str], str]
) -> None:
    work = make()
    secret = [disguise(text) for text in held_out(work)]
    assert len(secret) > 30
    path = write(tmp_path / "plain.txt", *secret, NEW, "the new cat and a red city")
    assert plain_texts(work, path) == [NEW, "the new cat and a red city"]


def test_a_file_of_nothing_else_is_refused(make: Make, tmp_path: Path) -> None:
    work = make()
    path = write(tmp_path / "plain.txt", *held_out(work))
    with pytest.raises(RecipeError, match="no text to learn from") as caught:
        plain_texts(work, path)
    assert "\n" not in str(caught.value)


def test_splits_that_others_report_on_are_not_read(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = make()
    assert work.rows
    frames = {
        name: pd.DataFrame({"text": [f"a text of {name}"], "label": ["x"]})
        for name in ("train", "validation", "test", "unsupervised")
    }
    stand_in = SimpleNamespace(
        resolve=lambda *_, **__: SimpleNamespace(path=tmp_path), rows=lambda _: frames
    )
    monkeypatch.setattr("recipes.texts.assets", stand_in)
    assert plain_texts(work, "hub:some/data") == ["a text of train", "a text of unsupervised"]


def test_what_augmentation_makes_gives_nothing_away(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with augmentations.known(Leaking):
        work = make("distill.augment=[Leaking]", "distill.copies=3", "train.augment=[Leaking]")
        secret = held_out(work)
        leaks = [disguise(text) for text in secret for disguise in DISGUISES]
        monkeypatch.setattr(Leaking, "texts", [*leaks, *[NEW] * 50])
        assert more_texts(work) == [NEW]
        grown = training_rows(work, work.recipe.train)
        assert list(grown.texts) == [*work.rows.train.texts, NEW]


@pytest.fixture
def pairs(tmp_path: Path) -> list[str]:
    """Write the rows of a run on pairs of texts, and return them as lines."""
    single = [text for text, _ in tiny.rows(240)]
    found = [f"{one},{other}" for one, other in zip(single[::2], single[1::2], strict=True)]
    labeled = [f"{line},{('same', 'other')[place % 2]}" for place, line in enumerate(found)]
    write(tmp_path / "run.csv", "premise,hypothesis,label", *labeled)
    return found


def test_pairs_are_read_as_pairs_and_no_half_of_a_held_one(
    make: Make, tmp_path: Path, pairs: list[str]
) -> None:
    work = make()
    single = [part for line in pairs for part in line.split(",")]
    halves = {part for text in held_out(work) for part in text.split("\t")}
    assert halves < set(single)
    found = plain_texts(work, write(tmp_path / "halves.csv", "text", *single, NEW))
    assert NEW in found
    assert not halves & set(found)
    more = write(tmp_path / "more.csv", "premise,hypothesis", "one,two", *pairs)
    assert set(plain_texts(work, more)) == {"one\ttwo", *work.rows.train.texts}


def test_further_students_read_pairs_too(make: Make, pairs: list[str]) -> None:
    work = make("distill.others=[{layers: 1}]", "export.choose=pareto")
    assert work.rows.train.texts[0].count("\t") == 1
    one, other = (each.examples("test", work.tokenizer) for each in students(work).values())
    assert [row["input_ids"] for row in one] == [row["input_ids"] for row in other]


def test_what_is_made_of_the_rows_comes_with_what_is_read(make: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "plain.txt", NEW)
    work = make(f"distill.text={path}", "distill.augment=[swap]", "distill.copies=2")
    found = more_texts(work)
    assert found == more_texts(make(*[f"distill.text={path}", "distill.augment=[swap]"],
                                    "distill.copies=2"))  # fmt: skip
    assert found[0] == NEW
    assert len(found) > len(work.rows.train)
    assert not set(found) & set(work.rows.train.texts)
    assert len(set(found)) == len(found)
    assert not {bare(text) for text in found} & {bare(text) for text in held_out(work)}


def test_blank_repeated_and_too_long_texts_are_left_out(make: Make, tmp_path: Path) -> None:
    work = make("data.max_characters=40")
    lines = ['"   "', NEW, '""', "x" * 41, NEW, "x" * 40]
    path = write(tmp_path / "plain.csv", "text", *lines)
    assert plain_texts(work, path) == [NEW, "x" * 40]


def test_texts_without_letters_are_told_apart() -> None:
    assert without(["🎉", "?!", " ", "🎉 "], ["?!"]) == ["🎉", "🎉 "]


@pytest.mark.parametrize(
    ("name", "lines", "found"),
    [
        (
            "a.txt",
            ["text,label", "one, two", "", "  three "],
            ["text,label", "one, two", "  three "],
        ),
        ("a.csv", ["sentence", "one"], ["one"]),
        ("a.csv", ["text,label", "one,x"], ["one"]),
        ("a.csv", ["review,label", "one,x"], ["one"]),
        ("a.csv", ["text,review", "wrong,one"], ["one"]),
        ("a.csv", ["id,question", "5,one"], ["one"]),
        ("a.jsonl", ['{"text": "one", "label": 3}', '{"text": 5}', '{"text": null}'], ["one"]),
    ],
)
def test_the_texts_of_a_table_are_found(
    make: Make, tmp_path: Path, name: str, lines: list[str], found: list[str]
) -> None:
    # The data's own column is called review; see the fourth case.
    rows = [f"{text},{label}" for text, label in tiny.rows(120)]
    write(tmp_path / "run.csv", "review,label", *rows)
    path = write(tmp_path / name, *lines)
    assert plain_texts(make("data.text=review"), path) == found


@pytest.mark.parametrize(
    ("name", "lines", "told"),
    [
        ("a.csv", ["one,two", "1,2"], 'a.csv holds the texts? There are "one"'),
        ("a.txt", [], "a.txt is empty"),
        ("a.json", ["[]"], "a.json is no table that can be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_before_anything_is_learnt(
    make: Make, tmp_path: Path, name: str, lines: list[str], told: str
) -> None:
    path = write(tmp_path / name, *lines)
    for key in (f"distill.text={path}", f"distill.imitate={{text: {path}}}"):
        with pytest.raises(RecipeError) as caught:
            check_texts(make(key))
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_limit_draws_by_the_seed(make: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "plain.txt", *(f"text number {i}" for i in range(100)))
    everything = plain_texts(make(), path)
    some = plain_texts(make(), path, 10)
    assert everything == [f"text number {i}" for i in range(100)]
    assert len(set(some)) == 10
    assert set(some) <= set(everything)
    assert plain_texts(make(), path, 10) == some
    assert plain_texts(make("seed=1"), path, 10) != some
    assert plain_texts(make(), path, 100) == everything


# Augmentation in training


def test_new_rows_go_by_the_labels_of_their_originals(make: Make) -> None:
    work = make("train.augment=[swap, delete]", "train.copies=2")
    grown = training_rows(work, work.recipe.train)
    count = len(work.rows.train)
    assert count * 1.5 < len(grown) <= count * 3
    assert list(grown.texts[:count]) == list(work.rows.train.texts)
    told = 0
    for text, label in zip(grown.texts[count:], grown.labels[count:], strict=True):
        given = {name for name, words in tiny.WORDS.items() if set(words) & set(text.split())}
        told += bool(given)
        assert given <= {work.rows.labels[label]}
    assert told > count / 2


def test_the_teacher_learns_from_new_rows_too(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def record(work: Workspace, model: Any, train: Any, *_: Any, **__: Any) -> None:
        seen.append([(row["texts"], row["labels"]) for row in train])
        raise StopError

    monkeypatch.setattr(finetune, "fit_adapter", record)
    work = make("train.augment=[swap]")
    with pytest.raises(StopError):
        finetune.run(work)
    grown = training_rows(work, work.recipe.train)
    assert seen == [list(zip(grown.texts, grown.labels, strict=True))]
    assert len(grown) > len(work.rows.train)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.augment=[swap]", "phases.classes=2"], "leave phases out"),
        (["train.augment=[splice]"], "move it to distill.augment"),
        (["distill.train.augment=[splice]"], "move it to distill.augment"),
        (["distill.imitate.train.augment=[swap]"], "train.augment has no effect"),
        (["distill.imitate.train.patience=7"], "train.patience has no effect"),
    ],
)
def test_augmentation_that_cannot_be_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe("lora_cls", overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
