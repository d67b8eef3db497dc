"""A folder that appears complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import ExportError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Build a folder beside its place, and move it there once it is complete.

    Args:
        target: Where to; nothing may be there.

    Yields:
        An empty, hidden folder beside ``target`` to write into.

    Raises:
        ExportError: Something is there already, or the place cannot be written to.
    """
    if target.exists() or target.is_symlink():
        raise ExportError(f"{target} is there already. Name another folder, or move it away.")
    building = target.parent / f".{target.name}.part"
    try:
        shutil.rmtree(building, ignore_errors=True)  # of a run that was killed
        building.mkdir(parents=True)
        yield building
        building.rename(target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
