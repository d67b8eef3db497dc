"""Versions that come and go while clients ask: nothing fails, and no answer is another's."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tiny_bundle import LABELS, make_bundle, save_model, table
from tiny_server import AUTHORIZED, TOKEN, Address, running

from export import edge, push
from export.bundle import write_manifest
from export.serving import folder, repository


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles 0 to 2: the first label of "who" differs by what the model gives it."""
    folder = tmp_path_factory.mktemp("packed")
    for number in range(3):
        rows = np.roll(table(), number, axis=1)
        model = save_model(folder / f"{number}.onnx", rows)
        make_bundle(folder / str(number), model=model, name="tiny")
    return folder


@pytest.fixture
def models(packed: Path, tmp_path: Path) -> Path:
    shutil.copytree(packed / "0", tmp_path / "models" / "tiny" / "1")
    return tmp_path / "models"


def damaged(bundle: Path) -> Path:
    """Change one byte."""
    path = bundle / edge.MODEL_FILE
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    return bundle


def forgetful(bundle: Path) -> Path:
    """Change a recorded answer, with sums that fit: only the self-test can tell."""
    manifest = edge.read_manifest(bundle)
    manifest["golden"]["labels"][0] = LABELS[1 - LABELS.index(manifest["golden"]["labels"][0])]
    write_manifest(bundle, manifest)
    return bundle


def states(server: Address) -> dict[str, str]:
    index = server.ask("/v2/repository/index", b"").content
    return {f"{each['name']}/{each['version']}": each["state"] for each in index}


def upload(server: Address, bundle: Path, **options: Any) -> tuple[int, dict[str, Any]]:
    return push.push(bundle, server.url, TOKEN, **options)


def said(server: Address, version: str | None = None) -> tuple[str, str]:
    """Return the version that answers, and the label that it gives."""
    reply = server.ask("/predict", {"text": "who was it", "model": "tiny", "version": version})
    assert reply.status == 200, reply.content
    return reply.content["version"], reply.content["predictions"][0]["label"]


@contextmanager
def asked_all_the_time(server: Address, right: dict[str, str]) -> Iterator[dict[str, int]]:
    """Ask from several clients; every answer has to be its version's. Counts them."""
    counted: dict[str, int] = {}
    wrong: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                version, label = said(server)
                counted[version] = counted.get(version, 0) + 1
                if right[version] != label:
                    wrong.append((version, label))
            except Exception as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield counted
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_versions_switch_under_load_without_a_failure(models: Path, packed: Path) -> None:
    right = {str(n): right_of(n) for n in range(1, 8)}
    with running(models) as server, asked_all_the_time(server, right) as counted:
        for number in range(2, 6):
            status, content = upload(server, packed / str((number - 1) % 3))
            assert (status, content) == (200, {"name": "tiny", "version": str(number)})
            assert server.change("tiny/versions/1/load").status == 200
            assert server.change("tiny/load").content["version"] == str(number)
            with pytest.raises(edge.BundleError):
                upload(server, damaged(copy(packed / "0", models.parent / f"bad{number}")))
            assert (
                upload(server, forgetful(copy(packed / "0", models.parent / f"old{number}")))[0]
                == 422
            )
            assert server.change("other/load").status == 404
        assert said(server) == ("5", right["5"])
    assert set(counted) >= {"1", "5"}
    assert sorted(path.name for path in (models / "tiny").iterdir()) == [".current", *"12345"]


@contextmanager
def asked_whatever_comes(
    server: Address, right: dict[str, str]
) -> Iterator[Counter[tuple[int, str]]]:
    """Ask from several clients in both ways; count each status with the version that answered.

    An answer has to be its version's, and who gets none is told so in the protocol's form.
    """
    counted: Counter[tuple[int, str]] = Counter()
    wrong: list[Any] = []
    done = threading.Event()
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["who was it"]}

    def ask(plain: bool) -> None:
        while not done.is_set():
            if plain:
                reply = server.ask("/predict", {"text": "who was it", "model": "tiny"})
            else:
                reply = server.ask("/v2/models/tiny/infer", {"inputs": [tensor]})
            version = label = ""
            if reply.status == 200 and plain:
                version, label = reply.content["version"], reply.content["predictions"][0]["label"]
            elif reply.status == 200:
                version, label = (
                    reply.content["model_version"],
                    reply.content["outputs"][1]["data"][0],
                )
            elif reply.status != 404 or "No model of this name" not in reply.content["error"]:
                wrong.append(reply)
            if version and right[version] != label:
                wrong.append(reply)
            counted[reply.status, version] += 1

    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(ask, place % 2 == 0) for place in range(8)]
        try:
            yield counted
        finally:
            done.set()
    for task in tasks:
        task.result()  # raises what was raised there, a time-out of 20 s among it
    assert not wrong


