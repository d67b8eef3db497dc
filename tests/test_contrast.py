"""The stage before fine-tuning that brings texts of one label together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression
from tiny_work import StopError, stop, workspace

from adapters.backbone import load_backbone, unwrapped
from adapters.classifier import output_layer
from adapters.strategy import learned_state, prepare
from adapters.tiny import ARCHITECTURES
from recipes import contrast as module
from recipes.contrast import Couples, bring_together, check_contrast, contrast, represent
from recipes.errors import RecipeError
from recipes.folds import fold_teachers
from recipes.ledger import Ledger
from recipes.linear import Linear
from recipes.stages.finetune import run
from recipes.tasks import Split
from recipes.training import set_dropout
from recipes.workspace import Workspace

Make = Callable[[str], Path]
FEW = [
    "data.per_class=8", "contrast={epochs: 3, learning_rate: 5e-3, batch_size: 8}",
    "train.epochs=1", "train.learning_rate=1e-9",
]  # fmt: skip


def test_the_loss_is_that_of_the_paper() -> None:
    vectors, labels = torch.randn(7, 5), [0, 1, 0, 2, 1, 0, 3]
    unit = torch.nn.functional.normalize(vectors, dim=1)
    scores = (unit @ unit.T / 0.2).exp()
    terms = []
    for row, label in enumerate(labels):
        alike = [p for p, other in enumerate(labels) if other == label and p != row]
        whole = sum(scores[row, other] for other in range(7) if other != row)
        if alike:
            terms.append(-sum(math.log(scores[row, p] / whole) for p in alike) / len(alike))
    found = contrast(vectors, torch.tensor(labels), 0.2)
    assert float(found) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert float(contrast(3 * vectors, torch.tensor(labels), 0.2)) == pytest.approx(float(found))


def test_texts_that_lie_together_cost_less_and_lone_ones_nothing() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    together = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert contrast(together, labels, 0.1) < contrast(together[[0, 2, 1, 3]], labels, 0.1)
    lone = torch.randn(3, 4, requires_grad=True)
    loss = contrast(lone, torch.arange(3), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert lone.grad is not None
    assert lone.grad.abs().sum() == 0


def test_no_row_of_a_batch_is_alone() -> None:
    labels = [0] * 9 + [1] * 6 + [2] * 5
    sampler = Couples(labels, seed=3)
    order = list(sampler)
    assert sorted(order) == list(range(20))
    assert len(sampler) == 20
    assert all(labels[a] == labels[b] for a, b in zip(order[:18:2], order[1:18:2], strict=True))
    assert list(sampler) == order
    sampler.set_epoch(1)
    assert list(sampler) != order


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_the_output_layer_reads_is_found(tiny_backbone: Make, architecture: str) -> None:
    model = load_backbone(tiny_backbone(architecture), tiny.LABELS)
    vectors, logits = represent(model, tiny.batch(["the cat", "a big house and the river"]))
    assert torch.allclose(output_layer(model)(vectors), logits, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_logistic_regression_becomes_a_layer(classes: int) -> None:
    features, labels = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % classes
    features[:, 0] += labels
    model = Linear("single_label", features, labels)
    weight, bias = model.layer()
    assert weight.shape == (classes, 4)
    logits = torch.tensor(features @ weight.T + bias)
    assert np.allclose(logits.log_softmax(dim=1), model.logits(features), atol=1e-9)


def begun(work: Workspace) -> torch.nn.Module:
    backbone = work.load(work.quantization)
    set_dropout(backbone, work.recipe.train.dropout)
    return prepare(backbone, work.strategy)


def vectors(work: Workspace, model: torch.nn.Module) -> torch.Tensor:
    batch = work.task.collator(work.tokenizer)(work.examples("train", work.tokenizer))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return represent(model.eval(), inputs)[0]


@pytest.mark.parametrize(
    "how", [["strategy={name: full}"], ["strategy={name: lora}", "backbone.quantization=nf4"]]
)
def test_texts_come_together_and_the_head_begins_there(
    tiny_backbone: Make, tmp_path: Path, how: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[int]] = []

    class Seen(Couples):
        def __iter__(self) -> Iterator[int]:
            orders.append(list(super().__iter__()))
            yield from orders[-1]

    monkeypatch.setattr(module, "Couples", Seen)
    work = workspace(tmp_path / "run", tiny_backbone("bert"), *FEW, *how)
    model, labels = begun(work), torch.tensor(work.rows.train.labels)
    before = contrast(vectors(work, model), labels, 0.1)
    bring_together(work, model, work.rows.train, "teacher", work.folder / "teacher")
    assert len({tuple(order) for order in orders}) == 3  # another one in each epoch
    after = vectors(work, model)
    assert contrast(after, labels, 0.1) < before
    fitted = LogisticRegression(C=10.0, max_iter=1000).fit(after.numpy(), labels.numpy())
    layer = output_layer(unwrapped(model))
    found = layer(after).softmax(dim=1).detach()
    assert np.allclose(found.numpy(), fitted.predict_proba(after.numpy()), atol=1e-4)
    assert all(weight.requires_grad for weight in layer.parameters())


class KilledError(Exception):
    """Stands for a process that ends."""


def test_a_stage_that_was_cut_off_ends_where_a_whole_one_ends(
    tiny_backbone: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone("bert")

    def done(name: str) -> dict[str, torch.Tensor]:
        work = workspace(tmp_path / name, backbone, *FEW)
        model = begun(work)
        bring_together(work, model, work.rows.train, "teacher", work.folder / "teacher")
        return learned_state(model)

    whole = done("whole")

    class Cut(module.Contrast):
        calls = 0

        def forward(self, *given: Any, **named: Any) -> dict[str, torch.Tensor]:
            Cut.calls += 1
            if Cut.calls == 6:
                raise KilledError
            return super().forward(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, "Contrast", Cut)
        with pytest.raises(KilledError):
            done("cut")
    assert list((tmp_path / "cut" / "teacher" / "contrast").glob("checkpoint-*"))
    again = done("cut")
    assert all(torch.equal(again[name], weight) for name, weight in whole.items())
    monkeypatch.setattr(module, "fit", stop)  # what is finished is not trained again
    assert all(torch.equal(done("cut")[name], weight) for name, weight in whole.items())


def test_fine_tuning_goes_on_from_there_and_tidies_up(tiny_backbone: Make, tmp_path: Path) -> None:
    work = workspace(tmp_path / "run", tiny_backbone("bert"), *FEW)
    run(work)
    row = Ledger(work.folder / "ledger.json")["teacher"]
    assert any("3 epochs of contrast" in note for note in row.notes)
    left = {path.name for path in (work.folder / "teacher").iterdir()}
    assert not left & {"contrast", "contrast.safetensors", "checkpoints"}
    assert {"adapter_model.safetensors"} <= left
    # A rate of next to nothing leaves what the stage before has reached.
    model = begun(work)
    bring_together(work, model, work.rows.train, "again", tmp_path / "again")
    with torch.no_grad():
        logits = model.eval()(**tiny.batch(work.rows.validation.texts)).logits
    assert np.allclose(logits.numpy(), work.logits("teacher")["validation"], atol=1e-3)


def test_each_fold_of_a_teacher_has_its_own(
    tiny_backbone: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []
    work = workspace(tmp_path / "run", tiny_backbone("bert"), *FEW)
    monkeypatch.setattr("recipes.folds.bring_together", lambda *given: seen.append(given[2]))
    monkeypatch.setattr("recipes.folds.fit_adapter", stop)
    with pytest.raises(StopError):
        fold_teachers(work, 3)
    assert 0 < len(seen[0]) < len(work.rows.train)


def test_what_has_nothing_to_go_by_is_refused(tiny_backbone: Make, tmp_path: Path) -> None:
    gpt = tiny_backbone("gpt2")
    work = workspace(
        tmp_path / "head", gpt, *FEW, "strategy={name: head}", "distill.objectives=[ce]"
    )
    with pytest.raises(RecipeError, match="nothing there to learn"):
        bring_together(work, begun(work), work.rows.train, "teacher", work.folder / "teacher")
    few = workspace(tmp_path / "run", gpt, *FEW)
    few.rows = replace(few.rows, problem="regression")
    with pytest.raises(RecipeError, match="no label of"):
        check_contrast(few)
    few = workspace(tmp_path / "again", gpt, *FEW)
    few.rows = replace(few.rows, train=Split(["a", "b"], [0, 1]))
    with pytest.raises(RecipeError, match="no two training rows"):
        check_contrast(few)
    for extra in ("phases.classes=2", "strategy=null"):
        with pytest.raises(RecipeError, match="contrast"):
            workspace(tmp_path / "x", gpt, "contrast={}", extra)
