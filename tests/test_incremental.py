"""Learning phase after phase, for real, on tiny random backbones."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from apart import exit_code

from adapters.files import FACTS, MEMORY, WEIGHTS, load_adapter, read_facts, read_memory
from adapters.hardware import inspect_hardware
from adapters.strategy import learned_state
from export.bundle import verify
from recipes import adapters
from recipes.incremental import known_labels, rehearsed
from recipes.ledger import TIMINGS
from recipes.pipeline import PROGRESS, write_recipe
from recipes.proof import answer_splits
from recipes.reading import read_recipe
from recipes.run import main
from recipes.stages import STAGES
from recipes.workspace import Workspace, torch_call

Make = Callable[[str], Path]
Learn = Callable[..., Workspace]
#: What makes a tiny random model learn a phase, and a memory that holds rows of each class.
QUICK = [
    "train.epochs=2", "train.learning_rate=3e-3", "train.batch_size=8", "threads=1",
    "backbone.quantization=none", "distill.student.layers=2",
]  # fmt: skip
NAIVE = "strategy={name: naive, base: {name: full}}"
REPLAY = "strategy={name: replay, base: {name: full}, memory: 0.1}"
EWC = "strategy={name: ewc, base: {name: lora, rank: 4}, rows: 20}"
OLORA = "strategy={name: olora, rank: 4}"
LOW_RANK = "train.learning_rate=1e-2"
HEADING = ("text", "label")


def texts(count: int) -> list[tuple[str, str]]:
    """Return distinct texts of words that each give the label away: few rows teach them."""
    chance, found = random.Random(0), {}
    while len(found) < count:
        label = tiny.LABELS[len(found) % len(tiny.LABELS)]
        words = chance.choices(tiny.WORDS[label], k=4)
        found.setdefault(" ".join([*words, chance.choice(tiny.FILLERS)]), label)
    return list(found.items())


def table(path: Path, rows: Sequence[Sequence[str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


@pytest.fixture(scope="module")
def learn(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Learn:
    """Return a function that fine-tunes by a recipe, once for all who ask for the same."""
    data = table(tmp_path_factory.mktemp("data") / "rows.csv", [HEADING, *texts(120)])
    done: dict[Sequence[str], Workspace] = {}

    def learnt(*overrides: str) -> Workspace:
        if overrides not in done:
            common = [f"data.train={data}", f"backbone.model={tiny_backbone('bert')}", *QUICK]
            recipe = read_recipe("incremental_cls", [*common, *overrides])
            hardware = inspect_hardware(recipe.device, recipe.threads)
            folder = tmp_path_factory.mktemp("learnt")
            done[overrides] = Workspace(recipe, folder, hardware, offline=True)
            next(stage for stage in STAGES if stage.name == "finetune").run(done[overrides])
        return done[overrides]

    return learnt


def accuracies(work: Workspace, name: str) -> list[float]:
    """Return the share of right answers on the test rows of each phase, counted one by one."""
    right: list[list[bool]] = [[] for _ in work.rows.phases]
    given = work.logits(name)["test"].argmax(axis=1)
    test = work.rows.test
    for answer, label, phase in zip(given, test.labels, test.phases, strict=True):
        right[phase].append(answer == label)
    return [sum(answers) / len(answers) for answers in right]


def test_known_labels_keep_their_ids(learn: Learn) -> None:
    work = learn(REPLAY)
    assert [list(known_labels(work, phase)) for phase in range(3)] == [
        ["animal"], ["animal", "food"], ["animal", "food", "place"],
    ]  # fmt: skip
    for phase in range(3):
        folder = work.folder / "teacher" / f"phase-{phase + 1}"
        assert read_facts(folder)["labels"] == list(work.rows.labels[: phase + 1])
        assert work.logits(f"phase-{phase + 1}")["test"].shape == (24, phase + 1)
    assert read_facts(work.folder / "teacher")["labels"] == list(work.rows.labels)


def test_the_drift_of_a_phase_is_that_of_the_labels_it_knows(
    learn: Learn, capfd: pytest.CaptureFixture[str]
) -> None:
    work = learn(REPLAY)
    write_recipe(work.recipe, work.folder)
    assert adapters.main(["drift", str(work.folder / "teacher" / "phase-2"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    known = [row for row, label in enumerate(work.rows.validation.labels) if label < 2]
    given = work.logits("phase-2")["validation"][known].argmax(axis=1)
    right = [work.rows.validation.labels[row] for row in known]
    assert found[0]["score"] == pytest.approx((given == right).mean())
    assert len(known) < len(work.rows.validation)


def test_the_matrix_says_what_the_kept_answers_say(learn: Learn) -> None:
    work = learn(REPLAY)
    scores = work.ledger["teacher"].phases
    assert scores["names"] == ["animal", "food", "place"]
    assert scores["matrix"] == [accuracies(work, f"phase-{i}") for i in (1, 2, 3)]
    assert scores["matrix"][-1] == accuracies(work, "teacher")
    assert work.ledger["joint"].phases["matrix"] == [accuracies(work, "joint")]
    first, last = scores["matrix"][0], scores["matrix"][-1]
    assert first == [1, 0, 0]
    assert scores["average_accuracy"] == pytest.approx(np.mean(last))
    lost = [max(row[j] for row in scores["matrix"][j:2]) - last[j] for j in (0, 1)]
    assert scores["forgetting"] == pytest.approx(np.mean(lost))
    assert scores["forward_transfer"] is None


def test_who_rehearses_forgets_less(learn: Learn) -> None:
    naive, replay = (learn(strategy).ledger["teacher"].phases for strategy in (NAIVE, REPLAY))
    assert naive["rehearsed_rows"] == 0
    assert naive["forgetting"] > replay["forgetting"] + 0.2
    assert naive["average_accuracy"] < replay["average_accuracy"] - 0.2


def test_the_memory_is_bounded_and_never_looks_back(learn: Learn) -> None:
    """A row that was let go is gone: what is kept was kept before, or has just been learnt."""
    work = learn(REPLAY)
    train = work.rows.train
    bound = int(0.1 * len(train))
    assert not rehearsed(work, 0)
    second, third = (set(rehearsed(work, phase)) for phase in (1, 2))
    assert {train.phases[row] for row in second} == {0}
    assert {train.phases[row] for row in third} == {0, 1}
    assert {row for row in third if train.phases[row] == 0} < second
    counts = [sum(train.labels[row] == label for row in third) for label in (0, 1)]
    assert counts[0] == counts[1] > 0
    assert max(len(second), len(third)) == work.ledger["teacher"].phases["rehearsed_rows"] <= bound


@pytest.mark.parametrize("strategy", [EWC, OLORA], ids=["ewc", "olora"])
def test_what_a_strategy_remembers_is_kept_beside_each_phase(learn: Learn, strategy: str) -> None:
    work = learn(strategy, LOW_RANK)
    first, *later = (work.folder / "teacher" / f"phase-{number}" for number in (1, 2, 3))
    assert not (first / MEMORY).exists()
    assert (work.folder / "teacher" / MEMORY).read_bytes() == (later[-1] / MEMORY).read_bytes()
    for phase, folder in enumerate(later, start=1):
        memory = read_memory(folder)
        assert memory
        assert all(bool(tensor.isfinite().all()) for tensor in memory.values())
        labels = known_labels(work, phase)
        again = load_adapter(folder, work.load(labels=labels), work.recipe.strategy, labels)
        answers = answer_splits(work, torch_call(again), work.tokenizer, splits=["test"])
        kept = work.logits(f"phase-{phase + 1}")["test"]
        np.testing.assert_allclose(answers["test"], kept, atol=1e-5)


def test_a_phase_of_one_label_is_learnt_in_isolation_too(learn: Learn) -> None:
    """Alone in the loss, a label would have nothing to be told apart from."""
    work = learn("strategy={name: naive, base: {name: full}, isolate: true}")
    matrix = work.ledger["teacher"].phases["matrix"]
    assert min(row[phase] for phase, row in enumerate(matrix)) > 0.5


def test_ewc_remembers_where_the_last_phase_ended(learn: Learn) -> None:
    work = learn(EWC, LOW_RANK)
    strategy, labels = work.recipe.strategy, known_labels(work, 1)
    folder = work.folder / "teacher"
    memory = read_memory(folder / "phase-3")
    model = load_adapter(folder / "phase-2", work.load(labels=labels), strategy, labels)
    unmoved = strategy.penalty(model, memory)
    for weight in learned_state(model).values():
        weight.add_(0.1)
    moved = strategy.penalty(model, memory)
    assert unmoved == 0
    assert moved is not None
    assert moved > 0


def test_phases_by_column_have_forward_transfer(learn: Learn, tmp_path: Path) -> None:
    rows = [(text, label, f"month {row // 45}")
            for row, (text, label) in enumerate(texts(135)) if label != "place"]  # fmt: skip
    data = table(tmp_path / "rows.csv", [(*HEADING, "month"), *rows])
    work = learn(NAIVE, "phases={column: month}", f"data.train={data}")
    scores = work.ledger["teacher"].phases
    assert scores["names"] == ["month 0", "month 1", "month 2"]
    assert scores["labels"] == [["animal", "food"]] * 3
    untrained, matrix = accuracies(work, "phase-0"), scores["matrix"]
    gained = [matrix[phase - 1][phase] - untrained[phase] for phase in (1, 2)]
    assert scores["forward_transfer"] == pytest.approx(np.mean(gained))


def test_a_label_that_comes_later_is_wrong_and_no_obstacle(learn: Learn, tmp_path: Path) -> None:
    """Among the first phase's validation and test rows is a label that only the second teaches."""
    rows = [(*row, "b" if row[1] == "place" or number >= 60 else "a")
            for number, row in enumerate(texts(90))]  # fmt: skip
    early = ("an old park of the city", "place", "a")
    files = [
        f"data.{name}={table(tmp_path / f'{name}.csv', [(*HEADING, 'part'), *content])}"
        for name, content in {
            "train": rows[::2],
            "validation": [*rows[1::4], early],
            "test": [*rows[3::4], ("a big park of the city", "place", "a")],
        }.items()
    ]
    work = learn(REPLAY, "phases={column: part}", *files)
    scores = work.ledger["teacher"].phases
    assert scores["labels"] == [["animal", "food"], ["animal", "food", "place"]]
    assert scores["matrix"] == [accuracies(work, "phase-1"), accuracies(work, "phase-2")]
    assert scores["matrix"][0][0] < 1


