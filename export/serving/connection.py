"""uvicorn's connection, with bounds on a request's head, which uvicorn does not set."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from export.serving.limits import Limits


class Connection(HttpToolsProtocol):
    """A connection that has to send a whole head in time, and one that is not endless.

    What is left of a body that was refused is read and dropped for as long as a head may take: who
    is still sending it would otherwise get a reset connection, and not the reason.

    Without all this, whoever opens connections and says nothing, or never ends a header, holds
    them. uvicorn itself closes a connection that is idle between requests. `with_limits` sets
    ``limits``.
    """

    limits: Limits

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None
        self._head = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take bytes; count them while they belong to a head."""
        super().data_received(data)
        if self.transport.is_closing():
            self._settle()
        elif self.cycle is None or self.cycle.response_complete:
            self._expect()  # or to the end of a body that was refused before it had come
            self._head += 0 if self._in_body else len(data)
            if self._head > self.limits.max_header_bytes:
                self._end(b"431 Request Header Fields Too Large", b"The head is too large.")

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

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clock."""
        self._settle()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._late is None:
            wait = self.limits.header_seconds
            self._late = self.loop.call_later(
                wait, self._end, b"408 Request Timeout", b"The head came too slowly."
            )

    def _settle(self) -> None:
        self._head = 0
        if self._late:
            self._late.cancel()
            self._late = None

    def _end(self, status: bytes, message: bytes) -> None:
        self._settle()
        if self.transport.is_closing():
            return
        if not self._in_body:  # else it has been answered
            body = b'{"error": "%s"}' % message
            self.transport.write(
                b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%s" % (status, len(body), body)
            )
        self.transport.close()


def with_limits(bounds: Limits) -> type[Connection]:
    """Return the class of connections for uvicorn's ``http``."""
    return type("LimitedConnection", (Connection,), {"limits": bounds})
