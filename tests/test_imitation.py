"""The stage before the task: what it learns, what it leaves alone, and when it is found again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_work import StopError, stop, workspace
from torch import Tensor

from adapters.training import last_checkpoint
from distill.students import layer_stack
from recipes import imitation, students, training
from recipes.imitation import Imitated, imitate
from recipes.workspace import Workspace

Make = Callable[[str], Path]
ASKED = [
    "distill.imitate={text: TEXT, train: {epochs: 3, learning_rate: 5e-3, batch_size: 16}}",
    "distill.imitate.train.dropout=0.0",
]


class Bench:
    """A place where one imitation has been learnt."""

    def __init__(self, folder: Path, backbone: Path) -> None:
        self.folder, self.backbone = folder, backbone
        self.text = folder / "plain.txt"
        self.text.write_text("".join(f"{text}\n" for text, _ in tiny.rows(60, seed=5)))
        self.losses: list[float] = []
        self.work = self.make(folder / "first")
        self.start = students.make(self.work, self.teacher(self.work))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("POTSTILL_CACHE", str(folder / "cache"))
            patch.setattr(imitation, "fit", self._fit)
            self.first = imitate(self.work, self.start, self.teacher(self.work))

    def make(self, folder: Path, *overrides: str) -> Workspace:
        words = [word.replace("TEXT", str(self.text)) for word in (*ASKED, *overrides)]
        if not folder.with_suffix(".csv").exists():
            tiny.table(folder.with_suffix(".csv"), 120)
        return workspace(folder, self.backbone, *words)

    def teacher(self, work: Workspace) -> Any:
        """Return a teacher that is not its backbone, nor is its head."""
        teacher = work.load()
        torch.manual_seed(7)
        for weight in teacher.parameters():
            weight.data += 0.02 * torch.randn_like(weight)
        return teacher

    def imitate(self, work: Workspace) -> Imitated:
        teacher = self.teacher(work)
        return imitate(work, students.make(work, teacher), teacher)

    def _fit(self, *arguments: Any, **named: Any) -> Any:
        trained = training.fit(*arguments, **named)
        self.losses = [entry["loss"] for entry in trained.history if "loss" in entry]
        return trained


@pytest.fixture(scope="module")
def bench(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("imitation"), tiny_backbone("bert"))


@pytest.fixture(autouse=True)
def cache(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a copy of the cache with the one imitation."""
    shutil.copytree(bench.folder / "cache", tmp_path / "cache")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_the_loss_falls(bench: Bench) -> None:
    assert bench.losses[-1] < 0.5 * bench.losses[0]
    assert bench.first.texts == 60 + len(bench.work.rows.train) - repeated(bench)
    assert bench.first.tokens > 3 * bench.first.texts


def repeated(bench: Bench) -> int:
    """Return how many lines of the plain file say what validation and test rows say."""
    held = {*bench.work.rows.validation.texts, *bench.work.rows.test.texts}
    return len(held & set(bench.text.read_text().splitlines()))


def test_only_the_layers_learn(bench: Bench) -> None:
    before, after = bench.start.alone.state_dict(), bench.first.student.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    inside = {id(weight) for weight in layer_stack(bench.first.student).parameters()}
    layers = {n for n, weight in bench.first.student.named_parameters() if id(weight) in inside}
    assert changed
    assert changed <= layers
    assert len(changed) > len(layers) / 2
    assert list(bench.first.student.config.id2label.values()) == bench.work.rows.labels


def test_a_second_run_starts_from_what_the_first_has_learnt(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imitation, "fit", stop)
    again = bench.imitate(bench.make(tmp_path / "again"))
    assert same(again.student.state_dict(), bench.first.student.state_dict())
    assert (again.texts, again.tokens) == (bench.first.texts, bench.first.tokens)
    assert again.seconds == bench.first.seconds
    # What is trained next is the same in everything else too.
    for one, other in zip(again.student.modules(), bench.first.student.modules(), strict=True):
        assert (one.training, getattr(one, "p", 0)) == (other.training, getattr(other, "p", 0))
    assert all(weight.requires_grad for weight in bench.first.student.parameters())


