"""Signatures: what is not what its owner signed is refused before it is loaded."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny_bundle import make_bundle

from export import bundle as packing
from export import check, convert, edge, predict, sign, signature
from export.bundle import write_manifest
from export.errors import ExportError, SignatureError


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mine.pem, mine.pub.pem, other.pem and other.pub.pem."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine.pem", "other.pem"):
        assert sign.main(["--new-key", str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="module")
def packed(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_bundle(tmp_path_factory.mktemp("packed") / "bundle")
    assert sign.main([str(folder), "--key", str(keys / "mine.pem")]) == 0
    return folder


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    """A signed copy that a test may spoil."""
    return Path(shutil.copytree(packed, tmp_path / "bundle"))


def test_a_signed_bundle_is_good_and_works_as_before(bundle: Path, keys: Path) -> None:
    signature.verify(bundle, keys / "mine.pub.pem")
    assert not packing.verify(bundle)
    assert edge.Model(bundle).predict(["Where is the moon?"])[0].label == "place"


def test_the_private_key_is_for_its_owner_alone(keys: Path) -> None:
    assert (keys / "mine.pem").stat().st_mode & 0o077 == 0
    assert b"PRIVATE" not in (keys / "mine.pub.pem").read_bytes()


def _change_model(bundle: Path) -> None:
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def _forge(bundle: Path) -> None:
    """Change a file and all sums, as edge.py alone could not tell."""
    _change_model(bundle)
    write_manifest(bundle, edge.read_manifest(bundle))


def _sign_other_content(bundle: Path) -> None:
    path = bundle / "bundle.sig"
    content = json.loads(path.read_text())
    content["signature"] = "A" * 86 + "=="
    path.write_text(json.dumps(content))


def _link(bundle: Path) -> None:
    moved = bundle.parent / "README.md"
    (bundle / "README.md").rename(moved)
    (bundle / "README.md").symlink_to(moved)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda bundle: (bundle / "bundle.sig").unlink(), "is not signed: it has no bundle.sig"),
        (lambda bundle: (bundle / "bundle.sig").write_text("{}"), "is no signature, or damaged"),
        (lambda bundle: (bundle / "bundle.sig").write_text("[" * 99_999), "is no signature"),
        (_sign_other_content, "bundle.json is not what was signed"),
        (_forge, "bundle.json is not what was signed"),
        (_change_model, "model.onnx has changed since it was packed"),
        (lambda bundle: (bundle / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
        (lambda bundle: (bundle / "numpy.py").write_text(""), "numpy.py is not a file of the"),
        (lambda bundle: (bundle / "__pycache__").mkdir(), "__pycache__ is not a file of the"),
        (_link, "README.md is not a file of the bundle as it was packed"),
    ],
)
def test_what_was_not_signed_is_refused(
    bundle: Path, keys: Path, spoil: Callable[[Path], Any], told: str
) -> None:
    spoil(bundle)
    with pytest.raises(SignatureError) as caught:
        signature.verify(bundle, keys / "mine.pub.pem")
    assert told in str(caught.value)


def test_another_key_is_told_from_a_change(bundle: Path, keys: Path) -> None:
    with pytest.raises(SignatureError, match=r"is signed with the key [0-9a-f]{16}…, and"):
        signature.verify(bundle, keys / "other.pub.pem")
    content = json.loads((bundle / "bundle.sig").read_text())
    other = signature.sign(bundle, keys / "other.pem")
    signature.verify(bundle, keys / "other.pub.pem")
    claimed = json.loads(other.read_text()) | {"key": content["key"]}
    other.write_text(json.dumps(claimed))  # a forger's signature under the owner's name
    with pytest.raises(SignatureError, match="is not what was signed"):
        signature.verify(bundle, keys / "mine.pub.pem")


def test_a_newer_format_is_told(bundle: Path, keys: Path) -> None:
    path = bundle / "bundle.sig"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(SignatureError, match="format and algorithm"):
        signature.verify(bundle, keys / "mine.pub.pem")


def test_only_a_whole_bundle_is_signed(bundle: Path, keys: Path) -> None:
    before = (bundle / "bundle.sig").read_bytes()
    (bundle / "more.txt").write_text("x")
    with pytest.raises(SignatureError, match=r"more\.txt is not a file of the bundle"):
        signature.sign(bundle, keys / "mine.pem")
    (bundle / "more.txt").unlink()
    _change_model(bundle)
    with pytest.raises(edge.BundleError, match=r"model\.onnx has changed"):
        signature.sign(bundle, keys / "mine.pem")
    assert (bundle / "bundle.sig").read_bytes() == before


def test_packing_again_takes_the_old_signature_away(bundle: Path) -> None:
    make_bundle(bundle)
    assert not (bundle / "bundle.sig").exists()


def test_an_encrypted_key_takes_its_passphrase_from_the_environment(
    bundle: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = form.load_pem_private_key((keys / "mine.pem").read_bytes(), None)
    locked = form.BestAvailableEncryption(b"secret")
    path = tmp_path / "locked.pem"
    path.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked))
    with pytest.raises(ExportError, match="POTSTILL_KEY_PASSPHRASE"):
        signature.sign(bundle, path)
    monkeypatch.setenv("POTSTILL_KEY_PASSPHRASE", "wrong")
    with pytest.raises(ExportError, match="POTSTILL_KEY_PASSPHRASE"):
        signature.sign(bundle, path)
    monkeypatch.setenv("POTSTILL_KEY_PASSPHRASE", "secret")
    signature.sign(bundle, path)
    signature.sign(bundle, keys / "mine.pem")  # one that needs none
    signature.verify(bundle, keys / "mine.pub.pem")


def _of_another_kind(path: Path, private: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    if private:
        pkcs8 = form.PrivateFormat.PKCS8
        content = key.private_bytes(form.Encoding.PEM, pkcs8, form.NoEncryption())
    else:
        info = form.PublicFormat.SubjectPublicKeyInfo
        content = key.public_key().public_bytes(form.Encoding.PEM, info)
    path.write_bytes(content)


@pytest.mark.parametrize("private", [True, False])
def test_keys_that_cannot_be_used_are_told(
    bundle: Path, keys: Path, tmp_path: Path, private: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path, option = tmp_path / "key.pem", "--key" if private else "--public-key"

    def told(file: Path) -> str:
        assert sign.main([str(bundle), option, str(file)]) == 3
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "cannot be read or written" in told(path)
    path.write_text("no key")
    assert "cannot be read as a p" in told(path)
    _of_another_kind(path, private)
    assert "holds no Ed25519 key" in told(path)
    swapped = keys / ("mine.pub.pem" if private else "mine.pem")
    assert "cannot be read as a p" in told(swapped)


def test_keys_are_not_replaced(keys: Path, tmp_path: Path, capsys: Any) -> None:
    before = (keys / "mine.pem").read_bytes()
    assert sign.main(["--new-key", str(keys / "mine.pem")]) == 3
    assert "keys are not replaced" in capsys.readouterr().err
    assert (keys / "mine.pem").read_bytes() == before
    (tmp_path / "a.pub.pem").touch()
    assert sign.main(["--new-key", str(tmp_path / "a.pem")]) == 3
    assert not (tmp_path / "a.pem").exists()


def test_a_signature_by_the_key_of_something_else_is_none(bundle: Path, keys: Path) -> None:
    """The bare bytes of bundle.json, signed by the key for another use, do not pass."""
    import base64

    key = form.load_pem_private_key((keys / "mine.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    path = bundle / "bundle.sig"
    bare = base64.b64encode(key.sign((bundle / "bundle.json").read_bytes())).decode()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"signature": bare}))
    with pytest.raises(SignatureError, match="is not what was signed"):
        signature.verify(bundle, keys / "mine.pub.pem")


@pytest.mark.parametrize("command", ["sign", "check", "predict", "convert"])
def test_commands_check_the_signature_before_they_load(
    bundle: Path,
    keys: Path,
    tmp_path: Path,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("text\nWhere is the moon?\n")
    run, more = {
        "sign": (sign.main, []),
        "check": (check.main, ["--json"]),
        "predict": (predict.main, ["--input", str(table), "--output", str(tmp_path / "out.csv")]),
        "convert": (convert.main, ["--to", "triton", "--out", str(tmp_path / "models")]),
    }[command]
    arguments = [str(bundle), "--public-key", str(keys / "mine.pub.pem"), *more]
    monkeypatch.setattr(check, "_ROUNDS", 1)
    monkeypatch.setattr(check, "_BATCH_ROUNDS", 1)
    assert run(arguments) == 0
    capsys.readouterr()
    _forge(bundle)
    monkeypatch.setattr(edge.Model, "_load", None)  # nothing of it may be loaded
    assert run(arguments) == 1
    out, said = capsys.readouterr()
    assert out == ""
    assert "bundle.json is not what was signed" in said


@pytest.mark.parametrize(
    "arguments",
    [["x", "--new-key", "y"], ["--key", "y"], ["--public-key", "y"], ["x"], []],
)
def test_a_wrong_command_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign.main(arguments) == 3
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)


def test_a_missing_package_is_named(
    bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ExportError, match=r"potstill\[sign\]"):
        signature.verify(bundle, keys / "mine.pub.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_makes_keys_too(bundle: Path, tmp_path: Path) -> None:
    mine, public = tmp_path / "o.pem", tmp_path / "o.pub.pem"
    assert not os.system(f"openssl genpkey -algorithm ed25519 -out {mine}")
    assert not os.system(f"openssl pkey -in {mine} -pubout -out {public}")
    signature.sign(bundle, mine)
    signature.verify(bundle, public)
