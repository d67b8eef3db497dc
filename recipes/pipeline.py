"""Running the stages in order, and taking up a run where it stopped."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from recipes.console import is_main, say
from recipes.distributed import wait
from recipes.environment import describe
from recipes.errors import RecipeError
from recipes.ledger import write_json
from recipes.reading import differences, plain
from recipes.recipe import Recipe
from recipes.stages import STAGES, Stage
from recipes.workspace import Workspace

#: The file that says which stages have finished, and on which data.
PROGRESS = "progress.json"
RECIPE = "recipe.yaml"


def prepare_folder(recipe: Recipe, folder: Path, resume: bool, from_stage: str | None) -> None:
    """Make a run's folder, or check that an existing one may be gone on with.

    Args:
        recipe: The resolved recipe.
        folder: The run's folder.
        resume: Go on at the first stage that has not finished.
        from_stage: Do this stage and all after it anew.

    Raises:
        RecipeError: The folder is there and neither was asked for; or it holds another recipe's
            run; or it cannot be written.
    """
    if not (folder / RECIPE).exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise RecipeError(
                f"The folder {folder} is not empty and holds no run. Choose another with --out."
            )
        if resume or from_stage:
            raise RecipeError(
                f"There is no run in {folder} to go on with. Leave out --resume and --from, or "
                "name the run's folder with --out."
            )
        _create(recipe, folder)
        return
    if not resume and not from_stage:
        raise RecipeError(
            f"There is a run in {folder} already. Go on with it (--resume), do a part of it anew "
            "(--from STAGE), or write elsewhere (--out DIR). Nothing was changed."
        )
    _check_same(recipe, folder, from_stage)
    if from_stage:
        _rewind(folder, from_stage)
        _write_recipe(recipe, folder)


def run_stages(work: Workspace) -> None:
    """Run every stage that has not finished yet.

    Raises:
        RecipeError: The data have changed since the run began.
    """
    if is_main():
        _check_data(work)
    wait()
    for number, stage in enumerate(STAGES, start=1):
        if stage.name in _finished(work.folder):
            say(f"[{number}/{len(STAGES)}] {stage.name}: done before")
            continue
        say(f"[{number}/{len(STAGES)}] {stage.name}")
        start = time.perf_counter()
        if stage.distributed or is_main():
            stage.run(work)
        if is_main():
            _finish(work, stage)
        wait()
        say(f"  {time.perf_counter() - start:.1f} s")


def _create(recipe: Recipe, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PROGRESS, {"finished": []})
        _write_recipe(recipe, folder)
    except OSError as error:
        raise RecipeError(
            f"The folder {folder} cannot be written: {error.strerror}. Choose another with --out."
        ) from error


def _write_recipe(recipe: Recipe, folder: Path) -> None:
    text = yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)
    head = "# The resolved recipe of this run:\n#   python -m recipes.run recipe.yaml --out …\n"
    temporary = folder / f".{RECIPE}.partial"
    temporary.write_text(head + text, encoding="utf-8")
    temporary.replace(folder / RECIPE)


def _check_same(recipe: Recipe, folder: Path, from_stage: str | None) -> None:
    """Refuse to go on with a run whose finished stages had another recipe."""
    before: dict[str, Any] = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    changed = differences(before, plain(recipe))
    names = [stage.name for stage in STAGES]
    first = names.index(from_stage) if from_stage else len(names)
    for key in changed:
        needed = next(
            index
            for index, stage in enumerate(STAGES)
            if any(key == part or key.startswith(f"{part}.") for part in stage.sections)
        )
        if needed < first:
            raise RecipeError(
                f"The run in {folder} was made with another recipe: {', '.join(changed)} differ. "
                f"Use the same recipe and overrides, do it anew from the first stage that they "
                f"change (--from {names[needed]}), or write elsewhere (--out DIR)."
            )


def _rewind(folder: Path, from_stage: str) -> None:
    """Forget a stage and all after it: first in the books, then on the disk."""
    names = [stage.name for stage in STAGES]
    kept, dropped = names[: names.index(from_stage)], STAGES[names.index(from_stage) :]
    missing = [name for name in kept if name not in _finished(folder)]
    if missing:
        raise RecipeError(
            f"The run in {folder} has not finished {missing[0]}, which comes before {from_stage}. "
            "Use --resume."
        )
    progress = _progress(folder)
    write_json(folder / PROGRESS, {**progress, "finished": kept})
    ledger = folder / "ledger.json"
    if ledger.exists():
        gone = {stage.name for stage in dropped}
        rows = json.loads(ledger.read_text(encoding="utf-8"))
        write_json(ledger, [row for row in rows if row["stage"] not in gone])
    for stage in dropped:
        for name in stage.folders:
            shutil.rmtree(folder / name, ignore_errors=True)


def _check_data(work: Workspace) -> None:
    """Remember the data of a new run; refuse other data in an old one."""
    facts = {"data": work.rows.fingerprint, "backbone": work.backbone.fingerprint}
    progress = _progress(work.folder)
    if not progress["finished"]:
        write_json(work.folder / PROGRESS, {**progress, **facts})
        write_json(work.folder / "environment.json", describe(work))
        return
    for what, value in facts.items():
        if progress[what] != value:
            raise RecipeError(
                f"The {what} changed since the run in {work.folder} began. Put the old files back "
                "and --resume, or start anew in another folder (--out DIR)."
            )


def _finish(work: Workspace, stage: Stage) -> None:
    progress = _progress(work.folder)
    done = [*progress["finished"], stage.name]
    write_json(work.folder / PROGRESS, {**progress, "finished": done})


def _finished(folder: Path) -> Sequence[str]:
    finished: list[str] = _progress(folder)["finished"]
    return finished


def _progress(folder: Path) -> dict[str, Any]:
    path = folder / PROGRESS
    try:
        progress: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{path} cannot be read ({error}). Put it back, or start anew with --out."
        ) from error
    return progress
