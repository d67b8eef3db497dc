"""Teachers that each have not seen a part of the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.files import save_adapter
from adapters.merge import merge_adapter
from adapters.strategy import prepare
from recipes.console import is_main
from recipes.contrast import bring_together
from recipes.distributed import wait
from recipes.errors import RecipeError
from recipes.tasks import Split
from recipes.tasks.wording import counted
from recipes.texts import training_rows
from recipes.training import fit_adapter, set_dropout
from recipes.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Written when a fold's teacher is whole.
_MARK = "whole"


def fold_teachers(work: Workspace, count: int) -> tuple[list[PreTrainedModel], Sequence[int]]:
    """Train a teacher for each fold on the rows of all others, as the recipe's teacher was trained.

    Folds that were finished before the run was cut off are loaded.

    Args:
        work: The run.
        count: How many folds.

    Returns:
        The teachers as plain weights, and the fold of each training row; teacher ``i`` has seen
        no row of fold ``i`` and nothing that was made of one.

    Raises:
        RecipeError: There are fewer rows of a label than folds.
    """
    fold_of = drawn(work, count)
    validation = work.examples("validation", work.tokenizer)
    models = []
    for fold in range(count):
        folder = work.folder / "folds" / str(fold)
        whole = (folder / _MARK).exists()
        wait()
        if not whole:
            backbone = work.load(work.quantization)
            set_dropout(backbone, work.recipe.train.dropout)
            model = prepare(backbone, work.strategy)
            rows = _rows(work, [place for place, own in enumerate(fold_of) if own != fold])
            title = f"fold {fold + 1} of {count}"
            bring_together(work, model, rows, title, folder)
            seen = work.task.features(rows, work.tokenizer, work.max_length)
            fit_adapter(work, model, seen, validation, title=title, folder=folder)
            if is_main():
                save_adapter(folder, model, work.strategy, work.rows.labels)
                _merge(work, folder).save_pretrained(folder / "merged")
                (folder / _MARK).touch()
            wait()
        models.append(work.load(path=folder / "merged"))
    return models, fold_of


def _rows(work: Workspace, places: Sequence[int]) -> Split:
    """Return some training rows, and what the teacher's training makes of them."""
    rows = work.rows.train
    part = Split([rows.texts[place] for place in places], [rows.labels[place] for place in places])
    return training_rows(work, work.recipe.train, part)


def drawn(work: Workspace, count: int) -> Sequence[int]:
    """Return the fold of each training row, every label in its share.

    Raises:
        RecipeError: There are fewer rows of a label than folds.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    rows = work.rows.train
    if work.rows.problem not in ("single_label", "ordinal"):
        order = np.random.default_rng(work.recipe.seed).permutation(len(rows))
        return [int(place) % count for place in order]
    rare = min(set(rows.labels), key=rows.labels.count)
    if (there := list(rows.labels).count(rare)) < count:
        way = f"Set distill.folds={there} or less, or leave it out" if there > 1 else "Leave it out"
        raise RecipeError(
            f"distill.folds={count}, but the label {work.rows.labels[rare]!r} has "
            f"{counted(there, 'training row')}, fewer than folds. {way}."
        )
    fold_of = np.zeros(len(rows), int)
    split = StratifiedKFold(count, shuffle=True, random_state=work.recipe.seed)
    for fold, (_, left_out) in enumerate(split.split(rows.texts, rows.labels)):
        fold_of[left_out] = fold
    return [int(fold) for fold in fold_of]


def _merge(work: Workspace, folder: Path) -> PreTrainedModel:
    return merge_adapter(
        folder,
        work.load,
        work.strategy,
        work.rows.labels,
        into=work.recipe.merge.into,
        quantization=work.quantization,
    )
