"""What HTTP costs: a bundle behind the server, in-process, and behind a plain endpoint.

python -m tests.benchmarks.serving BUNDLE [--texts TEXTS.txt] [--per-request 8] [--seconds 5]

In one run, in turns: the model called in this process in batches (the most that the machine gives;
the best of several ways), the server, and an endpoint as one writes it in ten lines of FastAPI,
without batching. Server and endpoint run in processes of their own and are loaded from another over
loopback, by 1, 8 and 64 clients, each of which sends one request after another on its connection.
All share the machine's cores, the clients too. Beside wall-clock rates it prints processor time a
text, whose ratios hold on a machine that others use as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import psutil

from export import edge

ROOT = Path(__file__).parents[2]
CLIENTS = (1, 8, 64)
BATCH = 32
WARM = 0.5  # seconds of each measurement that do not count


def main() -> None:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-request", type=int, default=1, metavar="N", help="texts in each")
    parser.add_argument("--texts", type=Path, help="one a line (default: the golden ones)")
    parser.add_argument("--serve", default="", help="options of export.serve")
    options = parser.parse_args()
    texts = _texts(options)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with _server(options.bundle, options.serve) as ours, _plain(options.bundle) as plain:
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
            for name, row in _in_process(options.bundle, texts, options.seconds).items():
                found.setdefault((name, 1), []).append(row)
            for clients in CLIENTS:
                for name, behind in (("server", ours), ("plain endpoint", plain)):
                    row = _load(behind, texts, clients, options)
                    found.setdefault((name, clients), []).append(row)
    _print(found)


class Behind(NamedTuple):
    """What answers on a port."""

    port: int
    process: psutil.Process

    def processor(self) -> float:
        """Return the processor time that it has taken, in seconds."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def _texts(options: argparse.Namespace) -> list[str]:
    if options.texts:
        return [line for line in options.texts.read_text("utf-8").splitlines() if line.strip()]
    texts: list[str] = edge.read_manifest(options.bundle)["golden"]["texts"]
    return texts


# --- In this process --------------------------------------------------------------------------


