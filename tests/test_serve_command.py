"""The commands themselves: start, stop, logs, refusals, and a push."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_bundle import make_bundle
from tiny_server import TOKEN, Address, running

from export import edge, push, serve
from export.serving import logs
from export.serving.limits import Limits, option

ROOT = Path(__file__).parent.parent


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """Run the command on a free port; kill it if it is still there at the end."""
    child = subprocess.Popen(
        [sys.executable, "-m", "export.serve", *arguments, "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr
    try:
        for line in child.stderr:
            if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                yield child, Address(int(found[1]), None)
                break
        else:
            pytest.fail("it did not start")
    finally:
        child.kill()
        child.communicate()


def test_a_stop_answers_what_was_asked_and_logs_hold_no_text(bundle: Path) -> None:
    secret = "who said xyzzy"
    # After a crowd of twenty, ten wait a second for more: all are open when the signal comes.
    slow = ("--max-wait-ms", "1000", "--max-batch", "64", "--workers", "1")
    with command(str(bundle), *slow) as (child, address):
        server = Address(address.port, None)
        found: list[int] = []

        def ask() -> None:
            found.append(server.ask("/predict", {"text": secret}).status)

        assert server.ask("/predict", {"texts": [secret] * 20}).status == 200
        server.ask("/predict", {"txet": secret})
        server.ask(f"/{secret.replace(' ', '%20')}?q={secret.replace(' ', '+')}")
        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        while waiting(server) < 10:
            assert not found
        child.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert found == [200] * 10
        assert child.stderr
        lines = [json.loads(line) for line in child.stderr.read().splitlines()]
        assert child.wait(20) == 0
    asked = [line for line in lines if line["event"] == "request"]
    assert {"method": "POST", "route": "/predict", "status": 200, "texts": 20}.items() <= asked[
        0
    ].items()
    assert "xyzzy" not in json.dumps(lines)


def waiting(server: Address) -> float:
    """Return how many texts wait."""
    (line,) = [
        line
        for line in server.ask("/metrics").content.decode().splitlines()
        if line.startswith("potstill_queue_texts{")
    ]
    return float(line.split()[-1])


def test_a_wrong_command_says_what_is_wrong(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path)
    for arguments, message in (
        ([folder + "/none"], "There is no folder"),
        ([str(bundle), "--max-queue", "8"], "--max-texts 256 is more than --max-queue 8"),
        ([str(bundle), "--max-batch", "0"], "--max-batch has to be above 0"),
        ([str(bundle), "--prot", "80"], "--prot"),
        ([str(bundle), "--port", "99999"], "0 to 65535"),
        ([str(bundle), "--stop-delay", "soon"], "not a number of seconds"),
        ([folder, "--name", "x"], "--name"),
        ([str(bundle), "--name", "My reviews"], "'My reviews' is no name of a model"),
        ([str(bundle), "--name", ""], "is no name of a model"),
        ([str(bundle), "--token-file", folder + "/none"], "none cannot be read"),
    ):
        assert serve.main(arguments) == 3
        assert message in capsys.readouterr().err
    (bundle / edge.MODEL_FILE).write_bytes(b"changed")
    assert serve.main([str(bundle)]) == 1
    assert "has changed" in capsys.readouterr().err


def test_every_limit_is_an_option_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.main(["--help"])
    told = capsys.readouterr().out
    assert all(option(name) in told for name in Limits.__dataclass_fields__)


def test_a_push_through_the_command(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    models = tmp_path / "models"
    models.mkdir()
    with running(models) as server:
        assert push.main([str(bundle), server.url]) == 3
        assert "--token-file" in capsys.readouterr().err
        monkeypatch.setenv(serve.TOKEN, TOKEN + "x")
        assert push.main([str(bundle), server.url]) == 3
        assert "(401)" in capsys.readouterr().err
        monkeypatch.setenv(serve.TOKEN, TOKEN)
        assert push.main([str(bundle), server.url]) == 0
        assert f"tiny version 1 answers on {server.url}" in capsys.readouterr().out
        assert server.ask("/predict", {"text": "Who?"}).content["version"] == "1"
        assert push.main([str(bundle), server.url, "--name", "../x"]) == 3
        assert "is no name of a model" in capsys.readouterr().err
        assert push.main([str(bundle), server.url, "--version", "1"]) == 3
        assert "(409)" in capsys.readouterr().err
        shutil.copyfile(bundle / "README.md", bundle / "edge.py")
        assert push.main([str(bundle), server.url]) == 1
        assert "has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "served"),
    [("问题分类", "model"), ("My reviews", "My-reviews"), (".größe", "gr-e"), ("a" * 99, "a" * 64)],
)
def test_a_bundle_of_any_name_is_served_and_pushed(own: str, served: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", name=own)
    models = tmp_path / "models"
    models.mkdir()
    with running(bundle) as server:
        assert server.ask(f"/v2/models/{served}/ready").status == 200
    with running(models) as server:
        assert push.push(bundle, server.url, TOKEN)[1] == {"name": served, "version": "1"}


def test_a_server_that_is_to_stop_is_not_ready_and_goes_on_for_a_while(bundle: Path) -> None:
    with running(bundle, "--stop-delay", "2") as server:
        assert server.ask("/v2/health/ready").status == 200
        server.server.should_exit = True  # as a signal sets it
        reply = server.ask("/v2/health/ready")
        assert (reply.status, reply.content) == (503, {"error": "The server is about to stop."})
        assert server.ask("/predict", {"text": "Who?"}).status == 200
        assert server.ask("/v2/health/live").status == 200
    with pytest.raises(ConnectionError):
        server.ask("/v2/health/live")


def test_a_token_that_others_may_read_is_told_in_the_log(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "secret"
    token.write_text(TOKEN)
    for mode, told in ((0o644, ["others may read the token"]), (0o640, [])):
        token.chmod(mode)
        caplog.clear()
        serve.build(serve.command_line().parse_args([str(bundle), "--token-file", str(token)]))
        assert [each.message for each in caplog.records if each.levelname == "WARNING"] == told


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    yield
    logging.captureWarnings(False)
    for name in logs.LOGGERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.usefixtures("logs_as_before")
def test_a_line_of_the_log_is_json_whatever_is_in_it() -> None:
    stream = io.StringIO()
    writer = logs.start("info", stream)
    try:
        for text in ("größe 漢 😀", "\udcff", 'a "quoted"\nline'):
            fields = {"file": text, "place": Path("x")}
            logging.getLogger("potstill.test").info("told", extra={"fields": fields})
    finally:
        writer.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["file"] for line in lines] == ["größe 漢 😀", "\udcff", 'a "quoted"\nline']
    assert {(line["event"], line["level"], line["place"]) for line in lines} == {
        ("told", "info", "x")
    }


@pytest.mark.usefixtures("logs_as_before")
def test_what_python_itself_has_to_say_is_json_without_a_text() -> None:
    stream = io.StringIO()
    writer = logs.start("warning", stream)

    def fail(_: str) -> None:
        raise ValueError("secret")

    async def run() -> None:
        asyncio.get_running_loop().call_soon(fail, "secret")
        await asyncio.sleep(0)

    asyncio.run(run())
    warnings.warn("old ways", FutureWarning, stacklevel=1)
    writer.close()
    failed, warned = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (failed["level"], failed["error"]) == ("error", "ValueError")
    assert "secret" not in json.dumps(failed)
    assert "FutureWarning: old ways" in warned["event"]
