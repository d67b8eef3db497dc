"""Fewer rows to learn from: which they are, what stays, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
from tiny_work import workspace

from recipes.errors import RecipeError
from recipes.pipeline import _told
from recipes.recipe import DataSettings
from recipes.tasks import Rows, Split
from recipes.tasks.fewer import fewer

COUNTS = {0: 100, 1: 20, 2: 3}
SPLIT = Split(
    [f"text {i}" for i in range(sum(COUNTS.values()))],
    [label for label, count in COUNTS.items() for _ in range(count)],
)
HELD = Split(["held out"], [0])
ROWS = Rows(SPLIT, HELD, HELD, ["a", "b", "c"], ["a note"], "unknown", "here", "print")


def drawn(rows: Rows = ROWS, seed: int = 0, **settings: object) -> Rows:
    return fewer(rows, DataSettings.model_validate({"source": "x", **settings}), seed)


def test_all_rows_stay_as_they_are_without_a_wish() -> None:
    assert drawn() is ROWS


def test_a_fraction_is_of_each_class_and_leaves_no_class_out() -> None:
    found = drawn(fraction=0.1)
    assert Counter(found.train.labels) == {0: 10, 1: 2, 2: 1}
    assert found.validation is ROWS.validation
    assert found.test is ROWS.test
    assert found.fingerprint != ROWS.fingerprint
    assert "13 of 123" in found.notes[-1]
    texts = dict(zip(SPLIT.texts, SPLIT.labels, strict=True))
    assert [texts[text] for text in found.train.texts] == list(found.train.labels)


def test_a_smaller_draw_is_a_part_of_a_larger_one() -> None:
    parts = [set(drawn(fraction=f).train.texts) for f in (0.02, 0.05, 0.1, 0.33, 0.8, 1)]
    assert all(one < other for one, other in pairwise(parts))
    shots = [set(drawn(per_class=n).train.texts) for n in (2, 4, 8, 16, 64)]
    assert all(one < other for one, other in pairwise(shots))


def test_the_seed_draws_other_rows_unless_the_recipe_names_one() -> None:
    first, again, other = (set(drawn(seed=s, fraction=0.2).train.texts) for s in (0, 0, 1))
    assert first == again != other
    fixed = [drawn(seed=s, fraction=0.2, draw_seed=5).fingerprint for s in (0, 1)]
    assert fixed[0] == fixed[1]


def test_validation_rows_come_out_of_the_shots() -> None:
    found = drawn(per_class=16)
    assert Counter(found.train.labels) == {0: 14, 1: 14, 2: 2}
    assert Counter(found.validation.labels) == {0: 2, 1: 2, 2: 1}
    assert not set(found.train.texts) & set(found.validation.texts)
    assert set(found.validation.texts) <= set(SPLIT.texts)
    assert found.test is ROWS.test
    assert '"c" (3)' in found.notes[-1]
    assert len(drawn(per_class=16, validation_fraction=0.5).validation) == 8 + 8 + 2
    # Two rows are enough: one for each.
    assert Counter(drawn(per_class=2).validation.labels) == {0: 1, 1: 1, 2: 1}


def test_what_cannot_be_drawn_is_refused() -> None:
    lone = replace(ROWS, train=Split(["x", "y", "z"], [0, 0, 1]))
    with pytest.raises(RecipeError, match='"b" has one training row'):
        drawn(lone, per_class=4)
    numbers = replace(ROWS, problem="regression", train=Split(["x", "y"], [0.5, 1.5]))
    with pytest.raises(RecipeError, match=r"data\.fraction"):
        drawn(numbers, per_class=4)
    assert len(drawn(numbers, fraction=0.5).train) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"fraction": 0.0}, "greater than 0"),
        ({"fraction": 0.5, "per_class": 8}, "either fraction or per_class"),
        ({"per_class": 1}, "greater than or equal to 2"),
        ({"draw_seed": 1}, "draw_seed has no effect"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        drawn(**settings)


def test_a_run_reads_what_the_recipe_leaves(tmp_path: Path) -> None:
    backbone = tiny.backbone(tmp_path / "backbone")
    whole = workspace(tmp_path / "run", backbone).rows
    part = workspace(tmp_path / "run", backbone, "data.fraction=0.2").rows
    assert len(part.train) < len(whole.train)
    assert part.test.texts == whole.test.texts
    assert part.test.fingerprint == whole.test.fingerprint
    assert part.train.fingerprint != whole.train.fingerprint


def test_a_run_tells_of_all_rows_whatever_it_leaves_of_them(tmp_path: Path) -> None:
    backbone = tiny.backbone(tmp_path / "backbone")
    found = [
        workspace(tmp_path / "run", backbone, *few)
        for few in ((), ("data.fraction=0.5",), ("data.fraction=0.5", "seed=1"))
    ]
    assert len({work.rows.fingerprint for work in found}) == 3
    assert len({_told(work)["all_data"] for work in found}) == 1
