"""The training loop: order, best epoch, and a run that was killed and goes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from apart import exit_code

import recipes.training
from adapters import strategies
from adapters.backbone import load_backbone
from adapters.hardware import Hardware
from adapters.strategy import learned_state, prepare
from adapters.training import last_checkpoint
from recipes.console import hush
from recipes.problems.single_label import SingleLabel
from recipes.recipe import TrainSettings
from recipes.sampling import LengthBuckets
from recipes.tasks import Split, tasks
from recipes.training import Classifier, fit

Make = Callable[[str], Path]
CPU = Hardware("cpu", "some CPU", 2, bf16=False, vnni=False, flags=())
SETTINGS = TrainSettings(epochs=3, learning_rate=5e-3, batch_size=16, patience=None)


def train(folder: Path, out: Path, settings: TrainSettings = SETTINGS, **changes: Any) -> Any:
    task = tasks.get("text_classification")()
    texts, labels = zip(*tiny.rows(200), strict=True)
    ids = [tiny.LABELS.index(label) for label in labels]
    tokenizer = tiny.tokenizer()
    examples = task.features(Split(texts, ids), tokenizer, 32)
    strategy = strategies.get("lora")(rank=4)
    model = prepare(load_backbone(folder, tiny.LABELS, quantization="nf4"), strategy)
    arguments: dict[str, Any] = {
        "title": "test",
        "folder": out,
        "settings": settings,
        "problem": SingleLabel(tiny.LABELS),
        "collate": task.collator(tokenizer),
        "hardware": CPU,
        "allow_fallback": True,
        "seed": 0,
    } | changes
    trained = fit(
        Classifier(model, SingleLabel(tiny.LABELS)), examples[:160], examples[160:], **arguments
    )
    return model, trained.history


def test_buckets_yield_every_row_once_in_an_order_of_seed_and_epoch() -> None:
    lengths = [i * 7 % 31 + 1 for i in range(1003)]
    sampler = LengthBuckets(lengths, 8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(1003))
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(LengthBuckets(lengths, 8, seed=4)) != first
    batches = [first[i : i + 8] for i in range(0, 1000, 8)]
    padded = sum(8 * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


def test_training_learns_and_keeps_the_best_epoch(tiny_backbone: Make, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 5})
    model, history = train(tiny_backbone("bert"), tmp_path, settings)
    scores = [entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry]
    assert len(scores) == 5
    assert max(scores) > 0.6
    texts, labels = zip(*tiny.rows(200)[160:], strict=True)
    with torch.inference_mode():
        guesses = model.eval()(**tiny.batch(texts)).logits.argmax(-1)
    ids = torch.tensor([tiny.LABELS.index(label) for label in labels])
    assert float((guesses == ids).float().mean()) == pytest.approx(max(scores))


def test_patience_stops_early(tiny_backbone: Make, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 9, "patience": 1, "learning_rate": 1e-9})
    _, history = train(tiny_backbone("bert"), tmp_path, settings)
    assert sum("eval_accuracy" in entry for entry in history) == 2


@pytest.mark.parametrize(("since", "epochs"), [(0.0, 2), (0.5, 3), (0.7, 4)])
def test_patience_waits_for_the_last_term(
    tiny_backbone: Make, tmp_path: Path, since: float, epochs: int
) -> None:
    """A term that begins half-way is not cut off by epochs in which it did not count."""
    from distill import Pair, objectives
    from distill.learner import Learner

    task, tokenizer = tasks.get("text_classification")(), tiny.tokenizer()
    rows = [(text, tiny.LABELS.index(label)) for text, label in tiny.rows(48)]
    examples = task.features(Split(*map(list, zip(*rows, strict=True))), tokenizer, 32)
    model = load_backbone(tiny_backbone("bert"), tiny.LABELS)
    terms = [objectives.get("ce")(since=since)]
    settings = SETTINGS.model_copy(update={"epochs": 5, "patience": 1, "learning_rate": 1e-9})
    trained = fit(
        Learner(model, terms, None, Pair(32, 32, (0, 1, 2, 3), True, 4, 4, 4)),
        examples[:32], examples[32:], title="test", folder=tmp_path, settings=settings,
        problem=SingleLabel(tiny.LABELS),
        collate=task.collator(tokenizer), hardware=CPU, allow_fallback=True, seed=0,
    )  # fmt: skip
    assert sum("eval_accuracy" in entry for entry in trained.history) == epochs


def test_without_validation_rows_the_last_epoch_stays(tiny_backbone: Make, tmp_path: Path) -> None:
    """As in an imitation: nothing is evaluated, every epoch leaves a checkpoint to go on from."""
    from distill import Pair, objectives
    from distill.learner import Learner

    task, tokenizer = tasks.get("text_classification")(), tiny.tokenizer()
    texts, labels = zip(*tiny.rows(64), strict=True)
    split = Split(texts, [tiny.LABELS.index(label) for label in labels])
    model = load_backbone(tiny_backbone("bert"), tiny.LABELS)
    terms = [objectives.get("ce")(since=0.5, schedule="rising")]
    learner = Learner(model, terms, None, Pair(32, 32, (0, 1, 2, 3), True, 4, 4, 4))
    clock: list[float] = []
    learner.register_forward_pre_hook(lambda module, _: clock.append(module.progress))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    settings = SETTINGS.model_copy(update={"epochs": 2, "patience": 1})
    trained = fit(
        learner, task.features(split, tokenizer, 32), (), title="test", folder=tmp_path,
        settings=settings,
        problem=SingleLabel(tiny.LABELS), collate=task.collator(tokenizer), hardware=CPU,
        allow_fallback=True, seed=0,
    )  # fmt: skip
    assert clock == pytest.approx([step / 8 for step in range(8)])
    assert [entry["loss"] == 0 for entry in trained.history][:3] == [True] * 3
    assert trained.history[-1]["epoch"] == 2
    assert not any("eval_accuracy" in entry for entry in trained.history)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")
    assert any(not torch.equal(weight, before[n]) for n, weight in model.named_parameters())


def train_and_die(backbone: Path, out: Path, step: int, threads: int) -> None:
    """Train until a step is done, and be killed."""

    class Killer(recipes.training.Progress):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            super().on_step_end(args, state, control, **more)
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(threads)  # with another number, sums differ in their last bits
    hush()
    recipes.training.Progress = Killer  # type: ignore[misc]
    train(backbone, out)


@pytest.mark.parametrize("step", [13, 20])
def test_a_killed_training_goes_on_to_the_same_end(
    tiny_backbone: Make, tmp_path: Path, step: int
) -> None:
    backbone = tiny_backbone("bert")
    whole, history = train(backbone, tmp_path / "whole")
    given = backbone, tmp_path / "cut", step, torch.get_num_threads()
    assert exit_code(train_and_die, *given) == -signal.SIGKILL
    assert last_checkpoint(tmp_path / "cut") is not None
    resumed, again = train(backbone, tmp_path / "cut")
    assert _steady(again) == _steady(history)
    state, other = learned_state(whole), learned_state(resumed)
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_a_training_killed_after_it_had_stopped_early_stays_stopped(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 9, "patience": 1, "learning_rate": 1e-9})
    whole, history = train(tiny_backbone("bert"), tmp_path, settings)
    # Its checkpoints are still there, as if it had died before they were tidied up.
    resumed, again = train(tiny_backbone("bert"), tmp_path, settings)
    assert _steady(again) == _steady(history)
    state, other = learned_state(whole), learned_state(resumed)
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def _steady(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Leave timings out."""
    return [
        {key: value for key, value in entry.items() if "second" not in key and "time" not in key}
        for entry in history
    ]


def test_half_a_checkpoint_does_not_count(tmp_path: Path) -> None:
    names = ("learned.safetensors", "optimizer.pt", "rng_state.pth")
    for step, state in ((10, "{}"), (20, "{}"), (30, '{"cut'), (40, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")
    state = '{"best_model_checkpoint": "elsewhere/checkpoint-10"}'
    (tmp_path / "checkpoint-20" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")
    shutil.rmtree(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) is None  # the weights of its best epoch are gone
    assert last_checkpoint(tmp_path / "missing") is None
