"""The file that holds a study, and what the process that trains asks of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.errors import RecipeError

if TYPE_CHECKING:
    import optuna

#: Name of the study, and of its file in the search's folder.
NAME, FILE = "search", "study.db"
#: The fact that a trial is the recipe as it stands.
PLAIN = "plain"
PRUNERS = ("median", "halving", "none")
#: Trials that have to be complete before one is ended for being poor.
_JUDGED = 4


def check_optuna() -> None:
    """Check that Optuna can be used, and keep it from talking over the search.

    Raises:
        RecipeError: It is not installed.
    """
    try:
        import optuna
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise RecipeError(
            f"{error.name} is not installed, which a search needs: pip install 'potstill[tune]'."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_storage(folder: Path) -> optuna.storages.BaseStorage:
    """Open the file that holds a study.

    Raises:
        RecipeError: Optuna is missing, or the file is damaged.
    """
    check_optuna()
    import optuna
    from sqlalchemy.exc import DatabaseError

    path = (folder / FILE).absolute()
    try:
        # Several processes write for moments each: they wait for one another.
        return optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 120}}
        )
    except DatabaseError as error:
        raise RecipeError(
            f"{path} cannot be read ({error.orig}). Put it back, or search elsewhere (--out DIR)."
        ) from None


def judge(folder: Path, number: int, pruner: str) -> Callable[[int, float], bool]:
    """Return a function that notes the figure of an epoch of a trial and tells if it is poor.

    Args:
        folder: The search's folder.
        number: The trial's number. The recipe as it stands is never poor.
        pruner: One of `PRUNERS`.
    """
    import optuna

    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=_JUDGED),
        "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        "none": optuna.pruners.NopPruner(),
    }
    study = optuna.load_study(study_name=NAME, storage=open_storage(folder), pruner=pruners[pruner])

    def poor(epoch: int, value: float) -> bool:
        trial = running(study, number)
        if epoch not in study.get_trials(deepcopy=False)[number].intermediate_values:
            trial.report(value, epoch)
        return trial.should_prune() and not trial.user_attrs.get(PLAIN)

    return poor


def running(study: optuna.Study, number: int) -> optuna.Trial:
    """Return the handle of a trial that is running already."""
    import optuna

    return optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
