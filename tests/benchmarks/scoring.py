"""What scoring a table costs: is time linear in its rows, and memory constant?

python -m tests.benchmarks.scoring BUNDLE [--rows 10000 100000 1000000] [--threads 2]

Tables of short texts (spliced from the bundle's golden ones) are written as CSV, JSON lines or
Parquet and scored by the command in a process of its own, whose peak of resident memory the system
tells. Linear time is a constant speed, constant memory a constant peak. Each table is then scored
again by a process that gets a kill -9 half way, and by the same command once more: the output has
to be the same file, byte for byte. At a thousand rows a second all this takes forty minutes;
--kill-up-to 100000 leaves the kill out for longer tables, and so half of the time.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from export.edge import read_manifest
from export.machine import cores
from export.rows import WINDOW_ROWS, look_through, texts_of

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Score tables of growing length and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--format", choices=("csv", "jsonl", "parquet"), default="csv")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--kill-up-to", type=int, default=10**9, metavar="ROWS")
    options = parser.parse_args()
    golden = read_manifest(options.bundle)["golden"]["texts"]
    print(f"{'rows':>9}{'MB in':>8}{'s':>10}{'rows/s':>9}{'peak MB':>9}  after a kill -9")
    runs = []
    with tempfile.TemporaryDirectory() as name:
        for count in options.rows:
            source = Path(name) / f"rows.{options.format}"
            _write(source, _texts(golden, count))
            whole = Path(name) / f"scored.{options.format}"
            run = _score(_command(options, source, whole))
            _check_rows(whole, _texts(golden, count))
            runs.append((count, *run))
            size, (seconds, peak) = source.stat().st_size / 1e6, run
            row = f"{count:>9,}{size:>8.1f}{seconds:>10.1f}{count / seconds:>9,.0f}{peak:>9.0f}"
            print(row, end="  ", flush=True)
            again = Path(name) / f"again.{options.format}"
            killed = count <= options.kill_up_to
            command = _command(options, source, again)
            print(_kill(command, again, whole, count) if killed else "not tried")
            whole.unlink()
    _print_growth(min(runs), max(runs))


def _print_growth(least: tuple[int, float, float], most: tuple[int, float, float]) -> None:
    if least == most:
        return
    rows, seconds, peaks = zip(least, most, strict=True)
    told = f"{rows[1] / rows[0]:,.0f} times the rows: {seconds[1] / seconds[0]:,.1f} times the time"
    print(f"{told}, start included; {peaks[1] / peaks[0]:.2f} times the memory")


def _texts(golden: list[str], count: int) -> Iterator[str]:
    """Make different texts of one to two golden ones' length."""
    chance = random.Random(0)
    for _ in range(count):
        one, two = chance.choice(golden).split(), chance.choice(golden).split()
        yield " ".join([*one[: chance.randint(1, len(one))], *two[chance.randrange(len(two)) :]])


def _write(path: Path, texts: Iterator[str]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": list(texts)}), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(
                json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)
            )
        else:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            writer.writerows(enumerate(texts))


def _command(options: argparse.Namespace, source: Path, target: Path) -> list[str]:
    command = [sys.executable, "-m", "export.predict", str(options.bundle)]
    command += ["--threads", str(options.threads)]
    return [*command, "--input", str(source), "--output", str(target)]


def _score(command: list[str]) -> tuple[float, float]:
    """Run the command; return its seconds, start included, and its peak of memory in MB."""
    start = time.perf_counter()
    with _started(command) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(child.returncode)
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return time.perf_counter() - start, usage.ru_maxrss / scale


def _check_rows(scored: Path, texts: Iterator[str]) -> None:
    """Stop if a row is lost, repeated or in another place."""
    windows = (texts_of(window, "text") for window in look_through(scored, "text").windows())
    if any(one != other for one, other in zip(chain(*windows), texts, strict=True)):
        raise SystemExit(f"{scored.name} has other rows than the table")


def _kill(command: list[str], target: Path, whole: Path, rows: int) -> str:
    """Kill the command half way, run it again, and say what became of the rows."""
    parts = target.with_name(f"{target.name}.partial")
    all_parts = -(-rows // WINDOW_ROWS)
    with _started(command) as child:
        while len(kept := list(parts.glob("part-*"))) < all_parts // 2 and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    if child.returncode != -signal.SIGKILL:
        return "it was done before the kill"
    _score(command)
    same = _sum(target) == _sum(whole)
    target.unlink()
    if not same:
        raise SystemExit(f"after a kill with {len(kept)} parts the output differs")
    return f"{len(kept)} of {all_parts} parts kept, the same bytes in the end"


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
