"""Loading of plug-ins that a recipe or the command line names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from adapters import AdapterError
from recipes.errors import RecipeError


def load_plugins(names: Sequence[str]) -> None:
    """Import modules for what they register.

    Args:
        names: A module's name each, importable from here, or the path of a ``.py`` file.

    Raises:
        RecipeError: A module is not there, or fails while it is imported.
    """
    for name in names:
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                importlib.import_module(name)
        except (AdapterError, RecipeError) as error:
            raise RecipeError(f"The plug-in {name} does not load: {error}") from error
        except ModuleNotFoundError as error:
            if error.name == name:
                raise RecipeError(
                    f"There is no plug-in module {name!r}. Install it, run from its folder, or "
                    "give the path of its .py file."
                ) from None
            raise RecipeError(f"The plug-in {name} does not load: {error}.") from error
        except Exception as error:
            raise RecipeError(
                f"The plug-in {name} does not load: {type(error).__name__}: {error}. Mend it, or "
                "leave it out of the recipe."
            ) from error


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise RecipeError(f"there is no file {path}. Check the path.")
    name = f"potstill_plugin_{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path.resolve()):
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
