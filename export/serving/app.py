"""The routes: the open inference protocol v2, a plain one, and those that change the repository."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi_offline import FastAPIOffline
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from export import edge
from export.serving import openapi, page, protocol, schemas
from export.serving.folder import NAME, VERSION, valid
from export.serving.limits import Limits, RefusedError
from export.serving.metrics import Metrics
from export.serving.observing import Observed, failed, note, refused
from export.serving.repository import Repository, Served
from export.serving.upload import MEDIA_TYPE, Uploads, too_large

_JSON = "application/json"
_ABOUT = """\
Classifies text with bundles of Potstill. `POST /predict` is the plain way; under `/v2` is the open
inference protocol, for `tritonclient[http]` and others.
"""


class Server:
    """What the routes share.

    Args:
        repository: The models, loaded.
        limits: Bounds of what a request may hold or wait for.
        token: Who may change the repository has to show it; None if nobody may.
        metrics: The same that the repository has.
    """

    def __init__(
        self, repository: Repository, limits: Limits, token: str | None, metrics: Metrics
    ) -> None:
        self.repository, self.limits, self.metrics = repository, limits, metrics
        self._token = token
        folder = repository.folder
        self.uploads = Uploads(folder, limits) if folder.root else None
        #: Whether the process is about to stop; who runs it says so.
        self.halting: Callable[[], bool] = lambda: False
        metrics.watch(repository)

    async def body(self, request: Request, encoding: bool = True) -> bytes:
        """Read a body within its limits.

        Raises:
            RefusedError: It is too large (413), too slow (408) or wrongly encoded.
        """
        limit = self.limits.max_body_bytes
        too_much = f"The body is larger than {limit} bytes: send the texts in parts."
        if _declared(request) > limit:
            raise RefusedError(413, too_much)
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise RefusedError(413, too_much)
        except TimeoutError:
            seconds = self.limits.body_seconds
            raise RefusedError(
                408, f"The body took more than {seconds:g} s.", connection="close"
            ) from None
        coding = request.headers.get("content-encoding", "identity").lower()
        if not encoding or coding == "identity":
            return bytes(body)
        return await asyncio.to_thread(protocol.decompress, bytes(body), coding, limit)

    async def answer(
        self, request: Request, served: Served, texts: list[str]
    ) -> Sequence[edge.Prediction]:
        """Answer texts.

        Raises:
            RefusedError: A text is out of bounds, the queue is full or too slow (503), or the model
                gives no scores (500).
        """
        note(request, model=served.name, version=served.version, texts=len(texts))
        self.limits.check(texts)
        if served.model.pairs:
            for place, text in enumerate(texts):
                if wrong := edge.problem_with(text, pairs=True):
                    raise RefusedError(400, f"Text {place} is {wrong}.")
        try:
            return await served.batcher.answer(texts)
        except edge.BundleError:
            raise RefusedError(
                500, "The model gives no usable scores: it has to be replaced."
            ) from None

    def admit(self, request: Request) -> None:
        """Let only those pass who may change the repository.

        Raises:
            RefusedError: Nobody may (403), or the token is missing or wrong (401).
        """
        if self._token is None:
            raise RefusedError(
                403, "Changes are off: they need a server that was started with a token."
            )
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(shown.strip().encode(), self._token.encode())
        if scheme.lower() != "bearer" or not same:
            raise RefusedError(
                401, "This needs the server's token, as Authorization: Bearer TOKEN.",
                www_authenticate="Bearer",
            )  # fmt: skip


def make_app(server: Server) -> Observed:
    """Return the ASGI application; when it ends, what was asked is answered first."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await server.repository.close()

    app = FastAPIOffline(
        title="Potstill", description=_ABOUT, version=_version(), lifespan=lifespan, redoc_url=None
    )
    inference = _inference(server)
    app.include_router(inference)
    app.include_router(_health(server))
    app.include_router(_changes(server))
    app.include_router(_people(server))
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(Exception, _failed)  # it goes on to Observed, which logs it
    openapi.describe(app)
    return Observed(app, inference.routes, server.metrics)


