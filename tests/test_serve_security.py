"""Who may change what, what an upload may hold, and what happens to those who mean harm."""

from __future__ import annotations

import io
import json
import shutil
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto
from tiny_bundle import make_bundle
from tiny_server import AUTHORIZED, TOKEN, Address, running

from export import edge, push, serve, signature
from export.bundle import write_manifest
from export.errors import ExportError
from export.serving.limits import RefusedError
from export.serving.repository import Repository
from export.serving.upload import unpack

PUSH = "/v2/repository/models/new/push"
QUICK = ("--header-seconds", "0.5", "--body-seconds", "0.5", "--upload-seconds", "0.5")
SMALL = ("--max-upload-bytes", "100000", "--max-header-bytes", "4096")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder / "models" / "tiny" / "1")
    (folder / "models" / "tiny" / "tiny.onnx").unlink()
    (folder / "secret").write_text("secret")
    return folder / "models"


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Address]:
    with running(models, *QUICK, *SMALL) as address:
        yield address


@pytest.fixture(autouse=True)
def nothing_came_in(models: Path, server: Address) -> Iterator[None]:
    """Whatever a test does, the folder stays as it was, and the server serves."""
    before = sorted(models.parent.rglob("*"))
    yield
    assert sorted(models.parent.rglob("*")) == before
    assert server.ask("/predict", {"text": "Who?"}).status == 200


@pytest.fixture
def bundle(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "tiny" / "1", tmp_path / "bundle"))


