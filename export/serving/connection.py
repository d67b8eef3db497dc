"""uvicorn's connection, with bounds on what a client may hold, which uvicorn does not set."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from export.serving.limits import Limits
from export.serving.metrics import Metrics

#: For a client that is one too many to read so, before its connection is closed.
_REFUSED_SECONDS = 1.0
#: To close at once and drop what is not sent: the system would keep that, too.
_AT_ONCE = struct.pack("ii", 1, 0)


class Connection(HttpToolsProtocol):
    """A connection that sends a whole head in time, takes its answers in time, and is not endless.

    What is left of a body that was refused is read and dropped for as long as a head may take: who
    is still sending it would otherwise get a reset connection, and not the reason. One connection
    more than there may be is told so, and has a second to read it.

    Without all this, whoever opens connections and says nothing, never ends a header, or never
    reads an answer holds them. uvicorn itself closes a connection that is idle between requests.
    `with_limits` sets ``limits`` and ``metrics``.
    """

    limits: Limits
    metrics: Metrics

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._head = 0
        self._in_body = self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, if there are not too many who do."""
        super().connection_made(transport)
        most = self.limits.max_connections
        if len(self.connections) > 2 * most:  # so many are not even told
            self._cut()
        elif len(self.connections) > most:
            self._refused = True
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "There are too many connections: ask later.")
            self._late = self.loop.call_later(_REFUSED_SECONDS, self._close)
        else:
            self._expect()

    def data_received(self, data: bytes) -> None:
        """Take bytes; count them while they belong to a head."""
        if self._refused:
            return
        super().data_received(data)
        if self.transport.is_closing():
            self._settle()
        elif self.cycle is None or self.cycle.response_complete:
            self._expect()  # or to the end of a body that was refused before it had come
            self._head += 0 if self._in_body else len(data)
            if self._head > self.limits.max_header_bytes:
                self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head is too large.")

    def on_headers_complete(self) -> None:
        """Go on to the body, which the application bounds."""
        self._settle()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the next bytes are a head."""
        self._settle()
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let the client take the answer, if it is the last."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._hurry()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._say(HTTPStatus.BAD_REQUEST, msg)
        self._close()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that is idle."""
        self._close()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        self._hurry()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        if not self.transport.is_closing():  # then there is nothing more that could be stuck
            self._relax()

    def eof_received(self) -> None:
        """Let the client take what is left: it asks no more."""
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clocks, and tell what is still answering."""
        self._settle()
        self._relax()
        self._unset_keepalive_if_required()
        if self._running:  # uvicorn tells the request that came last, which may wait behind it
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _expect(self) -> None:
        if self._late is None:
            wait, late = self.limits.header_seconds, HTTPStatus.REQUEST_TIMEOUT
            self._late = self.loop.call_later(wait, self._end, late, "The head came too slowly.")

    def _settle(self) -> None:
        self._head = 0
        if self._late:
            self._late.cancel()
            self._late = None

    def _hurry(self) -> None:
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.limits.send_seconds, self._cut)

    def _relax(self) -> None:
        if self._stuck:
            self._stuck.cancel()
            self._stuck = None

    def _cut(self) -> None:
        with suppress(OSError):  # it may be closed already
            found = self.transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def _end(self, status: HTTPStatus, message: str) -> None:
        self._settle()
        if not (self.transport.is_closing() or self._in_body):  # else it has been answered
            self._say(status, message)
        self._close()

    def _say(self, status: HTTPStatus, message: str) -> None:
        """Answer what never becomes a request of the application."""
        self.metrics.request("other", status.value, 0.0)
        body = f'{{"error": "{message}"}}'
        self.transport.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode("ascii")
        )

    def _close(self) -> None:
        """Close once what was sent is taken, and it has to be in time."""
        if not self.transport.is_closing():
            self.transport.close()
        self._hurry()


def with_limits(bounds: Limits, metrics: Metrics) -> type[Connection]:
    """Return the class of connections for uvicorn's ``http``."""
    return type("LimitedConnection", (Connection,), {"limits": bounds, "metrics": metrics})
