"""What scoring a table costs: is time linear in its rows, and memory constant?

python tests/benchmarks/scoring.py BUNDLE [--rows 10000 100000 1000000] [--threads 2]

Tables of short texts (spliced from the bundle's golden ones) are written as CSV, JSON lines or
Parquet and scored by the command in a process of its own, whose peak of resident memory the system
tells. Linear time is a constant speed, constant memory a constant peak. At a thousand rows a second
the default takes twenty minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from export.edge import read_manifest

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Score tables of growing length and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--format", choices=("csv", "jsonl", "parquet"), default="csv")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    golden = read_manifest(options.bundle)["golden"]["texts"]
    print(f"{'rows':>9}{'MB in':>8}{'s':>10}{'rows/s':>9}{'peak MB':>9}")
    with tempfile.TemporaryDirectory() as name:
        for count in options.rows:
            source = Path(name) / f"rows.{options.format}"
            _write(source, _texts(golden, count))
            target = Path(name) / f"scored.{options.format}"
            seconds, peak = _score(options.bundle, source, target, options.threads)
            size = source.stat().st_size / 1e6
            print(f"{count:>9,}{size:>8.1f}{seconds:>10.1f}{count / seconds:>9,.0f}{peak:>9.0f}")
            target.unlink()


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


def _score(bundle: Path, source: Path, target: Path, threads: int) -> tuple[float, float]:
    """Run the command; return its seconds, start included, and its peak of memory in MB."""
    command = [sys.executable, "-m", "export.predict", str(bundle), "--threads", str(threads)]
    command += ["--input", str(source), "--output", str(target)]
    start = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(child.returncode)
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return time.perf_counter() - start, usage.ru_maxrss / scale


if __name__ == "__main__":
    main()
