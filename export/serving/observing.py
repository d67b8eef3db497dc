"""Around all routes: a line in the log and a count in the metrics for each request."""

from __future__ import annotations

import logging
import time
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from export.serving.metrics import Metrics

_NOTES = "potstill.notes"
_log = logging.getLogger("potstill.request")


def note(request: Request, **fields: Any) -> None:
    """Add fields to the request's line in the log; never what the client wrote."""
    request.scope[_NOTES].update(fields)


class Observed:
    """An application whose requests are counted, timed and logged.

    An error that nobody expected ends here: the client has got a 500 without a trace.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        scope[_NOTES] = {}

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            _log.exception("failed")
        finally:
            self._tell(scope, status, time.perf_counter() - start)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        # The template of the path, not the path: that may be anything, without end.
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if _log.isEnabledFor(logging.INFO):
            fields = {"method": scope["method"], "route": route, "status": status,
                      "ms": round(1000 * seconds, 2), **scope[_NOTES]}  # fmt: skip
            _log.info("request", extra={"fields": fields})
