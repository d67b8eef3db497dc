"""Scoring tables of any size: what comes out, what is refused, and what a kill leaves."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from filelock import FileLock
from pyarrow import parquet
from tiny_bundle import LABELS, MAX_LENGTH, make_bundle, make_tokenizer
from tokenizers import processors

from export import edge, parts, predict, rows

ROOT = Path(__file__).parent.parent
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
PROBABILITIES = [f"probability_{label}" for label in LABELS]
NEW = ["label", *PROBABILITIES]
WORDS = ["where", "how", "who", "is", "the", "moon", "big", "was", "it", "far"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("packed") / "bundle")


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "WINDOW_ROWS", 10)
    monkeypatch.setattr(rows, "_PARQUET_ROWS", 5)


def texts(count: int) -> list[str]:
    """Texts of one to eight words, all different in what they hold or how long they are."""
    chance = np.random.default_rng(0)
    return [" ".join(chance.choice(WORDS, chance.integers(1, 9))) for _ in range(count)]


def table(path: Path, found: list[dict[str, Any]]) -> Path:
    """Write rows of like columns in the format of the suffix."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(found), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]), delimiter=rows.DELIMITERS[path.suffix])
            writer.writeheader()
            writer.writerows(found)
    return path


def content(path: Path) -> list[dict[str, Any]]:
    """Read a scored table; values of CSV and TSV are text."""
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return found
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=rows.DELIMITERS[path.suffix]))


def run(bundle: Path, source: Path | str, target: Path | str, *more: str) -> int:
    given = [str(bundle), "--input", str(source), "--output", str(target), *more]
    return predict.main([*given, *(() if "--batch-size" in more else ("--batch-size", "4"))])


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": text} for number, text in enumerate(texts(count))]


# --- What comes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_every_row_is_answered_in_its_place(
    bundle: Path, tmp_path: Path, source: str, target: str
) -> None:
    given = numbered(37)
    path = table(tmp_path / f"rows{source}", given)
    assert run(bundle, path, tmp_path / f"scored{target}") == 0
    scored = content(tmp_path / f"scored{target}")
    expected = edge.Model(bundle).predict([row["text"] for row in given])
    assert [list(row) for row in scored] == [["id", "text", *NEW]] * 37
    assert [(int(row["id"]), row["text"]) for row in scored] == [
        (row["id"], row["text"]) for row in given
    ]
    assert [row["label"] for row in scored] == [answer.label for answer in expected]
    found = [[float(row[name]) for name in PROBABILITIES] for row in scored]
    wanted = [list(answer.probabilities.values()) for answer in expected]
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"rows{source}", f"scored{target}"]
    )


def test_values_of_a_csv_file_stay_as_they_were_written(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'\xef\xbb\xbfid, text ,,note\r\n007,"who, ""was"" it?",NA,1e5\r\n\r\n'
        b'1.10,"two\nlines",,"\xe6\xbc\xa2"\r\n'
    )
    assert run(bundle, path, tmp_path / "scored.csv") == 0
    first, second = content(tmp_path / "scored.csv")
    assert list(first) == ["id", "text", "column 3", "note", *NEW]
    assert list(first.values())[:4] == ["007", 'who, "was" it?', "NA", "1e5"]
    assert list(second.values())[:4] == ["1.10", "two\nlines", "", "漢"]
    assert run(bundle, path, tmp_path / "scored.jsonl") == 0
    assert content(tmp_path / "scored.jsonl")[1]["column 3"] is None


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_lone_carriage_return_ends_no_row(bundle: Path, tmp_path: Path, suffix: str) -> None:
    given = [{"a\rb": "1", "text": "how far\ris it"}, {"a\rb": "\r", "text": "who\r\nwas\nit\r\n"}]
    path, once, twice = (tmp_path / f"{name}{suffix}" for name in ("rows", "once", "twice"))
    assert run(bundle, table(path, given), once) == 0
    assert run(bundle, once, twice, "--prefix", "p_") == 0
    frame = pandas.read_csv(twice, sep=rows.DELIMITERS[suffix], dtype=str)
    for scored in (content(once), content(twice), frame.to_dict("records")):
        assert [{name: row[name] for name in given[0]} for row in scored] == given
    assert once.read_bytes().endswith(b"\n")
    assert not once.read_bytes().endswith(b"\r\n")


MIXED = [
    {"text": "who", "n": 1, "whole": 3, "mix": 1, "deep": {"a": [1]}, "on": True, "big": 2**70},
    {"n": 2.5, "whole": None, "mix": "x", "none": None, "text": "how"},
]


