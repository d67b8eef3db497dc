"""The folder that models come from: what lies where, and what is never opened.

A model folder is ``MODELS_DIR/NAME/VERSION/`` with a bundle inside, or ``MODELS_DIR/NAME`` that is
a bundle itself, of version 1. Nothing outside of it is ever opened: names are checked, links
refused.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from export import edge
from export.console import unusable
from export.errors import ExportError
from export.parts import write_whole
from export.serving.limits import RefusedError

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION = re.compile("[1-9][0-9]{0,8}")
#: Where uploads are put together: no name of a model begins with a dot.
INCOMING = ".incoming"
#: Held by the one server that puts bundles into the folder.
_LOCK = ".lock"
#: In a model's folder: the version that answers by default, or `NONE`.
CURRENT, NONE = ".current", "none"


class ModelFolder:
    """What lies in MODELS_DIR.

    Args:
        root: The folder; None if the server has one bundle and nothing to change.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root.resolve() if root else None
        # Whoever asks next may be another thread.
        self._lock = FileLock(self.root / _LOCK, thread_local=False) if self.root else None

    def staging(self) -> Path | None:
        """Become the one server that puts bundles here, and remove what a killed upload has left.

        Returns:
            Where to make a folder to put them together; None if another process does.

        Raises:
            OSError: The folder cannot be written.
        """
        if self.root is None or self._lock is None:
            return None
        staging = self.root / INCOMING
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return None
            shutil.rmtree(staging, ignore_errors=True)
        return staging

    def leave(self) -> None:
        """Let another server put bundles here."""
        if self._lock:
            self._lock.release()

    def entries(self) -> dict[tuple[str, str], str]:
        """Return the names and versions that lie here, sound or not.

        Returns:
            For each why it cannot be read, empty if nothing is known. A model whose folder cannot
            be listed has an empty version.
        """
        found: dict[tuple[str, str], str] = {}
        for home in self._homes():
            if NAME.fullmatch(home.name):
                try:
                    found |= dict.fromkeys([(home.name, each) for each in _versions(home)], "")
                except OSError as error:
                    found[home.name, ""] = unreadable(error)
        return found

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Go through what can be no model or version and is not hidden: where it is, and why."""
        for home in self._homes():
            with suppress(OSError):  # which `entries` tells
                if reason := _misplaced(home, NAME):
                    yield home.name, reason
                elif not (home / edge.MANIFEST_FILE).exists():
                    for each in _shown(home):
                        if reason := _misplaced(each, VERSION):
                            yield f"{home.name}/{each.name}", reason

    def _homes(self) -> list[Path]:
        return _shown(self.root) if self.root else []

    def current(self, name: str) -> str | None:
        """Return the version that answered when the server stopped; `NONE` if it was unloaded.

        None if nothing usable says so.
        """
        try:
            noted = (self.home(name) / CURRENT).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
        return noted if noted == NONE or VERSION.fullmatch(noted) else None

    def remember(self, name: str, version: str | None) -> None:
        """Note which version answers, None if none does, for the next start.

        A folder that is a bundle itself has nothing to choose from and stays as it was packed.

        Raises:
            OSError: The folder cannot be written.
        """
        if self.root is None or (self.home(name) / edge.MANIFEST_FILE).exists():
            return
        write_whole(self.home(name) / CURRENT, f"{version or NONE}\n".encode())

    def home(self, name: str) -> Path:
        """Return a model's folder.

        Raises:
            RefusedError: There is one bundle and no folder to change (409), or the name is wrong
                (400).
        """
        if self.root is None:
            raise RefusedError(409, "This server has one bundle and no model folder to change.")
        return self.root / valid(NAME, name)

    def find(self, name: str, version: str | None) -> tuple[str, Path]:
        """Return a version, of None the highest, and where it lies.

        Raises:
            RefusedError: There is none (404), or its name is wrong (400).
            OSError: The model's folder cannot be read.
        """
        number = version or max(_versions(self.home(name)), key=int, default="1")
        place = self.place(name, valid(VERSION, number))
        if not place.is_dir():
            raise RefusedError(404, "This model or version is not in the model folder.")
        return number, place

    def free(self, name: str, version: str | None) -> tuple[str, Path]:
        """Return a version, of None the next, and where it would lie.

        Raises:
            RefusedError: Something is there already (409), or its name is wrong (400).
            OSError: The model's folder cannot be read.
        """
        home = self.home(name)
        if home.is_symlink() or (home / edge.MANIFEST_FILE).exists():
            raise RefusedError(
                409, "The model's folder is a link or a bundle itself: move it to NAME/1."
            )
        taken = [int(each.name) for each in _numbered(home)]
        number = version or str(1 + max(taken, default=0))
        if not version and not VERSION.fullmatch(number):
            raise RefusedError(
                409, f"Version {max(taken)} is there, and none is higher: push with --version N."
            )
        valid(VERSION, number)
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
        home = self.home(name)
        listed = sorted(_versions(home), key=int)
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
            OSError: It cannot be read.
        """
        home = self.home(name)
        place = home if (home / edge.MANIFEST_FILE).exists() and version == "1" else home / version
        inside = place.iterdir() if place.is_dir() else ()
        for each in (home, place, *inside):
            if each.is_symlink():
                raise RefusedError(
                    422, f"{each.relative_to(home.parent)} is a link: copy the files."
                )
        return place


def valid(pattern: re.Pattern[str], text: str) -> str:
    """Return a name or a version that is one.

    Raises:
        RefusedError: It is not (400).
    """
    if not pattern.fullmatch(text):
        what = "name" if pattern is NAME else "version"
        raise RefusedError(400, f"A model's {what} is {_meant(pattern)}.")
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
    if not folder.exists():
        raise ExportError(
            f"There is no folder {folder}. Name a bundle, such as runs/lora_cls/bundle, or a "
            "folder with NAME/VERSION in it."
        )
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


def unreadable(error: OSError) -> str:
    """Say to a client why a model's folder cannot be read, but not where it lies."""
    return f"The model's folder cannot be read: {error.strerror or 'the disk fails'}."


def _shown(folder: Path) -> list[Path]:
    """List what is not hidden."""
    return sorted(each for each in folder.iterdir() if not each.name.startswith("."))


def _numbered(home: Path) -> list[Path]:
    """List what is named as a version is, whatever it is."""
    if not _is_folder(home):
        return []
    return [each for each in home.iterdir() if VERSION.fullmatch(each.name)]


def _versions(home: Path) -> list[str]:
    """List the versions of a model, sound or not; none if its folder is a link or not there."""
    if _is_folder(home) and (home / edge.MANIFEST_FILE).exists():
        return ["1"]
    return [each.name for each in _numbered(home) if each.is_dir()]


def _misplaced(path: Path, pattern: re.Pattern[str]) -> str:
    """Say why something is no model, or no version; empty if it may be one."""
    if not path.is_dir():
        return "no folder"
    if pattern is NAME and path.is_symlink():
        return "a link"
    return "" if pattern.fullmatch(path.name) else f"its name is not {_meant(pattern)}"


def _meant(pattern: re.Pattern[str]) -> str:
    return "letters, digits, '.', '_' and '-'" if pattern is NAME else "a number from 1 up"


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
