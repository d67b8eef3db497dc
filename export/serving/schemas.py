"""What goes in and out as JSON, for the checks and for the OpenAPI page."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from export.serving.limits import RefusedError

Body = TypeVar("Body", bound=BaseModel)
Size = Annotated[int, Field(strict=True, ge=0)]
Parameters = Annotated[dict[str, Any], Field(default_factory=dict)]


class PredictRequest(BaseModel):
    """One text, or several."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
            "examples": [{"text": "How far is the moon?"}, {"texts": ["Who?", "Where?"]}],
        },
    )
    text: Annotated[str, Field(description="instead of texts")] = ""
    texts: Annotated[list[str], Field(description="instead of text")] = []
    model: Annotated[str | None, Field(description="needed if the server has several")] = None
    version: Annotated[str | None, Field(description="the current one, if it is left out")] = None

    @model_validator(mode="after")
    def _one_of_two(self) -> PredictRequest:
        if len({"text", "texts"} & self.model_fields_set) != 1:
            raise ValueError("give either text or texts")
        return self

    def all(self) -> list[str]:
        """Return the texts."""
        return self.texts if "texts" in self.model_fields_set else [self.text]


class Answer(BaseModel):
    """The answer to one text.

    The label is null if none is probable enough, a list if a text may have several; a model that
    gives numbers has a value instead of both.
    """

    label: str | list[str] | None = None
    probabilities: dict[str, float] = {}
    value: float | None = None


class PredictResponse(BaseModel):
    """Answers in the order of the texts."""

    model: str
    version: str
    predictions: list[Answer]


class InputTensor(BaseModel):
    """The tensor ``text``: its data here, or after the JSON in as many bytes as it says."""

    name: Literal["text"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[Size], Field(min_length=1, max_length=2)]
    parameters: Parameters
    data: list[str] | list[list[str]] | None = None


class RequestedOutput(BaseModel):
    """An output that is wanted, and how."""

    name: Literal["probabilities", "label", "value"]
    parameters: Parameters


class InferRequest(BaseModel):
    """A request of the open inference protocol v2."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Who?"]}]}
            ]
        }
    )
    id: Annotated[str, Field(max_length=256)] = ""
    parameters: Parameters
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=2)] = []


class OutputTensor(BaseModel):
    """FP32 probabilities [N, labels] or values [N, 1], or BYTES labels of the input's shape.

    An empty label is undecided; several labels are a JSON list.
    """

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: list[float] | list[str] | None = None


class InferResponse(BaseModel):
    """An answer of the open inference protocol v2."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class LoadRequest(BaseModel):
    """The body of a load or an unload, which may be left out."""

    model_config = ConfigDict(extra="forbid")
    parameters: Parameters


class IndexRequest(BaseModel):
    """Which models to list."""

    model_config = ConfigDict(extra="forbid")
    ready: Annotated[bool, Field(strict=True, description="only those that answer")] = False


class IndexEntry(BaseModel):
    """A version of a model: whether it answers, and if not why."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class Pushed(BaseModel):
    """A bundle that has been taken and now answers."""

    name: str
    version: str


class Error(BaseModel):
    """What was wrong, where, and what to do."""

    error: str


def read(kind: type[Body], raw: bytes) -> Body:
    """Read a JSON body.

    Raises:
        RefusedError: It is not such a body; the message repeats nothing of it.
    """
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"] if part != "list[str]")
        message = f"{where or 'The body'}: {first['msg'].removeprefix('Value error, ')}"
        raise RefusedError(400, f"{message}. See /docs for what this request takes.") from None
