"""The folder that models come from: what lies where, and what is never opened.

A model folder is ``MODELS_DIR/NAME/VERSION/`` with a bundle inside, or ``MODELS_DIR/NAME`` that is
a bundle itself, of version 1. Nothing outside of it is ever opened: names are checked, links
refused.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from export import edge
from export.console import unusable
from export.errors import ExportError
from export.parts import write_whole
from export.serving.limits import RefusedError

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION = re.compile("[1-9][0-9]{0,8}")
#: Where uploads are put together: no name of a model begins with a dot.
INCOMING = ".incoming"
#: In a model's folder: the version that answers by default, or `NONE`.
CURRENT, NONE = ".current", "none"
#: Entries of a bundle's session that name files or load providers' own: nothing that is pushed may.
_FORBIDDEN_ENTRY = re.compile(r"file|path|folder|^ep\.")
#: All go through the model at once; a bundle has a few of each label.
_GOLDEN_TEXTS = 256
#: Temperatures and offsets beyond this are no decision of any model.
_FARTHEST = 1000.0


class ModelFolder:
    """What lies in MODELS_DIR.

    Args:
        root: The folder; None if the server has one bundle and nothing to change.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root.resolve() if root else None

    def clean(self) -> None:
        """Remove what an upload that was killed has left."""
        if self.root:
            shutil.rmtree(self.root / INCOMING, ignore_errors=True)

    def entries(self) -> list[tuple[str, str]]:
        """List the names and versions that lie here, sound or not."""
        return [(name, version) for name, all_ in self._models() for version in all_]

    def _models(self) -> Iterator[tuple[str, list[str]]]:
        for home in sorted(self.root.iterdir()) if self.root else []:
            if NAME.fullmatch(home.name) and _is_folder(home):
                if (home / edge.MANIFEST_FILE).exists():
                    yield home.name, ["1"]
                else:
                    yield (
                        home.name,
                        [each.name for each in home.iterdir() if VERSION.fullmatch(each.name)],
                    )

    def current(self, name: str) -> str | None:
        """Return the version that answered when the server stopped; `NONE` if it was unloaded.

        None if nothing usable says so.
        """
        try:
            noted = (self._home(name) / CURRENT).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
        return noted if noted == NONE or VERSION.fullmatch(noted) else None

    def remember(self, name: str, version: str | None) -> None:
        """Note which version answers, None if none does, for the next start.

        A folder that is a bundle itself has nothing to choose from and stays as it was packed.

        Raises:
            OSError: The folder cannot be written.
        """
        if self.root is None or (self._home(name) / edge.MANIFEST_FILE).exists():
            return
        write_whole(self._home(name) / CURRENT, f"{version or NONE}\n".encode())

    def _home(self, name: str) -> Path:
        if self.root is None:
            raise RefusedError(409, "This server has one bundle and no model folder to change.")
        return self.root / valid(NAME, name)

    def find(self, name: str, version: str | None) -> tuple[str, Path]:
        """Return a version, of None the highest, and where it lies.

        Raises:
            RefusedError: There is none (404), or its name is wrong (400).
        """
        self._home(name)
        number = version or max(dict(self._models()).get(name, []), key=int, default="1")
        place = self.place(name, valid(VERSION, number))
        if not place.is_dir():
            raise RefusedError(404, "This model or version is not in the model folder.")
        return number, place

    def free(self, name: str, version: str | None) -> tuple[str, Path]:
        """Return a version, of None the next, and where it would lie.

        Raises:
            RefusedError: Something is there already (409), or its name is wrong (400).
        """
        home = self._home(name)
        if home.is_symlink() or (home / edge.MANIFEST_FILE).exists():
            raise RefusedError(
                409, "The model's folder is a link or a bundle itself: move it to NAME/1."
            )
        taken = dict(self._models()).get(name, [])
        number = valid(VERSION, version or str(1 + max(map(int, taken), default=0)))
        if (home / number).exists():
            raise RefusedError(409, f"Version {number} is there already: push another number.")
        return number, home / number

    def prune(self, name: str, retain: int, answer: Collection[str]) -> list[str]:
        """Remove versions of a model, the lowest first, until so many are left.

        Args:
            name: Of the model.
            retain: How many.
            answer: Versions that stay, because they answer; they count.

        Returns:
            Those that were removed.

        Raises:
            OSError: The folder cannot be written.
        """
        home = self._home(name)
        listed = sorted(dict(self._models()).get(name, []), key=int)
        found = [each for each in listed if _is_folder(home / each)]  # nobody has pushed a link
        spare = [each for each in found if each not in answer]
        gone = spare[: max(0, len(found) - retain)]
        for version in gone:
            # First out of sight, at once: a kill leaves no half of a version.
            bin_ = home.parent / INCOMING / f"{name}-{version}"
            bin_.parent.mkdir(exist_ok=True)
            (home / version).rename(bin_)
            shutil.rmtree(bin_)
        return gone

    def place(self, name: str, version: str) -> Path:
        """Return where a version lies, a folder without links.

        Raises:
            RefusedError: Something of it is a link, which may lead out of the model folder.
        """
        home = self._home(name)
        place = home if (home / edge.MANIFEST_FILE).exists() and version == "1" else home / version
        inside = place.iterdir() if place.is_dir() else ()
        for each in (home, place, *inside):
            if each.is_symlink():
                raise RefusedError(
                    422, f"{each.relative_to(home.parent)} is a link: copy the files."
                )
        return place


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Refuse a bundle.json that would have unchecked files read, or lets onnxruntime open others.

    Raises:
        BundleError: It does.
    """
    labels, files = manifest["labels"], manifest["files"]
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise edge.BundleError("bundle.json has labels that are no names, or the same twice.")
    if not 1 <= len(manifest["golden"]["texts"]) <= _GOLDEN_TEXTS:
        raise edge.BundleError(
            f"bundle.json has to have 1 to {_GOLDEN_TEXTS} recorded answers to test it with."
        )
    if missing := {edge.MODEL_FILE, edge.TOKENIZER_FILE} - files.keys():
        raise edge.BundleError(f"bundle.json has no sum of {', '.join(sorted(missing))}.")
    if wrong := sorted(name for name in files if not NAME.fullmatch(name)):
        raise edge.BundleError(f"bundle.json names the file {wrong[0][:64]!r}; a bundle is flat.")
    if wrong := sorted(filter(_FORBIDDEN_ENTRY.search, manifest["session"]["config"])):
        raise edge.BundleError(f"bundle.json sets {wrong[0][:64]!r}, which opens other files.")
    _check_by_label(manifest, "threshold", labels, 0, 1)
    _check_by_label(manifest, "offset", labels, -_FARTHEST, _FARTHEST)
    temperature = manifest.get("temperature", 1.0)
    if not _is_within(temperature, 1 / _FARTHEST, _FARTHEST):
        raise edge.BundleError("bundle.json has a temperature that is no usable number.")


def _check_by_label(
    manifest: Mapping[str, Any], what: str, labels: Sequence[str], low: float, high: float
) -> None:
    found = manifest.get(f"{what}s", {})
    if not isinstance(found, dict) or not found.keys() <= set(labels):
        raise edge.BundleError(f"bundle.json has {what}s that are not of its labels.")
    for label, number in found.items():
        if not _is_within(number, low, high):
            raise edge.BundleError(
                f"bundle.json has {'an' if what[0] == 'o' else 'a'} {what} of {label[:64]!r} that "
                f"is no number from {low:g} to {high:g}."
            )


def _is_within(number: Any, low: float, high: float) -> bool:
    # True is a number to Python, and NaN is in no range.
    return type(number) in (int, float) and low <= number <= high


def valid(pattern: re.Pattern[str], text: str) -> str:
    """Return a name or a version that is one.

    Raises:
        RefusedError: It is not (400).
    """
    if not pattern.fullmatch(text):
        what = "letters, digits, '.', '_' and '-'" if pattern is NAME else "a number from 1 up"
        raise RefusedError(400, f"A model's {'name' if pattern is NAME else 'version'} is {what}.")
    return text


def model_name(named: object) -> str:
    """Return the name that a server has for a bundle whose own name may be any text."""
    return re.sub("[^A-Za-z0-9._-]+", "-", str(named)).strip("-._")[:64] or "model"


def chosen_name(name: str) -> str:
    """Return a model's name that somebody chose.

    Raises:
        ExportError: It is none.
    """
    if not NAME.fullmatch(name):
        raise ExportError(
            f"--name {name!r} is no name of a model: 1 to 64 letters, digits, '.', '_' and '-', "
            "the first a letter or a digit."
        )
    return name


def models_folder(folder: Path) -> Path:
    """Return the folder of models that a command names.

    Raises:
        ExportError: There is none, or it cannot be read.
    """
    try:
        list(folder.iterdir())
    except OSError as error:
        raise ExportError(unusable(error)) from error
    return folder


def move(staged: Path, place: Path) -> None:
    """Move a bundle to where it is to lie: all of it at once, and to stay after a power cut.

    Raises:
        RefusedError: The disk is full, or the folder cannot be written (507).
    """
    try:
        for each in (*staged.iterdir(), staged):
            _to_disk(each)
        place.parent.mkdir(exist_ok=True)
        staged.rename(place)
        for folder in (place.parent, place.parent.parent):
            _to_disk(folder)
    except OSError as error:
        raise RefusedError(507, f"The bundle cannot be kept: {error.strerror}.") from error


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _to_disk(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on the disk."""
    if os.name != "posix" and path.is_dir():  # Windows opens no folders
        return
    opened = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
