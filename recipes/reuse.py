"""A run that starts from what another run has finished instead of computing the same again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from recipes.ledger import Ledger
from recipes.pipeline import PROGRESS, write_recipe
from recipes.reading import differences, plain
from recipes.recipe import Recipe
from recipes.stages import SIGNALS, STAGES, first_reader
from recipes.whole_files import write_json

#: The last stages that two runs may share: all up to the teacher, or what is known without one.
TEACHER, BASELINE = "merge", "baseline"
_NAMES = [stage.name for stage in STAGES]
#: What belongs to single rows of the ledger and may be written over: no link, but a copy.
_BY_ROW = ("predictions", "curves")


def agrees(one: Recipe, other: Recipe, stage: str) -> bool:
    """Tell whether up to a stage all rows of two recipes agree.

    Args:
        one: A recipe.
        other: Another.
        stage: `TEACHER`, or `BASELINE`, which a seed changes only where it draws rows.
    """
    changed = set(differences(plain(one), plain(other)))
    models = {"distill.student.model", "distill.others", "distill.teachers"}
    if models & changed and one.data.max_length is None:
        return False  # the shortest limit of all models cuts all texts
    if stage == BASELINE:
        drawn = one.data.fraction < 1 or one.data.per_class is not None
        if not (drawn and one.data.draw_seed is None) and one.phases is None:
            changed -= {"seed"}
    elif "distill.train.precision" in changed:  # a machine without it says so in the teacher's row
        return False
    return all(first_reader(key) > _NAMES.index(stage) for key in changed)


def take_over(other: Path, folder: Path, recipe: Recipe, stage: str) -> None:
    """Make the folder of a run that has finished everything up to a stage.

    Models are hard links where the file system has them. An interruption leaves no folder that
    could be taken for a run.

    Args:
        other: The folder of a run that has finished the stage.
        folder: The new run's folder, which must not be there yet.
        recipe: The new run's recipe; see `agrees`.
        stage: `TEACHER` or `BASELINE`.
    """
    last = _NAMES.index(stage) + 1
    finished, later = _NAMES[:last], _NAMES[last:]
    folders = [name for shared in STAGES[:last] for name in shared.folders]
    if stage == TEACHER:
        folders.append(SIGNALS)  # what the teacher has answered
    made = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for name in (name for name in folders if (other / name).is_dir()):
        shutil.copytree(other / name, made / name, copy_function=_link)
    shutil.copy2(other / "ledger.json", made)
    ledger = Ledger(made / "ledger.json")
    dropped = {row.name for row in ledger if row.stage in later}
    ledger.drop_stages(later)
    for part in (part for part in _BY_ROW if (other / part).is_dir()):
        (made / part).mkdir()
        for path in (path for path in (other / part).iterdir() if path.stem not in dropped):
            shutil.copy2(path, made / part)
    progress = json.loads((other / PROGRESS).read_text(encoding="utf-8"))
    write_json(made / PROGRESS, {**progress, "finished": finished})
    write_recipe(recipe, made)
    made.rename(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
