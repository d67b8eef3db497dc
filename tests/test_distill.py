"""Students, objectives and teacher signals."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from adapters.backbone import load_backbone
from distill import CachedTeacher, DistillError, LiveTeacher, Objective, Outputs, Pair, Signals
from distill.learner import Learner
from distill.objectives import CrossEntropy, Hidden, KullbackLeibler
from distill.students import cut, kept_layers, spread

Make = Callable[[str], Path]
TEXTS = [text for text, _ in tiny.rows(40)]
PAIR = Pair(student_width=8, teacher_width=8, layer_map=(0, 3), same_tokens=True)


def load(folder: Path, labels: list[str] = tiny.LABELS, seed: int = 0) -> Any:
    return load_backbone(folder, labels, seed=seed)


def live(folder: Path, **changes: Any) -> LiveTeacher:
    settings: dict[str, Any] = {"max_length": 16, "layers": (0, 3)} | changes
    return LiveTeacher(load(folder), tiny.tokenizer(), tiny.LABELS, **settings)


# Students


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


# Objectives


def outputs(seed: int, rows: int = 4, length: int = 5, layers: int = 2) -> Outputs:
    torch.manual_seed(seed)
    return Outputs(
        torch.randn(rows, 3, dtype=torch.float64, requires_grad=True),
        tuple(
            torch.randn(rows, length, 8, dtype=torch.float64, requires_grad=True)
            for _ in range(layers)
        ),
    )


LABEL_IDS = torch.tensor([0, 2, 1, 1])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
OBJECTIVES = [CrossEntropy(), KullbackLeibler(temperature=3.0), Hidden()]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_gradients_are_those_of_finite_differences(objective: Objective) -> None:
    student, told = outputs(0), outputs(1)
    teacher = Signals(told.logits.detach(), tuple(h.detach() for h in told.hidden))

    def loss(logits: torch.Tensor, *hidden: torch.Tensor) -> torch.Tensor:
        return objective.loss(Outputs(logits, hidden), teacher, LABEL_IDS, MASK, None)

    assert torch.autograd.gradcheck(loss, (student.logits, *student.hidden))


def test_kl_is_the_textbook_sum_times_the_squared_temperature() -> None:
    student, teacher = outputs(0), outputs(1)
    loss = KullbackLeibler(temperature=4.0).loss(
        student, Signals(teacher.logits), LABEL_IDS, MASK, None
    )
    p = torch.softmax(teacher.logits / 4, -1)
    q = torch.softmax(student.logits / 4, -1)
    assert torch.allclose(loss, 16 * (p * (p / q).log()).sum(-1).mean())
    # Its gradient keeps its size: at a high temperature it is that of matched, centered logits.
    centered = [x - x.mean(-1, keepdim=True) for x in (student.logits, teacher.logits)]
    limit = ((centered[0] - centered[1]) ** 2).sum(-1).mean() / (2 * 3)
    hot = KullbackLeibler(temperature=1e4).loss(
        student, Signals(teacher.logits), LABEL_IDS, MASK, None
    )
    assert torch.allclose(hot, limit, rtol=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(objective: Objective) -> None:
    student = outputs(0)
    loss = objective.loss(student, Signals(student.logits, student.hidden), LABEL_IDS, MASK, None)
    assert (loss.item() < 1e-12) == bool(objective.needs)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_padding_and_order_do_not_matter(objective: Objective) -> None:
    student, teacher = outputs(0), outputs(1)

    def loss(order: list[int], padding: int, junk: float) -> torch.Tensor:
        def stretch(states: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            fill = torch.full((4, padding, 8), junk, dtype=torch.float64)
            return tuple(torch.cat([state, fill], dim=1)[order] for state in states)

        mask = torch.cat([MASK, torch.zeros(4, padding, dtype=torch.long)], dim=1)[order]
        return objective.loss(
            Outputs(student.logits[order], stretch(student.hidden)),
            Signals(teacher.logits[order], stretch(tuple(h * 2 for h in teacher.hidden))),
            LABEL_IDS[order],
            mask,
            None,
        )

    assert torch.allclose(loss([0, 1, 2, 3], 0, 0.0), loss([2, 0, 3, 1], 3, 7.0))


def test_hidden_learns_a_projection_where_widths_differ() -> None:
    narrow = Pair(student_width=4, teacher_width=8, layer_map=(0, 3), same_tokens=True)
    parts = Hidden().parts(narrow)
    assert isinstance(parts, nn.ModuleList)
    states = tuple(torch.randn(4, 5, 4) for _ in range(2))
    told = tuple(torch.randn(4, 5, 8) for _ in range(2))
    loss = Hidden().loss(
        Outputs(torch.randn(4, 3), states), Signals(torch.randn(4, 3), told), LABEL_IDS, MASK, parts
    )
    loss.backward()
    assert all(p.grad is not None for p in parts.parameters())
    assert Hidden().parts(PAIR) is None


def test_what_cannot_work_is_refused_before_training(tiny_backbone: Make) -> None:
    student = load(tiny_backbone("bert"))
    apart = Pair(student_width=8, teacher_width=8, layer_map=(0, 3), same_tokens=False)
    with pytest.raises(DistillError, match="different tokenizers"):
        Learner(student, [Hidden()], live(tiny_backbone("bert")), apart)
    with pytest.raises(DistillError, match="need a teacher's logits"):
        Learner(student, [KullbackLeibler()], None, PAIR)


# Teacher signals


def test_a_cache_answers_as_the_teacher_itself_in_any_order_and_padding(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    teacher = live(tiny_backbone("bert"))
    cache = CachedTeacher(tmp_path / "c", teacher, [*TEXTS, TEXTS[0]], batch_size=7)
    order = TEXTS[:]
    random.Random(1).shuffle(order)
    for texts in (order[:5], order[5:6], [order[3], order[3], order[9]]):
        inputs = tiny.batch(texts)
        told, kept = teacher(texts, inputs), cache(texts, inputs)
        assert torch.allclose(told.logits, kept.logits, atol=1e-5)
        seen = inputs["attention_mask"].bool()
        for one, other in zip(told.hidden, kept.hidden, strict=True):
            assert one.shape == other.shape
            assert torch.allclose(one[seen], other[seen], atol=5e-3)


def test_a_cache_is_kept_for_the_same_teacher_and_texts_only(
    tiny_backbone: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = LiveTeacher.__call__

    def counting(self: LiveTeacher, texts: Any, inputs: Any) -> Signals:
        asked.append(len(texts))
        return ask(self, texts, inputs)

    monkeypatch.setattr(LiveTeacher, "__call__", counting)
    folder, model = tmp_path / "c", tiny_backbone("bert")

    def asks(teacher: LiveTeacher, texts: list[str]) -> int:
        asked.clear()
        CachedTeacher(folder, teacher, texts)
        return sum(asked)

    assert asks(live(model), TEXTS) == len(TEXTS)
    assert asks(live(model), TEXTS[::-1]) == 0
    assert asks(live(model), TEXTS[:-1]) == len(TEXTS) - 1
    assert asks(live(model, layers=(1, 3)), TEXTS[:-1]) == len(TEXTS) - 1
    other = live(model, layers=(1, 3))
    next(other.model.parameters()).data.add_(1.0)
    assert asks(other, TEXTS[:-1]) == len(TEXTS) - 1
    # What a killed process left half-way is not taken for a cache.
    (folder / "cache.json").unlink()
    assert asks(other, TEXTS[:-1]) == len(TEXTS) - 1


def test_a_text_that_was_never_announced_is_refused(tiny_backbone: Make, tmp_path: Path) -> None:
    cache = CachedTeacher(tmp_path / "c", live(tiny_backbone("bert")), TEXTS[:3])
    with pytest.raises(DistillError, match="announce every text"):
        cache(["never seen"], tiny.batch(["never seen"]))


def test_labels_are_matched_by_name(tiny_backbone: Make) -> None:
    shuffled = [tiny.LABELS[2], tiny.LABELS[0], tiny.LABELS[1]]
    model = load(tiny_backbone("bert"), labels=shuffled)
    teacher = LiveTeacher(model, tiny.tokenizer(), tiny.LABELS, max_length=16)
    inputs = tiny.batch(TEXTS[:3])
    told = teacher(TEXTS[:3], inputs).logits
    assert torch.equal(told, model(**inputs).logits[:, [1, 2, 0]])
    with pytest.raises(DistillError, match="disagree about the labels: place, plant"):
        LiveTeacher(load(tiny_backbone("bert"), labels=["animal", "food", "plant"]),
                    tiny.tokenizer(), tiny.LABELS, max_length=16)  # fmt: skip


def test_a_teacher_with_other_tokens_reads_the_texts_itself(tiny_backbone: Make) -> None:
    teacher = live(tiny_backbone("bert"), layers=(), same_tokens=False)
    wrong = {name: torch.zeros(3, 2, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    told = teacher(TEXTS[:3], wrong).logits
    direct = live(tiny_backbone("bert"), layers=())(TEXTS[:3], tiny.batch(TEXTS[:3])).logits
    assert torch.allclose(told, direct, atol=1e-6)
