"""The check of a bundle on the machine that it is to run on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import GOLDEN, make_bundle

from export import check
from export.bundle import write_manifest
from export.console import guarded
from export.machine import cores

ROOT = Path(__file__).parent.parent
RECORDED = {"p50": 0.5, "p95": 0.75}
LEDGER = [
    {"stage": "quantize", "threads": 2, "latency_ms": {"batch_1": {"p50": 9, "p95": 9}}},
    {"stage": "bundle", "threads": 2, "latency_ms": {"batch_1": RECORDED}},
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("packed") / "bundle", ledger=LEDGER)


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(packed, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "cores", lambda: 2)


def report(bundle: Path, capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    assert check.main([str(bundle), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_sound_bundle_is_timed_with_every_number_of_threads(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(packed, capsys)
    assert found["passed"] is True
    assert len(found["checks"]) == 6 + len(GOLDEN) + 1  # files, golden texts, their sum
    assert [row["threads"] for row in found["latency"]] == [1, 2]
    for row in found["latency"]:
        for size in ("batch_1", "batch_32"):
            assert 0 < row[size]["p50"] <= row[size]["p95"]
    assert found["recorded"] == {"threads": 2, "batch_1": RECORDED}
    assert {name: own["packed"] == own["here"] for name, own in found["versions"].items()} == {
        "numpy": True, "onnxruntime": True, "tokenizers": True,
    }  # fmt: skip
    assert found["processor"]["cores"] == 2


def test_people_see_a_small_table(
    packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"batch_1": {"p50": 1.0, "p95": 2.0}, "batch_32": {"p50": 16.0, "p95": 20.0}}
    monkeypatch.setattr(
        check, "sweep", lambda _, threads: [{"threads": n, **times} for n in threads]
    )
    assert check.main([str(packed)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "Self-test passed: 12 checks of files and golden answers."
    heads = [line.startswith("ms a call") for line in lines]
    rows = [line.split() for line in lines[heads.index(True) + 1 :]]
    assert rows == [
        ["recorded", "2", "0.50", "0.75", "2,000"],
        ["batch", "1", "1", "1.00", "2.00", "2.00×", "1,000"],
        ["batch", "1", "2", "1.00", "2.00", "2.00×", "1,000"],
        ["batch", "32", "1", "16.00", "20.00", "2,000"],
        ["batch", "32", "2", "16.00", "20.00", "2,000"],
    ]


def test_a_bundle_that_was_never_timed_says_so(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    content["ledger"] = [{"stage": "bundle", "latency_ms": {}}]
    content["versions"]["onnxruntime"] = "0.1"
    write_manifest(bundle, content)
    assert check.main([str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "records no time of its own" in said
    assert "packed with 0.1" in said
    assert "×" not in said


def test_a_changed_file_fails_and_nothing_is_timed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "README.md").write_text("other")
    (bundle / "edge.py").unlink()
    assert check.main([str(bundle)]) == 1
    one, two, last = capsys.readouterr().out.splitlines()
    assert one.startswith(f"FAIL {bundle / 'README.md'} has changed since it was packed")
    assert two.startswith(f"FAIL {bundle / 'edge.py'} cannot be read")
    assert last == "Self-test FAILED: do not use this bundle. It was not timed."
    found = report(bundle, capsys, status=1)
    assert (found["passed"], found["latency"]) == (False, [])


def test_a_damaged_manifest_fails(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle / "bundle.json"
    path.write_bytes(path.read_bytes().replace(b"tiny", b"tinY"))
    assert check.main([str(bundle)]) == 1
    assert "bundle.json has changed since it was packed" in capsys.readouterr().out


def test_a_wrong_answer_under_renewed_sums_fails(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    content["golden"]["labels"][0] = "person"
    write_manifest(bundle, content)
    found = report(bundle, capsys, status=1)
    failed = [each["message"] for each in found["checks"] if not each["passed"]]
    assert "(was person)" in failed[0]
    assert found["latency"] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{}"], "is not a bundle: it has no bundle.json."),
        (["{}/none"], "is not a bundle: it is no folder."),
        ([], "The following arguments are required: BUNDLE."),
        (["{}", "--js"], "Unrecognized arguments: --js."),
    ],
)
def test_what_is_no_bundle_and_no_command_is_one_line(
    tmp_path: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([word.format(tmp_path) for word in arguments]) == 3
    out, said = capsys.readouterr()
    assert told in said
    assert (out, said.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("content", "flags", "dot_product"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", ["avx2", "avx512_vnni", "avx512f"], True),
        ("flags : fpu sse2 avx2\n\nflags : fpu avx2\n", ["avx2"], False),
        ("Features\t: fp asimd asimddp\n", ["asimddp"], True),
        (None, None, None),
    ],
    ids=["vnni", "no vnni", "arm", "not linux"],
)
def test_flags_that_matter_for_int8_are_found(
    tmp_path: Path, content: str | None, flags: list[str] | None, dot_product: bool | None
) -> None:
    path = tmp_path / "cpuinfo"
    if content:
        path.write_text(f"model name\t: Some: Processor\n{content}")
    found = check.processor(path)
    assert (found["flags"], found["int8_dot_product"]) == (flags, dot_product)
    assert not content or found["name"] == "Some: Processor"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux binds to cores")
def test_cores_are_those_that_the_process_may_use(tmp_path: Path) -> None:
    quota, all_cores = tmp_path / "cpu.max", os.sched_getaffinity(0)
    assert cores(quota) == len(all_cores)  # no such file
    told = {"max 100000": 10**6, "150000 100000": 2, "10000 100000": 1, "": 10**6}
    for text, most in told.items():
        quota.write_text(text)
        assert cores(quota) == min(len(all_cores), most)
    try:
        os.sched_setaffinity(0, {min(all_cores)})
        assert cores(quota) == 1
    finally:
        os.sched_setaffinity(0, all_cores)


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_thread_counts_double_up_to_the_cores(most: int, counts: list[int]) -> None:
    assert check.thread_counts(most) == counts


def test_stopping_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> int:
        raise KeyboardInterrupt

    assert guarded(stopped) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_checking_needs_no_torch(packed: Path) -> None:
    code = (
        "import sys\n"
        "from export import check\n"
        "light = {'numpy', 'onnxruntime', 'tokenizers'} & sys.modules.keys()\n"
        "check._ROUNDS = check._BATCH_ROUNDS = 1\n"
        "status = check.main([sys.argv[1]])\n"
        "print(status, light, {'torch', 'transformers', 'pandas', 'onnx'} & sys.modules.keys())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(packed)], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0 set() set()"
