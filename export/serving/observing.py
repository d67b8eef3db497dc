"""Around all routes: the short way to a model, a line in the log and a count for each request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from export.serving.limits import RefusedError
from export.serving.metrics import Metrics

#: In log and metrics, of a client who hung up: nobody gets it. nginx has coined it.
GONE = 499
_STOPPED = RefusedError(
    503, "The server is stopping: ask another, or later.", retry_after="5", connection="close"
)
_NOTES = "potstill.notes"
_log = logging.getLogger("potstill.request")


def note(request: Request, **fields: Any) -> None:
    """Add fields to the request's line in the log; never what the client wrote."""
    request.scope[_NOTES].update(fields)


class Observed:
    """An application whose requests are counted, timed and logged.

    An error that nobody expected ends here: the client gets a 500 without a trace.

    Args:
        app: The whole of it.
        inference: Routes that are asked without FastAPI's own machinery, which takes longer than
            all the rest of such a request. They stand in ``app`` too, for the OpenAPI page.
        metrics: Are told.
    """

    def __init__(self, app: ASGIApp, inference: Iterable[BaseRoute], metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        direct = [
            Route(route.path, _bare(route.endpoint), methods=["POST"])
            for route in inference
            if isinstance(route, APIRoute)
        ]
        self._posts = Router(direct, redirect_slashes=False, default=app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, asked = time.perf_counter(), 0, scope["method"]
        # HEAD is a GET, of whose answer uvicorn sends no body: it has the scope as it was.
        scope = {**scope, _NOTES: {}, "method": "GET" if asked == "HEAD" else asked}

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            try:
                await send(message)
            except (OSError, RuntimeError) as error:
                # uvloop's word for a connection that is gone; uvicorn's own complaints have others.
                if isinstance(error, OSError) or "closed" in str(error):
                    raise ClientDisconnect from error
                raise

        to = self._posts if scope["method"] == "POST" else self._app
        try:
            await to(scope, receive, watched)
        except RefusedError as error:
            await refused(error)(scope, receive, watched)
        except ClientDisconnect:  # nobody is there to answer, and nothing failed
            status = GONE
            await asyncio.sleep(0)  # until uvicorn has heard of it, too
        except asyncio.CancelledError:  # --drain-seconds are over
            if status:
                raise
            await refused(_STOPPED)(scope, receive, watched)
        except Exception:
            _log.exception("failed")
            if not status:
                await failed()(scope, receive, watched)
        finally:
            self._tell(scope, asked, status, time.perf_counter() - start)

    def _tell(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        # The template of the path, not the path: that may be anything, without end.
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.request(route, status, seconds)
        if _log.isEnabledFor(logging.INFO):
            fields = {"method": method, "route": route, "status": status,
                      "ms": round(1000 * seconds, 2), **scope[_NOTES]}  # fmt: skip
            # As _log.info does, but it would look for its caller first, which takes long.
            record = logging.LogRecord(_log.name, logging.INFO, "", 0, "request", None, None)
            record.fields = fields
            _log.handle(record)


def _bare(endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """Return an endpoint as an application, whose errors are left to `Observed`."""

    class Bare:  # a function would get Starlette's own handlers around it
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

    return Bare()


def refused(error: RefusedError) -> JSONResponse:
    """Return what the client gets."""
    return JSONResponse({"error": error.message}, error.status, error.headers)


def failed() -> JSONResponse:
    """Return what the client gets after an error that nobody expected."""
    return JSONResponse({"error": "The server failed; its log says where."}, 500)
