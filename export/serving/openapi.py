"""Routes that read their bodies themselves, and still stand on the OpenAPI page in full."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from export.serving import schemas

_BODIES: list[type[BaseModel]] = [
    schemas.PredictRequest,
    schemas.InferRequest,
    schemas.IndexRequest,
    schemas.LoadRequest,
    schemas.Error,
]
_REFERENCE = "#/components/schemas/{model}"
_MEANINGS = {
    400: "malformed",
    401: "the token is missing or wrong",
    403: "changes are off",
    404: "no such model or version answers",
    408: "came too slowly",
    409: "does not fit what is there",
    413: "too large",
    415: "a content encoding that is not taken",
    422: "the bundle was refused, and what answered goes on",
    503: "too busy, or not ready",
    507: "the disk is full",
}
_PATTERNS = {"name": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", "version": "^[1-9][0-9]{0,8}$"}


def post(
    routes: APIRouter, path: str, endpoint: Callable[..., Any], body: Any, answer: Any,
    *more: int, extra: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Add a POST with a JSON body, described but read by the endpoint."""
    if isinstance(body, str):
        content: dict[str, Any] = {body: {"schema": {"type": "string", "format": "binary"}}}
    else:
        content = {"application/json": {"schema": _reference(body)}}
    described = {"requestBody": {"content": content, "required": _required(body)}}
    _add(routes, path, endpoint, "POST", answer, (400, 404, 408, 413, 415, 503, *more),
         described | dict(extra or {}))  # fmt: skip


def change(
    routes: APIRouter, path: str, endpoint: Callable[..., Any], body: Any, answer: Any
) -> None:
    """Add a POST that needs the token."""
    extra: dict[str, Any] = {"security": [{"token": []}]}
    post(routes, path, endpoint, body, answer, 401, 403, 409, 422, 507, extra=extra)


def get(
    routes: APIRouter, path: str, endpoint: Callable[..., Any], *more: int, empty: bool = False
) -> None:
    """Add a GET, whose answer may be the status alone."""
    _add(routes, path, endpoint, "GET", None, more, {}, Response if empty else JSONResponse)


def describe(app: FastAPI) -> None:
    """Put the bodies and the token into the OpenAPI page."""
    from pydantic.json_schema import models_json_schema

    plain = app.openapi

    def whole() -> dict[str, Any]:
        fresh = app.openapi_schema is None
        found = plain()  # which keeps it
        if fresh:
            _, bodies = models_json_schema(
                [(body, "validation") for body in _BODIES], ref_template=_REFERENCE
            )
            parts = found.setdefault("components", {})
            parts["schemas"] = bodies["$defs"] | parts.get("schemas", {})
            parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return found

    app.openapi = whole  # type: ignore[method-assign]


def _add(
    routes: APIRouter, path: str, endpoint: Callable[..., Any], method: str, answer: Any,
    statuses: tuple[int, ...], extra: dict[str, Any], kind: type[Response] = JSONResponse,
) -> None:  # fmt: skip
    responses: dict[int | str, dict[str, Any]] = {
        status: {
            "description": _MEANINGS[status],
            "content": {"application/json": {"schema": _reference(schemas.Error)}},
        }
        for status in statuses
    }
    if answer is not None:
        responses[200] = {"model": answer}
    names = [name for name in _PATTERNS if f"{{{name}}}" in path]
    if names:
        extra["parameters"] = [
            {"name": name, "in": "path", "required": True,
             "schema": {"type": "string", "pattern": _PATTERNS[name]}}
            for name in names
        ]  # fmt: skip
    routes.add_api_route(
        path, endpoint, methods=[method], responses=responses, openapi_extra=extra,
        response_model=None, response_class=kind,
    )  # fmt: skip


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _required(body: Any) -> bool:
    return body not in (schemas.IndexRequest, schemas.LoadRequest)