def test_fields_of_json_lines_may_differ(bundle: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "rows.jsonl", MIXED)
    assert run(bundle, path, tmp_path / "scored.jsonl") == 0
    for row, scored in zip(MIXED, content(tmp_path / "scored.jsonl"), strict=True):
        assert list(scored) == [*row, *NEW]
        assert {name: scored[name] for name in row} == row

    assert run(bundle, path, tmp_path / "scored.csv") == 0
    one, two = content(tmp_path / "scored.csv")
    names = ["text", "n", "whole", "mix", "deep", "on", "big", "none"]
    assert list(one)[:8] == names
    assert list(one.values())[:8] == ["who", "1", "3", "1", '{"a": [1]}', "true", str(2**70), ""]
    assert list(two.values())[:8] == ["how", "2.5", "", "x", "", "", "", ""]

    assert run(bundle, path, tmp_path / "scored.parquet") == 0
    found = parquet.read_table(tmp_path / "scored.parquet")
    kinds = dict(zip(found.column_names, map(str, found.schema.types), strict=True))
    assert [kinds[name] for name in names] == [
        "string", "double", "int64", "string", "string", "bool", "string", "string",
    ]  # fmt: skip
    assert found.column("mix").to_pylist() == ["1", '"x"']
    assert found.column("n").to_pylist() == [1.0, 2.5]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_json_does_not_know_is_null_however_deep(
    bundle: Path, tmp_path: Path, suffix: str
) -> None:
    path, target = tmp_path / "rows.jsonl", tmp_path / f"scored{suffix}"
    line = '{{"text": "NaN is it", "x": {}[-Infinity, "NaN", {{"a": NaN}}, 1e999]{}}}\n'
    path.write_text(line.format("[" * 600, "]" * 600))
    assert run(bundle, path, target) == 0
    (row,) = content(target)
    assert row["text"] == "NaN is it"
    deep = row["x"] if suffix == ".jsonl" else json.loads(row["x"])
    for _ in range(600):
        (deep,) = deep
    assert deep == [None, "NaN", {"a": None}, None]


def test_a_value_that_is_nested_too_deeply_is_one_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """About where Python can read it no more, there is an answer or a message."""
    path, target = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    for depth in range(960, 1000, 3):
        path.write_text(f'{{"text": "who", "x": {"[" * depth}NaN{"]" * depth}}}\n')
        status = run(bundle, path, target, "--overwrite")
        said = capsys.readouterr().err
        assert (status == 0) == ("1 rows scored" in said)
        assert (status == 3) == ("is not JSON" in said)
        assert said.count("\n") == 1


def test_columns_of_a_parquet_file_keep_their_types(bundle: Path, tmp_path: Path) -> None:
    given = pa.table(
        {
            "text": pa.array([*texts(11), None]).dictionary_encode(),
            "when": pa.array([datetime.datetime(2026, 1, 2)] * 12, pa.timestamp("ns")),
            "small": pa.array([1, None] * 6, pa.int8()),
            "real": pa.array([float("nan"), 1.5] * 6),
            "deep": pa.array([[{"a": 1}]] * 12),
        }
    ).replace_schema_metadata({"owner": "me"})
    parquet.write_table(given, tmp_path / "rows.parquet")
    assert run(bundle, tmp_path / "rows.parquet", tmp_path / "scored.parquet") == 0
    scored = parquet.read_table(tmp_path / "scored.parquet")
    assert scored.schema.types[:5] == given.schema.types
    assert scored.schema.metadata[b"owner"] == b"me"
    assert scored.select(given.column_names[:3]).equals(given.select(given.column_names[:3]))
    assert scored.column("label").null_count == 1

    assert run(bundle, tmp_path / "rows.parquet", tmp_path / "scored.jsonl") == 0
    lines = (tmp_path / "scored.jsonl").read_text()
    assert "NaN" not in lines
    first = json.loads(lines.splitlines()[0])
    assert (first["real"], first["when"], first["deep"]) == (
        None, "2026-01-02 00:00:00", [{"a": 1}],
    )  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_without_a_text_are_kept_without_an_answer(
    bundle: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"id": n, "text": text} for n, text in enumerate(["who", None, "", " \t ", "how"])]
    path = table(tmp_path / f"rows{suffix}", given)
    assert run(bundle, path, tmp_path / "scored.jsonl") == 0
    scored = content(tmp_path / "scored.jsonl")
    assert [row["label"] for row in scored] == ["person", None, None, None, "größe"]
    for row in scored[1:4]:
        assert [row[name] for name in PROBABILITIES] == [None] * 3
    assert "5 rows scored" in (said := capsys.readouterr().err)
    assert "3 have no text and so no label" in said


