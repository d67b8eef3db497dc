"""Students that are cut out of their teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from adapters.backbone import load_backbone
from distill import DistillError
from distill.students import cut, kept_layers, spread

Make = Callable[[str], Path]
TEXTS = [text for text, _ in tiny.rows(40)]


def load(folder: Path) -> Any:
    return load_backbone(folder, tiny.LABELS)


@pytest.mark.parametrize(
    ("wanted", "available", "kept"),
    [
        (3, 6, (0, 2, 5)),
        (1, 6, (5,)),
        (6, 6, (0, 1, 2, 3, 4, 5)),
        (2, 12, (0, 11)),
        ((1, 4), 6, (1, 4)),
    ],
)
def test_kept_layers_are_spread_evenly_or_as_listed(
    wanted: Any, available: int, kept: tuple[int, ...]
) -> None:
    assert kept_layers(wanted, available) == kept


@pytest.mark.parametrize("wanted", [7, (0, 6), (2, 1), (1, 1), (-1, 2)])
def test_layers_that_are_not_there_are_refused(wanted: Any) -> None:
    with pytest.raises(DistillError, match=r"distill\.student\.layers"):
        kept_layers(wanted, 6)


def test_spread_ends_at_the_last_layer() -> None:
    assert spread(3, 6) == (1, 3, 5)
    assert spread(3, 12) == (3, 7, 11)


def test_a_student_may_be_deeper_than_its_teacher() -> None:
    assert spread(6, 4) == (0, 0, 1, 1, 2, 3)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_cutting_keeps_embeddings_head_and_the_chosen_layers(
    tiny_backbone: Make, tmp_path: Path, architecture: str
) -> None:
    teacher = load(tiny_backbone(architecture))
    inputs = tiny.batch(TEXTS[:4])
    student = cut(teacher, (0, 1, 2, 3))
    assert torch.equal(student(**inputs).logits, teacher(**inputs).logits)
    short = cut(teacher, (0, 3))
    assert not torch.allclose(short(**inputs).logits, teacher(**inputs).logits)
    states = teacher(**inputs, output_hidden_states=True).hidden_states
    own = short(**inputs, output_hidden_states=True).hidden_states
    assert len(own) == 3
    assert torch.equal(own[1], states[1])
    short.save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path)(**inputs).logits, short(**inputs).logits)


def test_cutting_takes_the_kinds_of_layers_along(tmp_path: Path) -> None:
    folder = tiny.backbone(tmp_path / "whole", "modernbert")
    teacher = load(folder)
    student = cut(teacher, (0, 3))
    assert student.config.layer_types == [teacher.config.layer_types[i] for i in (0, 3)]
    student.save_pretrained(tmp_path / "cut")
    inputs = tiny.batch(TEXTS[:3])
    assert torch.allclose(load(tmp_path / "cut")(**inputs).logits, student(**inputs).logits)


def test_an_architecture_without_a_list_of_layers_is_refused(tmp_path: Path) -> None:
    teacher = load(tiny.backbone(tmp_path, "albert"))
    with pytest.raises(DistillError, match=r"distill\.student\.model"):
        cut(teacher, (0, 3))
