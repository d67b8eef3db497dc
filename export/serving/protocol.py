"""Requests and answers of the open inference protocol v2, in JSON and in binary.

Source: the protocol's "Required API" for HTTP, and the binary tensor data extension of Triton's.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from export import edge
from export.serving.limits import RefusedError
from export.serving.schemas import InferRequest, InputTensor, read

#: Says how many bytes of the body are JSON; the tensors follow.
JSON_LENGTH = "inference-header-content-length"
OUTPUTS = ("probabilities", "label")
#: Of a model that gives numbers.
NUMBERS = ("value",)
EXTENSIONS = ["binary_tensor_data", "model_repository"]
PLATFORM = "onnxruntime_onnx"
_LENGTH = struct.Struct("<I")
_DIGITS = 8  # of a probability in JSON: FP32 holds no more


@dataclass(frozen=True)
class Asked:
    """A request that has been understood.

    Attributes:
        texts: What to classify.
        shape: Of the input tensor.
        outputs: Name to whether it is wanted in binary, in the order of the answer; none for all
            that the model has.
        binary: Whether outputs that are not named are wanted in binary.
        id: The client's own, given back.
    """

    texts: list[str]
    shape: list[int]
    outputs: dict[str, bool]
    id: str
    binary: bool = False


def parse(body: bytes, json_length: str | None) -> Asked:
    """Understand the body of an inference request.

    Args:
        body: JSON, then binary tensors if there are any.
        json_length: The header `JSON_LENGTH`; None if all of the body is JSON.

    Raises:
        RefusedError: It is malformed (400).
    """
    size = len(body)
    if json_length is not None:
        if not re.fullmatch("[0-9]{1,12}", json_length) or int(json_length) > size:
            raise RefusedError(
                400, f"{JSON_LENGTH} has to be a number up to the body's {size} bytes."
            )
        size = int(json_length)
    request = read(InferRequest, body[:size])
    (tensor,) = request.inputs
    texts = _texts(tensor, body[size:])
    count = tensor.shape[0] * (tensor.shape[1] if len(tensor.shape) == 2 else 1)
    if len(tensor.shape) == 2 and tensor.shape[1] != 1:
        raise RefusedError(400, f"Shape {tensor.shape} is wrong: text is of shape [N] or [N, 1].")
    if count != len(texts):
        raise RefusedError(400, f"Shape {tensor.shape} and the {len(texts)} texts do not fit.")
    usual = bool(request.parameters.get("binary_data_output", False))
    return Asked(texts, tensor.shape, _outputs(request, usual), request.id, usual)


def _texts(tensor: InputTensor, binary: bytes) -> list[str]:
    size = tensor.parameters.get("binary_data_size")
    if "shared_memory_region" in tensor.parameters:
        raise RefusedError(400, "Shared memory is not on offer: send the texts themselves.")
    if size is None:
        if tensor.data is None:
            raise RefusedError(400, "inputs.0 has neither data nor the parameter binary_data_size.")
        if binary:
            raise RefusedError(
                400, f"{len(binary)} bytes follow the JSON, and no tensor claims them."
            )
        return [text for row in tensor.data for text in ([row] if isinstance(row, str) else row)]
    if tensor.data is not None:
        raise RefusedError(400, "inputs.0 has both data and the parameter binary_data_size.")
    if isinstance(size, bool) or size != len(binary):
        raise RefusedError(
            400, f"binary_data_size and the {len(binary)} bytes after the JSON do not fit."
        )
    return _strings(binary)


def _strings(binary: bytes) -> list[str]:
    """Read a BYTES tensor: each text after its length in four bytes, little end first."""
    texts: list[str] = []
    place = 0
    try:
        while place < len(binary):
            (length,) = _LENGTH.unpack_from(binary, place)
            end = place + _LENGTH.size + length
            if end > len(binary):
                raise RefusedError(400, f"Text {len(texts)} says it is longer than the tensor.")
            texts.append(binary[place + _LENGTH.size : end].decode())
            place = end
    except struct.error:
        raise RefusedError(
            400, f"The tensor ends within the length of text {len(texts)}."
        ) from None
    except UnicodeDecodeError:
        raise RefusedError(400, f"Text {len(texts)} is not UTF-8: convert it.") from None
    return texts


def _outputs(request: InferRequest, usual: bool) -> dict[str, bool]:
    wanted: dict[str, bool] = {}
    for output in request.outputs:
        if output.name in wanted:
            raise RefusedError(400, f"Output {output.name} is asked for twice.")
        for other in ("classification", "shared_memory_region"):
            if output.parameters.get(other):
                raise RefusedError(400, f"The parameter {other} of an output is not on offer.")
        wanted[output.name] = bool(output.parameters.get("binary_data", usual))
    return wanted


def respond(
    asked: Asked, name: str, version: str, problem: str, predictions: Sequence[edge.Prediction]
) -> tuple[bytes, int | None]:
    """Write an answer.

    Returns:
        The body, and how many bytes of it are JSON; None if all are.
    """
    outputs: list[dict[str, Any]] = []
    tensors: list[bytes] = []
    wanted = asked.outputs or dict.fromkeys(outputs_of(problem), asked.binary)
    for output, in_binary in wanted.items():
        tensor, values = _tensor(output, asked.shape, predictions)
        if in_binary:
            tensors.append(_binary(values))
            tensor["parameters"] = {"binary_data_size": len(tensors[-1])}
        else:
            tensor["data"] = values
        outputs.append(tensor)
    answer: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": outputs}
    if asked.id:
        answer["id"] = asked.id
    head = to_json(answer)
    return (b"".join([head, *tensors]), len(head)) if tensors else (head, None)


def _tensor(
    output: str, shape: list[int], predictions: Sequence[edge.Prediction]
) -> tuple[dict[str, Any], list[Any]]:
    if output == "value":
        values: list[Any] = [value for value, _ in predictions]
        return {"name": output, "datatype": "FP32", "shape": [len(values), 1]}, values
    if output == "label":
        labels = [
            json.dumps(label, ensure_ascii=False) if isinstance(label, list) else label or ""
            for label, _ in predictions
        ]
        return {"name": output, "datatype": "BYTES", "shape": shape}, labels
    rows = [rounded(probabilities) for _, probabilities in predictions]
    values = [value for row in rows for value in row.values()]
    return {"name": output, "datatype": "FP32", "shape": [len(rows), len(rows[0])]}, values


def told(prediction: edge.Prediction) -> dict[str, Any]:
    """Return the answer to one text as JSON says it."""
    if not prediction.probabilities:
        return {"value": prediction.label}
    return {"label": prediction.label, "probabilities": rounded(prediction.probabilities)}


def rounded(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Return probabilities to as many digits as FP32 has."""
    return {label: round(value, _DIGITS) for label, value in probabilities.items()}


