"""One run of a comparison or a search: a command as a child process, taken up where it stopped."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import yaml

from adapters.plugins import plugin_files
from recipes.cells import Cell
from recipes.errors import RecipeError
from recipes.ledger import Ledger
from recipes.pipeline import PROGRESS, RECIPE, check_plugins
from recipes.reading import changes
from recipes.recipe import Recipe
from recipes.reuse import BASELINE, TEACHER, agrees, take_over


class BusyError(RecipeError):
    """Another process works in the folder of a run."""


@dataclass(frozen=True)
class Ended:
    """How a child process ended.

    Attributes:
        status: Its exit status; below 0 the signal that ended it.
        fault: Why it failed; empty with status 0.
    """

    status: int
    fault: str = ""


@dataclass(frozen=True)
class Run:
    """One seed of one cell.

    Attributes:
        cell: The cell.
        seed: The seed.
        recipe: What they resolve to.
        folder: The run's folder.
    """

    cell: Cell
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{self.cell.label}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """Where what the run says is kept."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def ledger(self) -> Ledger:
        """What it has measured so far.

        Raises:
            RecipeError: The file is damaged.
        """
        return Ledger(self.folder / "ledger.json")

    @property
    def progress(self) -> Mapping[str, Any]:
        """What it says of itself; nothing before it has begun."""
        try:
            return dict(json.loads((self.folder / PROGRESS).read_text("utf-8")))
        except (OSError, ValueError):
            return {}  # a damaged file is the run's own to tell

    def is_finished(self, stage: str) -> bool:
        """Tell whether a stage has finished, and what it measured is there."""
        return stage in self.progress.get("finished", []) and "teacher" in self.ledger

    def _has(self, stage: str) -> bool:
        """Tell whether a stage has finished and its rows can be read."""
        try:
            return stage in self.progress.get("finished", []) and any(
                row.stage == stage for row in self.ledger
            )
        except RecipeError:
            return False  # a damaged ledger is nothing to start from

    def check_folder(self) -> None:
        """Check that nothing else has run in the folder.

        Raises:
            RecipeError: Another recipe has, or one cannot tell.
        """
        path = self.folder / RECIPE
        if not path.exists():
            return
        try:
            before = dict(yaml.safe_load(path.read_text("utf-8")))
        except (yaml.YAMLError, TypeError, ValueError):
            raise RecipeError(
                f"{path} is damaged. Remove {self.folder}, or compare elsewhere (--out DIR)."
            ) from None
        if changed := changes(before, self.recipe):
            raise RecipeError(
                f"{self.folder} was made with another recipe: {', '.join(changed)} differ. "
                "Compare elsewhere (--out DIR), or remove that folder. Nothing was started."
            )
        check_plugins(self.progress, plugin_files(self.recipe.plugins), self.folder)

    def donor(self, runs: Sequence[Run]) -> tuple[Run, str] | None:
        """Return the first run whose finished teacher, or else baselines, this one can start from.

        Args:
            runs: All of the comparison.

        Returns:
            The run, and the last stage that is taken over of it; None if there is no such run, or
            this one has begun.
        """
        if self.folder.exists():
            return None
        for stage in (TEACHER, BASELINE):
            for run in runs:
                if run is not self and run._has(stage) and agrees(run.recipe, self.recipe, stage):
                    return run, stage
        return None

    def start(
        self,
        recipe: str,
        options: Sequence[str],
        donor: tuple[Run, str] | None = None,
        *,
        module: str = "recipes.run",
        started: Callable[[Popen[bytes]], None] | None = None,
    ) -> Ended:
        """Run the command to its end, or from where it stopped.

        Args:
            recipe: The recipe's name.
            options: Further words of the command.
            donor: From `donor`.
            module: The command.
            started: Is given the child, for whoever may want to end it from another thread.

        Raises:
            BusyError: Another process works in the folder.
        """
        command = [sys.executable, "-m", module, recipe, *self.cell.overrides]
        command += [f"seed={self.seed}", "--out", str(self.folder), *options]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._lock(log.fileno())
            if donor is not None:
                other, stage = donor
                take_over(other.folder, self.folder, self.recipe, stage)
            command += ["--resume"] if self.folder.is_dir() else []
            before = log.tell()
            # Nothing is written to its input: it ends when this process does, however it does.
            child = Popen(command, stdin=PIPE, stdout=log, stderr=log)
            try:
                if started is not None:
                    started(child)
                status = child.wait()
            except BaseException:
                child.terminate()  # a run may be ended at any time: it goes on from a checkpoint
                child.wait()
                raise
            finally:
                if child.stdin is not None:
                    child.stdin.close()
        return Ended(status, self._fault(before, status) if status else "")

    def _lock(self, log: int) -> None:
        """Lock the log. The child inherits the file and so holds the lock as long as it lives."""
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"Another process works in {self.folder}. Wait for it or stop it, or compare "
                "elsewhere (--out DIR)."
            ) from None

    def _fault(self, before: int, status: int) -> str:
        """Say why the child failed, from what it has written to the log since ``before``."""
        if status < 0:
            return f"ended by {signal.Signals(-status).name} (log: {self.log})"
        said = self.log.read_bytes()[before:].decode("utf-8", "replace").splitlines()
        lines = [line.strip() for line in said if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return f"{(errors or lines or [f'exit status {status}'])[-1]} (log: {self.log})"
