"""Which versions of which models answer, and how that changes while clients ask."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from export import edge
from export.errors import ExportError
from export.serving.batching import Batcher
from export.serving.folder import NONE, ModelFolder, chosen_name, model_name, move, unreadable
from export.serving.limits import Limits, RefusedError
from export.serving.loading import BROKEN, open_bundle, reason
from export.serving.metrics import Metrics
from export.signature import check_public_key

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


class Repository:
    """The models that answer, and how they change.

    Everything that looks up or switches runs in the event loop's thread; bundles are read and
    tested in others. A switch is one assignment: a request belongs to the version that it found,
    and a version that is replaced answers what it has taken before it goes.

    Args:
        folder: Of the models.
        limits: Of the batchers.
        workers: Of each model.
        keep: So many versions of a model answer; of those, the one loaded last by default.
        metrics: Are told about batches.
        public_key: If given, the file with the key that every bundle has to be signed with.
        retain: So many versions of a model stay in the folder when one is pushed; None for all.
    """

    def __init__(
        self,
        folder: ModelFolder,
        limits: Limits,
        workers: Workers,
        keep: int = 1,
        metrics: Metrics | None = None,
        public_key: Path | None = None,
        retain: int | None = None,
    ) -> None:
        self.folder, self._retain = folder, retain
        self._limits, self._workers, self._keep = limits, workers, keep
        self._metrics, self._public_key = metrics, public_key
        self._serving: dict[str, dict[str, Served]] = {}  # the current version comes last
        self._failed: dict[tuple[str, str], str] = {}
        self._changing, self._noting = asyncio.Lock(), asyncio.Lock()
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
        found = await asyncio.to_thread(self.folder.entries)
        states = {each: reason or "not loaded" for each, reason in found.items()}
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

        Of each model in the folder the version that answered last, if it is still sound, or else
        the newest that is; others are logged and passed. What was unloaded stays so.

        Args:
            bundle: The only one, if there is no folder.
            name: What it is to be called; None for what its own name makes.

        Raises:
            BundleError: The only bundle is refused.
            SignatureError: It is not signed, or not what was signed.
            ExportError: The public key cannot be used, or the name is none.
        """
        if self._public_key:
            check_public_key(self._public_key)
        if bundle:
            if name is None:
                name = model_name(edge.read_manifest(bundle).get("name", ""))
            self._switch(self._serve(chosen_name(name), "1", self._open(bundle)))
        else:
            for place, why in self.folder.skipped():
                _log.warning("skipped", extra={"fields": {"place": place, "reason": why}})
            versions: dict[str, list[str]] = {}
            for (name, version), why in self.folder.entries().items():
                if why:
                    _log.error("model skipped", extra={"fields": {"model": name, "reason": why}})
                else:
                    versions.setdefault(name, []).append(version)
            for name, found in versions.items():
                self._start_model(name, sorted(found, key=int, reverse=True))

    def _start_model(self, name: str, versions: list[str]) -> None:
        """Let the first that is sound answer: the current one, then the newest."""
        current = self.folder.current(name)
        if current == NONE:
            return
        if current:
            versions = [current, *(each for each in versions if each != current)]
        sound = next((each for each in versions if self._try_at_start(name, each)), None)
        if current and sound != current:
            fields = {"model": name, "current": current, "version": sound or NONE}
            _log.error("current version is gone or refused", extra={"fields": fields})

    def _try_at_start(self, name: str, version: str) -> bool:
        place = None
        try:
            place = self.folder.place(name, version)
            opened = self._open(place)
        except BROKEN as error:
            self._refuse(name, version, place, error)
            return False
        self._switch(self._serve(name, version, opened))
        return True

    async def load(self, name: str, version: str | None = None) -> Served:
        """Load a version from the folder, test it, and let it answer by default.

        Args:
            name: Of the model.
            version: None for the highest.

        Raises:
            RefusedError: There is none (404), or it cannot be read or is not sound (422); what
                answered goes on.
        """
        async with self._changing:
            number, place = await self._look(self.folder.find, name, version)
            model = await self._tested(name, number, place)
            served = self._switch(self._serve(name, number, model))
            await self._remember(name)
            return served

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
            number, place = await self._look(self.folder.free, name, version)
            model = await self._tested(name, number, staged)
            await asyncio.to_thread(move, staged, place)
            model.folder = place
            served = self._switch(self._serve(name, number, model))
            await self._remember(name)
            await self._prune(name)
            return served

    async def _prune(self, name: str) -> None:
        """Remove the lowest versions that are too many, but none that answers."""
        if self._retain is None:
            return
        answer = self.versions(name)
        try:
            gone = await asyncio.to_thread(self.folder.prune, name, self._retain, answer)
        except OSError as error:
            fields = {"model": name, "reason": str(error)}
            _log.warning("old versions cannot be removed", extra={"fields": fields})
            return
        for version in gone:
            self._failed.pop((name, version), None)
            _log.info("version removed", extra={"fields": {"model": name, "version": version}})

    async def unload(self, name: str, version: str | None = None) -> None:
        """Let a model, or one version of it, answer no more; what it has taken it still answers.

        Raises:
            RefusedError: It does not answer (404), or is the one bundle of this server, which could
                not be loaded again (409).
        """
        self.folder.home(name)
        self.find(name, version)
        versions = self._serving[name]
        gone = [versions[version]] if version else list(versions.values())
        left = {number: each for number, each in versions.items() if each not in gone}
        self._serving[name] = left
        if not left:
            del self._serving[name]
        self._retire(gone)
        await self._remember(name)

    async def _remember(self, name: str) -> None:
        """Note for the next start which version answers; a folder for reading only is no error."""
        async with self._noting:  # the last to write has looked last
            version = next(reversed(self._serving.get(name, {})), None)
            try:
                await asyncio.to_thread(self.folder.remember, name, version)
            except OSError as error:
                fields = {"model": name, "version": version or NONE, "reason": str(error)}
                _log.warning("the next start will not know", extra={"fields": fields})

    async def close(self) -> None:
        """Answer what was taken, and stop."""
        self._retire(list(self.served()))
        self._serving = {}
        await asyncio.gather(*self._leaving)
        self.folder.leave()

    async def _look(
        self, look: Callable[[str, str | None], tuple[str, Path]], name: str, version: str | None
    ) -> tuple[str, Path]:
        try:
            return await asyncio.to_thread(look, name, version)
        except OSError as error:
            fields = {"model": name, "reason": str(error)}
            _log.error("folder cannot be read", extra={"fields": fields})
            raise RefusedError(422, unreadable(error)) from error

    async def _tested(self, name: str, version: str, place: Path) -> edge.Model:
        seconds = self._limits.load_seconds
        try:
            async with asyncio.timeout(seconds):  # the next bundle need not wait
                model = await _apart(self._open, place)
        except TimeoutError as error:
            slow = ExportError(f"Its test took more than {seconds:g} s, --load-seconds.")
            told = self._refuse(name, version, place, slow)
            raise RefusedError(422, f"Refused: {told}") from error
        except BROKEN as error:
            told = self._refuse(name, version, place, error)
            raise RefusedError(422, f"Refused: {told}") from error
        self._failed.pop((name, version), None)
        return model

    def _refuse(self, name: str, version: str, place: Path | None, error: Exception) -> str:
        """Note why a version does not answer: in full in the log, and what clients may know."""
        fields = {"model": name, "version": version, "reason": str(error)}
        _log.error("version refused", extra={"fields": fields})
        hidden = {self._public_key: self._public_key.name} if self._public_key else {}
        if place:  # a model may name files outside of it, which onnxruntime then names in full
            above = dict.fromkeys([each for each in place.parents if each.name], "…")
            hidden |= {place: f"{name}/{version}"} | above
        elif self.folder.root:
            hidden[self.folder.root] = "…"
        told = self._failed[name, version] = reason(error, hidden)
        return told

    def _open(self, place: Path) -> edge.Model:
        return open_bundle(place, self._workers.threads, self._public_key)

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
            task = asyncio.ensure_future(self._leave(each))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _leave(self, gone: Served) -> None:
        await gone.batcher.drained()
        # It may have been loaded again, and then counts on.
        if self._metrics and gone.version not in self._serving.get(gone.name, {}):
            self._metrics.forget(gone.name, gone.version)


async def _apart(opening: Callable[[Path], edge.Model], place: Path) -> edge.Model:
    """Open a bundle in a thread of its own, which nobody has to wait for.

    If it hangs, it takes no thread from others and does not keep the process from ending; whatever
    comes of it later is dropped, as is an error because its files are gone.
    """
    told: concurrent.futures.Future[edge.Model] = concurrent.futures.Future()
    told.set_running_or_notify_cancel()  # from here on nobody can cancel it

    def call() -> None:
        try:
            told.set_result(opening(place))
        except BaseException as error:  # of any kind: who waits has to hear of it
            told.set_exception(error)

    threading.Thread(target=call, name="load", daemon=True).start()
    return await asyncio.wrap_future(told)
