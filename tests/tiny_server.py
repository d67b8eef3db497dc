"""A server of tiny bundles in a thread, and a client that is as plain as can be."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from export import serve

TOKEN = "a-token-of-the-tests"
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}


class Reply(NamedTuple):
    status: int
    content: Any  # parsed, if it is JSON
    headers: Mapping[str, str]


class Address(NamedTuple):
    port: int
    server: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
        """Send one request; anything but bytes goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        method = method or ("GET" if body is None else "POST")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, raw, named)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        if found.get("content-type") == "application/json" and method != "HEAD":
            return Reply(answer.status, json.loads(content), found)
        return Reply(answer.status, content, found)

    def change(self, path: str, body: Any = b"") -> Reply:
        """Send a request that needs the token."""
        return self.ask(f"/v2/repository/models/{path}", body, **AUTHORIZED)

    def raw(self, *parts: bytes) -> int:
        """Send bytes as they are, and return the status that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            for part in parts:
                connection.sendall(part)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answer.read()
            return answer.status


@contextmanager
def running(source: Path, *options: str, token: str | None = TOKEN) -> Iterator[Address]:
    """Serve a bundle or a folder of models until the block ends."""
    if token:
        (source.parent / "token").write_text(token)
        (source.parent / "token").chmod(0o600)
        options = ("--token-file", str(source.parent / "token"), *options)
    server = serve.build(serve.command_line().parse_args([str(source), *options]))
    place = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        yield Address(place.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join()
