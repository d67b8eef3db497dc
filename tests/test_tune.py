"""Searches through the real command: their spaces, what is run, what goes on, and what is left.

Most trials here are not trained: a stand-in for the child answers by a formula, and tells the study
its epochs as the child does. What trains says so.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import tiny

from recipes.errors import RecipeError
from recipes.ledger import Ledger, Row
from recipes.pipeline import PROGRESS, write_recipe
from recipes.reading import read_recipe
from recipes.recipe import Recipe
from recipes.reporting.search import _page
from recipes.tune import main
from recipes.tuning import trial
from recipes.tuning.crew import Crew
from recipes.tuning.plan import make_plan
from recipes.tuning.space import Choices, Range, read_space
from recipes.tuning.storage import judge
from recipes.tuning.study import Study
from recipes.whole_files import write_json

Make = Callable[[str], Path]
RATE = "train.learning_rate=log(1e-5,1e-2)"
RANK = "strategy.rank=2,4,8,16"


def one(override: str) -> Any:
    return read_space([override])[0][0]


def test_values_and_ranges_are_read() -> None:
    space, fixed = read_space([RATE, "train.epochs=3", "strategy.name=lora,dora", RANK])
    assert [d.key for d in space] == ["train.learning_rate", "strategy.name", "strategy.rank"]
    assert fixed == ("train.epochs=3",)
    assert space[0] == Range("train.learning_rate", RATE, 1e-5, 1e-2, whole=False, log=True)
    assert space[1] == Choices(
        "strategy.name", "strategy.name=lora,dora", ("lora", "dora"), ordered=False
    )
    assert one("strategy.rank=16,4,8").values == ("4", "8", "16")
    assert one("strategy.rank=16,4,8").ordered
    assert one("a.b=uniform(0,1)").said != one("a.b=float(0,1)").said
    assert one("a=int(2,8,3)").values == ("2", "5", "8")
    assert one("a=logint(1,3)").values == ("1", "2", "3")
    lists = one("distill.objectives=[kl, ce],[kl, {name: hidden, weight: 2.0}]")
    assert lists.values == ("[kl, ce]", "[kl, {name: hidden, weight: 2.0}]")
    assert read_space([RATE, "data.text=f(x)"])[1] == ("data.text=f(x)",)


def test_drawn_numbers_are_short_and_stay_inside() -> None:
    wide = one("a=log(1.23456e-5,1e-2)")
    assert wide.text(0.000123456789) == "0.0001235"
    assert float(wide.text(1.23456e-5)) >= 1.23456e-5
    assert one("a=int(1,9)").text(4) == "4"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.epochs=3"], "nothing to search"),
        (["train.epochs=1,"], "empty value"),
        (["train.epochs=1,2", "train.epochs=3"], "there twice"),
        (["train.epochs=1,1"], "names 1 twice"),
        (["train.epochs"], "not an override"),
        (["a=log(0,1)"], "begins above 0"),
        (["a=log(1e-2,1e-5)"], "lower end comes first"),
        (["a=log(1)"], "a=log(low,high)"),
        (["a=uniform(one,two)"], "with numbers"),
        (["a=int(1.5,2)"], "whole numbers"),
        (["a=int(1,10,4)"], "do not lead"),
        (["a=loguniform(1,2)"], "no range is called loguniform"),
        (["a=log(1,2),3"], "mixes a range"),
    ],
)
def test_wrong_spaces_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(told)):
        read_space(overrides)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.lerning_rate=log(1e-5,1e-2)"], "did you mean 'learning_rate'"),
        (["strategy.rank=4,0"], "rank=0 should be greater than"),
        (["train.warmup=uniform(0,1)"], "train.warmup=1.0 should be less than 1"),
        (["train.epochs=uniform(1,4)"], "train.epochs=int(low,high)"),
        (["strategy.name=lora,bitfit", RANK], "rank"),
        (["train.metric=accuracy,macro_f1"], "judged by"),
        ([RATE, "train.metric=log_loss"], "less is better"),
        (["data.split_seed=1,2"], "same validation rows"),
        (["data.test_fraction=uniform(0.1,0.3)"], "same validation rows"),
        (["data.per_class=8,16"], "same validation rows"),
        (["data.per_class=8", "data.draw_seed=1,2"], "same validation rows"),
        (["data.min_rows=5,20"], "same validation rows"),
        (["export.optimize=none,full"], "neither the teacher nor the student"),
        (["seed=1,2"], "--seeds"),
        (["threads=1,2"], "changes the time"),
        ([RATE, "train.batch_size=none"], "train.batch_size"),
        ([RATE, "--seeds", "1,1"], "--seeds"),
        ([RATE, "--trials", "0"], "--trials"),
        ([RATE, "--timeout", "soon"], "not a time"),
        ([RATE, "--seed", "-1"], "--seed"),
        ([RATE, "--resume"], "no search"),
        ([RATE, "phases.classes=2", "--pruner", "median"], "arrive in phases"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(
    overrides: list[str], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["lora_cls", *overrides, "--out", str(out)]) == 3
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert told in said[0]
    assert not out.exists()


def test_what_is_measured_follows_from_the_keys() -> None:
    def plan(*overrides: str) -> Any:
        return make_plan("lora_cls", *read_space(overrides))

    teacher = plan(RATE, RANK, "train.metric=macro_f1")
    assert (teacher.target, teacher.metric, teacher.stage) == ("teacher", "macro_f1", "finetune")
    assert teacher.inside == {"train.learning_rate": 1e-3, "strategy.rank": 3}
    student = plan("distill.train.learning_rate=log(1e-5,1e-2)", "train.metric=macro_f1")
    assert (student.target, student.metric, student.stage) == ("student", None, "distill")
    assert plan("strategy.rank=2,4").inside == {}
    assert plan("merge.into=original,dequantized").target == "student"
    assert (plan(RATE).pruner, plan(RATE, "phases.classes=2").pruner) == ("median", "none")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files for training, validation and test."""
    folder = tmp_path_factory.mktemp("data")
    rows = tiny.rows(150)
    for name, part in (("train", rows[:90]), ("validation", rows[90:120]), ("test", rows[120:])):
        write_rows(folder / f"{name}.csv", part)
    return folder