def test_a_model_is_unloaded_loaded_and_pushed_under_load(models: Path, packed: Path) -> None:
    right = {str(n): right_of(n) for n in range(1, 8)}
    with running(models) as server, asked_whatever_comes(server, right) as counted:

        def wait_for(status: int, version: str = "") -> None:
            before = counted[status, version]
            until = time.monotonic() + 20
            while counted[status, version] < before + 8:
                assert time.monotonic() < until, (status, version, counted)
                time.sleep(0.005)

        wait_for(200, "1")
        for number in range(2, 5):
            assert server.change("tiny/unload").status == 200
            wait_for(404)
            assert server.change(f"tiny/versions/{number - 1}/load").status == 200
            wait_for(200, str(number - 1))
            assert server.change("tiny/unload").status == 200
            status, content = upload(server, packed / str((number - 1) % 3))
            assert (status, content["version"]) == (200, str(number))
            wait_for(200, str(number))
            for _ in range(5):  # as fast as it goes
                assert server.change("tiny/unload").status == 200
                assert server.change("tiny/load").status == 200
        assert {status for status, _ in counted} == {200, 404}
    assert {version for status, version in counted if status == 200} >= {"1", "2", "3", "4"}


def test_what_an_unloaded_version_has_taken_it_answers(models: Path, packed: Path) -> None:
    slow = ("--max-wait-ms", "5000", "--max-batch", "64", "--workers", "1")
    with running(models, *slow) as server, ThreadPoolExecutor(10) as pool:
        # After a crowd of twenty, ten wait for more.
        assert server.ask("/predict", {"texts": ["who was it"] * 20}).status == 200
        for version, change in (("1", "unload"), ("1", "push"), ("2", "load")):
            open_ = [pool.submit(said, server) for _ in range(10)]
            while waiting(server, version) < 10:
                assert not any(each.done() for each in open_)
            if change == "push":
                assert upload(server, packed / "1")[1]["version"] == "2"
            else:
                assert server.change(f"tiny/{change}").status == 200
            label = right_of(int(version))
            assert {each.result(20) for each in open_} == {(version, label)}
            if change == "unload":
                assert server.ask("/v2/models/tiny/ready").status == 404
                assert server.change("tiny/load").status == 200
            assert server.ask("/predict", {"texts": ["who was it"] * 20}).status == 200


def right_of(version: int) -> str:
    return LABELS[(2 + (version - 1) % 3) % 3]


def waiting(server: Address, version: str) -> float:
    """Return how many texts wait for a version."""
    line = f'potstill_queue_texts{{model="tiny",version="{version}"}} '
    (found,) = [each for each in scraped(server) if each.startswith(line)]
    return float(found.removeprefix(line))


def scraped(server: Address) -> list[str]:
    found: list[str] = server.ask("/metrics").content.decode().splitlines()
    return found


def test_metrics_have_no_series_of_a_version_that_is_gone(models: Path, packed: Path) -> None:
    def counted(version: str) -> float | None:
        line = f'potstill_batch_texts_count{{model="tiny",version="{version}"}} '
        found = [each for each in scraped(server) if each.startswith(line)]
        return float(found[0].removeprefix(line)) if found else None

    with running(models) as server:
        said(server)
        assert counted("1") == 1
        assert server.change("tiny/load").status == 200  # the same version: it counts on
        said(server)
        assert counted("1") == 2
        upload(server, packed / "1")
        said(server)
        while counted("1") is not None:  # what it has taken is answered first
            time.sleep(0.01)
        assert counted("2") == 1
        server.change("tiny/unload")
        while any('model="tiny"' in each for each in scraped(server)):
            time.sleep(0.01)