def test_temperature_and_offsets_are_those_of_the_bundle(tmp_path: Path) -> None:
    decision = {"temperature": 2.5, "offsets": {"größe": 3.0}, "thresholds": {"größe": 0.4}}
    folder = make_bundle(tmp_path / "bundle", **decision)
    given = ["who is it", "how big", "where is the moon"]
    path = table(tmp_path / "rows.csv", [{"text": text} for text in given])
    assert run(folder, path, tmp_path / "scored.jsonl") == 0
    # An int8 model would need one batch; this one answers alone as among others.
    for row, answer in zip(
        content(tmp_path / "scored.jsonl"), edge.Model(folder).predict(given), strict=True
    ):
        assert row["label"] == answer.label
        shares = [row[name] for name in PROBABILITIES]
        assert shares == pytest.approx(list(answer.probabilities.values()), abs=1e-6)


def test_a_row_under_its_threshold_has_probabilities_and_no_label(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", thresholds={"person": 1.0})
    path = table(tmp_path / "rows.csv", [{"text": "who is it"}, {"text": "how big"}])
    assert run(folder, path, tmp_path / "scored.csv") == 0
    person, size = content(tmp_path / "scored.csv")
    assert person["label"] == ""
    assert float(person["probability_person"]) > 0.5
    assert size["label"] == "größe"


def test_a_very_long_text_is_cut_as_edge_cuts_it(bundle: Path, tmp_path: Path) -> None:
    given = ["who was it " * 50_000, "where", "how " * 7]
    path = table(tmp_path / "rows.csv", [{"text": text} for text in given])
    assert run(bundle, path, tmp_path / "scored.parquet") == 0
    expected = edge.Model(bundle).predict(given)
    scored = content(tmp_path / "scored.parquet")
    assert [row["text"] for row in scored] == given
    assert [row["probability_person"] for row in scored] == pytest.approx(
        [answer.probabilities["person"] for answer in expected], abs=2e-6
    )


@pytest.mark.parametrize("target", SUFFIXES)
def test_a_table_without_rows_gives_one(bundle: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n")
    assert run(bundle, tmp_path / "rows.csv", tmp_path / f"scored{target}") == 0
    assert content(tmp_path / f"scored{target}") == []
    if target == ".parquet":
        assert parquet.read_schema(tmp_path / "scored.parquet").names == ["id", "text", *NEW]
    elif target != ".jsonl":
        (header,) = (tmp_path / f"scored{target}").read_text(encoding="utf-8").splitlines()
        assert header.split(rows.DELIMITERS[target]) == ["id", "text", *NEW]


def test_another_column_and_a_prefix(bundle: Path, tmp_path: Path) -> None:
    given = [{"review": "who", "label": "x", "probability_place": 1}]
    path = table(tmp_path / "rows.csv", given)
    assert run(bundle, path, tmp_path / "s.csv", "--text", "review", "--prefix", "new_") == 0
    (row,) = content(tmp_path / "s.csv")
    assert list(row) == [*given[0], *(f"new_{name}" for name in NEW)]
    assert (row["label"], row["new_label"]) == ("x", "person")


# --- How it is computed -----------------------------------------------------------------------


def test_texts_of_like_length_share_a_batch(bundle: Path) -> None:
    model = edge.Model(bundle)
    scorer = predict.Scorer(model, "text", "", 8)
    shapes: list[list[int]] = []
    score = model.score

    def watch(encoded: Any) -> Any:
        shapes.append([values.shape[1] for values in encoded])
        return score(encoded)

    model.score = watch  # type: ignore[method-assign]
    seen: list[int] = []
    given = [*texts(99), None]
    answers = scorer.answer(given, seen.append)
    assert [len(shape) for shape in shapes] == [8] * 12 + [3]
    flat = [length for shape in shapes for length in shape]
    assert flat == sorted(flat, reverse=True)
    assert max(flat) <= MAX_LENGTH
    assert sum(seen) == 100
    alone = [answer.label for answer in edge.Model(bundle).predict(texts(99))]
    assert answers["label"] == [*alone, None]


def test_windows_end_at_their_rows_and_at_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [table(tmp_path / f"rows{suffix}", numbered(34)) for suffix in SUFFIXES]
    for path in sources:
        windows = list(rows.look_through(path, "text").windows())
        assert [len(window) for window in windows] == [10, 10, 10, 4]
    monkeypatch.setattr(rows, "WINDOW_BYTES", 1)
    for path in sources:
        found = rows.look_through(path, "text")
        assert found.rows == 34
        assert max(len(window) for window in found.windows()) <= 5


def test_memory_does_not_grow_with_the_table(bundle: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the peak of resident memory")
    code = (
        "import sys, re\n"
        "from export import predict, rows\n"
        "rows.WINDOW_ROWS = 500\n"
        "assert predict.main(sys.argv[1:]) == 0\n"
        "found = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())\n"
        "print(int(found[1]) // 1024)\n"
    )
    peaks = []
    for count in (1_000, 12_000):
        path = tmp_path / f"{count}.csv"
        path.write_text("text,note\n" + f"who,{'x' * 2000}\n" * count)
        given = [str(bundle), "--input", str(path), "--output", str(tmp_path / f"out{count}.csv")]
        done = subprocess.run(
            [sys.executable, "-c", code, *given],
            capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] <= peaks[0] + 6, f"{peaks} MB at the most for 1,000 and 12,000 rows"


# --- After a kill -----------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill -9: nothing of the product catches it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that ends the next run within its n-th safe write, 0 for none."""

    def arm(place: int) -> None:
        left = iter(range(place - 1, -1, -1)) if place else iter([])

        def fsync(file: int) -> None:
            if next(left, 1) == 0:
                os.ftruncate(file, os.fstat(file).st_size // 2)  # the other half was not written
                raise Killed

        monkeypatch.setattr(parts.os, "fsync", fsync)

    return arm


def same(one: Path, other: Path) -> bool:
    if one.suffix == ".parquet":
        return bool(parquet.read_table(one).equals(parquet.read_table(other)))
    return one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_wherever_it_is_killed_nothing_is_lost_or_repeated(
    bundle: Path, tmp_path: Path, suffix: str, kill_at: Callable[[int], None]
) -> None:
    """A kill may come at each write: its run's name, four parts, the whole file, its stamp."""
    path = table(tmp_path / f"rows{suffix}", numbered(34))
    whole, target = tmp_path / f"whole{suffix}", tmp_path / f"scored{suffix}"
    kill_at(0)
    assert run(bundle, path, whole) == 0
    for place in range(1, 8):
        kill_at(place)
        with pytest.raises(Killed):
            run(bundle, path, target)
        assert not target.exists()
        assert (tmp_path / f"scored{suffix}.partial").is_dir()
        kill_at(0)
        assert run(bundle, path, target) == 0
        assert same(target, whole)
        assert not (tmp_path / f"scored{suffix}.partial").exists()
        target.unlink()


@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=["new", "overwritten"])
def test_killed_while_it_removes_its_parts_it_has_finished(
    bundle: Path, tmp_path: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What it removes are four parts, the lock and the run's name; a kill may come before each."""
    path, target = table(tmp_path / "rows.csv", numbered(34)), tmp_path / "scored.csv"
    assert run(bundle, path, tmp_path / "whole.csv") == 0
    unlink = Path.unlink
    for place in range(6):
        left = iter(range(place))

        def dying(path: Path, *given: Any, left: Any = left) -> None:
            if next(left, None) is None:
                raise Killed
            unlink(path, *given)

        monkeypatch.setattr(Path, "unlink", dying)
        with pytest.raises(Killed):
            run(bundle, path, target, *more)
        monkeypatch.setattr(Path, "unlink", unlink)
        assert run(bundle, path, target, "--prefix", "p_") == 3  # another run's
        assert "is there already" in capsys.readouterr().err
        assert run(bundle, path, target, *more) == 0
        assert "34 were scored before" in capsys.readouterr().err
        assert same(target, tmp_path / "whole.csv")
        assert not (tmp_path / "scored.csv.partial").exists()
        target.unlink()


def test_another_output_beside_whole_parts_is_no_finished_one(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its last write, and before the output gets its name."""
    path, target = table(tmp_path / "rows.csv", numbered(34)), tmp_path / "scored.csv"
    target.write_text("old")
    replace = Path.replace

    def dying(path: Path, new: Path) -> Path:
        if new == target:
            raise Killed
        return replace(path, new)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(Killed):
        run(bundle, path, target, "--overwrite")
    monkeypatch.setattr(Path, "replace", replace)
    assert run(bundle, path, target) == 3
    assert target.read_text() == "old"
    assert run(bundle, path, target, "--overwrite") == 0
    assert len(content(target)) == 34


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_real_kill_9_in_the_middle(
    bundle: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / f"rows{suffix}", numbered(34))
    code = (
        "import os, signal, sys\n"
        "from export import edge, predict, rows\n"
        "rows.WINDOW_ROWS, rows._PARQUET_ROWS = 10, 5\n"
        "score, calls = edge.Model.score, iter(range(7))\n"
        "def dying(self, encoded):\n"
        "    if next(calls, None) is None: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return score(self, encoded)\n"
        "edge.Model.score = dying\n"
        "predict.main(sys.argv[1:])\n"
    )
    target = tmp_path / f"scored{suffix}"
    given = [str(bundle), "--input", str(path), "--output", str(target), "--batch-size", "4"]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    kept = sorted(p.name for p in (tmp_path / f"scored{suffix}.partial").glob("part-*"))
    assert kept == ["part-000000000000-10", "part-000000000010-10"]
    assert run(bundle, path, target) == 0
    assert "14 rows scored" in (said := capsys.readouterr().err)
    assert "20 were scored before" in said
    assert run(bundle, path, tmp_path / f"whole{suffix}") == 0
    assert same(target, tmp_path / f"whole{suffix}")


@pytest.fixture
def cut_off(bundle: Path, tmp_path: Path, kill_at: Callable[[int], None]) -> Path:
    """A run that was killed after two of its four parts."""
    path = table(tmp_path / "rows.csv", numbered(34))
    kill_at(4)
    with pytest.raises(Killed):
        run(bundle, path, tmp_path / "scored.csv")
    kill_at(0)
    return path


def change_input(path: Path) -> list[str]:
    path.write_text(path.read_text().replace("who", "how"))
    return []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (change_input, "another input."),
        (lambda _: ["--batch-size", "5"], "another batch size."),
        (lambda _: ["--prefix", "p_"], "another prefix."),
        (lambda _: ["--text", "id", "--prefix", "p_"], "another text column and another prefix."),
    ],
    ids=["input", "batch size", "prefix", "two"],
)
def test_parts_of_another_run_are_not_gone_on_with(
    bundle: Path, cut_off: Path, tmp_path: Path, changed: Callable[[Path], list[str]], told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    more = changed(cut_off)
    before = sorted(path.name for path in (tmp_path / "scored.csv.partial").iterdir())
    assert run(bundle, cut_off, tmp_path / "scored.csv", *more) == 3
    said = capsys.readouterr().err
    assert told in said
    assert "--overwrite" in said
    assert said.count("\n") == 1
    assert sorted(p.name for p in (tmp_path / "scored.csv.partial").iterdir()) == before
    assert run(bundle, cut_off, tmp_path / "scored.csv", "--overwrite", *more) == 0
    assert "34 rows scored" in capsys.readouterr().err
    assert run(bundle, cut_off, tmp_path / "whole.csv", *more) == 0
    assert same(tmp_path / "scored.csv", tmp_path / "whole.csv")


def test_parts_of_another_bundle_are_not_gone_on_with(
    cut_off: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_bundle(tmp_path / "other", card="another")
    assert run(other, cut_off, tmp_path / "scored.csv") == 3
    assert "of a run with another bundle." in capsys.readouterr().err


def test_overwriting_goes_on_with_its_own_parts(
    bundle: Path, cut_off: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scored.csv").write_text("old")
    assert run(bundle, cut_off, tmp_path / "scored.csv") == 3
    assert "scored.csv is there already" in capsys.readouterr().err
    assert (tmp_path / "scored.csv").read_text() == "old"
    os.utime(cut_off)  # touched, not changed
    assert run(bundle, cut_off, tmp_path / "scored.csv", "--overwrite", "--threads", "2") == 0
    assert "20 were scored before" in capsys.readouterr().err
    assert len(content(tmp_path / "scored.csv")) == 34


@pytest.mark.parametrize("raw", [b"", b'{"bundle": "4', b"\xff\xfe", b"[]"])
def test_a_damaged_name_of_a_run_is_told_and_overwritten(
    bundle: Path, cut_off: Path, tmp_path: Path, raw: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scored.csv.partial" / "run.json").write_bytes(raw)
    assert run(bundle, cut_off, tmp_path / "scored.csv") == 3
    assert "run.json is damaged" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert run(bundle, cut_off, tmp_path / "scored.csv", "--overwrite") == 0
    assert "34 rows scored" in capsys.readouterr().err


def test_windows_of_other_sizes_are_not_mistaken_for_each_other(
    bundle: Path, cut_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "WINDOW_ROWS", 7)  # as another version might have it
    assert run(bundle, cut_off, tmp_path / "scored.csv") == 0
    assert [int(row["id"]) for row in content(tmp_path / "scored.csv")] == list(range(34))


def test_two_processes_do_not_write_one_output(
    bundle: Path, cut_off: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock(tmp_path / "scored.csv.partial" / "lock"):
        assert run(bundle, cut_off, tmp_path / "scored.csv", "--overwrite") == 3
    assert "Another process is writing" in capsys.readouterr().err
    assert run(bundle, cut_off, tmp_path / "scored.csv") == 0


def test_a_folder_of_somebody_else_is_left_alone(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "rows.csv", numbered(3))
    (tmp_path / "scored.csv.partial").mkdir()
    (tmp_path / "scored.csv.partial" / "thesis.txt").write_text("mine")
    assert run(bundle, path, tmp_path / "scored.csv", "--overwrite") == 3
    assert "thesis.txt" in capsys.readouterr().err
    assert (tmp_path / "scored.csv.partial" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("place", "told", "kept"),
    [(3, "new-part-000000000020-10", 20), (5, "joined", 34), (6, "new-run.json", 34)],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_is_one_line_that_names_the_file_and_the_parts_stay(
    bundle: Path, tmp_path: Path, suffix: str, place: int, told: str, kept: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, target = table(tmp_path / "rows.csv", numbered(34)), tmp_path / f"scored{suffix}"
    written = iter(range(place))

    def fsync(_: int) -> None:
        if next(written, None) is None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts.os, "fsync", fsync)
    assert run(bundle, path, target) == 3
    said = capsys.readouterr().err
    assert f"{told} cannot be read or written: No space left on device" in said
    assert said.count("\n") == 1
    monkeypatch.undo()
    monkeypatch.setattr(rows, "WINDOW_ROWS", 10)
    assert run(bundle, path, target) == 0
    assert f"{kept} were scored before" in capsys.readouterr().err


def test_an_input_that_changes_under_way_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = table(tmp_path / "rows.csv", numbered(34))
    answer = predict.Scorer.answer

    def changing(*arguments: Any) -> Any:
        os.utime(path, ns=(1, 1))
        return answer(*arguments)

    monkeypatch.setattr(predict.Scorer, "answer", changing)
    assert run(bundle, path, tmp_path / "scored.csv") == 3
    assert "rows.csv has changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "scored.csv").exists()


# --- Standard input and output ----------------------------------------------------------------


class Pipe(io.TextIOWrapper):
    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Pipe]:
    def connect(given: bytes) -> Pipe:
        monkeypatch.setattr(sys, "stdin", Pipe(given))
        monkeypatch.setattr(sys, "stdout", out := Pipe())
        return out

    return connect


def answered(out: Pipe) -> list[dict[str, Any]]:
    assert isinstance(out.buffer, io.BytesIO)
    return [json.loads(line) for line in out.buffer.getvalue().splitlines()]


def test_json_lines_go_through_a_pipe(
    bundle: Path, tmp_path: Path, pipe: Callable[[bytes], Pipe]
) -> None:
    path = table(tmp_path / "rows.jsonl", numbered(34))
    assert run(bundle, path, tmp_path / "scored.jsonl") == 0
    out = pipe(path.read_bytes())
    assert run(bundle, "-", "-") == 0
    assert answered(out) == content(tmp_path / "scored.jsonl")
    for suffix in SUFFIXES:
        out = pipe(b"")
        assert run(bundle, table(tmp_path / f"rows{suffix}", numbered(12)), "-") == 0
        assert [row["label"] for row in answered(out)] == [
            row["label"] for row in content(tmp_path / "scored.jsonl")
        ][:12]


def test_nothing_in_nothing_out(bundle: Path, pipe: Callable[[bytes], Pipe]) -> None:
    out = pipe(b"")
    assert run(bundle, "-", "-") == 0
    assert answered(out) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (b'{"review": "who"}\n', "no column 'text'. Its columns are 'review'"),
        (b'{"text": "who", "label": 1}\n', "The input has the column 'label' already"),
        (b'{"text": "who"}\n\n[1]\n', "Line 3 of standard input is no JSON object"),
    ],
)
def test_a_wrong_line_of_standard_input_is_named(
    bundle: Path, pipe: Callable[[bytes], Pipe], given: bytes, told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pipe(given)
    assert run(bundle, "-", "-") == 3
    assert told in capsys.readouterr().err


@pytest.fixture
def of_pairs(tmp_path: Path) -> Path:
    """A bundle that compares two texts."""
    tokenizer = make_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    processing = {"max_length": MAX_LENGTH, "pad_token_id": 0, "pairs": True}
    return make_bundle(
        tmp_path / "bundle", tokenizer=tokenizer, golden_texts=["who\tit", "how\tbig"],
        processing=processing | {"inputs": ["input_ids", "attention_mask"]},
    )  # fmt: skip


PAIRS = [
    {"a": "who", "b": "was it"},
    {"a": "who\tis", "b": "it"},
    {"a": "how", "b": " "},
    {"a": None, "b": "big"},
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_are_answered_from_files_and_pipes(
    of_pairs: Path, tmp_path: Path, suffix: str, pipe: Callable[[bytes], Pipe],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = table(tmp_path / f"rows{suffix}", PAIRS)
    lines = table(tmp_path / "rows.jsonl", PAIRS).read_bytes()
    more = ("--text", "a", "--pair", "b")
    assert run(of_pairs, path, tmp_path / "scored.jsonl", *more) == 0
    found = [content(tmp_path / "scored.jsonl")]
    for source in (path, "-"):
        out = pipe(lines)
        assert run(of_pairs, source, "-", *more) == 0
        found.append(answered(out))
    assert capsys.readouterr().err.count("2 have no pair of texts and so no label") == 3
    assert [[row["label"] for row in each] for each in found] == [
        ["person", "person", None, None]
    ] * 3


def test_texts_that_are_no_pairs_are_counted(
    of_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"text": text} for text in ("who\twas it", "who", "how\t", None)]
    assert run(of_pairs, table(tmp_path / "rows.csv", given), tmp_path / "scored.csv") == 0
    assert "3 have no pair of texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "target"),
    [("-", "-"), *((source, target) for source in SUFFIXES for target in ("scored.csv", "-"))],
)
def test_a_second_text_is_looked_for_as_the_first(
    of_pairs: Path, tmp_path: Path, source: str, target: str, pipe: Callable[[bytes], Pipe],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [row | {"n": 7} for row in PAIRS]
    path = table(tmp_path / f"rows{source.replace('-', '.jsonl')}", given)
    told = {"typo": "no column 'typo'. Its columns are 'a', 'b', 'n'; name the one with the second"}
    if source not in rows.DELIMITERS:  # all is text there
        told["n"] = "holds int64, not texts" if source == ".parquet" else "no text in 'n', but 7"
    for column, what in told.items():
        out = pipe(path.read_bytes())
        output = target if target == "-" else tmp_path / target
        more = ("--text", "a", "--pair", column)
        assert run(of_pairs, "-" if source == "-" else path, output, *more) == 3
        assert what in capsys.readouterr().err
        assert answered(out) == []


def test_a_reader_that_leaves_early_is_no_trouble(bundle: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "rows.jsonl", numbered(34) * 200)
    command = [sys.executable, "-m", "export.predict", bundle, "--input", path, "--output", "-"]
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_an_output_that_takes_no_more_is_named(bundle: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "rows.jsonl", numbered(3))
    command = [sys.executable, "-m", "export.predict", bundle, "--input", path, "--output", "-"]
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "standard output cannot be read or written: No space left" in done.stderr


# --- What is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "told"),
    [
        ("r.csv", b"text,n\nwho,1\nhow\n", "Line 3 of {} has 1 fields, and the header names 2"),
        ("r.csv", b'text\n"a\nb"\n"c" d\n', "The row at line 4 of {} is not well quoted"),
        ("r.csv", b'text\nwho\n"open\n\n', "The row at line 3 of {} is not well quoted"),
        ("r.csv", b"text\nwho\ncaf\xe9\n", "Line 3 of {} is not UTF-8: byte 0xe9 at offset 3"),
        ("r.csv", b"text,text\n", "{} has more than one column named 'text'"),
        ("r.csv", b"", "{} is empty"),
        ("r.csv", b"review,stars\n", "{} has no column 'text'. Its columns are 'review', 'stars'"),
        ("r.tsv", b"review\tstars\n", "Its columns are 'review', 'stars'"),
        ("r.jsonl", b'{"text": "a"}\n\n{"text": }\n', "Line 3 of {} is not JSON: Expecting value"),
        ("r.jsonl", b'{"text": "a"}\n"b"\n', "Line 2 of {} is no JSON object"),
        ("r.jsonl", b'{"text": 7}\n', "Line 1 of {} holds no text in 'text', but 7"),
        ("r.jsonl", b'{"text": "\\ud83d"}\n', "Line 1 of {} is not JSON: 'utf-8' codec"),
        ("r.jsonl", b'{"text": "\xff"}\n', "Line 1 of {} is not UTF-8"),
        ("r.jsonl", b"\n", "{} is empty"),
        ("r.jsonl", b'{"a": 1}\n', "Its columns are 'a'"),
        ("r.parquet", b"PAR1 not really", "{} cannot be read as Parquet"),
        ("r.xlsx", b"", "{} is not a table that can be read or written"),
    ],
)
def test_a_broken_table_is_told_before_anything_is_written(
    bundle: Path, tmp_path: Path, name: str, raw: bytes, told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / name
    path.write_bytes(raw)
    assert run(bundle, path, tmp_path / "scored.csv") == 3
    said = capsys.readouterr().err
    assert told.format(path) in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_parquet_column_of_other_things_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet.write_table(pa.table({"text": [1, 2]}), tmp_path / "rows.parquet")
    assert run(bundle, tmp_path / "rows.parquet", tmp_path / "scored.csv") == 3
    assert "holds int64, not texts" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_texts_of_any_kind_of_parquet_are_read(
    bundle: Path, tmp_path: Path, kind: pa.DataType, suffix: str
) -> None:
    given = [*texts(34), None, "who is it " * 9]
    path, target = tmp_path / "rows.parquet", tmp_path / f"scored{suffix}"
    parquet.write_table(pa.table({"text": pa.array(given, kind)}), path)
    assert run(bundle, path, target) == 0
    assert [row["text"] or None for row in content(target)] == given
    if suffix == ".parquet":
        assert parquet.read_schema(target).field("text").type == kind


def test_bytes_in_a_parquet_file_that_are_no_text_are_named_by_row(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = pa.array([b"who"] * 12 + [b"\xff\xfe"])
    strings = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    parquet.write_table(pa.table({"text": strings}), tmp_path / "rows.parquet")
    assert run(bundle, tmp_path / "rows.parquet", tmp_path / "scored.parquet") == 3
    assert "cannot be read from row 11 on: In column 0: Invalid: Invalid UTF8" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--batch-size", "0"], "'0' is not a whole number from 1 up"),
        (["--threads", "two"], "'two' is not a whole number from 1 up"),
        (["--resume"], "Unrecognized arguments: --resume"),
    ],
)
def test_a_wrong_command_is_one_line(
    bundle: Path, tmp_path: Path, more: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "rows.csv", numbered(3))
    assert run(bundle, path, tmp_path / "scored.csv", *more) == 3
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_files_that_do_not_go_together_are_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "rows.csv", [{"text": "who", "label": "x"}])
    for target, told in (
        ("scored.csv", "has the column 'label' already"),
        ("rows.csv", "is the input"),
        ("scored.xlsx", "is not a table that can be read or written"),
        ("nowhere/scored.csv", "nowhere. Make it first"),
    ):
        more = ["--overwrite", *(["--prefix", "p_"] if "where" in target else [])]
        assert run(bundle, path, tmp_path / target, *more) == 3
        assert told in capsys.readouterr().err
    assert run(bundle, tmp_path / "none.csv", tmp_path / "scored.csv") == 3
    assert "There is no file" in capsys.readouterr().err
    assert run(bundle, "-", tmp_path / "scored.jsonl") == 3
    assert "it needs --output -" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["rows.csv", "63"])
@pytest.mark.parametrize("target", ["scored.csv", "-"])
def test_a_named_pipe_is_no_table(
    bundle: Path, tmp_path: Path, name: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(path := tmp_path / name)
    assert run(bundle, path, "-" if target == "-" else tmp_path / target) == 3
    assert f"{path} is a pipe, and a table is read twice" in (said := capsys.readouterr().err)
    assert "--input - --output -" in said
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_no_bundle_and_a_bundle_that_has_changed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "rows.csv", numbered(3))
    assert run(tmp_path, path, tmp_path / "scored.csv") == 3
    assert "is not a bundle: it has no bundle.json" in capsys.readouterr().err
    spoilt = Path(shutil.copytree(bundle, tmp_path / "spoilt"))
    (spoilt / "README.md").write_text("other")
    assert run(spoilt, path, tmp_path / "scored.csv") == 1
    assert "README.md has changed since it was packed" in capsys.readouterr().err
    assert not (tmp_path / "scored.csv.partial").exists()


def test_a_csv_file_needs_neither_torch_nor_pyarrow(bundle: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "rows.csv", numbered(3))
    code = (
        "import sys\n"
        "from export import predict\n"
        "light = {'numpy', 'onnxruntime', 'tokenizers', 'tqdm'} & sys.modules.keys()\n"
        "assert predict.main(sys.argv[1:]) == 0\n"
        "print(light, {'torch', 'transformers', 'pandas', 'pyarrow'} & sys.modules.keys())\n"
    )
    given = [str(bundle), "--input", str(path), "--output", str(tmp_path / "scored.csv")]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "set() set()"
