"""What a client of the server sees: the protocol, the plain route, metrics, and refusals."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tiny_bundle import LABELS, make_bundle
from tiny_server import Address, running
from tritonclient.utils import InferenceServerException

from export import edge
from export.serving.protocol import JSON_LENGTH

TEXTS = [
    "Who is it?",
    "WHO ÍS thé moon",
    "漢漢who漢",
    "how\tbig\nis\r\nit",
    "wh\x00o \x07is\u200bit",
    "😀 who 👩‍👩‍👧 is it",
    "[SEP] who [PAD] [CLS]",
    "?" * 100,
    "where is the moon how big who was it where is the moon",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # "person" is never given: its threshold is above what the model ever says.
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    decision = {"temperature": 2.5, "offsets": {"größe": 0.8}, "thresholds": {"person": 1.0}}
    return make_bundle(folder, **decision)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Address]:
    with running(bundle, "--max-texts", "20", "--max-characters", "200", token=None) as address:
        yield address


@pytest.fixture(scope="module")
def expected(bundle: Path) -> list[edge.Prediction]:
    model = edge.Model(bundle)
    return [model.predict([text])[0] for text in TEXTS]


@pytest.fixture
def client(server: Address) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as found:
        yield found


def tensor(texts: list[str], binary: bool, shape: list[int] | None = None) -> Any:
    found = triton.InferInput("text", shape or [len(texts)], "BYTES")
    values = np.array([text.encode() for text in texts], dtype=object).reshape(shape or -1)
    if not binary:
        values = np.array(texts, dtype=object).reshape(shape or -1)
    return found.set_data_from_numpy(values, binary_data=binary)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tritonclient_gets_what_the_bundle_answers(
    client: Any, expected: list[edge.Prediction], binary_in: bool, binary_out: bool | None,
    compression: str | None,
) -> None:  # fmt: skip
    outputs = None
    if binary_out is not None:
        outputs = [
            triton.InferRequestedOutput(name, binary_data=binary_out)
            for name in ("label", "probabilities")
        ]
    found = client.infer(
        "tiny", [tensor(TEXTS, binary_in)], outputs=outputs, request_id="mine",
        request_compression_algorithm=compression,
    )  # fmt: skip
    assert found.get_response()["id"] == "mine"
    probabilities = found.as_numpy("probabilities")
    assert probabilities.shape == (len(TEXTS), len(LABELS))
    assert probabilities.dtype == np.float32
    wanted = [list(each.probabilities.values()) for each in expected]
    np.testing.assert_allclose(probabilities, wanted, atol=1e-6)
    labels = [
        value.decode() if isinstance(value, bytes) else value for value in found.as_numpy("label")
    ]
    assert labels == [each.label or "" for each in expected]
    assert {"", *labels} > {""}  # some are decided, some are not


def test_tritonclient_reads_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("huge")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    found = client.get_model_metadata("tiny", "1")
    assert found["versions"] == ["1"]
    assert found["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert found["outputs"][0] == {
        "name": "probabilities", "datatype": "FP32", "shape": [-1, len(LABELS)],
    }  # fmt: skip
    assert found["parameters"]["labels"] == LABELS
    (entry,) = client.get_model_repository_index()
    assert entry == {"name": "tiny", "version": "1", "state": "READY", "reason": ""}


def test_head_answers_as_get_without_a_body(server: Address) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready", "/v2", "/metrics"):
        head = server.ask(path, method="HEAD")
        assert (head.status, head.content) == (200, b"")
        assert head.headers.keys() == server.ask(path).headers.keys()
    assert server.ask("/v2/models/huge/ready", method="HEAD").status == 404
    assert server.ask("/predict", method="HEAD").status == 405


def test_only_requested_outputs_come_and_shapes_are_kept(client: Any) -> None:
    wanted = [triton.InferRequestedOutput("label", binary_data=True)]
    found = client.infer("tiny", [tensor(TEXTS[:2], True, [2, 1])], "1", outputs=wanted)
    assert [each["name"] for each in found.get_response()["outputs"]] == ["label"]
    assert found.as_numpy("label").shape == (2, 1)
    with pytest.raises(InferenceServerException, match="name"):
        client.infer(
            "tiny", [tensor(TEXTS[:1], True)], outputs=[triton.InferRequestedOutput("logits")]
        )


def test_the_plain_route_answers_one_text_or_several(
    server: Address, expected: list[edge.Prediction]
) -> None:
    several = server.ask("/predict", {"texts": TEXTS, "model": "tiny", "version": "1"})
    assert several.status == 200
    assert several.content["model"] == "tiny"
    found = several.content["predictions"]
    assert [each["label"] for each in found] == [each.label for each in expected]
    assert list(found[0]["probabilities"]) == LABELS
    one = server.ask("/predict", {"text": TEXTS[0]}).content["predictions"]
    assert one[0]["probabilities"] == pytest.approx(expected[0].probabilities, abs=1e-6)


def test_many_clients_get_their_own_answers_in_shared_batches(
    server: Address, expected: list[edge.Prediction]
) -> None:
    with ThreadPoolExecutor(16) as pool:
        asked = [place % len(TEXTS) for place in range(200)]
        found = list(pool.map(lambda place: server.ask("/predict", {"text": TEXTS[place]}), asked))
    for place, reply in zip(asked, found, strict=True):
        (answer,) = reply.content["predictions"]
        assert answer["probabilities"] == pytest.approx(expected[place].probabilities, abs=1e-6)
    metrics = server.ask("/metrics").content.decode()
    total = {
        line.split("{")[0]: float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("potstill_batch_texts_")
    }
    assert total["potstill_batch_texts_count"] < total["potstill_batch_texts_sum"]
    assert 'potstill_model_ready{model="tiny",version="1"} 1.0' in metrics
    assert 'potstill_requests_total{route="/predict",status="200"}' in metrics


def request(**changes: Any) -> dict[str, Any]:
    """A request for one text, changed."""
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Who?"]}
    top = {key: changes.pop(key) for key in ("outputs", "id", "inputs") if key in changes}
    return {"inputs": [text | changes]} | top


def binary(tail: bytes, size: Any = None, shape: int = 1) -> tuple[bytes, dict[str, str]]:
    """A request whose tensor comes after the JSON."""
    text = request(shape=[shape])["inputs"][0]
    del text["data"]
    text["parameters"] = {"binary_data_size": len(tail) if size is None else size}
    head = json.dumps({"inputs": [text]}).encode()
    return head + tail, {JSON_LENGTH: str(len(head))}


INFER = "/v2/models/tiny/infer"
WRONG: dict[str, tuple[str, Any, dict[str, str], int, str]] = {
    "no JSON": ("/predict", b"{", {}, 400, "Invalid JSON"),
    "not an object": ("/predict", b"[]", {}, 400, "object"),
    "deep": ("/predict", b"[" * 100_000, {}, 400, "JSON"),
    "not UTF-8": ("/predict", b'{"text": "\xff"}', {}, 400, "JSON"),
    "lone surrogate": ("/predict", b'{"text": "\\ud800"}', {}, 400, "JSON"),
    "neither": ("/predict", {}, {}, 400, "either text or texts"),
    "both": ("/predict", {"text": "a", "texts": ["b"]}, {}, 400, "either text or texts"),
    "number": ("/predict", {"text": 3}, {}, 400, "text: "),
    "unknown key": ("/predict", {"text": "a", "txt": 1}, {}, 400, "txt: "),
    "blank": ("/predict", {"texts": ["Who?", " \n"]}, {}, 400, "Text 1 is blank"),
    "none": ("/predict", {"texts": []}, {}, 400, "no text"),
    "too many": ("/predict", {"texts": ["a"] * 21}, {}, 413, "21 texts"),
    "too long": ("/predict", {"text": "a" * 201}, {}, 413, "201 characters"),
    "no such model": ("/predict", {"text": "a", "model": "b"}, {}, 404, "No model"),
    "no such version": ("/predict", {"text": "a", "version": "7"}, {}, 404, "these do: 1"),
    "no such path": ("/v2/models/tiny/guess", {}, {}, 404, "/docs"),
    "path out": ("/v2/models/..%2f..%2fetc/infer", request(), {}, 404, "docs"),
    "no inputs": (INFER, request(inputs=[]), {}, 400, "inputs"),
    "other input": (INFER, request(name="image"), {}, 400, "inputs.0.name"),
    "other type": (INFER, request(datatype="FP32"), {}, 400, "datatype"),
    "no data": (INFER, request(data=None), {}, 400, "neither data"),
    "shape": (INFER, request(shape=[2]), {}, 400, "do not fit"),
    "negative shape": (INFER, request(shape=[-1]), {}, 400, "shape"),
    "huge shape": (INFER, request(shape=[10**30, 1]), {}, 400, "fit"),
    "wide": (INFER, request(shape=[1, 2], data=["a", "b"]), {}, 400, r"[N, 1]"),
    "twice": (INFER, request(outputs=[{"name": "label"}] * 2), {}, 400, "twice"),
    "class": (
        INFER, request(outputs=[{"name": "label", "parameters": {"classification": 3}}]), {},
        400, "classification",
    ),
    "length": (INFER, b"{}", {JSON_LENGTH: "3"}, 400, JSON_LENGTH),
    "no length": (INFER, b"{}", {JSON_LENGTH: "-1"}, 400, JSON_LENGTH),
    "long length": (INFER, b"{}", {JSON_LENGTH: "0" * 9000}, 400, JSON_LENGTH),
    "cut": (INFER, *binary(struct.pack("<I", 9) + b"Who?"), 400, "longer than the tensor"),
    "cut length": (INFER, *binary(b"\1\0"), 400, "ends within the length"),
    "other size": (INFER, *binary(struct.pack("<I", 4) + b"Who?", 7), 400, "do not fit"),
    "size of a kind": (INFER, *binary(struct.pack("<I", 0), True), 400, "do not fit"),
    "bytes": (INFER, *binary(struct.pack("<I", 1) + b"\xff"), 400, "not UTF-8"),
    "left over": (
        INFER, json.dumps(request()).encode() + b"abc",
        {JSON_LENGTH: str(len(json.dumps(request())))}, 400, "no tensor claims",
    ),
    "encoding": ("/predict", b"{}", {"content-encoding": "br"}, 415, "gzip"),
    "no gzip": ("/predict", b"{}", {"content-encoding": "gzip"}, 400, "gzip"),
    "half a gzip": (
        "/predict", gzip.compress(b'{"text": "Who?"}')[:-9], {"content-encoding": "gzip"}, 400,
        "ends too early",
    ),
    "bomb": (
        "/predict", gzip.compress(b" " * (1 << 21)), {"content-encoding": "gzip"}, 413, "larger",
    ),
    "body": ("/predict", b" " * ((1 << 20) + 1), {}, 413, "larger"),
    "other method": ("/predict", None, {}, 405, "Method"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_malformed_request_is_told_what_is_wrong(server: Address, name: str) -> None:
    path, body, headers, status, message = WRONG[name]
    reply = server.ask(path, body, **headers)
    assert (reply.status, set(reply.content)) == (status, {"error"})
    assert message in reply.content["error"]
    assert "Traceback" not in reply.content["error"]
    assert server.ask("/predict", {"text": "Who?"}).status == 200


def test_the_page_of_the_interface_needs_no_other_server(server: Address) -> None:
    page = server.ask("/docs")
    assert page.status == 200
    assert b"https://" not in page.content
    described = server.ask("/openapi.json").content
    assert {"/predict", "/v2", INFER.replace("tiny", "{name}")} <= described["paths"].keys()
    for path in ("/v2/models/{name}/infer", "/predict"):
        body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"]["$ref"].rpartition("/")[2] in described["components"]["schemas"]