def packed(bundle: Path, *more: tarfile.TarInfo, leave_out: str = "", mode: Any = "w:") -> bytes:
    """Archive a bundle and more members, each with one byte if it has a size."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=mode) as tar:
        for path in sorted(bundle.iterdir()):
            if path.name != leave_out:
                tar.add(path, path.name)
        for member in more:
            tar.addfile(member, io.BytesIO(b"x"))
    return raw.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    found.size = 1 if kind == tarfile.REGTYPE else 0
    return found


ARCHIVES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "a name with ..": (lambda b: packed(b, member("../evil")), "only plain files"),
    "an absolute name": (lambda b: packed(b, member("/tmp/evil")), "only plain files"),
    "a folder": (lambda b: packed(b, member("inside", tarfile.DIRTYPE)), "only plain files"),
    "a file in one": (lambda b: packed(b, member("inside/file")), "only plain files"),
    "a link": (
        lambda b: packed(b, member("a", tarfile.SYMTYPE, "../../../secret")), "only plain files",
    ),
    "a hard link": (
        lambda b: packed(b, member("a", tarfile.LNKTYPE, "/etc/passwd")), "only plain files",
    ),
    "a device": (lambda b: packed(b, member("a", tarfile.CHRTYPE)), "only plain files"),
    "a pipe": (lambda b: packed(b, member("a", tarfile.FIFOTYPE)), "only plain files"),
    "a hidden file": (lambda b: packed(b, member(".profile")), "only plain files"),
    "a file twice": (lambda b: packed(b, member("edge.py")), "twice"),
    "a file too many": (lambda b: packed(b, member("more.py")), "do not fit"),
    "a file too few": (lambda b: packed(b, leave_out="edge.py"), "do not fit"),
    "no manifest": (lambda b: packed(b, leave_out="bundle.json"), "not a bundle"),
    "compression": (lambda b: packed(b, mode="w:gz"), "not a plain tar"),
    "half an archive": (lambda b: packed(b)[:3000], "not"),
    "noise": (lambda b: b"noise" * 1000, "not a plain tar"),
    "nothing": (lambda b: b"", "not"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_with_anything_but_a_bundle_is_refused(
    server: Address, bundle: Path, name: str
) -> None:
    make, message = ARCHIVES[name]
    reply = server.ask(PUSH, make(bundle), **AUTHORIZED)
    assert reply.status == 400
    assert message in reply.content["error"]


def listed(bundle: Path) -> None:
    """Give a list where bundle.json has its files, under a seal that fits."""
    manifest = edge.read_manifest(bundle)
    raw = json.dumps(manifest | {"files": [1, 2], "sha256": "0" * 64}).encode()
    sealed = raw.replace(b"0" * 64, edge.seal(raw, "0" * 64).encode(), 1)
    (bundle / edge.MANIFEST_FILE).write_bytes(sealed)


def nested(bundle: Path) -> None:
    (bundle / edge.MANIFEST_FILE).write_text("[" * 20_000)


@pytest.mark.parametrize("change", [listed, nested])
def test_a_manifest_that_is_none_is_refused_before_it_is_loaded(
    server: Address, bundle: Path, change: Callable[[Path], None]
) -> None:
    change(bundle)
    reply = server.ask(PUSH, packed(bundle), **AUTHORIZED)
    assert (reply.status, "not a bundle" in reply.content["error"]) == (400, True)


def test_a_manifest_that_is_huge_is_not_read(bundle: Path, tmp_path: Path) -> None:
    with (bundle / edge.MANIFEST_FILE).open("ab") as file:
        file.truncate(17 << 20)
    (tmp_path / "archive").write_bytes(packed(bundle))
    with pytest.raises(RefusedError, match=r"bundle\.json has more than"):
        unpack(tmp_path / "archive", tmp_path / "unpacked", 1 << 30)


def test_an_error_that_nobody_expected_is_told_in_json_without_a_trace(
    server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Repository, "find", fail)
    for path, body in (("/v2/models/tiny", None), ("/predict", {"text": "Who?"})):
        reply = server.ask(path, body)
        assert (reply.status, list(reply.content)) == (500, ["error"])
        assert "secret" not in reply.content["error"]
    monkeypatch.undo()


def test_a_header_that_claims_much_is_not_read(server: Address) -> None:
    giant = tarfile.TarInfo("giant")
    giant.type, giant.size = tarfile.XHDTYPE, 1 << 32
    reply = server.ask(PUSH, giant.tobuf() + b"x" * 9000, **AUTHORIZED)
    assert (reply.status, "too large" in reply.content["error"]) == (400, True)


def outside(bundle: Path) -> None:
    """Let the model keep a weight in a file that lies outside of the bundle."""
    model = onnx.load(bundle / edge.MODEL_FILE)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../../secret"
    (bundle / edge.MODEL_FILE).write_bytes(model.SerializeToString())


def setting(manifest: dict[str, Any]) -> None:
    manifest["session"]["config"]["ep.context_file_path"] = "/tmp/evil"


def unknown_sum(manifest: dict[str, Any]) -> None:
    manifest["golden"] |= {"texts": [], "labels": [], "logits": []}


def many_sums(manifest: dict[str, Any]) -> None:
    golden = manifest["golden"]
    golden |= {name: golden[name] * 99 for name in ("texts", "labels", "logits")}


def no_labels(manifest: dict[str, Any]) -> None:
    manifest["labels"] = [1, 2, 3]


def no_session(manifest: dict[str, Any]) -> None:
    manifest["session"] = None


def word(manifest: dict[str, Any]) -> None:
    manifest["thresholds"] = {"person": "high"}


def above_one(manifest: dict[str, Any]) -> None:
    manifest["thresholds"] = {"person": 1.5}


def cold(manifest: dict[str, Any]) -> None:
    manifest["temperature"] = 0


def shifted(manifest: dict[str, Any]) -> None:
    manifest["offsets"] = {"person": "far"}


def stranger(manifest: dict[str, Any]) -> None:
    manifest["thresholds"] = {"nobody": 0.5}


def one_at_a_time(bundle: Path) -> None:
    """Let the model take one text in a batch, as an export without a free axis would."""
    model = onnx.load(bundle / edge.MODEL_FILE)
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = 1
    (bundle / edge.MODEL_FILE).write_bytes(model.SerializeToString())


FILES = (outside, one_at_a_time)
FIELDS = (
    setting, unknown_sum, many_sums, no_labels, no_session, word, above_one, stranger, cold,
    shifted,
)  # fmt: skip


@pytest.mark.parametrize("change", [*FILES, *FIELDS])
def test_a_bundle_with_right_sums_and_wrong_contents_is_refused(
    server: Address, bundle: Path, change: Callable[[Any], None]
) -> None:
    manifest = edge.read_manifest(bundle)
    change(bundle if change in FILES else manifest)
    write_manifest(bundle, manifest)
    for name in ("new", "tiny"):
        reply = server.ask(f"/v2/repository/models/{name}/push", packed(bundle), **AUTHORIZED)
        assert reply.status == 422, reply.content
        assert str(bundle.parent.parent) not in reply.content["error"]
    assert server.ask("/v2/models/new/ready").status == 404
    assert server.ask("/predict", {"text": "Who?"}).content["version"] == "1"


@pytest.mark.parametrize("name", ["..", ".hidden", "a%2fb", "%2e%2e", "a" * 65, "a%00b", "a%20b"])
def test_a_name_that_is_no_name_is_refused(server: Address, bundle: Path, name: str) -> None:
    for path in ("push", "load", "versions/x/load", "versions/../load"):
        reply = server.ask(f"/v2/repository/models/{name}/{path}", packed(bundle), **AUTHORIZED)
        assert reply.status in (400, 404)


def test_links_in_the_folder_are_not_followed(server: Address, models: Path, bundle: Path) -> None:
    places = [models / "linked", models / "tiny" / "5", models / "tiny" / "6" / "model.onnx"]
    shutil.copytree(bundle, places[2].parent)
    places[2].unlink()
    for place, target in zip(places, (bundle.parent, bundle, bundle / "model.onnx"), strict=True):
        place.symlink_to(target)
    try:
        for path in ("linked/load", "tiny/versions/5/load", "tiny/versions/6/load"):
            reply = server.change(path)
            assert (reply.status, "is a link" in reply.content["error"]) == (422, True)
    finally:
        for place in places:
            place.unlink()
        shutil.rmtree(models / "tiny" / "6")


WAYS = [PUSH, "/v2/repository/models/tiny/load", "/v2/repository/models/tiny/unload"]


@pytest.mark.parametrize("path", WAYS)
def test_changes_need_the_token(server: Address, path: str) -> None:
    for shown in ("", TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"):
        reply = server.ask(path, b"x" * 70_000, authorization=shown.encode().decode("latin-1"))
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in reply.content["error"]


def test_changes_are_off_without_a_token(models: Path) -> None:
    with running(models, token=None) as closed:
        for path in WAYS:
            for shown in ({}, AUTHORIZED, {"authorization": "Bearer "}):
                reply = closed.ask(path, b"", **shown)
                assert (reply.status, "off" in reply.content["error"]) == (403, True)


def test_a_token_comes_from_a_file_or_the_environment_and_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(serve.TOKEN, f" {TOKEN}\n")
    assert serve.read_token(None) == TOKEN
    (tmp_path / "token").write_text("short")
    with pytest.raises(ExportError, match="16 or more"):
        serve.read_token(str(tmp_path / "token"))
    monkeypatch.delenv(serve.TOKEN)
    assert serve.read_token(None) is None


def test_a_push_sends_no_token_in_clear_to_other_machines(bundle: Path) -> None:
    for url, message in (
        ("http://192.0.2.1:8000", "in clear"),
        ("http://localhost.example", "in clear"),
        ("ftp://localhost", "no URL"),
        ("localhost:8000", "no URL"),
        ("http://127.0.0.1:1", "does not answer"),
    ):
        with pytest.raises(ExportError, match=message):
            push.push(bundle, url, TOKEN)


HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400),
        ([b"GET / HTTP/9.9\r\n\r\n"], 400),
        ([b"\x00" * 5000], 400),
        ([b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n"], 400),
        ([HEAD + b"content-length: -5\r\n\r\n"], 400),
        ([HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n"], 400),
        ([CHUNKED, b"zz\r\n"], 400),
        ([b"GET / HTTP/1.1\r\nx: ", b"a" * 20_000], 431),
        ([b"GET /" + b"a" * 20_000], 431),
        ([b""], 408),
        ([b"\r\n"], 408),
        ([b"POST /predict HTT"], 408),
        ([HEAD + b"content-length: 50\r\n\r\n", b'{"text": '], 408),
        ([CHUNKED, b'5\r\n{"tex\r\n'], 408),
        ([HEAD + b"content-length: 99999999999999999999\r\n\r\n"], 400),
        ([HEAD + b"content-length: 99999999\r\n\r\n"], 413),
        ([CHUNKED, *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * 17], 413),
    ],
)
def test_whatever_bytes_come_a_status_comes_back(
    server: Address, parts: list[bytes], status: int
) -> None:
    start = time.monotonic()
    assert server.raw(*parts) == status
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_that_is_too_large_or_too_slow_ends(server: Address, declared: bool) -> None:
    head = f"POST {PUSH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n".encode()
    size = b"content-length: 200000\r\n\r\n" if declared else b"transfer-encoding: chunked\r\n\r\n"
    large = [] if declared else [b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 2
    assert server.raw(head + size, *large) == 413
    slow = b"content-length: 2000\r\n\r\n" if declared else b"transfer-encoding: chunked\r\n\r\n"
    assert server.raw(head + slow) == 408


@pytest.mark.parametrize("path", ["/predict", PUSH])
def test_who_hangs_up_is_no_failure(
    server: Address, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    route = path.replace("new", "{name}")
    before = gone(server, route)  # other tests hang up too
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
            "content-length: 50\r\n\r\n{".encode()
        )
        time.sleep(0.1)  # less than a body may take
    until = time.monotonic() + 8
    while gone(server, route) == before:
        assert time.monotonic() < until
    assert gone(server, route) == before + 1
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def gone(server: Address, route: str) -> float:
    """Return how many clients of a route have hung up."""
    series = f'potstill_requests_total{{route="{route}",status="499"}} '
    lines = server.ask("/metrics").content.decode().splitlines()
    return sum(float(each.removeprefix(series)) for each in lines if each.startswith(series))


def test_who_sends_too_much_for_ever_is_cut_off(server: Address) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"

    def send() -> None:
        until = time.monotonic() + 8
        while time.monotonic() < until:
            connection.sendall(chunk)
            time.sleep(0.01)

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(CHUNKED)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send()


def test_with_a_public_key_only_signed_bundles_answer(tmp_path: Path) -> None:
    public_key = signature.new_keys(tmp_path / "key.pem")
    models = tmp_path / "models"
    for version in ("1", "2"):
        make_bundle(models / "tiny" / version)
        (models / "tiny" / "tiny.onnx").unlink()
    signature.sign(models / "tiny" / "1", tmp_path / "key.pem")
    pushed = make_bundle(tmp_path / "pushed" / "bundle")
    with running(models, "--public-key", str(public_key)) as server:
        states = server.ask("/v2/repository/index", {}).content
        assert {each["version"]: each["state"] for each in states} == {
            "1": "READY",
            "2": "UNAVAILABLE",
        }
        status, content = push.push(pushed, server.url, TOKEN, name="new")
        assert (status, "is not signed" in content["error"]) == (422, True)
        signature.sign(pushed, tmp_path / "key.pem")
        assert push.push(pushed, server.url, TOKEN, name="new")[0] == 200
        assert server.ask("/v2/models/new/ready").status == 200


def test_a_broken_folder_stops_neither_the_start_nor_a_load(tmp_path: Path) -> None:
    public_key = signature.new_keys(tmp_path / "key.pem")
    models = tmp_path / "models"
    make_bundle(models / "tiny" / "1")
    signature.sign(models / "tiny" / "1", tmp_path / "key.pem")
    shutil.copytree(models / "tiny" / "1", models / "tiny" / "2")
    shutil.copytree(models / "tiny" / "1", models / "tiny" / "3")
    for version, name in (("2", "bundle.json"), ("3", "bundle.sig")):
        broken = models / "tiny" / version / name
        broken.unlink(missing_ok=True)
        broken.mkdir(exist_ok=True)
    with running(models, "--public-key", str(public_key)) as server:
        assert server.ask("/predict", {"text": "Who?"}).content["version"] == "1"
        for version in ("2", "3"):
            reply = server.change(f"tiny/versions/{version}/load")
            assert reply.status == 422
        public_key.unlink()
        assert "key.pub.pem" in server.change("tiny/versions/1/load").content["error"]
        told = json.dumps(server.ask("/v2/repository/index", {}).content)
        assert "tiny/2/bundle.json" in told
        assert str(tmp_path) not in told
        assert server.ask("/predict", {"text": "Who?"}).content["version"] == "1"


def test_a_public_key_that_is_none_is_told_before_anything_is_served(tmp_path: Path) -> None:
    make_bundle(tmp_path / "models" / "tiny" / "1")
    (tmp_path / "key").write_text("no key")
    with (
        pytest.raises(ExportError, match="cannot be read as a public key"),
        running(tmp_path / "models", "--public-key", str(tmp_path / "key")),
    ):
        pass