def _binary(values: Sequence[float] | Sequence[str]) -> bytes:
    import numpy as np

    if isinstance(values[0], str):
        texts = [str(value).encode() for value in values]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    return np.array(values, dtype="<f4").tobytes()


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a content encoding, up to a number of bytes.

    Raises:
        RefusedError: The encoding is another (415), or the bytes are broken (400) or grow too
            large (413).
    """
    windows = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
    if encoding not in windows:
        raise RefusedError(415, "Bodies come as they are, or encoded as gzip or deflate.")
    reader = zlib.decompressobj(windows[encoding])
    try:
        found = reader.decompress(body, limit + 1)
    except zlib.error:
        raise RefusedError(
            400, f"The body is not {encoding}, as its Content-Encoding says."
        ) from None
    if len(found) > limit:
        raise RefusedError(413, f"The body is larger than {limit} bytes: send the texts in parts.")
    if not reader.eof:
        raise RefusedError(400, f"The body's {encoding} ends too early.")
    return found


def outputs_of(problem: str) -> tuple[str, ...]:
    """Return the names of a model's outputs."""
    return NUMBERS if problem == "regression" else OUTPUTS


def check_outputs(asked: Asked, problem: str) -> None:
    """Refuse outputs that a model does not have.

    Raises:
        RefusedError: It has others (400).
    """
    known = outputs_of(problem)
    if wrong := [name for name in asked.outputs if name not in known]:
        raise RefusedError(400, f"The model has no output {wrong[0]}, only {', '.join(known)}.")


def metadata(name: str, versions: Sequence[str], model: edge.Model) -> dict[str, Any]:
    """Return the metadata of a model."""
    labels = len(model.labels)
    shapes = {
        "probabilities": ("FP32", [-1, labels]),
        "label": ("BYTES", [-1]),
        "value": ("FP32", [-1, 1]),
    }
    return {
        "name": name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": output, "datatype": shapes[output][0], "shape": shapes[output][1]}
            for output in outputs_of(model.problem)
        ],
        "parameters": {
            "labels": list(model.labels),
            "problem_type": model.problem,
            "pairs": model.pairs,
        },
    }
