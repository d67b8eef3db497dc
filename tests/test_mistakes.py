"""Mistakes at the command line: one line that says what is wrong, status 3, and nothing lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tiny_bundle

from export import push, serve
from recipes import compare, data, run
from recipes.errors import RecipeError
from recipes.proof import check_reload
from recipes.whole_files import write_json

TOKEN = "a token that is long enough"
ROWS = "text,label\n" + "".join(f"text number {n},{'ab'[n % 2]}\n" for n in range(60))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.make_bundle(tmp_path_factory.mktemp("packed") / "bundle")


def told(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """Return the one line that a refused command has said."""
    assert status == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http://localhost:99999"], "is no URL of a server"),
        (["http://localhost:abc"], "is no URL of a server"),
        (["http://[::1"], "is no URL of a server"),
        (["https://localhost:1", "--ca-file", "nope"], "nope cannot be read"),
        (["https://localhost:1", "--cert-file", "nope"], "There is no file nope"),
        (["http://localhost:1", "--ca-file", "nope"], "Certificates are for https"),
        (["https://localhost:1", "--key-file", "nope"], "give --cert-file too"),
    ],
)
def test_push(
    words: list[str],
    said: str,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(serve.TOKEN, TOKEN)
    assert said in told(capsys, push.main([str(bundle), *words]))


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@localhost:1",
        "https://me:secret@example.com/a",
        "http://me:secret@localhost:abc",
        "http://me:sec/ret@[::1",
        "me:secret@localhost",
    ],
)
def test_push_repeats_no_password(
    url: str, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(serve.TOKEN, TOKEN)
    said = told(capsys, push.main([str(bundle), url]))
    assert "They are not sent: leave them out" in said
    assert "sec" not in said


def test_serve(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    assert "No model lies in" in told(capsys, serve.main([str(tmp_path / "models")]))
    write_json(tmp_path / "ledger.json", {})
    assert "is a run's folder" in told(capsys, serve.main([str(tmp_path)]))
    files = ["--ssl-certfile", "nope", "--ssl-keyfile", "nope"]
    assert "There is no file nope" in told(capsys, serve.main([str(bundle), *files]))
    wait = ["--max-wait-ms", "nan"]
    assert "--max-wait-ms has to be 0 or more" in told(capsys, serve.main([str(bundle), *wait]))


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m recipes.list strategies --json | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_work_goes_on_when_the_reader_has_gone() -> None:
    code = "from export.console import reader_may_go\n"
    code += "with reader_may_go():\n    print('x' * 100_000)\n"
    code += "with reader_may_go():\n    print('more')\nraise SystemExit(2)"
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; {sys.executable} -c "$0" | true', code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "")


def test_a_plan_to_go_on_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "none"), "--dry-run"]
    for words in (["--from", "bundle"], ["--resume"]):
        assert "There is no run" in told(capsys, run.main(["lora_cls", *words, *out]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distill.student.layers=2,3"], "Compare with --to distill"),
        (["gate.max_drop=0.1,0.2", "--to", "distill"], "Nothing that is compared depends on it"),
    ],
)
def test_cells_that_cannot_differ(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--dry-run"]
    assert said in told(capsys, compare.main(["lora_cls", *words, *out]))
    assert compare.main(["lora_cls", "distill.student.layers=2,3", "--to", "distill", *out]) == 0


def test_a_comparison_stays_out_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("task: text_classification\n")
    words = ["lora_cls", "train.epochs=1,2", "--out", str(tmp_path), "--dry-run"]
    assert "holds a run" in told(capsys, compare.main(words))


def test_a_look_says_before_it_looks_that_it_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text(ROWS)
    words = [str(tmp_path / "a.csv"), "--json", str(tmp_path / "none" / "x.json")]
    assert "There is no folder for --json" in told(capsys, data.main(words))


def test_a_training_that_ran_out_of_bounds_is_told_from_a_fault_in_saving() -> None:
    lost: Any = {"validation": np.array([[0.1, 0.2], [np.nan, np.nan]])}
    with pytest.raises(RecipeError, match=r"no number.*train\.learning_rate"):
        check_reload(*[cast("Any", None)] * 3, lost, "The adapter in runs/x")