def copy(bundle: Path, target: Path) -> Path:
    return Path(shutil.copytree(bundle, target))


def test_a_push_that_fails_its_test_leaves_everything_as_it_was(
    models: Path, packed: Path, tmp_path: Path
) -> None:
    with running(models) as server:
        before = sorted(models.rglob("*"))
        status, content = upload(server, forgetful(copy(packed / "1", tmp_path / "bad")))
        assert status == 422
        assert "self-test failed" in content["error"]
        assert str(tmp_path) not in content["error"]
        assert sys.executable not in content["error"]
        assert said(server) == ("1", LABELS[2])
        assert sorted(models.rglob("*")) == before
        assert states(server) == {"tiny/1": "READY", "tiny/2": "UNAVAILABLE"}
        assert upload(server, packed / "1")[1] == {"name": "tiny", "version": "2"}
        assert upload(server, packed / "1", version=2)[0] == 409
        assert upload(server, packed / "2", name="other", version=7)[0] == 200
        assert states(server) == {
            "tiny/1": "UNAVAILABLE", "tiny/2": "READY", "other/7": "READY",
        }  # fmt: skip
        assert "Name the model" in server.ask("/predict", {"text": "who"}).content["error"]


def test_at_the_start_the_newest_sound_version_answers(models: Path, packed: Path) -> None:
    for version, number in (("2", 1), ("10", 2)):
        shutil.copytree(packed / str(number), models / "tiny" / version)
    damaged(models / "tiny" / "10")
    shutil.copytree(packed / "0", models / "flat")
    (models / "a file").write_text("is no model")
    with running(models) as server:
        assert said(server)[0] == "2"
        assert states(server) == {
            "flat/1": "READY", "tiny/1": "UNAVAILABLE", "tiny/10": "UNAVAILABLE", "tiny/2": "READY",
        }  # fmt: skip
        reply = server.change("tiny/versions/10/load")
        assert reply.status == 422
        assert "has changed" in reply.content["error"]
        assert said(server)[0] == "2"
        assert server.change("flat/load").status == 200
        assert upload(server, packed / "0", name="flat")[0] == 409


def test_a_bundle_that_was_changed_while_it_answered_is_not_loaded_again(models: Path) -> None:
    with running(models) as server:
        damaged(models / "tiny" / "1")
        assert server.change("tiny/load").status == 422
        assert said(server)[0] == "1"  # what was tested goes on
        assert server.change("tiny/unload").status == 200
        assert server.ask("/predict", {"text": "who"}).status == 400
        assert server.ask("/v2/models/tiny/ready").status == 404
        assert server.ask("/v2/health/ready").status == 503
        assert server.ask("/v2/health/live").status == 200
        assert server.change("tiny/unload").status == 404


