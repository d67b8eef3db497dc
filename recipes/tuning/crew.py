"""Who runs the trials: so many at a time, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from subprocess import Popen
from typing import Any

from adapters.errors import AdapterError
from distill.errors import DistillError
from export.machine import cores
from recipes.cells import Cell
from recipes.child import BusyError, Ended, Run
from recipes.errors import RecipeError
from recipes.reading import read_recipe
from recipes.recipe import Recipe
from recipes.tuning.best import write_best
from recipes.tuning.plan import Plan
from recipes.tuning.study import DATA, FAULT, METRIC, SECONDS, VALUES, Claim, Study, Trial, best_of
from recipes.tuning.telling import outcome, title
from recipes.tuning.trial import POOR

#: Seconds between two looks at trials that other processes run, and how long a child that lost its
#: parent is waited for.
_LOOK, _ENDING = 0.5, 30.0
#: How often a child that a signal ended is started, within one command.
_STARTS = 2


class StoppedError(Exception):
    """Another thread has met an error, or a person has stopped the command."""


class Crew:
    """Runs trials until the study has as many as are wanted.

    Args:
        study: The study.
        workers: Trials at a time.
        budget: Trials of the whole study, those before and those of other processes included.
        deadline: When to begin no further trial, as `time.monotonic` counts; None for never.
        offline: Whether trainings fetch nothing.
        tell: Prints a line.
    """

    def __init__(
        self,
        study: Study,
        *,
        workers: int,
        budget: int,
        deadline: float | None,
        offline: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._study = study
        self._plan: Plan = study.plan
        self._workers = workers
        self._budget = budget
        self._deadline = deadline
        self._offline = offline
        self._tell = tell
        self._stopped = threading.Event()
        self._printing = threading.Lock()
        self._children: set[Popen[bytes]] = set()
        self._errors: list[BaseException] = []
        self._waited: set[int] = set()

    def run(self) -> None:
        """Run trials; a person's interruption ends them and leaves them to the next command.

        Raises:
            RecipeError: The recipe as it stands cannot be trained; its trial is done again by the
                next command.
        """
        others = [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]
        for thread in others:
            thread.start()
        try:
            for thread in others:
                while thread.is_alive():
                    thread.join(_LOOK)
        finally:
            self._stop()
            for thread in others:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def _stop(self) -> None:
        self._stopped.set()
        for child in list(self._children):
            child.terminate()

    def _work(self) -> None:
        """Do one trial after the other, in a thread."""
        try:
            while not self._stopped.is_set() and self._next():
                pass
        except StoppedError:
            pass
        except BaseException as error:
            self._errors.append(error)
            self._stop()

    def _next(self) -> bool:
        """Do a trial, or wait for those of others; False if there is nothing left to wait for."""
        if self._late():
            return False
        claim = self._study.claim(self._budget)
        if claim is not None:
            try:
                self._do(claim)
            finally:
                self._study.release(claim)
            return True
        running = [trial.number for trial in self._study.trials if trial.state == "running"]
        for number in running:
            self._say_waiting(number)
        if running:
            self._stopped.wait(_LOOK)
        return bool(running)

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _do(self, claim: Claim) -> None:
        earlier = self._study.trials
        if not claim.taken_over and (twin := _twin(claim, earlier)):
            self._study.repeat(claim, twin)
            self._say(claim.number, f"the same as trial {twin.number}, not done again")
            return
        begun = time.monotonic()
        if claim.taken_over:
            self._say(claim.number, "taken up where it stopped")
        try:
            runs = self._runs(claim)
        except (RecipeError, AdapterError, DistillError) as error:
            self._fail(claim, str(error), begun)
            return
        for run in runs:
            ended = self._ended(claim, run, first=run is runs[0], earlier=earlier)
            if ended.status == POOR:  # nobody goes on with it
                shutil.rmtree(run.folder / self._plan.target / "checkpoints", ignore_errors=True)
                self._finish(claim, "pruned", begun)
                return
            if fault := ended.fault or self._other_rows(run):
                self._fail(claim, fault, begun)
                return
        rows = [run.ledger[self._plan.target] for run in runs]
        metric = self._plan.metric or self._study.shared(METRIC, rows[0].headline)
        values = [row.validation[metric] for row in rows]
        # A trial that was taken over has learnt in a process whose clock is lost.
        begun = min(begun, time.monotonic() - sum(row.seconds for row in rows))
        self._finish(claim, "complete", begun, fmean(values), **{VALUES: values})

    def _runs(self, claim: Claim) -> list[Run]:
        """Return a run for each seed of a trial, with the recipe that it began with."""
        threads = claim.fact("threads", None) or self._threads()
        claim.note(threads=threads)
        return self._made(claim.number, claim.words, threads)

    def _made(self, number: int, own: Sequence[str], threads: Sequence[str]) -> list[Run]:
        plan, place = self._plan, self._study.place(number)
        cell = Cell(f"trial {number}", place.name, tuple(own), (*plan.fixed, *own, *threads))
        return [
            Run(
                cell,
                seed,
                read_recipe(plan.recipe, [*cell.overrides, f"seed={seed}"], plan.plugins),
                place / f"seed-{seed}",
            )
            for seed in plan.seeds
        ]

    def _threads(self) -> list[str]:
        """Return the override that gives each of several workers its part of the cores."""
        if self._workers == 1:
            return []
        whole = self._plan.base.threads or int(os.environ.get("OMP_NUM_THREADS") or cores())
        return [f"threads={max(1, whole // self._workers)}"]

    def _ended(self, claim: Claim, run: Run, *, first: bool, earlier: Sequence[Trial]) -> Ended:
        """Run one seed of a trial to its end; one that a signal ended is taken up once."""
        if self._plan.target in run.ledger:
            return Ended(0)  # measured before the process died
        run.check_folder()
        options = ["--to", self._plan.stage, "--target", self._plan.target]
        if first and self._plan.pruner != "none":
            options += ["--judge", str(self._study.folder), str(claim.number), self._plan.pruner]
        options += [word for plugin in self._plan.plugins for word in ("--plugin", plugin)]
        options += ["--offline"] if self._offline else []
        ended = Ended(0)
        for _ in range(_STARTS):
            ended = self._started(run, options, self._donor(run, earlier))
            if self._stopped.is_set():
                raise StoppedError
            if ended.status >= 0:
                break
        return ended

    def _started(self, run: Run, options: Sequence[str], donor: tuple[Run, str] | None) -> Ended:
        waited = time.monotonic() + _ENDING
        kept: list[Popen[bytes]] = []

        def started(child: Popen[bytes]) -> None:
            kept.append(child)
            self._children.add(child)
            if self._stopped.is_set():
                child.terminate()

        while True:
            try:
                return run.start(
                    self._plan.recipe, options, donor, module="recipes.tuning.trial",
                    started=started,
                )  # fmt: skip
            except BusyError:  # the child of a process that died is about to end, too
                if self._stopped.wait(_LOOK) or time.monotonic() > waited:
                    raise
            finally:
                self._children -= set(kept)

    def _donor(self, run: Run, earlier: Sequence[Trial]) -> tuple[Run, str] | None:
        """Return a finished trial's run that this one can start from; see `Run.donor`."""
        if run.folder.exists():
            return None
        finished = [self._study.place(one.number) for one in earlier if one.state != "running"]
        # Seeds of one trial differ in less than trials do, and those before this one are done.
        places = [place for trial in (run.folder.parent, *finished) for place in _seeds_of(trial)]
        return run.donor(
            [
                Run(run.cell, run.seed, recipe, place)
                for place in places
                if (recipe := _recipe_of(place)) is not None
            ]
        )

    def _other_rows(self, run: Run) -> str:
        """Say so if a trial was measured on other rows than those before.

        What `data.fraction` and `data.per_class` leave of the same rows may differ: by the seed, or
        because a trial is about it.
        """
        drawn = run.progress.get("data")
        rows = run.progress.get("all_data", drawn)  # a run of an earlier version says less
        if self._study.shared(DATA, rows) in (rows, drawn):
            return ""
        return (
            "the data changed since the search began, and its trials cannot be compared: put the "
            "old files back, or search elsewhere (--out DIR)"
        )

    def _fail(self, claim: Claim, fault: str, begun: float) -> None:
        """Write down that a trial failed, unless it is the recipe itself that does not work.

        A trial that cannot be judged now is left to the next claim, or to the next command.

        Raises:
            RecipeError: The recipe as it stands fails.
            StoppedError: It failed in another thread.
        """
        if claim.number == 0:
            raise RecipeError(
                f"The recipe as it stands cannot be trained, so nothing else is tried: {fault}. "
                "The same command begins with it again."
            )
        # What fails for everyone is not this trial's fault: wait for the recipe as it stands. If
        # its process is gone, it comes first, and then this trial again.
        while self._study.trials[0].state == "running":
            if self._late() or self._study.abandoned(0):
                return
            if self._stopped.wait(_LOOK):
                raise StoppedError
        self._finish(claim, "failed", begun, None, **{FAULT: fault})

    def _finish(
        self, claim: Claim, state: str, begun: float, value: float | None = None, **facts: Any
    ) -> None:
        before = best_of(self._study.trials)
        seconds = claim.fact(SECONDS, 0.0) + time.monotonic() - begun
        if value is not None and value != value:
            state, value, facts = "failed", None, {FAULT: "its figure is not a number"}
        self._study.tell(claim, state, value, **{SECONDS: seconds}, **facts)
        trial = self._study.trials[claim.number]
        better = value is not None and (before is None or value > (before.value or 0.0))
        self._say(claim.number, outcome(trial, self._study, better=better))
        write_best(self._study)

    def _say(self, number: int, said: str) -> None:
        with self._printing:
            trial = self._study.trials[number]
            self._tell(f"trial {number} (of {self._budget}), {title(trial)}: {said}")

    def _say_waiting(self, number: int) -> None:
        with self._printing:
            if number not in self._waited and not self._children:
                self._waited.add(number)
                self._tell(f"waiting for trial {number}, which another process runs")


def _twin(claim: Claim, trials: Sequence[Trial]) -> Trial | None:
    """Return an earlier trial with the same overrides that has ended by itself."""
    ended = (t for t in trials if t.number < claim.number and t.state in ("complete", "pruned"))
    return next((trial for trial in ended if trial.words == claim.words), None)


def _seeds_of(trial: Path) -> list[Path]:
    """Return the folders of a trial's runs."""
    return sorted(trial.glob("seed-*"))


def _recipe_of(place: Path) -> Recipe | None:
    """Return the recipe that a run's folder was made with; None if it has none yet."""
    try:
        return read_recipe(str(place / "recipe.yaml"))
    except RecipeError:
        return None
