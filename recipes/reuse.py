"""A run that starts from another run's teacher instead of training the same one again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from recipes.ledger import Ledger, write_json
from recipes.pipeline import PROGRESS, write_recipe
from recipes.reading import differences, plain
from recipes.recipe import Recipe
from recipes.stages import SIGNALS, STAGES

#: The last stage that is shared.
TEACHER = "merge"
_SHARED = STAGES[: [stage.name for stage in STAGES].index(TEACHER) + 1]
_LATER = STAGES[len(_SHARED) :]
#: Folders that are taken over: those of the shared stages, and what the teacher has answered.
_FOLDERS = (*(name for stage in _SHARED for name in stage.folders), SIGNALS)
#: What belongs to single rows of the ledger and may be written over: no link, but a copy.
_BY_ROW = ("predictions", "curves")


def same_teacher(one: Recipe, other: Recipe) -> bool:
    """Tell whether two recipes train the same teacher: up to the merge all of their rows agree."""
    changed = differences(plain(one), plain(other))
    if "distill.train.precision" in changed:  # a machine without it says so in the teacher's row
        return False
    others = {"distill.student.model", "distill.teachers"}
    if others & set(changed) and one.data.max_length is None:
        return False  # the shortest limit of all models cuts the teacher's texts too
    return all(any(stage.reads(key) for stage in _LATER) for key in changed)


def take_teacher(other: Path, folder: Path, recipe: Recipe) -> None:
    """Make the folder of a run that has finished everything up to the merge.

    Models are hard links where the file system has them. An interruption leaves no folder that
    could be taken for a run.

    Args:
        other: The folder of a run that has finished the merge.
        folder: The new run's folder, which must not be there yet.
        recipe: The new run's recipe; see `same_teacher`.
    """
    made = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for name in (name for name in _FOLDERS if (other / name).is_dir()):
        shutil.copytree(other / name, made / name, copy_function=_link)
    shutil.copy2(other / "ledger.json", made)
    ledger = Ledger(made / "ledger.json")
    later = {row.name for row in ledger if row.stage in {stage.name for stage in _LATER}}
    ledger.drop_stages([stage.name for stage in _LATER])
    for part in _BY_ROW:
        (made / part).mkdir()
        for path in (path for path in (other / part).iterdir() if path.stem not in later):
            shutil.copy2(path, made / part)
    finished = [stage.name for stage in _SHARED]
    progress = json.loads((other / PROGRESS).read_text(encoding="utf-8"))
    write_json(made / PROGRESS, {**progress, "finished": finished})
    write_recipe(recipe, made)
    made.rename(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