def _in_process(bundle: Path, texts: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
    """Call the model with batches: with all cores, and with one core each at the same time.

    Batches are of texts as they come, and of texts sorted by length, which need little padding.
    """
    cores = len(os.sched_getaffinity(0))
    rows = {}
    for callers, threads in ((1, cores), (cores, 1)):
        model = edge.Model(bundle, threads)
        many = list(islice(cycle(texts), 8 * BATCH))
        for how, ordered in (("as they come", many), ("by length", _by_length(model, many))):
            batches = [ordered[first : first + BATCH] for first in range(0, len(many), BATCH)]
            start, used = time.perf_counter(), time.process_time()
            with ThreadPoolExecutor(callers) as pool:
                call = partial(_call, model, batches, start + seconds / 2)
                done = sum(pool.map(call, range(callers)))
            name = f"in-process, {callers} × {threads} threads, {how}"
            rows[name] = {
                "rate": done / (time.perf_counter() - start),
                "cpu": 1e6 * (time.process_time() - used) / done,
            }
    return rows


def _by_length(model: edge.Model, texts: Sequence[str]) -> list[str]:
    return sorted(texts, key=lambda text: model.encode(text).shape[1])


def _call(model: edge.Model, batches: Sequence[Sequence[str]], until: float, first: int) -> int:
    done = 0
    for batch in islice(cycle(batches), first, None):
        if time.perf_counter() > until:
            break
        done += len(model.predict(batch))
    return done


# --- Behind HTTP ------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(bundle: Path, more: str) -> Iterator[Behind]:
    port = _free_port()
    command = ["-m", "export.serve", str(bundle), "--name", "model", "--port", str(port)]
    with _running([*command, *more.split()], port) as behind:
        yield behind


@contextlib.contextmanager
def _plain(bundle: Path) -> Iterator[Behind]:
    """Run plain_endpoint.py with uvicorn as one runs it."""
    port = _free_port()
    command = ["-m", "uvicorn", "tests.benchmarks.plain_endpoint:app"]
    command += ["--port", str(port), "--no-access-log"]
    with _running(command, port, BUNDLE=str(bundle)) as behind:
        yield behind


@contextlib.contextmanager
def _running(arguments: Sequence[str], port: int, **more: str) -> Iterator[Behind]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | more
    with subprocess.Popen(
        [sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL
    ) as child:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield Behind(port, psutil.Process(child.pid))
        finally:
            child.terminate()


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


def _load(
    behind: Behind, texts: Sequence[str], clients: int, options: argparse.Namespace
) -> dict[str, float]:
    """Send texts from another process for a while; return the rate, latency and processor time."""
    import numpy as np

    asked = {
        "port": behind.port,
        "requests": _bodies(texts, options.per_request),
        "clients": clients,
        "seconds": options.seconds,
    }
    before = behind.processor()
    child = subprocess.run(
        [sys.executable, "-c", "from tests.benchmarks.serving import send; send()"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, input=json.dumps(asked),
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    answer = json.loads(child.stdout)
    taken, count = answer["taken"], options.per_request * answer["count"]
    return {
        "rate": options.per_request * len(taken) / (options.seconds - WARM),
        **{f"p{each}": float(np.percentile(taken, each)) for each in (50, 95, 99)},
        "cpu": 1e6 * (behind.processor() - before) / count,
        "client": 1e6 * answer["cpu"] / count,
    }


def send() -> None:
    """Be a process of clients: told on standard input, tell on standard output."""
    asked = json.load(sys.stdin)
    requests = [_request(body) for body in asked["requests"]]
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    before = time.process_time()
    count, taken = run(_send(asked["port"], requests, asked["clients"], asked["seconds"]))
    used = time.process_time() - before
    print(json.dumps({"count": count, "taken": taken, "cpu": used}))


def _bodies(texts: Sequence[str], count: int) -> list[str]:
    """Return the bodies of requests with so many texts; the plain endpoint takes both kinds."""
    if count == 1:
        return [json.dumps({"text": text}) for text in texts]
    source = cycle(texts)
    return [json.dumps({"texts": list(islice(source, count))}) for _ in texts]


def _request(text: str) -> bytes:
    body = text.encode()
    head = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def _send(
    port: int, requests: list[bytes], clients: int, seconds: float
) -> tuple[int, list[float]]:
    """Return how many were answered, and the milliseconds of those that count."""
    count = 0
    taken: list[float] = []
    start = time.perf_counter()

    async def client(place: int) -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in islice(cycle(requests), place * 7 % len(requests), None):
            before = time.perf_counter()
            if before > start + seconds:
                break
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"refused: {head!r}")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            await reader.readexactly(length)
            after = time.perf_counter()
            count += 1
            if start + WARM < after <= start + seconds:
                taken.append(1000 * (after - before))
        writer.close()

    await asyncio.gather(*(client(place) for place in range(clients)))
    return count, taken


# --- Printing ---------------------------------------------------------------------------------


COLUMNS = {
    "rate": "texts/s", "p50": "p50 ms", "p95": "p95 ms", "p99": "p99 ms",
    "cpu": "cpu µs/text", "client": "client's",
}  # fmt: skip


def _print(found: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    import numpy as np

    heads = "".join(f"{head:>12}" for head in COLUMNS.values())
    print(f"{'median of the rounds':<40}{'clients':>8}{heads}")
    middle = {}
    for (name, clients), rows in found.items():
        row = {each: float(np.median([row[each] for row in rows])) for each in rows[0]}
        middle[name, clients] = row["rate"]
        cells = (f"{row[each]:.1f}" if each in row else "" for each in COLUMNS)
        print(f"{name:<40}{clients:>8}{''.join(f'{cell:>12}' for cell in cells)}")
    inside = [name for name, _ in found if name.startswith("in-process")]
    best = max(inside, key=lambda name: middle[name, 1])
    most = CLIENTS[-1]
    ours, plain = found["server", most], found["plain endpoint", most]
    print(f"\nat {most} clients, the median of each round's ratio (least to most)")
    _ratio(f"texts/s, server / {best}", ours, found[best, 1], _rate)
    _ratio("texts/s, server / plain endpoint", ours, plain, _rate)
    # What would hold on a machine that is busy with nothing else, where all cores are taken:
    _ratio("texts per cpu time, clients' included, / in-process", ours, found[best, 1], _per_cpu)
    _ratio("texts per cpu time, clients' included, / plain", ours, plain, _per_cpu)
    print(f"{'p99 / p50':<70}{np.median([row['p99'] / row['p50'] for row in ours]):>6.2f}")


def _rate(row: dict[str, float]) -> float:
    return row["rate"]


def _per_cpu(row: dict[str, float]) -> float:
    return 1 / (row["cpu"] + row.get("client", 0))


def _ratio(
    about: str, ours: list[dict[str, float]], theirs: list[dict[str, float]],
    of: Callable[[dict[str, float]], float],
) -> None:  # fmt: skip
    import numpy as np

    ratios = [of(one) / of(other) for one, other in zip(ours, theirs, strict=True)]
    print(f"{about:<70}{np.median(ratios):>6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
