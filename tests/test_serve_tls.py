"""HTTPS: an encrypted key, clients who have to show a certificate, and files that do not fit."""

from __future__ import annotations

import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_bundle import make_bundle
from tiny_server import TOKEN, running

from export import push, serve
from export.errors import ExportError
from export.serving import tls

PASSWORD = "correct horse"


class Pair(NamedTuple):
    certificate: str
    key: str


def made(folder: Path, name: str, password: str | None = None) -> Pair:
    """Make a certificate that is its own authority."""
    found = Pair(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    done = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         *(["-passout", f"pass:{password}"] if password else ["-nodes"]), "-days", "1", "-subj",
         f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-keyout", found.key, "-out",
         found.certificate],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("openssl makes no certificate here")
    return found


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(tmp_path_factory.mktemp("own"), "server", PASSWORD)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(tmp_path_factory.mktemp("client"), "client")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "bundle")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_the_address_may_be_encrypted_and_its_key_too(
    models: Path, own: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tls.PASSWORD, PASSWORD)
    given = ("--ssl-certfile", own.certificate, "--ssl-keyfile", own.key)
    with running(models, *given) as server:
        url = f"https://localhost:{server.port}"
        bundle = models.parent / "bundle"
        status, content = push.push(bundle, url, TOKEN, certificates=own.certificate)
        assert (status, content) == (200, {"name": "tiny", "version": "1"})


def test_clients_may_have_to_show_a_certificate(
    models: Path, own: Pair, client: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    given = ["--ssl-certfile", own.certificate, "--ssl-keyfile", own.key]
    given += ["--ssl-keyfile-password-file", str(tmp_path / "password")]
    given += ["--ssl-ca-certs", client.certificate]
    with running(models, *given) as server:
        url = f"https://localhost:{server.port}"
        asked = [str(tmp_path / "bundle"), url, "--ca-file", own.certificate]
        asked += ["--token-file", str(tmp_path / "token")]
        assert push.main(asked) == 3
        assert "does not answer" in capsys.readouterr().err
        assert push.main([*asked, "--cert-file", own.certificate, "--key-file", own.key]) == 3
        assert "not encrypted" in capsys.readouterr().err
        assert push.main([*asked, "--cert-file", client.certificate, "--key-file", client.key]) == 0
    with running(models, *given, "--ssl-cert-reqs", "optional") as server:
        url = f"https://localhost:{server.port}/v2/health/ready"
        trusted = ssl.create_default_context(cafile=own.certificate)
        with urllib.request.urlopen(url, context=trusted, timeout=20) as answer:
            assert answer.status == 200


def test_files_and_options_that_do_not_fit_are_refused(
    models: Path, own: Pair, client: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = ("--ssl-certfile", own.certificate), ("--ssl-keyfile", own.key)
    wrong = tmp_path / "wrong"
    wrong.write_text("battery staple")
    for given, message in (
        (certificate, "go together"),
        (key, "go together"),
        (("--ssl-ca-certs", client.certificate), "--ssl-ca-certs is for HTTPS"),
        ((*certificate, *key, "--ssl-cert-reqs", "required"), "needs --ssl-ca-certs"),
        ((*certificate, *key), tls.PASSWORD),
        ((*certificate, *key, "--ssl-keyfile-password-file", str(wrong)), str(wrong)),
        ((*certificate, "--ssl-keyfile", client.key), "the key the certificate's"),
        ((*certificate, "--ssl-keyfile", str(tmp_path / "none")), "There is no file"),
    ):
        assert serve.main([str(models), *given]) == 3, given
        assert message in (told := capsys.readouterr().err), told
        assert "staple" not in told
    with pytest.raises(ExportError, match="to be PEM files"):
        serve.build(serve.command_line().parse_args(
            [str(models), "--ssl-certfile", str(wrong), "--ssl-keyfile", str(wrong)]
        ))  # fmt: skip