def write_rows(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


@pytest.fixture(scope="module")
def common(tiny_backbone: Make, files: Path) -> list[str]:
    named = [f"data.{split}={files / split}.csv" for split in ("train", "validation", "test")]
    return [
        *named, f"backbone.model={tiny_backbone('bert')}", "backbone.quantization=none",
        "train.epochs=2", "distill.student.layers=2",
    ]  # fmt: skip


class InProcess:
    """Stands in for a child that trains: loading the libraries anew costs a child ten seconds."""

    stdin = None

    def __init__(self, command: Sequence[str], *, stdout: IO[bytes], **_: Any) -> None:
        assert command[:3] == [sys.executable, "-m", "recipes.tuning.trial"]
        log = io.TextIOWrapper(stdout, "utf-8", write_through=True)
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            self.status = self.run(command[3:])
        log.detach()

    def run(self, words: Sequence[str]) -> int:
        return trial.main(words)

    def wait(self) -> int:
        return self.status

    def terminate(self) -> None:
        pass


class Made(InProcess):
    """Stands in for a child without training: the figure is the better the nearer 2e-3 and 8."""

    #: Folders in the order in which they were begun, and those that are being worked in.
    begun: list[str]
    working: set[str]
    seconds = 0.0
    #: Overrides that fail, with what they say.
    faults: dict[str, str]

    def __init__(self, command: Sequence[str], *, stdout: IO[bytes], **_: Any) -> None:
        self.log = stdout
        self.status = self.run(command[3:])

    def run(self, words: Sequence[str]) -> int:
        options = trial._parser().parse_intermixed_args(words)
        folder = Path(options.out)
        assert str(folder) not in self.working
        self.working.add(str(folder))
        self.begun.append(folder.parent.name)
        try:
            return self.train(options, folder)
        finally:
            self.working.remove(str(folder))

    def train(self, options: Any, folder: Path) -> int:
        time.sleep(self.seconds)
        for override, fault in self.faults.items():
            if override in options.overrides:
                self.log.write(f"error: {fault}\n".encode())
                return 3
        recipe = read_recipe(options.recipe, options.overrides)
        strategy: Any = recipe.strategy
        far = abs(math.log10(recipe.train.learning_rate / 2e-3)) + abs(strategy.rank - 8) / 8
        value = 0.9 - 0.2 * far - 0.001 * recipe.seed
        if options.judge is not None:
            study, number, pruner = options.judge
            poor = judge(Path(study), int(number), pruner)
            for epoch in range(1, recipe.train.epochs):
                if poor(epoch, value - 0.1 / epoch):
                    return trial.POOR
        folder.mkdir(exist_ok=True)
        write_recipe(recipe, folder)
        told = {"finished": ["baseline", "finetune"], **self.rows(recipe)}
        write_json(folder / PROGRESS, told)
        Ledger(folder / "ledger.json").put(
            Row("finetune", "teacher", validation={"accuracy": value}, metrics={"accuracy": 0.123})
        )
        return 0

    @staticmethod
    def rows(recipe: Recipe) -> dict[str, str]:
        """Return what a run tells of its rows."""
        return {"data": "rows"}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> type[Made]:
    """Let a formula answer for all trainings of a test."""
    kind = type("Fresh", (Made,), {"begun": [], "working": set(), "faults": {}})
    monkeypatch.setattr("recipes.child.Popen", kind)
    monkeypatch.setattr("recipes.tuning.crew._LOOK", 0.02)
    # Drawing takes longer than all else; one test looks at the page.
    monkeypatch.setattr("recipes.reporting.search._page", lambda *_: "drawn")
    return kind


def searched(out: Path, common: Sequence[str], *more: str, trials: int = 8) -> dict[str, Any]:
    given = ["lora_cls", RATE, RANK, *common, *more, "--trials", str(trials), "--out", str(out)]
    assert main(given) == 0
    return written(out)


def written(out: Path) -> dict[str, Any]:
    return json.loads((out / "trials.json").read_text())  # type: ignore[no-any-return]


def facts(story: dict[str, Any]) -> list[Any]:
    """Return what two equal searches share."""
    names = ("number", "state", "overrides", "value", "curve")
    return [[entry[name] for name in names] for entry in story["trials"]]


def test_the_first_trial_is_the_recipe_and_the_best_is_a_recipe_that_runs(
    common: list[str], tmp_path: Path, made: type[Made], capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    story = searched(out, common)
    first, *others = story["trials"]
    assert first["plain"]
    assert first["overrides"] == []
    assert len(others) == 7
    assert all(len(entry["overrides"]) == 2 for entry in others)
    told = Ledger(out / "trials" / "000" / "seed-0" / "ledger.json")["teacher"]
    assert first["value"] == told.validation["accuracy"]
    complete = [entry for entry in story["trials"] if entry["state"] == "complete"]
    best = max(complete, key=lambda entry: entry["value"])
    assert story["best"] == best["number"] != 0
    text = (out / "best.yaml").read_text()
    assert read_recipe(str(out / "best.yaml")) == read_recipe(
        "lora_cls", [*common, *best["overrides"]]
    )
    assert f"{best['value']:.4f}" in text.partition("task:")[0]
    assert f"python -m recipes.run {out / 'best.yaml'}" in text
    said = capfd.readouterr()
    assert said.err.count("the best so far") >= 2
    assert "trial 0 (of 8), the recipe as it stands: teacher, validation accuracy" in said.err
    assert "0.123" not in said.err + said.out + text + (out / "report.html").read_text()


def test_the_report_holds_everything_itself(
    common: list[str], tmp_path: Path, made: type[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.reporting.search._page", _page)
    monkeypatch.setattr("recipes.tuning.importance._TRIALS", 2)
    made.faults = {"strategy.rank=2": "rank 2 is <b>too</b> small"}
    out = tmp_path / "out"
    story = searched(out, common, trials=14)
    page = (out / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "rank 2 is &lt;b&gt;too&lt;/b&gt; small" in page
    for key in ("history", "importance", "epochs", "slices", "parallel"):
        assert f'aria-labelledby="{key}"' in page
    assert set(story["importance"]) == {"train.learning_rate", "strategy.rank"}
    assert math.isclose(sum(story["importance"].values()), 1)
    states = {entry["state"] for entry in story["trials"]}
    assert {"complete", "failed"} <= states
    assert page.count("<tr") > 14


def test_a_search_depends_on_its_seed_and_not_on_being_stopped(
    common: list[str], tmp_path: Path, made: type[Made]
) -> None:
    whole = searched(tmp_path / "whole", common)
    searched(tmp_path / "parts", common, trials=3)
    assert facts(searched(tmp_path / "parts", common, trials=8)) == facts(whole)
    begun = len(made.begun)
    assert facts(searched(tmp_path / "parts", common, trials=8)) == facts(whole)
    assert len(made.begun) == begun
    other = searched(tmp_path / "other", common, "--seed", "1", trials=3)
    assert facts(other)[1] != facts(whole)[1]


class DiedError(BaseException):
    """Stands in for a process that dies."""


#: What the process is at when it dies, and at which call of it.
DEATHS = {
    "recipes.tuning.study.Claim.note": 3,
    "recipes.tuning.study.Study.tell": 2,
}


def test_a_trial_whose_process_died_is_done_again_as_it_was(
    common: list[str], tmp_path: Path, made: type[Made]
) -> None:
    """Whatever the process was at when it died, nothing is lost and nothing is there twice."""
    whole = facts(searched(tmp_path / "whole", common, trials=3))
    for place, calls in DEATHS.items():
        out = tmp_path / place
        with pytest.MonkeyPatch.context() as patch:
            _die_in(patch, place, calls)
            with pytest.raises(DiedError):
                searched(out, common, trials=3)
        states = [entry.state for entry in _open(out, common).trials]
        assert states.count("running") == 1
        assert facts(searched(out, common, trials=3)) == whole


def _die_in(patch: pytest.MonkeyPatch, place: str, calls: int) -> None:
    """Let the process die at a call of a function, and at none before."""
    holder, _, name = place.rpartition(".")
    real = getattr(pkgutil.resolve_name(holder), name)
    seen = 0

    def dies(*given: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == calls:
            raise DiedError
        return real(*given, **named)

    patch.setattr(place, dies)


def _open(out: Path, common: Sequence[str]) -> Study:
    return Study(out, make_plan("lora_cls", *read_space([RATE, RANK, *common])))


def test_a_small_space_is_tried_in_full(
    common: list[str], tmp_path: Path, made: type[Made]
) -> None:
    given = ["lora_cls", "strategy.rank=2,4,8", "train.epochs=int(1,2)", *common[:-2], *common[-1:]]
    out = tmp_path / "out"
    assert main([*given, "--trials", "20", "--out", str(out)]) == 0
    points = [tuple(entry["overrides"]) for entry in written(out)["trials"]]
    # The recipe's own rank, 16, is not among them: it comes on top.
    assert sorted(points[1:]) == sorted(
        (f"strategy.rank={rank}", f"train.epochs={epochs}")
        for rank in (2, 4, 8)
        for epochs in (1, 2)
    )
    assert points[0] == ()


@pytest.mark.parametrize(("own", "trials"), [(16, 4), (4, 3)])
def test_as_many_trials_as_points_are_enough_if_the_recipe_is_one_of_them(
    own: int, trials: int, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe as it stands is a trial, too, and may lie outside the space."""
    given = ["strategy.rank=2,4,8", f"strategy={{name: lora, rank: {own}}}", *common]
    study = Study(tmp_path / "out", make_plan("lora_cls", *read_space(given)))
    told = []
    while (claim := study.claim(trials)) is not None:
        told.append(claim.words or (f"strategy.rank={own}",))
        study.tell(claim, "complete", 0.5)
    assert {("strategy.rank=2",), ("strategy.rank=4",), ("strategy.rank=8",)} <= {*told}
    assert len(told) == trials
    command = ["lora_cls", *given, "--out", str(tmp_path / "dry"), "--dry-run", "--trials"]
    assert main([*command, "3"]) == 0
    promised = capsys.readouterr().out.splitlines()[-1]
    assert ("with --trials 4" in promised) == (own == 16)


def test_equal_trials_are_trained_once(
    common: list[str], tmp_path: Path, made: type[Made], capfd: pytest.CaptureFixture[str]
) -> None:
    """A space of ten points and nine trials: the sampler comes back to what was good."""
    out = tmp_path / "out"
    given = ["lora_cls", "strategy.rank=int(1,10)", *common, "--trials", "9", "--pruner", "none"]
    assert main([*given, "--out", str(out)]) == 0
    trials = written(out)["trials"]
    points = [tuple(entry["overrides"]) for entry in trials]
    assert len(set(points)) < len(points)
    assert len(made.begun) == len(set(points))
    for entry in trials:
        if entry["same_as"] is not None:
            assert entry["value"] == trials[entry["same_as"]]["value"]
    assert "not done again" in capfd.readouterr().err


def test_seeds_are_averaged(common: list[str], tmp_path: Path, made: type[Made]) -> None:
    alone = searched(tmp_path / "one", common, "--seeds", "0", trials=2)
    three = searched(tmp_path / "three", common, "--seeds", "0,1,2", trials=2)
    assert made.begun.count("001") == 4
    for one, mean in zip(alone["trials"], three["trials"], strict=True):
        assert mean["value"] == pytest.approx(one["value"] - 0.001)


def test_poor_trials_are_ended_and_the_recipe_itself_never(
    common: list[str], tmp_path: Path, made: type[Made]
) -> None:
    poor = [*common, "train.learning_rate=log(1e-3,1e-2)", "strategy.rank=8,16"]
    out = tmp_path / "out"
    assert main(["lora_cls", *poor, "--trials", "12", "--out", str(out)]) == 0
    pruned = [entry for entry in written(out)["trials"] if entry["state"] == "pruned"]
    assert pruned
    assert all(entry["number"] > 3 for entry in pruned)
    assert not any((out / "trials" / f"{e['number']:03d}" / "seed-0").exists() for e in pruned)
    best = written(out)["trials"][written(out)["best"]]
    assert all(entry["value"] < best["value"] for entry in pruned)


def test_a_recipe_that_does_not_work_stops_the_search(
    common: list[str], tmp_path: Path, made: type[Made], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its trial is not spent: once the fault is mended, the same command begins with it."""
    made.faults = {common[0]: "The file has no labels"}
    out = tmp_path / "out"
    given = ["lora_cls", RATE, *common, "--trials", "3", "--workers", "2", "--out", str(out)]
    assert main(given) == 3
    said = capfd.readouterr().err
    assert said.splitlines()[-1].startswith("error: The recipe as it stands cannot be trained")
    assert "The file has no labels" in said
    assert not (out / "best.yaml").exists()
    made.faults = {}
    assert main(given) == 0
    assert [entry["state"] for entry in written(out)["trials"]] == ["complete"] * 3


def test_failed_trials_are_told_and_the_rest_goes_on(
    common: list[str], tmp_path: Path, made: type[Made], capfd: pytest.CaptureFixture[str]
) -> None:
    made.faults = {f"strategy.rank={rank}": "out of memory" for rank in (2, 4)}
    story = searched(tmp_path / "out", common, trials=10)
    failed = [entry for entry in story["trials"] if entry["state"] == "failed"]
    assert failed
    assert all("out of memory (log: " in entry["fault"] for entry in failed)
    assert "failed: out of memory" in capfd.readouterr().err
    assert story["best"] not in [entry["number"] for entry in failed]


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "late"])
def test_a_failed_trial_waits_for_the_first_only_as_long_as_somebody_runs_it(
    common: list[str], tmp_path: Path, made: type[Made], stopped: bool
) -> None:
    made.faults = {f"strategy.rank={rank}": "out of memory" for rank in (1, 2)}
    plan = make_plan("lora_cls", *read_space(["strategy.rank=1,2", *common]))
    other, own = (Study(tmp_path / "out", plan) for _ in range(2))
    first = other.claim(3)
    assert first is not None
    deadline = None if stopped else time.monotonic() + 0.5
    crew = Crew(own, workers=1, budget=2, deadline=deadline, offline=True, tell=lambda _: None)
    work = threading.Thread(target=crew.run, daemon=True)
    work.start()
    while not made.begun:
        time.sleep(0.01)
    if stopped:
        other.release(first)
    work.join(20)
    assert not work.is_alive()
    states = ["complete", "failed"] if stopped else ["running", "running"]
    assert [trial.state for trial in own.trials] == states
    other.release(first)


def test_workers_share_the_trials_and_the_cores(
    common: list[str], tmp_path: Path, made: type[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made.seconds = 0.1
    out = tmp_path / "out"
    story = searched(out, [*common, "threads=6"], "--workers", "2", "--pruner", "none", trials=8)
    assert len(made.begun) == len(set(made.begun))
    assert [entry["state"] for entry in story["trials"]] == ["complete"] * 8
    used = read_recipe(str(out / "trials" / "001" / "seed-0" / "recipe.yaml"))
    assert used.threads == 3
    assert read_recipe(str(out / "best.yaml")).threads == 6
    assert len({tuple(entry["overrides"]) for entry in story["trials"]}) == 8


def test_a_second_command_joins_when_it_is_asked_to(
    common: list[str], tmp_path: Path, made: type[Made], capfd: pytest.CaptureFixture[str]
) -> None:
    made.seconds = 0.3
    out = tmp_path / "out"
    given = [
        "lora_cls",
        RATE,
        RANK,
        *common,
        "--trials",
        "6",
        "--pruner",
        "none",
        "--out",
        str(out),
    ]
    status: list[int] = []
    first = threading.Thread(target=lambda: status.append(main(given)))
    first.start()
    while not made.working and first.is_alive():
        time.sleep(0.01)
    assert main(given) == 3
    assert "Join it with --resume" in capfd.readouterr().err
    assert main([*given, "--resume"]) == 0
    first.join()
    assert status == [0]
    assert sorted(made.begun) == [f"{number:03d}" for number in range(6)]
    assert [entry["state"] for entry in written(out)["trials"]] == ["complete"] * 6


def test_no_trial_begins_after_the_time_is_up(
    common: list[str], tmp_path: Path, made: type[Made]
) -> None:
    made.seconds = 1.2
    assert len(searched(tmp_path / "out", common, "--timeout", "1s")["trials"]) == 1


def test_another_search_or_other_rows_are_refused(
    common: list[str], tmp_path: Path, made: type[Made], capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    searched(out, common, trials=2)
    before = (out / "trials.json").read_bytes()
    for change in (["train.batch_size=8"], ["--seeds", "1"], ["--pruner", "none"]):
        assert main(["lora_cls", RATE, RANK, *common, *change, "--out", str(out)]) == 3
        assert "holds another search" in capfd.readouterr().err
    assert main(["lora_cls", RATE, *common, "--out", str(out)]) == 3
    assert "space.strategy.rank" in capfd.readouterr().err
    assert (out / "trials.json").read_bytes() == before
    _open(out, common).shared("data", "rows")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert main(["lora_cls", RATE, *common, "--out", str(tmp_path / "mine")]) == 3
    assert "holds no search" in capfd.readouterr().err
    (out / "study.db").write_bytes(b"no database at all" * 100)
    assert main(["lora_cls", RATE, RANK, *common, "--out", str(out)]) == 3
    assert "study.db cannot be read" in capfd.readouterr().err


def test_what_is_drawn_of_the_same_rows_may_differ(
    common: list[str],
    tmp_path: Path,
    made: type[Made],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every seed draws its own few rows, and how many may be what is searched for."""
    whole = "one"

    def rows(recipe: Recipe) -> dict[str, str]:
        return {"data": f"{whole} {recipe.data.fraction} {recipe.seed}", "all_data": whole}

    monkeypatch.setattr(made, "rows", staticmethod(rows))
    given = [*common, "data.fraction=0.2,0.5", "--seeds", "0,1"]
    story = searched(tmp_path / "out", given, trials=2)
    assert [trial["state"] for trial in story["trials"]] == ["complete"] * 2
    whole = "another"
    story = searched(tmp_path / "out", given, trials=3)
    assert "data changed" in story["trials"][-1]["fault"]


@pytest.fixture(scope="module")
def trained(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a search whose two trials were trained."""
    out = tmp_path_factory.mktemp("trained") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.child.Popen", InProcess)
        searched(out, [*common, "threads=1"], trials=2)
    return out


def test_trials_are_measured_on_validation_rows_only(
    trained: Path,
    common: list[str],
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other labels of the test rows change the ledgers, and nothing of the search."""
    with (files / "test.csv").open(encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    write_rows(tmp_path / "test.csv", [(text, tiny.LABELS[0]) for text, _ in rows])
    monkeypatch.setattr("recipes.child.Popen", InProcess)
    changed = [*common[:2], f"data.test={tmp_path / 'test.csv'}", *common[3:], "threads=1"]
    out = tmp_path / "out"
    assert facts(searched(out, changed, trials=2)) == facts(written(trained))
    assert written(out)["best"] == written(trained)["best"]
    place = Path("trials") / "001" / "seed-0" / "ledger.json"
    one, two = (Ledger(folder / place)["teacher"] for folder in (out, trained))
    assert one.validation == two.validation
    assert one.metrics != two.metrics
    log = (out / "trials" / "001" / "seed-0.log").read_text()
    assert "epoch 2 of 2" in log
    assert "macro F1" not in log  # the table of a run, test figures and all


def test_a_poor_training_ends_after_the_epoch_that_shows_it(
    common: list[str], tmp_path: Path, made: type[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others were good by the formula; the planted one is trained, and learns nothing."""
    out = tmp_path / "out"
    given = ["lora_cls", "train.learning_rate=1e-3,2e-3,3e-3,1e-8", *common, "threads=1"]
    given += ["strategy.rank=8", "--out", str(out)]

    def points(*_: Any) -> list[dict[str, int]]:
        return [{"train.learning_rate": place} for place in (2, 3, 0)]

    monkeypatch.setattr("recipes.tuning.study.combinations", points)
    monkeypatch.setattr("recipes.tuning.storage._JUDGED", 3)
    assert main([*given, "--trials", "3"]) == 0
    monkeypatch.setattr("recipes.child.Popen", InProcess)
    assert main([*given, "--trials", "4"]) == 0
    planted = written(out)["trials"][3]
    assert planted["overrides"] == ["train.learning_rate=1e-8"]
    assert planted["state"] == "pruned"
    assert list(planted["curve"]) == ["1"]
    folder = out / "trials" / "003" / "seed-0"
    assert "teacher" not in Ledger(folder / "ledger.json")
    assert "epoch 2 of 2" not in folder.with_suffix(".log").read_text()


def test_students_share_a_teacher_and_none_learns_alone(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.child.Popen", InProcess)
    out = tmp_path / "out"
    space = ["distill.train.learning_rate=log(1e-5,1e-2)", "distill.train.epochs=1"]
    given = ["lora_cls", *space, *common, "threads=1", "--trials", "2", "--out", str(out)]
    assert main(given) == 0
    story = written(out)
    assert story["target"] == "student"
    ledgers = [Ledger(out / "trials" / f"00{n}" / "seed-0" / "ledger.json") for n in (0, 1)]
    for entry, ledger in zip(story["trials"], ledgers, strict=True):
        assert entry["value"] == ledger["student"].validation["accuracy"]
        assert "student-alone" not in ledger
    weights = [out / "trials" / f"00{n}" / "seed-0/merged/model.safetensors" for n in (0, 1)]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino
    assert "finetune: done before" in (out / "trials" / "001" / "seed-0.log").read_text()


@pytest.mark.chain
def test_killed_at_work_it_goes_on_there(
    trained: Path, common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed without warning: its child ends too, and the next command takes the trial up."""
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    given = ["lora_cls", RATE, RANK, *common, "threads=1", "--trials", "3", "--out", str(out)]
    folder = out / "trials" / "002" / "seed-0"
    with subprocess.Popen([sys.executable, "-m", "recipes.tune", *given]) as parent:
        while not (folder / PROGRESS).exists() and parent.poll() is None:
            time.sleep(0.02)
        parent.send_signal(signal.SIGKILL)
    assert parent.returncode == -signal.SIGKILL
    before = _open(out, [*common, "threads=1"]).trials
    assert [entry.state for entry in before] == ["complete", "complete", "running"]
    monkeypatch.setattr("recipes.child.Popen", InProcess)
    assert main(given) == 0
    after = written(out)["trials"]
    assert [entry["state"] for entry in after] == ["complete"] * 3
    assert tuple(after[2]["overrides"]) == before[2].words
    assert facts(written(out))[:2] == facts(written(trained))


def test_without_optuna_it_says_what_to_install(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["lora_cls", RATE, *common, "--out", str(tmp_path / "out")]) == 3
    assert "pip install 'potstill[tune]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_space(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        main(["lora_cls", RATE, "strategy.rank=2,4", *common, "--dry-run", "--out", str(out)]) == 0
    )
    said = capsys.readouterr().out
    assert re.search(r"log\(1e-5,1e-2\) +the recipe's own value: 0.001", said)
    assert re.search(r"rank=2,4 +the recipe's own value: not in it", said)
    assert not out.exists()


def test_help_answers_quickly_and_shows_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "recipes.tune", "--help"],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0
    assert "log(1e-5,1e-2)" in done.stdout
    for heavy in ("torch", "matplotlib", "optuna"):
        assert f" {heavy}\n" not in done.stderr
