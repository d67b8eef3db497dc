"""Comparisons through the real command: their cells, what is run, what is used again, the files."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import IO, Any

import numpy as np
import pytest
import tiny

from recipes.cells import Cell, make_cells
from recipes.compare import main
from recipes.errors import RecipeError
from recipes.ledger import TIMINGS, Ledger, Row
from recipes.pipeline import PROGRESS
from recipes.problems import problems
from recipes.reading import read_recipe
from recipes.reporting.bootstrap import Gain
from recipes.reporting.comparison import (
    Comparison,
    Outcome,
    Result,
    figures,
    legend,
    table_cells,
    write_comparison,
)
from recipes.reporting.comparison_chart import comparison_chart
from recipes.reporting.comparison_classes import Rarest, rarest
from recipes.reporting.comparison_students import gain_of
from recipes.reporting.learning_curve import learning_curve
from recipes.reuse import BASELINE, TEACHER, agrees, take_over
from recipes.run import main as run

Make = Callable[[str], Path]
#: Enough to train; nobody asks here whether it learns much.
QUICK = ["train.epochs=1", "train.learning_rate=5e-3", "distill.student.layers=2", "threads=1"]
AXIS = "strategy.rank=2,4"


def cells(*overrides: str, variants: tuple[str, ...] = ()) -> list[Cell]:
    return make_cells("lora_cls", overrides, variants)


def labels(*overrides: str, variants: tuple[str, ...] = ()) -> list[str]:
    return [cell.label for cell in cells(*overrides, variants=variants)]


def test_cells_are_the_product_of_the_axes() -> None:
    made = cells("strategy.name=lora,dora", "train.epochs=3", "train.learning_rate=1e-3,3e-4")
    assert [cell.overrides for cell in made] == [
        ("train.epochs=3", f"strategy.name={name}", f"train.learning_rate={rate}")
        for name in ("lora", "dora")
        for rate in ("1e-3", "3e-4")
    ]
    assert made[0].label == "lora learning_rate=1e-3"
    assert len({cell.folder for cell in made}) == 4


def test_commas_in_brackets_and_quotes_make_no_axis() -> None:
    alone = ["strategy.targets=[query,value]", "strategy={name: lora, rank: 8}", "data.text='a,b'"]
    assert [cell.overrides for cell in cells(*alone)] == [tuple(alone)]
    assert labels("strategy={name: lora, rank: 8},{name: full}") == ["lora rank=8", "full"]
    assert labels("data.text=don't,won't") == ["text=don't", "text=won't"]


def test_variants_are_cells_of_their_own() -> None:
    by_hand = "strategy.name=full backbone.quantization=none"
    made = cells("strategy.name=lora,dora", "train.epochs=3", variants=(by_hand,))
    assert [cell.label for cell in made] == ["lora", "dora", "full quantization=none"]
    assert made[2].overrides == ("train.epochs=3", *by_hand.split())
    assert labels(variants=(by_hand, "")) == ["full quantization=none", "lora_cls"]
    quoted = cells(variants=("'strategy={name: lora, rank: 8}' seed_text=1",))
    assert quoted[0].own == ("strategy={name: lora, rank: 8}", "seed_text=1")


def test_labels_stay_apart() -> None:
    assert labels("train.epochs=1,2", "distill.train.epochs=3,4")[0] == (
        "train.epochs=1 distill.train.epochs=3"
    )
    both = labels(variants=("strategy=lora", "strategy.name=lora"))
    assert both == ["strategy=lora", "strategy.name=lora"]
    made = cells("backbone.model=/a/one,/b/one", "train.epochs=1,2")
    assert len({cell.label for cell in made}) == len({cell.folder for cell in made}) == 4
    folders = [cell.folder for cell in cells("data.text=a/b,a:b")]
    assert len(set(folders)) == 2
    assert not any("/" in folder for folder in folders)


@pytest.mark.parametrize(
    ("overrides", "variants", "told"),
    [
        (["train.epochs=1,"], [], "empty value"),
        (["train.epochs=1,2", "train.epochs=3,4"], [], "there twice"),
        ([], ["'open"], "cannot be split"),
    ],
)
def test_wrong_axes_are_refused(overrides: list[str], variants: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        make_cells("lora_cls", overrides, variants)


@pytest.fixture(scope="module")
def common(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    data = tiny.table(tmp_path_factory.mktemp("data") / "rows.csv", count=120)
    return [f"data.train={data}", f"backbone.model={tiny_backbone('bert')}", *QUICK]


class InProcess:
    """Stands in for a child process: loading the libraries anew costs a child ten seconds."""

    stdin = None

    def __init__(self, command: Sequence[str], *, stdout: IO[bytes], **_: Any) -> None:
        assert command[:3] == [sys.executable, "-m", "recipes.run"]
        log = io.TextIOWrapper(stdout, "utf-8", write_through=True)
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            self.status = run(command[3:])
        log.detach()

    def wait(self) -> int:
        return self.status


@pytest.fixture(scope="module")
def compared(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a comparison of two cells and two seeds."""
    out = tmp_path_factory.mktemp("compared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.child.Popen", InProcess)
        assert main(["lora_cls", AXIS, *common, "--seeds", "0,1", "--out", str(out)]) == 0
    return out


def written(out: Path) -> dict[str, Any]:
    return json.loads((out / "comparison.json").read_text())  # type: ignore[no-any-return]


