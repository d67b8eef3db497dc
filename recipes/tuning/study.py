"""The study on disk: an Optuna study in SQLite, shared by every process that works on it.

Who asks for a trial does it under a lock, so that nobody gets the same one twice, and holds a lock
of the trial's own until its outcome is told. A trial that counts as running and whose lock is free
belongs to a process that died: it is taken over as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from recipes.errors import RecipeError
from recipes.reading import differences
from recipes.tuning.plan import Plan
from recipes.tuning.space import combinations, words
from recipes.tuning.storage import FILE, NAME, PLAIN, check_optuna, open_storage, running
from recipes.whole_files import write_json

if TYPE_CHECKING:
    import optuna

#: Trials that are drawn at random before the sampler trusts what it has seen.
_STARTUP = 6
_IDENTITY = "search.json"
#: Facts of the whole study.
METRIC, DATA = "metric", "data"
#: Facts of a trial, as the study keeps them.
WORDS, SECONDS, FAULT, VALUES, SAME = "words", "seconds", "fault", "values", "same_as"


@dataclass(frozen=True)
class Trial:
    """What is known of a trial.

    Attributes:
        number: Its number, from 0.
        state: ``complete``, ``pruned``, ``failed`` or ``running``.
        plain: Whether it is the recipe as it stands.
        words: Its own overrides.
        stored: The point of the space, as the study stores it.
        value: Its figure; the last epoch's if it was pruned; None if it has none.
        curve: Figure by epoch, of its first seed.
        seconds: What it took.
        fault: Why it failed.
        same_as: The earlier trial with the same overrides whose outcome it was given, if any.
    """

    number: int
    state: str
    plain: bool
    words: tuple[str, ...]
    stored: Mapping[str, Any]
    value: float | None
    curve: Mapping[int, float]
    seconds: float
    fault: str = ""
    same_as: int | None = None


@dataclass(frozen=True)
class Claim:
    """A trial that this process has to run.

    Attributes:
        number: Its number.
        words: Its own overrides.
        taken_over: Whether another process has begun it.
    """

    number: int
    words: tuple[str, ...]
    taken_over: bool
    _handle: optuna.Trial = field(repr=False)
    _lock: FileLock = field(repr=False)

    def note(self, **facts: Any) -> None:
        """Keep facts of the trial in the study."""
        for name, value in facts.items():
            self._handle.set_user_attr(name, value)

    def fact(self, name: str, otherwise: Any) -> Any:
        """Return a fact that was kept."""
        return self._handle.user_attrs.get(name, otherwise)


class Study:
    """A search's study, opened or begun.

    Args:
        folder: The search's folder.
        plan: The search.

    Raises:
        RecipeError: The folder holds another search, or something else, or Optuna is missing.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        check_optuna()
        _check_identity(folder, plan)
        folder.mkdir(parents=True, exist_ok=True)
        #: Held by whoever reads and writes what only one may at a time.
        self.lock = FileLock(folder / "study.lock")
        with self.lock:
            self._storage = open_storage(folder)
            self._begin()

    def _begin(self) -> None:
        """Write the study, and as its first trial the recipe as it stands."""
        import optuna

        study = optuna.create_study(
            storage=self._storage, study_name=NAME, direction="maximize", load_if_exists=True
        )
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(dict(self.plan.inside), user_attrs={PLAIN: True})
        if not (self.folder / _IDENTITY).exists():
            write_json(self.folder / _IDENTITY, self.plan.identity())

    def place(self, number: int) -> Path:
        """Return a trial's folder."""
        return self.folder / "trials" / f"{number:03d}"

    @property
    def trials(self) -> list[Trial]:
        """What is known of every trial that has begun."""
        found = self.open().get_trials(deepcopy=False)
        return [self._told(trial) for trial in found if trial.state.name != "WAITING"]

    @property
    def best(self) -> Trial | None:
        """The complete trial with the highest figure, of equal ones the earliest."""
        return best_of(self.trials)

    @property
    def metric(self) -> str:
        """Name of the validation metric; of the problem's own once a trial is complete."""
        return self.plan.metric or str(self.open().user_attrs.get(METRIC, "headline metric"))

    @property
    def figure(self) -> str:
        """What trials are measured by, in words."""
        return f"validation {self.metric.replace('_', ' ')}"

    def shared(self, name: str, value: Any) -> Any:
        """Keep a fact of the whole study, and return what was kept first."""
        with self.lock:
            study = self.open()
            if name not in study.user_attrs:
                study.set_user_attr(name, value)
            return study.user_attrs.get(name, value)

    def claim(self, budget: int) -> Claim | None:
        """Return a trial that nobody works on: one whose process died, or a new one.

        Args:
            budget: Trials of the whole study, those of other processes included.

        Returns:
            None if nothing is left to begin.
        """
        with self.lock:
            begun = self.open().get_trials(deepcopy=False)
            for trial in begun:
                if trial.state.name == "RUNNING" and (lock := self._hold(trial.number)):
                    return self._drawn(running(self.open(), trial.number), lock, taken_over=True)
            waiting = [trial for trial in begun if trial.state.name == "WAITING"]
            number = waiting[0].number if waiting else len(begun)
            if len(begun) - len(waiting) >= budget:
                return None
            study = self.open(number)
            if not waiting and self.plan.whole <= budget and not self._enqueue_next(study, begun):
                return None
            lock = self._hold(number)
            assert lock is not None  # nobody else creates trials now
            return self._drawn(study.ask(), lock, taken_over=False)

    def tell(self, claim: Claim, state: str, value: float | None = None, **facts: Any) -> None:
        """Write down what came of a trial, and let go of it.

        Args:
            claim: The trial.
            state: ``complete``, ``pruned`` or ``failed``.
            value: The figure of a complete one.
            **facts: Further facts to keep.
        """
        from optuna.trial import TrialState

        states = {
            "complete": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        claim.note(**facts)
        with self.lock:
            self.open().tell(claim.number, value, state=states[state])
        self.release(claim)

    def repeat(self, claim: Claim, other: Trial) -> None:
        """Give a trial the outcome of an earlier one with the same overrides."""
        for epoch, figure in other.curve.items():
            claim._handle.report(figure, epoch)
        value = other.value if other.state == "complete" else None
        self.tell(claim, other.state, value, **{SAME: other.number, FAULT: other.fault})

    def release(self, claim: Claim) -> None:
        """Let go of a trial; one whose outcome was not told is done again by whoever comes."""
        claim._lock.release()

    def abandoned(self, number: int) -> bool:
        """Tell whether a trial was begun and is not ended, and nobody works on it."""
        if self.trials[number].state != "running" or (lock := self._hold(number)) is None:
            return False
        lock.release()
        return True

    def open(self, number: int | None = None) -> optuna.Study:
        """Load the study, with the sampler that draws the trial of this number.

        It is seeded by the number: a search that was stopped goes on as if it had not been, and
        several processes do not draw the same.
        """
        import numpy as np
        import optuna

        seed = 0
        if number is not None:
            seed = int(np.random.SeedSequence([self.plan.seed, number]).generate_state(1)[0])
        # Trials that others run count as poor ones: nobody draws beside them.
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_STARTUP, constant_liar=True
        )
        return optuna.load_study(study_name=NAME, storage=self._storage, sampler=sampler)

    def _hold(self, number: int) -> FileLock | None:
        """Take a trial's own lock; None if another process or thread has it."""
        place = self.place(number)
        place.parent.mkdir(exist_ok=True)
        lock = FileLock(place.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _drawn(self, handle: optuna.Trial, lock: FileLock, *, taken_over: bool) -> Claim:
        """Draw a trial's point of the space, or what of it had not been drawn yet."""
        plan = self.plan
        whole = [d for d in plan.space if not handle.user_attrs.get(PLAIN) or d.key in plan.inside]
        for dimension in whole:
            dimension.suggest(handle)
        own = () if handle.user_attrs.get(PLAIN) else words(whole, handle.params)
        if WORDS not in handle.user_attrs:
            handle.set_user_attr(WORDS, own)
        return Claim(handle.number, own, taken_over, handle, lock)

    def _enqueue_next(self, study: optuna.Study, begun: Sequence[Any]) -> bool:
        """Put the next untried point of a small space into the queue; False if there is none."""
        tried = [trial.params for trial in begun]
        points = combinations(self.plan.space, self.plan.seed)
        point = next((point for point in points if point not in tried), None)
        if point is not None:
            study.enqueue_trial(point)
        return point is not None

    def _told(self, trial: Any) -> Trial:
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
        facts = trial.user_attrs
        return Trial(
            number=trial.number,
            state=names[trial.state.name],
            plain=bool(facts.get(PLAIN)),
            words=tuple(facts.get(WORDS, ())),
            stored=trial.params,
            value=trial.value,
            curve=dict(sorted(trial.intermediate_values.items())),
            seconds=facts.get(SECONDS, 0.0),
            fault=facts.get(FAULT, ""),
            same_as=facts.get(SAME),
        )


def is_search(folder: Path) -> bool:
    """Tell whether a search has begun in a folder."""
    return (folder / _IDENTITY).is_file()


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the complete trial with the highest figure, of equal ones the earliest."""
    figures = {t.number: t.value for t in trials if t.state == "complete" and t.value is not None}
    best = max(figures, key=lambda number: (figures[number], -number), default=None)
    return next((trial for trial in trials if trial.number == best), None)


def _check_identity(folder: Path, plan: Plan) -> None:
    """Refuse a folder that holds another search, or something that is no search."""
    path = folder / _IDENTITY
    if not path.exists():
        strangers = [p for p in folder.glob("*") if not p.name.startswith((FILE, "study", "."))]
        if strangers:
            raise RecipeError(
                f"The folder {folder} is not empty and holds no search. Choose another with --out."
            )
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RecipeError(
            f"{path} is damaged ({' '.join(str(error).split())}). Put it back, or search elsewhere "
            "(--out DIR)."
        ) from None
    if changed := differences(before, plan.identity()):
        raise RecipeError(
            f"{folder} holds another search: {', '.join(changed)} differ. Use the same command, or "
            "search elsewhere (--out DIR). Nothing was changed."
        )