def test_phases_by_file(learn: Learn, tmp_path: Path) -> None:
    rows = texts(150)
    first = table(tmp_path / "january.csv", [HEADING, *(r for r in rows[:90] if r[1] != "place")])
    second = table(tmp_path / "february.csv", [HEADING, *rows[90:]])
    work = learn(REPLAY, f"data.train={first}", f"phases={{files: [{second}]}}")
    scores = work.ledger["teacher"].phases
    assert len(scores["names"]) == 2
    assert scores["labels"] == [["animal", "food"], ["animal", "food", "place"]]
    assert scores["matrix"] == [accuracies(work, "phase-1"), accuracies(work, "phase-2")]
    assert scores["rehearsed_rows"] > 0


def learn_and_die(place: str, given: list[str]) -> None:
    """Run and be killed, in the midst of the second phase or at its end."""
    from recipes import incremental
    from recipes.training import _Trainer

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    save, remember = _Trainer._save_checkpoint, incremental._remember

    def killer(self: Any, *arguments: Any, **named: Any) -> None:
        save(self, *arguments, **named)
        if "phase-2" in self.args.output_dir:
            die()

    if place == "within":
        _Trainer._save_checkpoint = killer  # type: ignore[method-assign]
    else:
        incremental._remember = lambda work, phase: die() if phase else remember(work, phase)
    main(given)


