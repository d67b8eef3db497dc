"""Loading of plug-ins that a recipe or the command line names."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import Registry, strategies
from adapters.registry import told
from distill import objectives
from recipes.augmentations import augmentations
from recipes.console import say
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from recipes.recipe import Recipe


def load_plugins(names: Sequence[str]) -> None:
    """Import modules for what they register.

    Args:
        names: A module's name each, importable from here, or the path of a ``.py`` file.

    Raises:
        RecipeError: A module is not there, or fails while it is imported.
    """
    for name in names:
        if not name.endswith(".py") and (Path(name).is_file() or os.sep in name):
            raise RecipeError(
                f"{name} is no plug-in: it has to be a .py file, or the name of a module that "
                "Python finds. A folder with a package has to be installed, or to be on PYTHONPATH."
            )
        if name.endswith(".py") and not Path(name).is_file():
            raise RecipeError(f"There is no plug-in file {name}. Check the path.")
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                importlib.import_module(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                raise RecipeError(
                    f"There is no plug-in module {name!r}. Install it, run from its folder, or "
                    "give the path of its .py file."
                ) from None
            raise RecipeError(
                f"The plug-in {name} does not load: {told(error)}. Mend it, or leave it out."
            ) from error


def plugin_files(names: Sequence[str]) -> dict[str, str]:
    """Return the sha256 of each plug-in that is a file, by its path as the recipe has it."""
    files = (name for name in names if name.endswith(".py"))
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def note_rivals(recipe: Recipe) -> None:
    """Say where an installed plug-in offers a name that the recipe uses and another class has."""
    distill, imitate = recipe.distill, recipe.distill.imitate
    terms = [*distill.objectives, *(imitate.objectives if imitate is not None else ())]
    named: list[tuple[Registry[Any], Any]] = [(strategies, recipe.strategy)]
    named += [(objectives, objective) for objective in terms]
    named += [(augmentations, way) for way in (*distill.augment, *recipe.train.augment)]
    for registry, instance in named:
        for name in registry.loaded(type(instance)):
            if message := registry.rivals(name):
                _say_once(message)


@cache
def _say_once(message: str) -> None:
    say(f"note: {message}")


def _import_file(path: Path) -> None:
    # Two files of one name are two modules.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"potstill_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
