"""Who holds connections: those that never read, one too many, idle ones, some at the end."""

from __future__ import annotations

import asyncio
import http.client
import logging
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import make_bundle
from tiny_server import Address, Reply, running

from export.serving.batching import Batcher
from export.serving.metrics import Metrics
from export.serving.observing import Observed

GET = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("connection") / "tiny")


def narrow(server: Address) -> socket.socket:
    """Connect with next to no room for answers."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.connect(("127.0.0.1", server.port))
    return found


def is_cut_off(client: socket.socket, seconds: float) -> bool:
    """Wait for the other end to go, without reading."""
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(1000 * seconds))


def test_who_never_reads_is_cut_off_and_who_reads_slowly_is_not(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(bundle, "--send-seconds", "0.5", token=None) as server:
        with narrow(server) as client:
            client.sendall(GET * 400)
            assert is_cut_off(client, 8)
        with narrow(server) as client:
            client.sendall(GET * 200 + GET.replace(b"host", b"connection: close\r\nhost"))
            start, found = time.monotonic(), bytearray()
            while answer := client.recv(1 << 12):
                found += answer
                time.sleep(0.001)
            assert found.count(b"HTTP/1.1 200 OK") == 201
            assert time.monotonic() > start + 1  # twice what a client may take at once
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_one_connection_too_many_is_told_so_and_an_idle_one_ends(bundle: Path) -> None:
    with running(
        bundle, "--max-connections", "1", "--keep-alive-seconds", "1.5", token=None
    ) as server:
        first = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for _ in range(2):
            first.request("GET", "/v2/health/live")
            assert first.getresponse().read() == b""
            idle = time.monotonic()
            reply = server.ask("/v2/health/live")
            assert (reply.status, reply.headers["connection"]) == (503, "close")
            assert "too many connections" in reply.content["error"]
        more = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        with pytest.raises(ConnectionResetError):  # so many are not even told
            _ = [each.recv(1000) for each in more]
        for each in more:
            each.close()
        assert first.sock
        assert first.sock.recv(1) == b""
        assert 1 < time.monotonic() - idle < 4
        first.close()
        while (reply := server.ask("/metrics")).status == 503:
            time.sleep(0.05)
        assert 'potstill_requests_total{route="other",status="503"}' in reply.content.decode()


def test_who_is_still_asking_when_the_time_to_drain_is_over_is_told(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "potstill.request")
    asked = threading.Event()

    async def hang(*_: Any) -> None:
        asked.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(Batcher, "answer", hang)
    found: list[Reply] = []
    with running(bundle, "--drain-seconds", "0.3", token=None) as server:
        client = threading.Thread(
            target=lambda: found.append(server.ask("/predict", {"text": "Who?"}))
        )
        client.start()
        assert asked.wait(10)
    client.join()
    (reply,) = found
    assert (reply.status, "retry-after" in reply.headers) == (503, True)
    assert "is stopping" in reply.content["error"]
    (line,) = [each for each in caplog.records if each.name == "potstill.request"]
    assert (line.levelname, vars(line)["fields"]["status"]) == ("INFO", 503)


def test_a_client_that_is_gone_while_it_is_answered_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uvloop = pytest.importorskip("uvloop")
    caplog.set_level(logging.INFO, "potstill.request")
    scope = {"type": "http", "method": "GET", "path": "/"}

    async def ask(message: str) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.transport.abort()
        await asyncio.sleep(0.01)

        async def send(_: Any) -> None:
            if message:
                raise RuntimeError(message)
            writer.transport.write(b"x")

        async def app(_: Any, __: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})

        await Observed(app, [], Metrics())(scope, None, send)  # type: ignore[arg-type]
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask(""))
        runner.run(ask("Response content longer than Content-Length"))
    gone, failed, _ = caplog.records
    assert vars(gone)["fields"]["status"] == 499
    assert (failed.levelname, failed.message) == ("ERROR", "failed")
