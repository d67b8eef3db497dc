"""A model folder with what does not belong there, that cannot be read, or of two servers."""

from __future__ import annotations

import asyncio
import http.client
import io
import shutil
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import make_bundle
from tiny_server import AUTHORIZED, TOKEN, Address, running

from export import push
from export.serving import loading, repository, upload
from export.serving.folder import ModelFolder
from export.serving.limits import Limits, RefusedError

PUSH = "/v2/repository/models/new/push"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("packed") / "tiny")


@pytest.fixture
def models(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle, tmp_path / "models" / "tiny" / "1")
    return tmp_path / "models"


def packed(bundle: Path) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:") as tar:
        for path in bundle.iterdir():
            if path.suffix != ".onnx" or path.name == "model.onnx":
                tar.add(path, path.name)
    return raw.getvalue()


def incoming(models: Path) -> list[Path]:
    return list((models / ".incoming").glob("*"))


def told(caplog: pytest.LogCaptureFixture, level: str) -> list[dict[str, Any]]:
    """Return the fields of what was logged."""
    return [vars(each).get("fields", {}) for each in caplog.records if each.levelname == level]


def states(server: Address) -> dict[tuple[str, str], str]:
    index = server.ask("/v2/repository/index", b"").content
    return {(each["name"], each["version"]): each["reason"] or each["state"] for each in index}


def test_an_upload_is_removed_before_the_next_one_is_taken(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing, go_on = threading.Event(), threading.Event()
    folder = ModelFolder(tmp_path)
    uploads = upload.Uploads(folder, Limits())
    folder.staging()

    def remove(*arguments: Any, **options: Any) -> None:
        removing.set()
        go_on.wait(10)
        shutil_rmtree(*arguments, **options)

    async def chunks() -> AsyncIterator[bytes]:
        yield packed(bundle)

    async def receive() -> int:
        async with uploads.receive(chunks()) as found:
            return len(list(found.iterdir()))

    async def twice() -> None:
        monkeypatch.setattr(upload.shutil, "rmtree", remove)
        first = asyncio.create_task(receive())
        assert await asyncio.to_thread(removing.wait, 10)
        with pytest.raises(RefusedError, match="Another bundle is being uploaded"):
            await receive()
        (tmp_path / ".incoming" / "of another").mkdir()
        go_on.set()
        files = await first
        assert incoming(tmp_path) == [tmp_path / ".incoming" / "of another"]
        assert await receive() == files > 3

    shutil_rmtree = shutil.rmtree
    asyncio.run(twice())


def test_a_second_server_leaves_the_first_ones_upload_alone(
    models: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (models / ".incoming" / "left by a kill").mkdir(parents=True)
    whole = packed(bundle)
    with running(models) as first:
        assert not incoming(models)
        client = http.client.HTTPConnection("127.0.0.1", first.port, timeout=10)
        client.putrequest("POST", PUSH)
        client.putheader("authorization", f"Bearer {TOKEN}")
        client.putheader("content-length", str(len(whole)))
        client.endheaders(whole[:1000])
        while not incoming(models):
            time.sleep(0.01)
        assert not told(caplog, "WARNING")
        with running(models) as second:
            (fields,) = told(caplog, "WARNING")
            assert "another server takes them" in fields["reason"]
            reply = second.ask(PUSH, whole, **AUTHORIZED)
            assert (reply.status, "retry-after" in reply.headers) == (503, True)
            assert "Another server" in reply.content["error"]
            assert second.ask("/predict", {"text": "Who?"}).status == 200
            client.send(whole[1000:])
            assert client.getresponse().status == 200
            client.close()
            first.server.should_exit = True
            until = time.monotonic() + 10
            while (status := second.ask(PUSH, whole, **AUTHORIZED).status) == 503:
                assert time.monotonic() < until
                time.sleep(0.05)
            assert status == 200


def test_a_load_that_hangs_holds_up_no_stop_and_what_comes_of_it_is_dropped(
    models: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, ended = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)

    def slow(place: Path, *arguments: Any) -> Any:
        begun.release()
        go_on.wait(30)
        try:
            return loading.open_bundle(place, *arguments)
        finally:
            ended.release()

    found: list[int] = []
    with running(models, "--load-seconds", "0.3", "--drain-seconds", "0.3") as server:
        monkeypatch.setattr(repository, "open_bundle", slow)
        assert push.push(bundle, server.url, TOKEN, name="new")[0] == 422
        assert not incoming(models)
        client = threading.Thread(target=lambda: found.append(server.change("tiny/load").status))
        client.start()
        assert begun.acquire(timeout=10)
        assert begun.acquire(timeout=10)
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 10
    client.join()
    assert found[0] in (422, 503)
    before = len(caplog.records)
    go_on.set()
    assert ended.acquire(timeout=10)  # one reads what was removed, one is sound
    assert ended.acquire(timeout=10)
    time.sleep(0.1)
    assert [each.message for each in caplog.records[before:]] == []


def test_a_folder_that_cannot_be_read_holds_up_no_other(
    models: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(bundle, models / "locked" / "1")
    shutil.copytree(bundle, models / "tiny" / "9")
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:  # root may read everything
        if path.name in ("locked", "9"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with running(models) as server:
        assert {"model": "locked", "reason": DENIED} in told(caplog, "ERROR")
        assert server.ask("/predict", {"text": "Who?"}).content["model"] == "tiny"
        found = states(server)
        refused = found.pop(("tiny", "9"))
        assert refused.startswith("…/tiny/9 cannot be read or written: Permission denied.")
        assert found == {("tiny", "1"): "READY", ("locked", ""): DENIED}
        for path in ("locked/load", "locked/push", "tiny/load"):
            reply = server.change(path, packed(bundle) if path.endswith("push") else b"")
            assert (reply.status, reply.content["error"]) == (422, DENIED)
        monkeypatch.undo()
        assert server.change("locked/load").status == 200
        assert server.change("tiny/load").content["version"] == "9"
        assert states(server) | {("tiny", "1"): ""} == {
            ("tiny", "1"): "", ("tiny", "9"): "READY", ("locked", "1"): "READY",
        }  # fmt: skip


DENIED = "The model's folder cannot be read: Permission denied."


def test_what_is_no_model_is_told_at_the_start(
    models: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("größe/1", ".hidden", "tiny/v2", "tiny/.cache"):
        (models / name).mkdir(parents=True)
    (models / "linked").symlink_to(models / "tiny")
    (models / "notes.txt").write_text("is no model")
    (models / "tiny" / "2").write_text("is no version")
    shutil.copytree(bundle, models / "flat")
    with running(models) as server:
        found = {each["place"]: each["reason"] for each in told(caplog, "WARNING")}
        assert found == {
            "größe": "its name is not letters, digits, '.', '_' and '-'",
            "linked": "a link",
            "notes.txt": "no folder",
            "tiny/2": "no folder",
            "tiny/v2": "its name is not a number from 1 up",
        }
        assert states(server) == {("tiny", "1"): "READY", ("flat", "1"): "READY"}
        assert server.change("tiny/load").content["version"] == "1"
        assert push.push(bundle, server.url, TOKEN)[1]["version"] == "3"  # 2 is no free name


def test_after_the_highest_number_a_push_is_told_to_name_one(models: Path, bundle: Path) -> None:
    with running(models) as server:
        assert push.push(bundle, server.url, TOKEN, version=999_999_999)[0] == 200
        status, content = push.push(bundle, server.url, TOKEN)
        assert (status, "--version" in content["error"]) == (409, True)
        assert push.push(bundle, server.url, TOKEN, version=2)[0] == 200
