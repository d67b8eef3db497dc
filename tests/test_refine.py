"""The student's last training, on the training rows alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_work import StopError, workspace

from recipes import training
from recipes.errors import RecipeError
from recipes.ledger import Ledger
from recipes.reading import read_recipe
from recipes.stages import distill
from recipes.workspace import Workspace

Make = Callable[..., Workspace]
RECIPE = (
    "distill.objectives=[kl, ce]",
    "distill.augment=[swap]",
    "distill.copies=2",
    "distill.train={epochs: 1, learning_rate: 5e-3, batch_size: 16}",
    "distill.refine={epochs: 2, learning_rate: 1e-3}",
)


@pytest.fixture
def make(tmp_path: Path, tiny_backbone: Callable[[str], Path]) -> Make:
    def made(name: str, *more: str) -> Workspace:
        work = workspace(tmp_path / name, tiny_backbone("bert"), *RECIPE, *more)
        work.load().save_pretrained(work.folder / "merged")
        return work

    return made


def learnt(work: Workspace) -> dict[str, Any]:
    """Return what comes out of the stage, without the times."""
    row = Ledger(work.folder / "ledger.json")["student"]
    weights = (work.folder / "student" / "model.safetensors").read_bytes()
    return {"weights": weights, "read": row.tokens_read, "validation": row.validation}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Any]]:
    """Note every training that begins: its title, its examples and its settings."""
    seen: list[tuple[str, int, Any]] = []

    def fit(module: Any, train: Any, *arguments: Any, **named: Any) -> Any:
        seen.append((named["title"], len(train), named["settings"]))
        return training.fit(module, train, *arguments, **named)

    monkeypatch.setattr(distill, "fit", fit)
    return seen


def prepared(work: Workspace) -> Workspace:
    """Let the run's own teacher answer before, as the stage before would."""
    from recipes.ledger import Row
    from recipes.proof import answer_splits, measured
    from recipes.workspace import torch_call

    teacher = work.load(path=work.folder / "merged")
    logits = answer_splits(work, torch_call(teacher), work.tokenizer)
    work.ledger.put(Row("merge", "merged", **measured(work, "merged", logits)))
    return work


def test_it_reads_the_rows_alone_and_goes_on_where_it_was_cut_off(
    make: Make, started: list[tuple[str, int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepared(make("whole"))
    distill.run(whole)
    (first, many, _), (second, few, settings), (alone, rows, own) = started
    assert (first, second, alone) == ("student", "student, refined", "student-alone")
    assert few == rows == len(whole.rows.train) < many
    assert (settings.epochs, settings.learning_rate) == (2, 1e-3)
    assert own.epochs == 1 + 2
    assert any("refined" in note for note in whole.ledger["student"].notes)
    curve = json.loads((whole.folder / "curves" / "student.json").read_text())
    epochs = [entry["epoch"] for entry in curve]
    assert epochs == sorted(epochs)
    assert epochs[-1] == 3

    class Killer(training.Progress):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if "refined" in args.output_dir and state.global_step == 8:
                raise StopError

    broken = prepared(make("broken"))
    with monkeypatch.context() as patch:
        patch.setattr(training, "Progress", Killer)
        with pytest.raises(StopError):
            distill.run(broken)
    distill.run(broken)
    assert learnt(broken) == learnt(whole)
    assert not (broken.folder / "student" / "checkpoints").exists()


def test_the_best_epoch_of_both_trainings_is_kept(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = prepared(
        make(
            "worse",
            "distill.objectives=[{name: kl, weight: 0.01}, ce]",
            "distill.train={epochs: 6, learning_rate: 1e-2, batch_size: 16}",
            "distill.student.train_embeddings=true",
            "distill.refine={epochs: 1, learning_rate: 0.5}",
        )
    )
    seen: list[Any] = []

    def fit(module: Any, *arguments: Any, **named: Any) -> Any:
        trained = training.fit(module, *arguments, **named)
        weights = {name: tensor.clone() for name, tensor in module.student.state_dict().items()}
        seen.append((weights, trained.history[-1]["eval_accuracy"]))
        if len(seen) == 2:
            raise StopError
        return trained

    with monkeypatch.context() as patch:
        patch.setattr(distill, "fit", fit)
        with pytest.raises(StopError):
            distill.run(work)
    (first, better), (_, worse) = seen
    assert worse < better  # so high a rate spoils what was learnt
    distill.run(work)
    kept = work.load(path=work.folder / "student").state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in first.items())
    assert work.ledger["student"].validation["accuracy"] == pytest.approx(better)


def test_without_further_texts_it_is_refused(tmp_path: Path) -> None:
    data = tiny.table(tmp_path / "rows.csv")
    with pytest.raises(RecipeError, match="refine has no effect"):
        read_recipe("lora_cls", [f"data.train={data}", "distill.refine={}"])