def stamps(out: Path) -> dict[Path, int]:
    """Return when the runs' files were written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("*/**/*") if path.is_file()}


def refusal(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capfd.readouterr()
    assert main(arguments) == 3
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    return said[0]


def test_the_numbers_are_those_of_the_ledgers(compared: Path) -> None:
    story = written(compared)
    assert [cell["label"] for cell in story["cells"]] == ["rank=2", "rank=4"]
    for cell in story["cells"]:
        ledgers = [Ledger(compared / run["folder"] / "ledger.json") for run in cell["runs"]]
        teachers = [ledger["teacher"] for ledger in ledgers]
        assert [run["seed"] for run in cell["runs"]] == [0, 1]
        valid = [row.validation["accuracy"] for row in teachers]
        assert cell["mean"]["validation_accuracy"] == fmean(valid)
        assert cell["deviation"]["validation_accuracy"] == stdev(valid)
        assert cell["mean"]["test_accuracy"] == fmean(row.metrics["accuracy"] for row in teachers)
        assert cell["mean"]["seconds"] == fmean(row.seconds for row in teachers)
        assert cell["mean"]["trainable_parameters"] == teachers[0].trainable_parameters
        drift = [ledger["merged"].agreement["labels"] for ledger in ledgers]
        assert cell["mean"]["merge_agreement"] == fmean(drift)
        assert not any("student" in ledger for ledger in ledgers)
    first, second = (cell["mean"] for cell in story["cells"])
    assert first["trainable_share"] < second["trainable_share"]
    assert set(story["baselines"]) == {"majority", "tfidf-logreg", "frozen-logreg"}
    best = max(story["cells"], key=lambda cell: cell["mean"]["validation_accuracy"])
    assert story["best"] == best["label"]


def test_cells_share_their_rows_and_differ_in_their_seed(compared: Path) -> None:
    progress = [json.loads(path.read_text()) for path in compared.glob("*/*/progress.json")]
    assert len(progress) == 4
    assert len({entry["data"] for entry in progress}) == 1
    assert written(compared)["notes"] == []
    models = [path.read_bytes() for path in compared.glob("*/*/merged/model.safetensors")]
    assert len(models) == len(set(models)) == 4


def test_the_table_and_the_picture_are_written(compared: Path) -> None:
    text = (compared / "comparison.md").read_text()
    mean = written(compared)["cells"][1]["mean"]["test_accuracy"]
    row = next(line for line in text.splitlines() if line.startswith("| rank=4"))
    assert f" {100 * mean:.2f} ±" in row
    assert "majority" in text
    assert (compared / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_again_trains_nothing(
    compared: Path, common: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    before, story = stamps(compared), written(compared)
    assert main(["lora_cls", AXIS, *common, "--seeds", "0,1", "--out", str(compared)]) == 0
    said = capfd.readouterr()
    assert said.err.count("done before") == 4
    assert "rank=2" in said.out
    assert "±" in said.out
    assert stamps(compared) == before
    assert written(compared) == story


def test_a_further_cell_leaves_the_others_as_they_are(
    compared: Path,
    common: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One more that fails at once: it is named, the rest is compared."""
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    monkeypatch.setattr("recipes.child.Popen", InProcess)
    given = ["lora_cls", AXIS, *common, "--variant", "data.max_length=99", "--out", str(out)]
    assert main(given) == 1
    said = capfd.readouterr()
    assert said.err.count("done before") == 2
    assert "at most 32" in said.err
    assert "failed" in said.out
    story = written(out)
    assert [cell["label"] for cell in story["cells"]] == ["rank=2", "rank=4", "max_length=99"]
    assert "at most 32" in story["cells"][2]["runs"][0]["fault"]
    assert story["best"] in ("rank=2", "rank=4")