def _inference(server: Server) -> APIRouter:
    routes = APIRouter(tags=["inference"])

    async def predict(request: Request) -> Response:
        """Classify one text, or several."""
        asked = schemas.read(schemas.PredictRequest, await server.body(request))
        served = server.repository.find(asked.model, asked.version)
        predictions = await server.answer(request, served, asked.all())
        found = [protocol.told(prediction) for prediction in predictions]
        answer = {"model": served.name, "version": served.version, "predictions": found}
        return Response(to_json(answer), media_type=_JSON)

    async def infer(request: Request) -> Response:
        """Classify a tensor of texts, in JSON or with binary tensors after it."""
        path = request.path_params
        body = await server.body(request)
        asked = protocol.parse(body, request.headers.get(protocol.JSON_LENGTH))
        served = server.repository.find(path["name"], path.get("version"))
        problem = served.model.problem
        protocol.check_outputs(asked, problem)
        predictions = await server.answer(request, served, asked.texts)
        content, size = protocol.respond(asked, served.name, served.version, problem, predictions)
        if size is None:
            return Response(content, media_type=_JSON)
        headers = {protocol.JSON_LENGTH: str(size)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    openapi.post(routes, "/predict", predict, schemas.PredictRequest, schemas.PredictResponse)
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        openapi.post(routes, path, infer, schemas.InferRequest, schemas.InferResponse)
    return routes


def _health(server: Server) -> APIRouter:
    routes = APIRouter(tags=["health and metadata"])

    async def live() -> Response:
        """Say that the process answers."""
        return Response()

    async def ready() -> Response:
        """Say whether a model answers, and will go on: 200, or 503."""
        if server.halting():
            raise RefusedError(503, "The server is about to stop.")
        if not any(server.repository.served()):
            raise RefusedError(503, "No model answers.")
        return Response()

    async def about() -> dict[str, Any]:
        """Name the server and the protocol's extensions that it knows."""
        return {
            "name": "potstill",
            "version": _version(),
            "extensions": protocol.EXTENSIONS,
        }

    async def model_ready(request: Request) -> Response:
        """Say whether a model answers: 200, or 404."""
        server.repository.find(request.path_params["name"], request.path_params.get("version"))
        return Response()

    async def model(request: Request) -> dict[str, Any]:
        """Describe a model: its tensors and its labels."""
        path = request.path_params
        served = server.repository.find(path["name"], path.get("version"))
        versions = server.repository.versions(served.name)
        return protocol.metadata(served.name, versions, served.model)

    openapi.get(routes, "/v2/health/live", live, empty=True)
    openapi.get(routes, "/v2/health/ready", ready, 503, empty=True)
    openapi.get(routes, "/v2", about)
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        openapi.get(routes, f"{path}/ready", model_ready, 404, empty=True)
        openapi.get(routes, path, model, 404)
    return routes


def _changes(server: Server) -> APIRouter:
    routes = APIRouter(tags=["repository"])

    async def index(request: Request) -> Response:
        """List the versions of all models, and why those that do not answer do not."""
        body = await server.body(request)
        only_ready = bool(body) and schemas.read(schemas.IndexRequest, body).ready
        entries = await server.repository.index()
        return JSONResponse(
            [each for each in entries if each["state"] == "READY" or not only_ready]
        )

    async def load(request: Request) -> Response:
        """Load a version (the highest, if none is named), test it, and let it answer."""
        name, number = await _named(request)
        served = await server.repository.load(name, number)
        return JSONResponse({"name": served.name, "version": served.version})

    async def unload(request: Request) -> Response:
        """Let a model, or one version of it, answer no more."""
        name, number = await _named(request)
        await server.repository.unload(name, number)
        return JSONResponse({})

    async def push(request: Request) -> Response:
        """Take a bundle as a tar, verify and test it, keep it and let it answer."""
        server.admit(request)
        name, number = _name(request)
        if server.uploads is None:
            raise RefusedError(409, "This server has one bundle and no model folder to change.")
        if _declared(request) > server.limits.max_upload_bytes:
            raise too_large(server.limits)
        async with server.uploads.receive(request.stream()) as bundle:
            served = await server.repository.add(bundle, name, number)
        return JSONResponse({"name": served.name, "version": served.version})

    async def _named(request: Request) -> tuple[str, str | None]:
        server.admit(request)
        body = await server.body(request)
        if body and schemas.read(schemas.LoadRequest, body).parameters.keys() - {
            "unload_dependents"
        }:
            raise RefusedError(400, "Configurations and files are not taken here: push a bundle.")
        return _name(request)

    openapi.post(
        routes, "/v2/repository/index", index, schemas.IndexRequest, list[schemas.IndexEntry]
    )
    for path in ("", "/versions/{version}"):
        base = f"/v2/repository/models/{{name}}{path}"
        openapi.change(routes, f"{base}/load", load, schemas.LoadRequest, schemas.Pushed)
        openapi.change(routes, f"{base}/unload", unload, schemas.LoadRequest, None)
        openapi.change(routes, f"{base}/push", push, MEDIA_TYPE, schemas.Pushed)
    return routes


def _people(server: Server) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def form() -> Response:
        return HTMLResponse(page.HTML, headers=page.HEADERS)

    @routes.get("/metrics")
    async def metrics() -> Response:
        text = server.metrics.text()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _name(request: Request) -> tuple[str, str | None]:
    name, number = request.path_params["name"], request.path_params.get("version")
    name, number = valid(NAME, name), number and valid(VERSION, number)
    note(request, model=name, **({"version": number} if number else {}))
    return name, number


def _declared(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length[:18]) if length.isdecimal() else 0


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return refused(error)


async def _failed(_: Request, error: Exception) -> Response:
    return failed()


async def _not_found(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": f"{error.detail}. See /docs for what is here."},
        error.status_code,
        error.headers,
    )


def _version() -> str:
    try:
        return version("potstill")
    except PackageNotFoundError:
        return "0"