def test_a_test_that_takes_too_long_holds_up_nobody(
    models: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = threading.Event(), threading.Event()

    def slow(*_: Any) -> Any:
        begun.set()
        end.wait(20)
        raise edge.BundleError("late")

    with running(models, "--load-seconds", "1") as server:
        with monkeypatch.context() as patch:
            patch.setattr(repository, "open_bundle", slow)
            found: list[int] = []
            push_ = threading.Thread(target=lambda: found.append(upload(server, packed / "1")[0]))
            push_.start()
            begun.wait(20)
            assert server.change("tiny/unload").status == 200
            assert not found  # nobody waited for the test
            push_.join()
        assert found == [422]
        assert upload(server, packed / "1")[1]["version"] == "2"
        end.set()


def test_a_rollback_and_an_unload_outlive_a_restart(models: Path, packed: Path) -> None:
    with running(models) as server:
        upload(server, packed / "1")
        upload(server, packed / "2")
        assert server.change("tiny/versions/2/load").status == 200
    with running(models) as server:
        assert said(server) == ("2", LABELS[0])
        assert states(server)["tiny/3"] == "UNAVAILABLE"
    damaged(models / "tiny" / "2")
    with running(models) as server:
        assert said(server)[0] == "3"  # the newest that is sound
        assert server.change("tiny/unload").status == 200
    with running(models) as server:
        assert set(states(server).values()) == {"UNAVAILABLE"}
        assert server.ask("/v2/models/tiny/ready").status == 404
        assert upload(server, packed / "0")[1]["version"] == "4"
    with running(models) as server:
        assert said(server)[0] == "4"
    (models / "tiny" / ".current").write_text("../../secret")
    with running(models) as server:
        assert said(server)[0] == "4"


def test_a_folder_that_is_a_bundle_stays_as_it_was_packed(packed: Path, tmp_path: Path) -> None:
    flat = copy(packed / "0", tmp_path / "models" / "tiny")
    before = sorted(flat.iterdir())
    with running(tmp_path / "models") as server:
        assert server.change("tiny/unload").status == 200
        assert server.change("tiny/load").status == 200
    assert sorted(flat.iterdir()) == before


def test_so_many_versions_stay_as_were_asked_for(models: Path, packed: Path) -> None:
    with running(models, "--keep", "2") as server:
        upload(server, packed / "1")
        assert said(server, "1") == ("1", LABELS[2])
        assert said(server, "2") == said(server) == ("2", LABELS[0])
        upload(server, packed / "2")
        assert server.ask("/v2/models/tiny/versions/1/ready").status == 404
        assert said(server, "2") == ("2", LABELS[0])
        assert server.change("tiny/versions/3/unload").status == 200
        assert said(server)[0] == "2"


def test_a_push_removes_the_versions_that_are_too_many(models: Path, packed: Path) -> None:
    (models / "tiny" / "2").symlink_to(packed / "1")  # nobody has pushed it
    with running(models, "--retain", "3", "--keep", "2") as server:
        for number in range(3, 6):
            assert upload(server, packed / "0", version=number)[0] == 200
        assert server.change("tiny/versions/3/load").status == 200  # 5 and 3 answer
        assert upload(server, packed / "0")[1]["version"] == "6"
        assert upload(server, packed / "0")[1]["version"] == "7"
        assert states(server) == {
            "tiny/2": "UNAVAILABLE", "tiny/5": "UNAVAILABLE", "tiny/6": "READY", "tiny/7": "READY",
        }  # fmt: skip
        assert said(server, "6")[0] == "6"
    with running(models, "--retain", "1", "--keep", "2") as server:
        assert upload(server, packed / "0")[1]["version"] == "8"
        assert states(server).keys() == {"tiny/2", "tiny/7", "tiny/8"}  # two answer
    assert not list((models / ".incoming").glob("*"))
    assert (packed / "1" / edge.MODEL_FILE).exists()


def test_a_disk_that_keeps_no_bundle_leaves_everything_as_it_was(
    models: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(models) as server:
        before = sorted(models.rglob("*"))
        with monkeypatch.context() as patch:

            def full(_: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(folder.os, "fsync", full)
            status, content = upload(server, packed / "1")
        assert status == 507
        assert "No space left" in content["error"]
        assert sorted(models.rglob("*")) == before
        assert said(server)[0] == "1"
        assert upload(server, packed / "1")[0] == 200


def test_tritonclient_changes_the_repository(models: Path) -> None:
    with running(models) as server, triton.InferenceServerClient(
        f"127.0.0.1:{server.port}"
    ) as client:  # fmt: skip
        client.unload_model("tiny", headers=AUTHORIZED)
        assert not client.is_model_ready("tiny")
        client.load_model("tiny", headers=AUTHORIZED)
        assert client.is_model_ready("tiny")
        with pytest.raises(triton.InferenceServerException, match="push a bundle"):
            client.load_model("tiny", headers=AUTHORIZED, config=json.dumps({"name": "x"}))


def test_one_bundle_is_served_as_it_is_and_never_changes(packed: Path, tmp_path: Path) -> None:
    bundle = copy(packed / "0", tmp_path / "bundle")
    with running(bundle, "--name", "mine") as server:
        assert server.ask("/predict", {"text": "who"}).content["model"] == "mine"
        assert upload(server, packed / "1")[0] == 409
        assert server.change("mine/load").status == 409
        assert server.change("mine/unload").status == 409  # it could not be loaded again
        assert server.ask("/predict", {"text": "who"}).status == 200
    with pytest.raises(edge.BundleError, match="has changed"), running(damaged(bundle)):
        pass
