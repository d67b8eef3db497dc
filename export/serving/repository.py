"""Which versions of which models answer, and the folder that they come from.

A model folder is ``MODELS_DIR/NAME/VERSION/`` with a bundle inside, or ``MODELS_DIR/NAME`` that is
a bundle itself, of version 1. Nothing outside of it is ever opened: names are checked, links
refused.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import edge
from export.console import unusable
from export.errors import ExportError, SignatureError
from export.serving.batching import Batcher
from export.serving.limits import Limits, RefusedError
from export.serving.metrics import Metrics
from export.signature import check_public_key, verify

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION = re.compile("[1-9][0-9]{0,8}")
#: Where uploads are put together: no name of a model begins with a dot.
INCOMING = ".incoming"
#: Entries of a bundle's session that name files or load providers' own: nothing that is pushed may.
_FORBIDDEN_ENTRY = re.compile(r"file|path|folder|^ep\.")
_log = logging.getLogger("potstill.repository")


@dataclass(frozen=True)
class Workers:
    """How the processor is shared.

    Attributes:
        count: Batches of one model at once.
        threads: Within one batch; None for what the bundle says.
    """

    count: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Served:
    """A version of a model that answers."""

    name: str
    version: str
    model: edge.Model
    batcher: Batcher

    @property
    def labels(self) -> list[str]:
        """Return the labels in the order of the probabilities."""
        return self.model.labels


class Repository:
    """The models that answer, and how they change.

    Everything that looks up or switches runs in the event loop's thread; bundles are read and
    tested in others. A switch is one assignment: a request belongs to the version that it found,
    and a version that is replaced answers what it has taken before it goes.

    Args:
        folder: MODELS_DIR; None if there is only one bundle, which never changes.
        limits: Of the batchers.
        workers: Of each model.
        keep: So many versions of a model answer; of those, the one loaded last by default.
        metrics: Are told about batches.
        public_key: If given, the file with the key that every bundle has to be signed with.
    """

    def __init__(
        self,
        folder: Path | None,
        limits: Limits,
        workers: Workers,
        keep: int = 1,
        metrics: Metrics | None = None,
        public_key: Path | None = None,
    ) -> None:
        self.folder = folder.resolve() if folder else None
        self._limits, self._workers, self._keep = limits, workers, keep
        self._metrics, self._public_key = metrics, public_key
        self._serving: dict[str, dict[str, Served]] = {}  # the current version comes last
        self._failed: dict[tuple[str, str], str] = {}
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    # --- Looking up -------------------------------------------------------------------------

    def find(self, name: str | None, version: str | None = None) -> Served:
        """Return what answers for a model.

        Args:
            name: May be None if there is one model only.
            version: None for the current one.

        Raises:
            RefusedError: Nothing does (404), or the name is needed (400).
        """
        if name is None:
            if len(self._serving) != 1:
                names = ", ".join(sorted(self._serving)) or "none"
                raise RefusedError(400, f"Name the model; those that answer: {names}.")
            (name,) = self._serving
        versions = self._serving.get(name)
        if not versions:
            raise RefusedError(
                404, "No model of this name answers. POST /v2/repository/index lists."
            )
        if version is None:
            return next(reversed(versions.values()))
        if version not in versions:
            raise RefusedError(
                404, f"This version does not answer; these do: {', '.join(versions)}."
            )
        return versions[version]

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that answer, the current one last."""
        return list(self._serving.get(name, ()))

    def served(self) -> Iterator[Served]:
        """Go through everything that answers."""
        for versions in self._serving.values():
            yield from versions.values()

    async def index(self) -> list[dict[str, str]]:
        """List every version that answers, lies in the folder, or has failed."""
        states = dict.fromkeys(await asyncio.to_thread(self._on_disk), "not loaded")
        states |= self._failed | {(each.name, each.version): "" for each in self.served()}
        return [
            {
                "name": name,
                "version": version,
                "state": "UNAVAILABLE" if reason else "READY",
                "reason": reason,
            }
            for (name, version), reason in sorted(states.items())
        ]

    # --- Changing ---------------------------------------------------------------------------

    def start(self, bundle: Path | None = None, name: str | None = None) -> None:
        """Load what there is, before anything is served.

        Of each model in the folder the newest version that is sound; others are logged and passed.

        Args:
            bundle: The only one, if there is no folder.
            name: What it is to be called.

        Raises:
            BundleError: The only bundle is refused.
            SignatureError: It is not signed, or not what was signed.
            ExportError: The public key cannot be used.
        """
        if self._public_key:
            check_public_key(self._public_key)
        if bundle:
            name = name or re.sub("[^A-Za-z0-9._-]", "-", edge.read_manifest(bundle)["name"])[:64]
            self._switch(self._serve(valid(NAME, name), "1", self._open(bundle)))
        elif self.folder:
            shutil.rmtree(self.folder / INCOMING, ignore_errors=True)  # of a run that was killed
            for name, version in sorted(
                self._on_disk(), key=lambda entry: (entry[0], -int(entry[1]))
            ):
                if name not in self._serving:
                    self._try_at_start(name, version)

    def _try_at_start(self, name: str, version: str) -> None:
        try:
            opened = self._open(self._place(name, version))
        except (edge.BundleError, RefusedError, SignatureError) as error:
            self._failed[name, version] = str(error)
            fields = {"model": name, "version": version, "reason": str(error)}
            _log.error("version refused", extra={"fields": fields})
        else:
            self._switch(self._serve(name, version, opened))

    async def load(self, name: str, version: str | None = None) -> Served:
        """Load a version from the folder, test it, and let it answer by default.

        Args:
            name: Of the model.
            version: None for the highest.

        Raises:
            RefusedError: There is none (404), or it is not sound (422); what answered goes on.
        """
        async with self._changing:
            number, place = await asyncio.to_thread(self._find_on_disk, name, version)
            model = await self._tested(name, number, place)
            return self._switch(self._serve(name, number, model))

    async def add(self, staged: Path, name: str, version: str | None = None) -> Served:
        """Test a bundle that was uploaded, move it into the folder and let it answer by default.

        Args:
            staged: The bundle, in a folder on the same file system.
            name: Of the model.
            version: None for the one after the highest.

        Raises:
            RefusedError: It is not sound (422), or the version or a bundle is there already (409);
                what answered goes on, and the folder is as it was.
        """
        async with self._changing:
            number, place = await asyncio.to_thread(self._free_place, name, version)
            model = await self._tested(name, number, staged)
            await asyncio.to_thread(_move, staged, place)
            model.folder = place
            return self._switch(self._serve(name, number, model))

    async def unload(self, name: str, version: str | None = None) -> None:
        """Let a model, or one version of it, answer no more; what it has taken it still answers.

        Raises:
            RefusedError: It does not answer (404).
        """
        async with self._changing:
            self.find(name, version)
            versions = self._serving[name]
            gone = [versions[version]] if version else list(versions.values())
            left = {number: each for number, each in versions.items() if each not in gone}
            self._serving[name] = left
            if not left:
                del self._serving[name]
            self._retire(gone)

    async def close(self) -> None:
        """Answer what was taken, and stop."""
        self._retire(list(self.served()))
        self._serving = {}
        await asyncio.gather(*self._leaving)

    async def _tested(self, name: str, version: str, place: Path) -> edge.Model:
        try:
            model = await asyncio.to_thread(self._open, place)
        except (edge.BundleError, RefusedError, SignatureError) as error:
            reason = str(error).replace(str(place), f"{name}/{version}")
            self._failed[name, version] = reason
            raise RefusedError(422, f"Refused: {reason}") from error
        self._failed.pop((name, version), None)
        return model

    def _open(self, place: Path) -> edge.Model:
        """Read a bundle, check its signature, every byte of it and every recorded answer.

        Raises:
            BundleError: It is not sound.
            SignatureError: It is not signed, or not what was signed.
        """
        if self._public_key:
            verify(place, self._public_key)
        try:
            check_manifest(edge.read_manifest(place))
            model = edge.Model(place, self._workers.threads)
            failed = [each.message for each in model.check_golden() if not each.passed]
        except edge.BundleError:
            raise
        except Exception as error:  # its fields may be of any type, with a right sum over them
            raise edge.BundleError(f"bundle.json is malformed: {error!r}"[:300]) from error
        if failed:
            raise edge.BundleError(f"The self-test failed. {failed[0]}")
        return model

    def _serve(self, name: str, version: str, model: edge.Model) -> Served:
        observer = self._metrics.of_model(name, version) if self._metrics else None
        batcher = Batcher(model, self._limits, self._workers.count, observer)
        return Served(name, version, model, batcher)

    def _switch(self, new: Served) -> Served:
        versions = dict(self._serving.get(new.name, {}))
        old = [versions.pop(new.version)] if new.version in versions else []
        versions[new.version] = new
        while len(versions) > self._keep:
            old.append(versions.pop(next(iter(versions))))
        self._serving[new.name] = versions
        self._failed.pop((new.name, new.version), None)
        self._retire(old)
        fields = {"model": new.name, "version": new.version}
        _log.info("version answers", extra={"fields": fields})
        return new

    def _retire(self, gone: list[Served]) -> None:
        for each in gone:
            each.batcher.close()
            task = asyncio.ensure_future(each.batcher.drained())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    # --- The folder -------------------------------------------------------------------------

    def _on_disk(self) -> list[tuple[str, str]]:
        return [(name, version) for name, all_ in self._versions_on_disk() for version in all_]

    def _versions_on_disk(self) -> Iterator[tuple[str, list[str]]]:
        for home in sorted(self.folder.iterdir()) if self.folder else []:
            if NAME.fullmatch(home.name) and home.is_dir() and not home.is_symlink():
                if (home / edge.MANIFEST_FILE).exists():
                    yield home.name, ["1"]
                else:
                    yield (
                        home.name,
                        [each.name for each in home.iterdir() if VERSION.fullmatch(each.name)],
                    )

    def _home(self, name: str) -> Path:
        if self.folder is None:
            raise RefusedError(409, "This server has one bundle and no model folder to change.")
        return self.folder / valid(NAME, name)

    def _find_on_disk(self, name: str, version: str | None) -> tuple[str, Path]:
        self._home(name)
        number = version or max(dict(self._versions_on_disk()).get(name, []), key=int, default="1")
        place = self._place(name, valid(VERSION, number))
        if not place.is_dir():
            raise RefusedError(404, "This model or version is not in the model folder.")
        return number, place

    def _free_place(self, name: str, version: str | None) -> tuple[str, Path]:
        home = self._home(name)
        if home.is_symlink() or (home / edge.MANIFEST_FILE).exists():
            raise RefusedError(
                409, "The model's folder is a link or a bundle itself: move it to NAME/1."
            )
        taken = dict(self._versions_on_disk()).get(name, [])
        number = valid(VERSION, version or str(1 + max(map(int, taken), default=0)))
        if (home / number).exists():
            raise RefusedError(409, f"Version {number} is there already: push another number.")
        return number, home / number

    def _place(self, name: str, version: str) -> Path:
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
    if not manifest["golden"]["texts"]:
        raise edge.BundleError("bundle.json has no recorded answer to test it with.")
    if missing := {edge.MODEL_FILE, edge.TOKENIZER_FILE} - files.keys():
        raise edge.BundleError(f"bundle.json has no sum of {', '.join(sorted(missing))}.")
    if wrong := sorted(name for name in files if not NAME.fullmatch(name)):
        raise edge.BundleError(f"bundle.json names the file {wrong[0][:64]!r}; a bundle is flat.")
    if wrong := sorted(filter(_FORBIDDEN_ENTRY.search, manifest["session"]["config"])):
        raise edge.BundleError(f"bundle.json sets {wrong[0][:64]!r}, which opens other files.")


def valid(pattern: re.Pattern[str], text: str) -> str:
    """Return a name or a version that is one.

    Raises:
        RefusedError: It is not (400).
    """
    if not pattern.fullmatch(text):
        what = "letters, digits, '.', '_' and '-'" if pattern is NAME else "a number from 1 up"
        raise RefusedError(400, f"A model's {'name' if pattern is NAME else 'version'} is {what}.")
    return text


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


def _move(staged: Path, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    staged.rename(place)