def test_wrong_cells_are_refused_before_anything_is_run(
    common: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = ["lora_cls", *common, "--out", str(out)]
    told = refusal(capfd, [*given, "train.epochs=1,none"])
    assert "1 of 2 cells" in told
    assert "[epochs=none]" in told
    told = refusal(capfd, [*given, "strategy.name=lora,full"])
    remedy = "--variant 'strategy.name=full backbone.quantization=none'"
    assert "[full]" in told
    assert remedy in told
    assert main([*given, *shlex.split(remedy), "--dry-run"]) == 0
    assert "are the same recipe" in refusal(capfd, [*given, "train.epochs=1,2", "--variant", ""])
    told = refusal(capfd, ["lora_lcs", AXIS, *common])
    assert told.count("There is no recipe") == 1
    assert "--seeds" in refusal(capfd, [*given, "seed=1,2"])
    assert "--seeds" in refusal(capfd, [*given, "--seeds", "one"])
    assert "twice" in refusal(capfd, [*given, "--seeds", "1,1"])
    assert "No recipe is named" in refusal(capfd, [])
    assert not out.exists()


def test_another_recipe_in_the_folder_is_refused(
    compared: Path, common: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    before = stamps(compared)
    given = ["lora_cls", AXIS, *common, "train.batch_size=8", "--out", str(compared)]
    told = refusal(capfd, given)
    assert "train.batch_size differ" in told
    assert "--out" in told
    assert stamps(compared) == before


def test_a_dry_run_prints_the_cells(
    common: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["lora_cls", AXIS, *common, "--seeds", "0,1", "--out", str(out), "--dry-run"]) == 0
    told = capfd.readouterr().out
    assert "4, each to merge; 0 finished before" in told
    assert "strategy.rank=4" in told
    assert not out.exists()


@pytest.mark.chain
def test_stopped_in_a_run_it_goes_on_there(
    compared: Path,
    common: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped once a run has begun, its child stops too; the next command takes the run up."""
    out = tmp_path / "out"
    given = ["lora_cls", AXIS, *common, "--to", "finetune", "--out", str(out)]
    shutil.copytree(compared / "rank=2", out / "rank=2")
    command = [sys.executable, "-m", "recipes.compare", *given]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        folder = out / "rank=4" / "seed-0"
        log = folder.with_name("seed-0.log")
        while not (log.exists() and "] finetune" in log.read_text()) and child.poll() is None:
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate()
    assert child.returncode == 130
    assert "the same command goes on" in said
    assert _finished(folder) == ["baseline"]
    assert "Another process" not in said
    monkeypatch.setattr("recipes.child.Popen", InProcess)
    assert main(given) == 0
    assert "baseline: done before" in log.read_text()
    assert "] merge" not in log.read_text()
    assert "rank=2, seed 0: done before" in capfd.readouterr().err


def _finished(folder: Path) -> list[str]:
    if not (folder / PROGRESS).exists():
        return []
    return json.loads((folder / PROGRESS).read_text())["finished"]  # type: ignore[no-any-return]


def test_two_comparisons_do_not_work_in_one_folder(
    common: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    log = tmp_path / "rank=2" / "seed-0.log"
    log.parent.mkdir()
    with log.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        told = refusal(capfd, ["lora_cls", AXIS, *common, "--out", str(tmp_path)])
    assert "Another process" in told


def test_a_run_stopped_by_to_goes_on(
    compared: Path, common: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(compared / "rank=2" / "seed-0", out)
    given = ["lora_cls", "strategy.rank=2", *common, "--out", str(out)]
    before = [row.name for row in Ledger(out / "ledger.json")]
    assert before[-2:] == ["teacher", "merged"]
    log = (compared / "rank=2" / "seed-0.log").read_text()
    assert "Stopped after merge" in log
    assert "--resume" in log
    assert run([*given, "--resume", "--to", "merge"]) == 0
    assert run([*given, "--from", "distill", "--to", "merge"]) == 3
    assert "--from distill comes after --to merge" in capfd.readouterr().err
    assert run([*given, "--resume", "--to", "distill"]) == 0
    assert "merge: done before" in capfd.readouterr().err
    after = [row.name for row in Ledger(out / "ledger.json")]
    assert after == [*before, "student", "student-alone"]


LESSONS = "distill.train.learning_rate=1e-3,5e-3"


@pytest.fixture(scope="module")
def taught(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a comparison of two ways to teach, and what the command said."""
    out, said = tmp_path_factory.mktemp("taught") / "out", io.StringIO()
    given = ["lora_cls", LESSONS, *common, "--to", "distill", "--seeds", "0,1", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr("recipes.child.Popen", InProcess)
        assert main(given) == 0
    return out, said.getvalue()


def test_students_are_compared(taught: tuple[Path, str]) -> None:
    out, _ = taught
    for cell in written(out)["cells"]:
        ledgers = [Ledger(out / run["folder"] / "ledger.json") for run in cell["runs"]]
        for name, short in (("student", "student"), ("student-alone", "alone")):
            rows = [ledger[name] for ledger in ledgers]
            mean = cell["mean"]
            assert mean[f"{short}_test_accuracy"] == fmean(r.metrics["accuracy"] for r in rows)
            valid = [row.validation["accuracy"] for row in rows]
            assert mean[f"{short}_validation_accuracy"] == fmean(valid)
            assert mean[f"{short}_seconds"] == fmean(row.seconds for row in rows)
            assert mean[f"{short}_tokens"] == rows[0].tokens_read > 0
        gain = cell["gain"]
        difference = mean["student_test_accuracy"] - mean["alone_test_accuracy"]
        assert gain["mean"] == pytest.approx(difference)
        assert gain["low"] <= gain["mean"] <= gain["high"]
        assert (gain["rows"], gain["seeds"]) == (ledgers[0]["student"].examples, 2)
    best = max(written(out)["cells"], key=lambda c: c["mean"]["student_validation_accuracy"])
    assert written(out)["best"] == best["label"]
    text = (out / "comparison.md").read_text()
    assert "| student valid. | alone valid. | student test | alone test | gain |" in text
    assert "over test rows and seeds" in text


def test_the_same_teacher_is_trained_once(taught: tuple[Path, str]) -> None:
    out, said = taught
    first, second = (cell["label"] for cell in written(out)["cells"])
    for seed in (0, 1):
        assert f"{second}, seed {seed}: teacher of {first}, seed {seed}, used again" in said
        log = (out / second / f"seed-{seed}.log").read_text()
        assert "merge: done before" in log
        assert "distill: done before" not in log
    assert said.count("used again") == 2
    # The rows and the backbone are those of the first run: so are the baselines.
    logs = [(out / first / f"seed-{seed}.log").read_text() for seed in (0, 1)]
    assert ["baseline: done before" in log for log in logs] == [False, True]
    weights = "merged/model.safetensors"
    one, other = ((out / cell / "seed-0" / weights).stat() for cell in (first, second))
    assert one.st_ino == other.st_ino
    models = [path.read_bytes() for path in out.glob("*/*/student/model.safetensors")]
    assert len(models) == len(set(models)) == 4


def facts(folder: Path) -> list[dict[str, Any]]:
    """Return what a run measured, timings aside."""
    rows = Ledger(folder / "ledger.json").plain()
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def test_a_run_with_a_used_teacher_is_the_same_as_one_of_its_own(
    taught: tuple[Path, str], common: list[str], tmp_path: Path
) -> None:
    compared = taught[0] / "learning_rate=5e-3" / "seed-1"
    given = ["lora_cls", *common, "distill.train.learning_rate=5e-3", "seed=1", "--to", "distill"]
    assert run([*given, "--out", str(tmp_path / "own")]) == 0
    assert facts(tmp_path / "own") == facts(compared)
    for name in ("recipe.yaml", "progress.json", "student/model.safetensors"):
        assert (tmp_path / "own" / name).read_bytes() == (compared / name).read_bytes()
    for part in ("predictions", "curves"):
        names = {path.name for path in (tmp_path / "own" / part).iterdir()}
        assert names == {path.name for path in (compared / part).iterdir()}


def test_what_changes_the_teacher_is_not_shared() -> None:
    def teachers_agree(*overrides: str, base: str = "seed=0") -> bool:
        one, other = (read_recipe("lora_cls", [base, *more], []) for more in ((), overrides))
        return agrees(one, other, TEACHER)

    assert teachers_agree(
        "distill.student.layers=2", "distill.train.epochs=9", "export.optimize=none"
    )
    assert not teachers_agree("seed=1")
    assert not teachers_agree("strategy.rank=3")
    assert not teachers_agree("merge.into=dequantized")
    assert not teachers_agree("distill.train.precision=bf16")
    model = "distill.student.model=mpnet-base"
    assert not teachers_agree(model)  # it may take shorter texts only
    assert teachers_agree(model, base="data.max_length=64")


def test_what_changes_the_baselines_is_not_shared() -> None:
    def baselines_agree(*overrides: str, base: str = "device=cpu") -> bool:
        one, other = (read_recipe("lora_cls", [base, *more], []) for more in ((), overrides))
        return agrees(one, other, BASELINE)

    assert baselines_agree("seed=1", "strategy=dora", "train.epochs=9", "data.slices=[topic]")
    assert not baselines_agree("train.precision=float32")
    assert not baselines_agree("backbone.quantization=none")
    assert not baselines_agree("data.test_fraction=0.3")
    assert not baselines_agree("threads=1")
    for drawn in ("data.fraction=0.5", "data.per_class=16"):
        assert not baselines_agree("seed=1", base=drawn)
        assert baselines_agree("strategy=dora", base=drawn)
    assert baselines_agree("seed=1", "data.draw_seed=3", base="data={fraction: 0.5, draw_seed: 3}")
    assert not baselines_agree("seed=1", base="phases.classes=2")
    assert not baselines_agree("distill.student.model=mpnet-base")
    pareto = "export.choose=pareto"
    assert not baselines_agree("distill.others=[{model: mpnet-base}]", pareto)


def test_an_interrupted_start_leaves_no_run(
    taught: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where links are not possible either, files are copied."""
    other, folder = taught[0] / "learning_rate=1e-3" / "seed-0", tmp_path / "cell" / "seed-0"
    before = facts(other)
    recipe = read_recipe(str(other / "recipe.yaml"), ["distill.train.epochs=7"], [])
    copied = 0

    def interrupted(source: str, target: str) -> None:
        nonlocal copied
        copied += 1
        if copied == 3:
            raise KeyboardInterrupt
        raise OSError("no links here")

    monkeypatch.setattr("recipes.reuse.os.link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take_over(other, folder, recipe, TEACHER)
    assert not folder.exists()
    take_over(other, folder, recipe, TEACHER)
    assert [path.name for path in folder.parent.iterdir()] == ["seed-0"]
    assert _finished(folder) == ["baseline", "finetune", "merge"]
    names = ["majority", "tfidf-logreg", "frozen-logreg", "teacher", "merged"]
    assert facts(folder) == [row for row in before if row["name"] in names]
    assert {path.stem for path in (folder / "predictions").iterdir()} == set(names)
    assert not (folder / "student").exists()
    assert read_recipe(str(folder / "recipe.yaml"), [], []) == recipe
    weights = [path / "merged/model.safetensors" for path in (other, folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert weights[0].stat().st_ino != weights[1].stat().st_ino
    assert facts(other) == before


def test_predictions_without_labels_give_no_interval(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    ledger = Ledger(tmp_path / "ledger.json")
    for name in ("student", "student-alone"):
        ledger.put(Row("distill", name))
        np.savez(tmp_path / "predictions" / f"{name}.npz", test=np.eye(3))
    assert gain_of([tmp_path]) is None
    found = Result("old", (), [outcome(0, gain=0.01, student_validation_accuracy=0.5)])
    said = legend(Comparison("r", [found], {}))
    assert any("No interval for old" in line for line in said)


def predicted(folder: Path, problem: str, truth: Any, **models: Any) -> Path:
    """Keep what models answer on the test rows of a run."""
    (folder / "predictions").mkdir(parents=True)
    ledger = Ledger(folder / "ledger.json")
    facts = json.dumps({"scale": {"mean": 3.0, "deviation": 2.0}})
    for name, logits in zip(("student", "student-alone"), models.values(), strict=True):
        ledger.put(Row("x", name, problem=problem, headline=problems.get(problem).headline))
        np.savez(
            folder / "predictions" / f"{name}.npz", test=np.asarray(logits),
            test_labels=np.asarray(truth), labels=np.array(["1", "2", "3"]), facts=np.array(facts),
        )  # fmt: skip
    return folder


def test_a_gain_of_several_labels_is_one_of_micro_f1(tmp_path: Path) -> None:
    """Both have no row quite right, and the student finds two labels of three."""
    truth = [[1, 1, 1]] * 40
    own, alone = [[5.0, 5.0, -5.0]] * 40, [[5.0, -5.0, -5.0]] * 40
    gain = gain_of([predicted(tmp_path / "a", "multi_label", truth, own=own, alone=alone)])
    assert gain is not None
    assert gain.mean == pytest.approx(0.8 - 0.5)
    assert (gain.low, gain.high) == (pytest.approx(gain.mean), pytest.approx(gain.mean))
    assert (gain.rows, gain.seeds) == (40, 1)


def test_a_gain_of_labels_with_an_order_is_by_the_median(tmp_path: Path) -> None:
    torn, sure = np.log([[0.45, 0.2, 0.35]] * 30), np.log([[0.2, 0.5, 0.3]] * 30)
    truth = [1] * 30
    for problem, mean in (("ordinal", 0.0), ("single_label", -1.0)):
        gain = gain_of([predicted(tmp_path / problem, problem, truth, own=torn, alone=sure)])
        assert gain is not None
        assert gain.mean == mean


def test_a_gain_of_numbers_has_an_interval_over_rows_and_seeds(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    truth = chance.normal(size=200)
    folders, means = [], []
    for seed in range(3):
        own, alone = (truth + chance.normal(size=200) * by for by in (0.5, 0.5 + 0.2 * seed))
        folder = predicted(
            tmp_path / str(seed), "regression", truth, own=own[:, None], alone=alone[:, None]
        )
        folders.append(folder)
        spread = ((truth - truth.mean()) ** 2).sum()
        means.append((((alone - truth) ** 2).sum() - ((own - truth) ** 2).sum()) / spread)
    gain, first = gain_of(folders), gain_of(folders[:1])
    assert gain is not None
    assert first is not None
    assert gain.mean == pytest.approx(fmean(means))
    assert gain.low < gain.mean < gain.high
    assert gain.high - gain.low > first.high - first.low  # seeds differ more than rows
    assert (gain.rows, gain.seeds, gain.draws) == (200, 3, 5000)


def test_seeds_of_other_rows_have_no_interval(tmp_path: Path) -> None:
    folders = [
        predicted(
            tmp_path / str(seed), "ordinal", [seed, 1], own=np.eye(3)[:2], alone=np.eye(3)[:2]
        )
        for seed in (0, 1)
    ]
    assert gain_of(folders[:1]) is not None
    assert gain_of(folders) is None


def outcome(seed: int, **found: float) -> Outcome:
    given = {"validation_accuracy": 0.9, "test_accuracy": 0.8, "macro_f1": 0.7, "seconds": 1.0}
    return Outcome(seed, f"a/seed-{seed}", {**given, "trainable_share": 0.01, **found})


def test_speed_is_a_multiple_of_the_first_cell() -> None:
    results = [
        Result(
            "lora", (), [outcome(0, tokens_per_second=1000), outcome(1, tokens_per_second=3000)]
        ),
        Result("dora", (), [outcome(0, tokens_per_second=500)]),
        Result("full", (), [Outcome(0, "c", fault="out of memory")]),
    ]
    rows = table_cells(Comparison("r", results, {}))
    assert [row["× first"] for row in rows] == ["1.00", "0.25", ""]
    assert "±" not in rows[1]["valid."]
    assert rows[2]["valid."] == "failed"
    assert "merge agrees" not in rows[0]


def test_a_cell_with_a_failed_seed_is_not_the_best() -> None:
    better = [outcome(0, validation_accuracy=0.99), Outcome(1, "b", fault="killed")]
    comparison = Comparison("r", [Result("a", (), [outcome(0)]), Result("b", (), better)], {})
    assert comparison.best is comparison.results[0]
    assert legend(comparison)[0] == "* best on validation, by the teacher's mean of accuracy: a."
    assert table_cells(comparison)[1]["cell"] == "b (1 of 2 failed)"


def test_the_best_is_chosen_by_what_the_recipes_choose_by(tmp_path: Path) -> None:
    """Accuracy, and a metric for which the least is best, both say otherwise here."""
    names = ("validation_accuracy", "validation_macro_f1", "validation_log_loss")
    measured = {"a": (0.9, 0.6, 0.5), "b": (0.8, 0.7, 0.4), "c": (0.7, 0.5, 0.3)}
    results = [
        Result(label, (), [outcome(0, **dict(zip(names, found, strict=True)))])
        for label, found in measured.items()
    ]
    baseline = {"majority": (0.25, 0.125)}
    best = {}
    for metric in (None, "macro_f1", "log_loss"):
        comparison = Comparison("r", results, baseline, metric=metric, rarest="few")
        assert comparison.best is not None
        best[metric] = comparison.best.label
        paths = write_comparison(comparison, tmp_path)
        story = json.loads(paths[0].read_text())
        assert (story["metric"], story["best"]) == (metric or "accuracy", best[metric])
    assert best == {None: "a", "macro_f1": "b", "log_loss": "c"}
    by_f1, by_loss = (
        Comparison("r", results, baseline, metric=metric) for metric in ("macro_f1", "log_loss")
    )
    assert [row["valid. macro F1"] for row in table_cells(by_f1)] == ["60.00", "70.00", "50.00"]
    assert [row["valid. log loss"] for row in table_cells(by_loss)] == [
        "0.5000", "0.4000", "0.3000",
    ]  # fmt: skip
    said = legend(by_f1)
    assert said[0] == "* best on validation, by the teacher's mean of macro F1: b."
    assert said[1] == "valid. and test: accuracy, in percent."
    assert "macro F1, valid. / test: majority 25.00 / 12.50" in said[2]
    assert "majority 0.2500 / 0.1250" in legend(by_loss)[2]
    students = [outcome(0, student_test_log_loss=0.25)]
    assert Result("a", (), students).spread("student_test_log_loss") == "0.2500"


def test_students_are_judged_by_their_own_metric(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    for name, score in (("teacher", 0.5), ("student", 0.25), ("student-alone", 0.125)):
        scores = {"accuracy": 0.75, "macro_f1": score}
        ledger.put(Row("x", name, parameters=1, metrics=scores, validation=scores))
    found = figures(ledger, "macro_f1")
    assert found["student_validation_macro_f1"] == found["student_test_macro_f1"] == 0.25
    assert found["alone_test_macro_f1"] == 0.125
    better = {**found, "student_validation_macro_f1": 0.5, "student_validation_accuracy": 0.1}
    cells = [
        Result(label, (), [Outcome(0, label, f)]) for label, f in (("a", found), ("b", better))
    ]
    comparison = Comparison("r", cells, {}, metric="macro_f1")
    assert comparison.best is cells[1]
    files = write_comparison(comparison, tmp_path)
    assert "student valid. macro F1 | alone valid. macro F1" in files[1].read_text()
    figure = inspect.unwrap(comparison_chart)(comparison)
    titles = [axes.get_xlabel() for axes in figure.axes]
    assert any(title.startswith("test macro F1 of the students") for title in titles)


def test_the_recall_of_the_rarest_label_is_that_of_the_predictions(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    labels = np.array([0] * 5 + [2] * 4 + [1] * 9)
    answers = 9 * np.eye(3)[[0] * 5 + [2, 2, 2, 0] + [1] * 9]
    kept = {"test": answers, "test_labels": labels}
    np.savez(tmp_path / "predictions" / "old.npz", **kept)
    np.savez(tmp_path / "predictions" / "teacher.npz", **kept, labels=np.array(["x", "y", "z"]))
    assert rarest(tmp_path, Row("x", "teacher")) == Rarest("z", 4, 0.75)
    many = Row("x", "teacher", headline="micro_f1", problem="multi_label")
    assert [rarest(tmp_path, row) for row in (Row("x", "old"), many, Row("x", "gone"))] == [
        None
    ] * 3


def test_the_rarest_label_with_an_order_is_found_by_the_median(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    torn = np.log([[0.45, 0.2, 0.35]] * 2 + [[0.9, 0.05, 0.05]] * 4)
    kept = {"test": torn, "test_labels": np.array([1, 1, 0, 0, 0, 2]), "labels": ["1", "2", "3"]}
    np.savez(tmp_path / "predictions" / "teacher.npz", **kept)
    assert rarest(tmp_path, Row("x", "teacher", problem="ordinal")) == Rarest("3", 1, 0.0)
    kept["test_labels"] = np.array([1, 1, 0, 0, 0, 0])
    np.savez(tmp_path / "predictions" / "teacher.npz", **kept)
    assert rarest(tmp_path, Row("x", "teacher", problem="ordinal")) == Rarest("2", 2, 1.0)
    assert rarest(tmp_path, Row("x", "teacher")) == Rarest("2", 2, 0.0)


def test_the_recall_of_the_rarest_label_stands_in_the_table(compared: Path) -> None:
    story = written(compared)
    assert story["rarest"] in tiny.LABELS
    for cell in story["cells"]:
        folders = [compared / run["folder"] for run in cell["runs"]]
        found = [rarest(one, Ledger(one / "ledger.json")["teacher"]) for one in folders]
        assert cell["mean"]["rarest_recall"] == fmean(one.recall for one in found if one)
    assert f'the label "{story["rarest"]}"' in (compared / "comparison.md").read_text()


#: Metrics of each cell, validation and test alike, by kind of answer.
JUDGED: dict[str, list[dict[str, float]]] = {
    "multi_label": [
        {"micro_f1": 0.8, "macro_f1": 0.7, "accuracy": 0.3},
        {"micro_f1": 0.7, "macro_f1": 0.8, "accuracy": 0.4},
    ],
    "regression": [{"r2": 0.5, "mae": 30.0}, {"r2": 0.4, "mae": 20.0}],
    "single_label": [{"accuracy": 0.5, "macro_f1": 0.9}, {"accuracy": 0.4, "macro_f1": 0.95}],
}


def finished(folder: Path, problem: str, scores: dict[str, float]) -> None:
    """Make a run of both students that has finished, each a little worse than the teacher."""
    (folder / "predictions").mkdir(parents=True)
    stages = ["baseline", "finetune", "merge", "distill"]
    (folder / PROGRESS).write_text(json.dumps({"finished": stages, "test": "t"}))
    ledger, headline = Ledger(folder / "ledger.json"), problems.get(problem).headline
    names = ("frozen-logreg", "teacher", "student", "student-alone")
    for name, share in zip(names, (0.1, 1, 0.9, 0.6), strict=True):
        own = {metric: share * score for metric, score in scores.items()}
        own |= {metric: scores[metric] / share for metric in ("mae",) if metric in scores}
        ledger.put(
            Row("x", name, parameters=1, headline=headline, problem=problem, metrics=own,
                validation=own, seconds=1.0)
        )  # fmt: skip


def put_side_by_side(out: Path, kinds: Sequence[str], *more: str) -> tuple[dict[str, Any], str]:
    """Compare runs that have finished; return what was written as JSON and as Markdown."""
    for place, kind in enumerate(kinds):
        finished(out / f"rank={2 * place + 2}" / "seed-0", kind, JUDGED[kind][place])
    given = ["lora_cls", AXIS, *more, "--to", "distill", "--out", str(out)]
    assert main(given) == 0
    return written(out), (out / "comparison.md").read_text()


@pytest.mark.parametrize(
    ("problem", "metric", "best", "told"),
    [
        ("multi_label", None, "rank=2", "micro F1"),
        ("multi_label", "micro_f1", "rank=2", "micro F1"),
        ("multi_label", "accuracy", "rank=4", "accuracy"),
        ("regression", None, "rank=2", "explained variance"),
        ("regression", "mae", "rank=4", "mae"),
        ("single_label", "accuracy", "rank=2", "accuracy"),
    ],
)
def test_cells_are_judged_by_what_their_problem_is_judged_by(
    problem: str, metric: str | None, best: str, told: str, tmp_path: Path
) -> None:
    asked = [f"distill.train.metric={metric}"] if metric else []
    story, text = put_side_by_side(tmp_path / "out", [problem] * 2, *asked)
    headline = problems.get(problem).headline
    assert (story["headline"], story["metric"]) == (headline, metric or headline)
    assert story["best"] == best
    assert f"by the student's mean of {told}: {best}." in text
    words = {"micro_f1": "micro F1", "r2": "explained variance"}.get(headline, headline)
    assert f"valid. and test: {words}, in percent." in text
    assert f"Baselines of rank=2, {told}, valid. / test: frozen-logreg" in text
    mean, scores = story["cells"][0]["mean"], JUDGED[problem][0]
    assert mean[f"validation_{headline}"] == scores[headline]
    assert mean["gain"] == pytest.approx(0.3 * scores[headline])
    assert mean["teacher_share"] == pytest.approx(0.9)
    assert ("accuracy" in text) == ("accuracy" in (metric, headline))
    assert story["notes"] == []
    exact = (problem, metric) == ("multi_label", "accuracy")
    assert ("the share of rows with every label right" in text) == exact


def test_baselines_are_told_as_the_teachers_are_over_all_seeds(tmp_path: Path) -> None:
    """Where every seed draws its own rows, one seed's baselines are no match for all teachers."""
    for seed, score in enumerate((0.8, 0.4)):
        for cell in ("rank=2", "rank=4"):
            scores = {"accuracy": score, "macro_f1": score}
            finished(tmp_path / cell / f"seed-{seed}", "single_label", scores)
    given = ["lora_cls", AXIS, "data.per_class=4", "--to", "finetune", "--seeds", "0,1"]
    assert main([*given, "--out", str(tmp_path)]) == 0
    (rival,) = written(tmp_path)["baselines"].values()
    assert rival["test_accuracy"] == rival["validation_accuracy"] == pytest.approx(0.06)
    text = (tmp_path / "comparison.md").read_text()
    assert "Baselines of rank=2, mean over its seeds, accuracy, valid. / test: frozen" in text


def test_the_picture_names_what_cells_are_judged_by(tmp_path: Path) -> None:
    finished(tmp_path / "run", "regression", JUDGED["regression"][0])
    found = figures(Ledger(tmp_path / "run" / "ledger.json"), "mae")
    results = [Result("a", (), [Outcome(0, "a", {**found, "training_rows": 9})])]
    comparison = Comparison("r", results, {}, headline="r2", metric="mae")
    axes = inspect.unwrap(comparison_chart)(comparison).axes
    shown = {one.get_xlabel(): one for one in axes}
    assert "explained variance of the teacher, %; line: deviation over seeds" in shown
    assert "student's share of the teacher's explained variance, %" in shown
    del found["teacher_share"]  # as of a teacher that explains nothing
    without = replace(comparison, results=[Result("a", (), [Outcome(0, "a", found)])])
    axes_without = inspect.unwrap(comparison_chart)(without).axes
    assert len(axes_without) == len(axes) - 1
    assert not any("of teacher:" in line for line in legend(without))
    assert not any("accuracy" in title for title in shown)
    marks = shown["mae of the teacher; line: deviation"].containers
    assert [float(mark[0].get_xdata()[0]) for mark in marks] == [30, 30]  # no percent
    curve = inspect.unwrap(learning_curve)(results, comparison.drawn_by).axes[0]
    assert curve.get_ylabel().startswith("test explained variance, %")
    assert [float(line[0].get_ydata()[0]) for line in curve.containers][:1] == [50]


def test_cells_with_different_kinds_of_answers_have_no_best(tmp_path: Path) -> None:
    story, text = put_side_by_side(tmp_path / "out", ["multi_label", "regression"])
    assert story["best"] is None
    assert "different kinds of answers" in story["notes"][0]
    assert "micro F1, explained variance" in story["notes"][0]
    assert "failed" not in text


def test_cells_that_choose_by_different_metrics_are_told_by_the_headline(tmp_path: Path) -> None:
    names = ("rank=2-metric=macro_f1", "rank=4")
    for cell, scores in zip(names, JUDGED["multi_label"], strict=True):
        finished(tmp_path / cell / "seed-0", "multi_label", scores)
    given = ["lora_cls", "--to", "distill", "--out", str(tmp_path)]
    given += ["--variant", "strategy.rank=2 distill.train.metric=macro_f1"]
    assert main([*given, "--variant", "strategy.rank=4"]) == 0
    story = written(tmp_path)
    assert (story["metric"], story["best"]) == ("micro_f1", "rank=2 metric=macro_f1")
    assert story["notes"][0].endswith("the best is marked by micro F1.")


def test_phases_add_their_columns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    scores = {"accuracy": 0.5, "macro_f1": 0.4}
    ledger.put(
        Row(
            "finetune", "teacher", parameters=100, trainable_parameters=1, metrics=scores,
            validation=scores,
            phases={"average_accuracy": 0.6, "forgetting": 0.2, "forward_transfer": None},
        ),
        Row("finetune", "joint", metrics={"accuracy": 0.9}, phases={"average_accuracy": 0.8}),
    )  # fmt: skip
    comparison = Comparison("r", [Result("a", (), [Outcome(0, "a", figures(ledger))])], {})
    row = table_cells(comparison)[0]
    assert (row["avg phases"], row["forgetting"], row["joint"]) == ("60.00", "20.00", "80.00")
    assert "transfer" not in row
    assert all(path.stat().st_size for path in write_comparison(comparison, tmp_path))


def drawn(*results: Result) -> dict[str, list[str]]:
    """Return what stands beside the marks of each panel, by the beginning of its title."""
    figure = inspect.unwrap(comparison_chart)(Comparison("r", results, {}))
    assert figure.get_size_inches()[0] * 72 <= 1500
    return {
        axes.get_xlabel().split(",")[0]: [text.get_text() for text in axes.texts]
        for axes in figure.axes
    }


def test_the_picture_has_a_panel_for_each_measured_figure() -> None:
    failed = Result("a label of many words " * 9, (), [Outcome(0, "b", fault="killed")])
    few = drawn(Result("a", (), [outcome(0)]), failed)
    assert few == {"accuracy": [], "weights that learn": ["1%"], "seconds of fine-tuning": ["1.0"]}
    more = {"tokens_per_second": 1234.4, "peak_memory_bytes": 2.5e9}
    cells = [outcome(seed, **more, merge_agreement=0.97 + 0.02 * seed) for seed in (0, 1)]
    assert drawn(failed, Result("b", (), cells), Result("c", (), [outcome(0)])) == {
        "accuracy": [],
        "weights that learn": ["1%", "1%"],
        "seconds of fine-tuning": ["1.0", "1.0"],
        "training tokens a second": ["1,234"],
        "peak memory": ["2.50"],
        "answers kept by merging": ["98.00%"],
    }


def test_the_picture_shows_what_students_gain() -> None:
    students = {
        "student_test_accuracy": 0.8, "alone_test_accuracy": 0.7, "gain": 0.1,
        "teacher_share": 1.02, "student_seconds": 10.0, "alone_seconds": 20.0,
    }  # fmt: skip
    cells = [outcome(0, **students)]
    shown = drawn(Result("a", (), cells, Gain(0.1, -0.01, 0.2, 9, 1)), Result("b", (), cells))
    assert shown["gain of student over alone"] == ["+10.0", "+10.0"]
    assert shown["student's share of the teacher's accuracy"] == ["102.0%", "102.0%"]
    assert shown["seconds of both students"] == ["10", "10", "20", "20"]
    assert "accuracy of the teacher" in shown
    assert not any("tokens" in title for title in shown)


def test_the_ends_of_long_names_are_drawn() -> None:
    names = [f"gradual_unfreezing quantization=none learning_rate={rate}e-4" for rate in (1, 2)]
    results = [Result(name, (), [outcome(0), Outcome(1, "a", fault="killed")]) for name in names]
    figure = inspect.unwrap(comparison_chart)(Comparison("r", results, {}))
    shown = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]
    assert shown == [f"{name} (1 of 2 failed)" for name in names]


def test_nothing_but_failures_is_still_written(tmp_path: Path) -> None:
    comparison = Comparison("r", [Result("a|b", (), [Outcome(0, "a", fault="no | memory")])], {})
    assert all(path.stat().st_size for path in write_comparison(comparison, tmp_path))
    assert "a\\|b" in (tmp_path / "comparison.md").read_text()


def test_help_answers_quickly_and_shows_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "recipes.compare", "--help"],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0
    assert "--variant" in done.stdout
    assert " torch\n" not in done.stderr
    assert " matplotlib\n" not in done.stderr
