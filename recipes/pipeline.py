"""Running the stages in order, and taking up a run where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adapters.plugins import plugin_files
from recipes.console import is_main, say
from recipes.distributed import wait
from recipes.environment import describe
from recipes.errors import RecipeError
from recipes.preflight import check_possible
from recipes.reading import changes, plain
from recipes.recipe import Recipe
from recipes.stages import STAGES, Stage, first_reader
from recipes.whole_files import write_json, write_text
from recipes.workspace import Workspace

#: The file that says which stages have finished, and on which data.
PROGRESS = "progress.json"
RECIPE = "recipe.yaml"
#: What is written before the recipe, which makes a folder a run.
_FIRST_FILES = {PROGRESS, "environment.json"}
_FIRST_FILES |= {f".{name}.partial" for name in (*_FIRST_FILES, RECIPE)}


def check_folder(recipe: Recipe, folder: Path, resume: bool, from_stage: str | None) -> None:
    """Check that a run may begin or go on in a folder; nothing in it is changed.

    Args:
        recipe: The resolved recipe.
        folder: The run's folder.
        resume: Go on at the first stage that has not finished.
        from_stage: Do this stage and all after it anew.

    Raises:
        RecipeError: The folder is there and neither was asked for; or it holds another recipe's
            run, or something else; or there is no run to go on with.
    """
    if (folder / RECIPE).exists():
        if not resume and not from_stage:
            raise RecipeError(
                f"There is a run in {folder} already. Go on with it (--resume), do a part of it "
                "anew (--from STAGE), or write elsewhere (--out DIR). Nothing was changed."
            )
        _check_same(recipe, folder, from_stage)
        _check_before(folder, from_stage)
        return
    # A run that died while it began has left an empty folder, or its first files.
    strangers = {path.name for path in folder.glob("*")} - _FIRST_FILES
    if strangers:
        raise RecipeError(
            f"The folder {folder} is not empty and holds no run. Choose another with --out."
        )
    if from_stage or (resume and not folder.is_dir()):
        raise RecipeError(
            f"There is no run in {folder} to go on with. Leave out --resume and --from, or name "
            "the run's folder with --out."
        )
    if resume:
        say(f"Nothing has begun in {folder} yet: this is a new run.")


def check_place(folder: Path) -> None:
    """Check that a run's folder can be made, without making it.

    Raises:
        RecipeError: It cannot.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    why = "" if there.is_dir() else f"{there} is a file"
    if not why and not os.access(there, os.W_OK | os.X_OK):
        why = f"{there} may not be written in"
    if why:
        raise RecipeError(
            f"The folder {folder} cannot be written: {why}. Choose another with --out."
        )