def ledger(out: Path) -> list[dict[str, Any]]:
    """Return the rows, timings aside."""
    rows = json.loads((out / "ledger.json").read_text())
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def test_a_run_killed_within_and_between_phases_ends_with_the_same_ledger(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    data = table(tmp_path / "rows.csv", [HEADING, *texts(60)])
    common = [f"data.train={data}", f"backbone.model={tiny_backbone('bert')}", *QUICK]
    given = ["incremental_cls", *common, EWC, LOW_RANK, "--to", "finetune"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main([*given, "--out", str(whole)]) == 0
    for place, resume in (("within", []), ("between", ["--resume"])):
        anew = [*given, "--out", str(out), *resume]
        assert exit_code(learn_and_die, place, anew) == -signal.SIGKILL
        assert json.loads((out / PROGRESS).read_text())["finished"] == ["baseline"]
        assert (out / "teacher" / "phase-1" / FACTS).exists()
        assert (out / "teacher" / "phase-2" / FACTS).exists() == (place == "between")
    assert main([*given, "--out", str(out), "--resume"]) == 0
    assert ledger(out) == ledger(whole)
    for number in (1, 2, 3):
        one, two = (run / "teacher" / f"phase-{number}" / WEIGHTS for run in (out, whole))
        assert one.read_bytes() == two.read_bytes()
    assert not list(out.rglob("checkpoint*"))


@pytest.mark.chain
def test_the_whole_chain(
    tiny_backbone: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    done = main(
        [
            "incremental_cls",
            f"data.train={table(tmp_path / 'rows.csv', [HEADING, *texts(150)])}",
            f"backbone.model={tiny_backbone('bert')}",
            *QUICK,
            "backbone.quantization=nf4",
            "strategy={name: replay, base: {name: lora, rank: 8}, memory: 0.1}",
            LOW_RANK,
            "distill.train={epochs: 3, learning_rate: 5e-3, batch_size: 16}",
            "distill.student.train_embeddings=true",
            "gate={max_drop: 1.0, min_label_agreement: 0.0}",
            "--out",
            str(out),
        ]
    )
    assert done == 0
    rows = {row["name"]: row for row in ledger(out)}
    assert [name for name, row in rows.items() if row["phases"]] == ["joint", "teacher"]
    assert verify(out / "bundle") == []
    manifest = json.loads((out / "bundle" / "bundle.json").read_text())
    assert manifest["phases"] == [{"name": label, "labels": [label]} for label in tiny.LABELS]
    assert "Forgetting" in (out / "report.html").read_text()
    assert "phases: average accuracy" in capfd.readouterr().out
    torch.set_num_threads(2)