def test_what_was_learnt_in_another_precision_is_not_taken(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = bench.make(tmp_path / "again")
    work.hardware = replace(work.hardware, bf16=True)
    monkeypatch.setattr(imitation, "fit", stop)
    with pytest.raises(StopError):
        bench.imitate(work)
    assert not work.missing_capabilities()
    asked = bench.make(tmp_path / "asked", "distill.imitate.train.precision=bf16")
    assert "no bfloat16" in asked.missing_capabilities()[0]


def test_a_task_with_other_labels_starts_from_it_too(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "nobody.txt"
    plain.write_text("".join(f"here there {text} was\n" for text, _ in tiny.rows(30, seed=9)))
    words = [f"distill.imitate.text={plain}", "distill.imitate.own=0"]
    first = bench.imitate(bench.make(tmp_path / "first", *words))
    table = (tmp_path / "first.csv").read_text().replace("animal", "beast", 30)
    (tmp_path / "other.csv").write_text(table)
    monkeypatch.setattr(imitation, "fit", stop)
    work = bench.make(tmp_path / "other", *words)
    assert len(work.rows.labels) == 4
    again = bench.imitate(work)
    assert same(layer_stack(again.student).state_dict(), layer_stack(first.student).state_dict())


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "data.max_length=6",
        "distill.student.layers=[0, 2]",
        "distill.imitate.text=OTHER",
        "distill.imitate.rows=20",
        "distill.imitate.own=2",
        "distill.imitate.parent=teacher",
        "distill.imitate.train.epochs=2",
        "distill.imitate.train.dropout=0.5",
        "distill.imitate.objectives=[cosine]",
        "backbone.model=PERTURBED",
        "rows",
    ],
)
def test_anything_else_is_learnt_anew(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = tmp_path / "other"
    other = tmp_path / "other.txt"
    other.write_text(bench.text.read_text() + "one more cat\n")
    if "PERTURBED" in change:
        model = bench.work.load().base_model
        model.get_input_embeddings().weight.data[7, 0] += 1e-3
        model.save_pretrained(tmp_path / "perturbed")
        bench.work.tokenizer.save_pretrained(tmp_path / "perturbed")
    if change == "rows":
        tiny.table(folder.with_suffix(".csv"), 119)
        change = "seed=0"
    change = change.replace("OTHER", str(other)).replace("PERTURBED", str(tmp_path / "perturbed"))
    work = bench.make(folder, change)
    monkeypatch.setattr(imitation, "fit", stop)
    with pytest.raises(StopError):
        bench.imitate(work)


@pytest.mark.parametrize("epochs", [3, 1])
def test_what_is_cut_off_goes_on_to_the_same_end(
    bench: Bench, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    """One long epoch too, which is how it is usually done."""
    shutil.rmtree(cache)
    folder, asked = tmp_path / "cut", f"distill.imitate.train.epochs={epochs}"
    unbroken = bench.first
    if epochs == 1:
        unbroken = bench.imitate(bench.make(tmp_path / "unbroken", asked))
        shutil.rmtree(cache)

    class Killer(training.Progress):
        steps = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            Killer.steps += 1
            if state.global_step == self.last:
                raise StopError

        last = 13 if epochs == 3 else 7

    monkeypatch.setattr(training, "Progress", Killer)
    with pytest.raises(StopError):
        bench.imitate(bench.make(folder, asked))
    assert not list(cache.rglob("*.safetensors"))
    assert last_checkpoint(folder / "imitation" / "checkpoints") is not None
    Killer.steps, Killer.last = 0, -1
    resumed = bench.imitate(bench.make(folder, asked))
    assert 0 < Killer.steps < (25 if epochs == 3 else 7)
    assert same(resumed.student.state_dict(), unbroken.student.state_dict())
    assert not (folder / "imitation").exists()


@pytest.mark.parametrize("damaged", ["facts.json", "encoder.safetensors"])
def test_what_a_power_cut_has_left_is_learnt_anew(
    bench: Bench, cache: Path, tmp_path: Path, damaged: str
) -> None:
    for file in cache.rglob(damaged):
        file.write_bytes(b"")
    again = bench.imitate(bench.make(tmp_path / "again"))
    assert same(again.student.state_dict(), bench.first.student.state_dict())


def test_a_cut_off_while_it_is_kept_leaves_nothing_half(
    bench: Bench, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(cache)
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", stop)
        with pytest.raises(StopError):
            bench.imitate(bench.make(tmp_path / "cut", "distill.imitate.train.epochs=1"))
    assert not list(cache.rglob("facts.json"))


def test_the_teachers_head_stays_on_its_student(bench: Bench, tmp_path: Path) -> None:
    more = ["distill.imitate.parent=teacher", "distill.imitate.train.epochs=1"]
    work = bench.make(tmp_path / "teacher", *more)
    teacher = bench.teacher(work)
    found = imitate(work, students.make(work, teacher), teacher).student
    assert torch.equal(found.classifier.weight, teacher.classifier.weight)
    assert torch.equal(found.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    assert not torch.equal(found.classifier.weight, bench.first.student.classifier.weight)


def test_a_teacher_with_other_tokens_reads_the_texts_itself(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.backbone(tmp_path / "small", extra=3)
    told: list[bool] = []

    def record(learner: Any, *_: Any, **__: Any) -> None:
        told.append(learner.teacher.same_tokens)
        raise StopError

    monkeypatch.setattr(imitation, "fit", record)
    for model in ("null", str(tmp_path / "small")):
        parent = ["distill.imitate.parent=teacher", "distill.imitate.objectives=[contrast]"]
        work = bench.make(tmp_path / "other", *parent, f"distill.student.model={model}")
        with pytest.raises(StopError):
            bench.imitate(work)
    assert told == [True, False]