def make_folder(folder: Path) -> None:
    """Make a run's folder, which has passed `check_folder`.

    Raises:
        RecipeError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{PROGRESS}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RecipeError(
            f"The folder {folder} cannot be written: {error.strerror}. Choose another with --out."
        ) from error


def to_do(
    folder: Path, resume: bool, from_stage: str | None, to_stage: str | None
) -> Sequence[str]:
    """Return the names of the stages that a run would go through.

    Args:
        folder: The run's folder.
        resume: Go on at the first stage that has not finished.
        from_stage: Do this stage and all after it anew.
        to_stage: Stop after this stage; by default after the last.
    """
    names = [stage.name for stage in STAGES]
    first = names.index(from_stage) if from_stage else 0
    last = names.index(to_stage) if to_stage else len(names)
    done = _finished(folder) if resume and (folder / RECIPE).exists() else ()
    return [name for name in names[first : last + 1] if name not in done]


def run_stages(work: Workspace, from_stage: str | None = None, to_stage: str | None = None) -> None:
    """Run every stage that has not finished yet.

    Args:
        work: The run; its folder has passed `check_folder`.
        from_stage: Do this stage and all after it anew.
        to_stage: Stop after this stage; by default after the last.

    Raises:
        RecipeError: The run is not possible, or its data have changed since it began. Nothing that
            was finished is lost.
    """
    if is_main():
        check_possible(work)
        _begin(work, from_stage)
    wait()
    # Read once, while nobody writes: every process has to skip the same stages.
    finished = _finished(work.folder)
    wait()
    names = [stage.name for stage in STAGES]
    last = names.index(to_stage) if to_stage else len(names)
    for number, stage in enumerate(STAGES[: last + 1], start=1):
        if stage.name in finished:
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


def _begin(work: Workspace, from_stage: str | None) -> None:
    """Write down what the run stands on, or check that an older run stood on the same."""
    folder = work.folder
    facts = {"data": work.rows.fingerprint, "backbone": work.backbone.fingerprint}
    files = plugin_files(work.recipe.plugins)
    if not (folder / RECIPE).exists():
        write_json(folder / PROGRESS, {"finished": [], **facts, "plugins": files, **_told(work)})
        write_json(folder / "environment.json", describe(work))
        # Last: a folder with a recipe is a run that can be gone on with.
        write_recipe(work.recipe, folder)
        return
    for what, value in facts.items():
        if _progress(folder)[what] != value and from_stage != STAGES[0].name:
            raise RecipeError(
                f"The {what} changed since the run in {folder}, or one that it has taken the first "
                "stages from, began. Put the old files back and --resume, or start anew in another "
                "folder (--out DIR)."
            )
    if from_stage:
        _rewind(work, from_stage)
        told = {**facts, "plugins": files, **_told(work)}
        write_json(folder / PROGRESS, {**_progress(folder), **told})
        write_recipe(work.recipe, folder)
    else:
        check_plugins(_progress(folder), files, folder)
    write_json(folder / "environment.json", describe(work))  # of the machine that goes on


def check_plugins(progress: Mapping[str, Any], files: Mapping[str, str], folder: Path) -> None:
    """Refuse to go on with a run whose plug-in files had another content.

    Args:
        progress: What the run says of itself.
        files: From `adapters.plugins.plugin_files`, now.
        folder: The run's.

    Raises:
        RecipeError: One had.
    """
    before = progress.get("plugins", {})  # not in older runs
    if changed := [name for name in files if before.get(name, files[name]) != files[name]]:
        raise RecipeError(
            f"The plug-in {changed[0]} has changed since the run in {folder} began. Do the run "
            "anew from the first stage that the change concerns (recipes.run … --from finetune), "
            "or write elsewhere (--out DIR)."
        )


def _told(work: Workspace) -> dict[str, Any]:
    """Return what a comparison or a search wants to know of a run's rows."""
    return {
        "all_data": work.all_rows.fingerprint,
        "test": work.rows.test.fingerprint,
        "training_rows": len(work.rows.train),
    }


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe into a run's folder."""
    text = yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)
    head = "# The resolved recipe of this run:\n#   python -m recipes.run recipe.yaml --out …\n"
    write_text(folder / RECIPE, head + text)


def _check_same(recipe: Recipe, folder: Path, from_stage: str | None) -> None:
    """Refuse to go on with a run whose finished stages had another recipe."""
    try:
        before = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
        changed = changes(dict(before), recipe)
    except (yaml.YAMLError, OSError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{folder / RECIPE} is damaged ({' '.join(str(error).split())}). Put it back, or start "
            "anew in another folder (--out DIR)."
        ) from error
    names = [stage.name for stage in STAGES]
    first = names.index(from_stage) if from_stage else len(names)
    for key in changed:
        needed = first_reader(key)
        if needed < first:
            raise RecipeError(
                f"The run in {folder} was made with another recipe: {', '.join(changed)} differ. "
                f"Use the same recipe and overrides (the run's are in {folder / RECIPE}), do it "
                f"anew from the first stage that they change (--from {names[needed]}), or write "
                "elsewhere (--out DIR)."
            )


def _check_before(folder: Path, from_stage: str | None) -> None:
    """Refuse to begin at a stage before which another has not finished."""
    names = [stage.name for stage in STAGES]
    kept = names[: names.index(from_stage)] if from_stage else []
    finished = _finished(folder) if kept else ()
    if missing := [name for name in kept if name not in finished]:
        raise RecipeError(
            f"The run in {folder} has not finished {missing[0]}, which comes before {from_stage}. "
            "Use --resume."
        )


def _rewind(work: Workspace, from_stage: str) -> None:
    """Forget a stage and all after it: first in the books, then on the disk."""
    folder = work.folder
    names = [stage.name for stage in STAGES]
    kept, dropped = names[: names.index(from_stage)], STAGES[names.index(from_stage) :]
    progress = _progress(folder)
    write_json(folder / PROGRESS, {**progress, "finished": kept})
    work.ledger.drop_stages([stage.name for stage in dropped])
    for stage in dropped:
        for name in stage.folders:
            for path in folder.glob(name):
                shutil.rmtree(path, ignore_errors=True)


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
