"""Loading of plug-ins that a command names: modules, imported for what they register."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from adapters.registry import RegistryError, told


def load_plugins(names: Sequence[str]) -> None:
    """Import modules for what they register.

    Args:
        names: A module's name each, importable from here, or the path of a ``.py`` file, which
            finds modules beside it.

    Raises:
        RegistryError: A module is not there, or fails while it is imported.
    """
    for name in names:
        if not name.endswith(".py") and (Path(name).is_file() or os.sep in name):
            raise RegistryError(
                f"{name} is no plug-in: it has to be a .py file, or the name of a module that "
                "Python finds. A folder with a package has to be installed, or to be on PYTHONPATH."
            )
        if name.endswith(".py") and not Path(name).is_file():
            raise RegistryError(f"There is no plug-in file {name}. Check the path.")
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                importlib.import_module(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                raise RegistryError(
                    f"There is no plug-in module {name!r}. Install it, run from its folder, or "
                    "give the path of its .py file."
                ) from None
            raise RegistryError(
                f"The plug-in {name} does not load: {told(error)}. Mend it, or leave it out."
            ) from error


def plugin_files(names: Sequence[str]) -> dict[str, str]:
    """Return the sha256 of each plug-in that is a file, by its path as the recipe has it."""
    files = (name for name in names if name.endswith(".py"))
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def _import_file(path: Path) -> None:
    # Two files of one name are two modules.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"potstill_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return
    # What it imports may lie beside it; installed packages come first.
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)
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
