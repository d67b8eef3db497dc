"""A bundle that comes over the network: into a file, out of the archive, into the model folder.

The archive is a tar without compression, so nothing can grow when it is opened, and flat: every
member is an ordinary file with a plain name, which bundle.json must know.
"""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from export import edge
from export.bundle import SIGNATURE_FILE
from export.serving.folder import NAME, ModelFolder
from export.serving.limits import Limits, RefusedError

MEDIA_TYPE = "application/x-tar"
_CHUNK = 1 << 20
#: More than any bundle has; each costs a file and a sum.
_MEMBERS = 100
#: bundle.json is read whole, and takes several times its size in memory.
_MANIFEST_BYTES = 16 << 20


class Uploads:
    """Takes one bundle at a time, so that the disk has to hold one more and no flood of them.

    Args:
        folder: Of the models; one server at a time takes bundles for it.
        limits: ``max_upload_bytes`` and ``upload_seconds`` are read.
    """

    def __init__(self, folder: ModelFolder, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._busy = False

    @asynccontextmanager
    async def receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Path]:
        """Take an archive and unpack it.

        Args:
            chunks: Of the archive, as they come.

        Yields:
            The folder with the bundle; what is still there afterwards is removed.

        Raises:
            RefusedError: Another upload is under way or another server takes them (503), it is too
                large (413), comes too slowly (408), is no archive of a bundle (400), or the disk is
                full (507).
        """
        if self._busy:
            raise RefusedError(
                503, "Another bundle is being uploaded: wait for it.", retry_after="5"
            )
        self._busy = True
        try:
            with _kept():
                work = await asyncio.to_thread(self._work)
            try:
                with _kept():
                    bundle = await self._unpacked(chunks, work)
                yield bundle
            finally:
                await asyncio.to_thread(_remove, work)
        finally:
            self._busy = False

    def _work(self) -> Path:
        """Make a folder of its own for an upload."""
        staging = self._folder.staging()
        if staging is None:
            raise RefusedError(
                503,
                "Another server takes the bundles for this model folder: push to it, or stop it.",
                retry_after="5",
            )
        staging.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(dir=staging))

    async def _unpacked(self, chunks: AsyncIterator[bytes], work: Path) -> Path:
        archive, bundle = work / "archive", work / "bundle"
        await self._write(chunks, archive)
        await asyncio.to_thread(unpack, archive, bundle, self._limits.max_upload_bytes)
        archive.unlink()
        return bundle

    async def _write(self, chunks: AsyncIterator[bytes], archive: Path) -> None:
        size, pending = 0, bytearray()
        with archive.open("xb") as file:
            try:
                async with asyncio.timeout(self._limits.upload_seconds):
                    async for chunk in chunks:
                        size += len(chunk)
                        if size > self._limits.max_upload_bytes:
                            raise too_large(self._limits)
                        pending += chunk
                        if len(pending) >= _CHUNK:
                            await asyncio.to_thread(file.write, bytes(pending))
                            pending.clear()
            except TimeoutError:
                seconds = self._limits.upload_seconds
                raise RefusedError(
                    408, f"The upload took more than {seconds:g} s.", connection="close"
                ) from None
            await asyncio.to_thread(file.write, bytes(pending))


@contextmanager
def _kept() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RefusedError(507, f"The upload cannot be kept: {error.strerror}.") from error


def _remove(work: Path) -> None:
    """Remove the folder of one upload, and what uploads lie in once there are no others."""
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):
        work.parent.rmdir()


def too_large(limits: Limits) -> RefusedError:
    """Return what a bundle that is too large is told."""
    return RefusedError(
        413,
        f"The bundle is larger than {limits.max_upload_bytes} bytes, the server's "
        "--max-upload-bytes.",
    )


def unpack(archive: Path, bundle: Path, limit: int) -> None:
    """Write the files of an archive into a new folder.

    Args:
        archive: A tar without compression.
        bundle: The folder; it must not be there.
        limit: Bytes that all files may have together.

    Raises:
        RefusedError: It is no such archive, has anything but plain files with plain names, or has
            not exactly the files that its bundle.json names (400).
    """
    bundle.mkdir()
    with _readable(archive) as tar:
        for count, member in enumerate(tar):
            if not member.isreg() or member.issparse() or not NAME.fullmatch(member.name):
                raise RefusedError(
                    400,
                    f"The archive has {member.name[:80]!r}: only plain files with plain names are "
                    "taken, no folders, links or paths.",
                )
            limit -= member.size
            if member.name == edge.MANIFEST_FILE and member.size > _MANIFEST_BYTES:
                raise RefusedError(400, f"bundle.json has more than {_MANIFEST_BYTES} bytes.")
            if count >= _MEMBERS or limit < 0:
                raise RefusedError(400, "The archive has more or larger files than a bundle has.")
            source = tar.extractfile(member)
            if source is None or (bundle / member.name).exists():
                raise RefusedError(400, f"The archive has {member.name!r} twice.")
            with source, (bundle / member.name).open("xb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
    _check_names(bundle)


def _check_names(bundle: Path) -> None:
    try:
        files = edge.read_manifest(bundle)["files"]
        if not isinstance(files, dict):
            raise TypeError("its files are no object")
        known = {edge.MANIFEST_FILE, *files}
        known |= {SIGNATURE_FILE} & {path.name for path in bundle.iterdir()}
    except (edge.BundleError, KeyError, TypeError) as error:
        message = str(error).replace(str(bundle), "the archive")
        raise RefusedError(400, f"The archive is not a bundle: {message}") from error
    if different := sorted(known ^ {path.name for path in bundle.iterdir()}):
        raise RefusedError(
            400, f"The archive and its bundle.json do not fit: {', '.join(different)[:200]}."
        )


@contextmanager
def _readable(archive: Path) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as file:
        try:
            with tarfile.open(fileobj=_Bounded(file), mode="r:") as tar:
                yield tar
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise RefusedError(400, f"The body is not a plain tar archive: {error}.") from error


class _Bounded:
    """A file that is read in pieces: an extended header may claim any size, and is read whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError("a header is too large")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
