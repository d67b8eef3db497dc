"""What HTTP costs: a bundle behind the server, against the same bundle in-process and a plain endpoint.

python -m tests.benchmarks.serving BUNDLE [--seconds 5] [--rounds 3] [--texts TEXTS.txt]

In one run, in turns: the model called in this process in batches (the most that the machine gives;
the best of several settings), the server, and an endpoint as one writes it in ten lines of FastAPI,
without batching. Server and endpoint run in processes of their own and are loaded from others over
loopback, with 1, 8 and 64 clients, each of which sends one text after another on its connection.
All share the machine's cores, the clients included; what they take is printed. Prints texts a
second, latency, and the ratios that have to hold at 64 clients.
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
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

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
    parser.add_argument("--processes", type=int, default=1, help="that the clients share")
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
                for name, port in (("server", ours), ("plain endpoint", plain)):
                    row = _load(port, texts, clients, options)
                    found.setdefault((name, clients), []).append(row)
    _print(found)


def _texts(options: argparse.Namespace) -> list[str]:
    if options.texts:
        return [line for line in options.texts.read_text("utf-8").splitlines() if line.strip()]
    texts: list[str] = edge.read_manifest(options.bundle)["golden"]["texts"]
    return texts


# --- In this process --------------------------------------------------------------------------


def _in_process(bundle: Path, texts: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
    """Call the model with batches: one with all cores, and one for each core at the same time."""
    cores = len(os.sched_getaffinity(0))
    batch = list(islice(cycle(texts), BATCH))
    rows = {}
    for callers, threads in ((1, cores), (cores, 1)):
        model = edge.Model(bundle, threads)
        model.predict(batch)
        start = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            done = sum(pool.map(_call, *zip(*[(model, batch, start + seconds)] * callers)))
        rows[f"in-process, {callers} × {threads} threads, batches of {BATCH}"] = {
            "rate": done / (time.perf_counter() - start)
        }
    return rows


def _call(model: edge.Model, batch: list[str], until: float) -> int:
    done = 0
    while time.perf_counter() < until:
        done += len(model.predict(batch))
    return done


# --- Behind HTTP ------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(bundle: Path, more: str) -> Iterator[int]:
    port = _free_port()
    command = ["-m", "export.serve", str(bundle), "--name", "model", "--port", str(port)]
    with _running([*command, *more.split()], port):
        yield port


@contextlib.contextmanager
def _plain(bundle: Path) -> Iterator[int]:
    """Run plain_endpoint.py with uvicorn as one runs it."""
    port = _free_port()
    command = ["-m", "uvicorn", "tests.benchmarks.plain_endpoint:app"]
    with _running([*command, "--port", str(port), "--no-access-log"], port, BUNDLE=str(bundle)):
        yield port


@contextlib.contextmanager
def _running(arguments: Sequence[str], port: int, **more: str) -> Iterator[None]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | more
    with subprocess.Popen(
        [sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL
    ) as child:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield
        finally:
            child.terminate()


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


def _load(
    port: int, texts: Sequence[str], clients: int, options: argparse.Namespace
) -> dict[str, float]:
    """Send texts from other processes for a while; return the rate and percentiles."""
    import numpy as np

    processes = min(clients, options.processes)
    shares = [len(range(place, clients, processes)) for place in range(processes)]
    code = "from tests.benchmarks.serving import send; send()"
    children = []
    for share in shares:
        child = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdin
        asked = {"port": port, "texts": texts, "clients": share, "seconds": options.seconds}
        child.stdin.write(json.dumps(asked))
        child.stdin.close()
        children.append(child)
    answers = [json.loads(child.stdout.read()) for child in children if child.stdout]
    for child in children:
        child.wait()
    taken = [value for answer in answers for value in answer["taken"]]
    return {
        "rate": len(taken) / (options.seconds - WARM),
        **{f"p{each}": float(np.percentile(taken, each)) for each in (50, 95, 99)},
        "cpu": sum(answer["cpu"] for answer in answers) / options.seconds,
    }


def send() -> None:
    """Be a process of clients: told on standard input, tell on standard output."""
    asked = json.load(sys.stdin)
    requests = [_request(text) for text in asked["texts"]]
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    taken = run(_send(asked["port"], requests, asked["clients"], asked["seconds"]))
    print(json.dumps({"taken": taken, "cpu": time.process_time()}))


def _request(text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    head = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def _send(port: int, requests: list[bytes], clients: int, seconds: float) -> list[float]:
    taken: list[float] = []
    start = time.perf_counter()

    async def client(place: int) -> None:
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
            if start + WARM < after <= start + seconds:
                taken.append(1000 * (after - before))
        writer.close()

    await asyncio.gather(*(client(place) for place in range(clients)))
    return taken


# --- Printing ---------------------------------------------------------------------------------


def _print(found: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    import numpy as np

    median = {
        key: {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
        for key, rows in found.items()
    }
    print(
        f"{'':<42}{'clients':>8}{'texts/s':>9}{'p50':>8}{'p95':>8}{'p99':>8}{'clients′ cores':>16}"
    )
    for (name, clients), row in median.items():
        times = "".join(
            f"{row[each]:>8.1f}" if each in row else " " * 8 for each in ("p50", "p95", "p99")
        )
        used = f"{row['cpu']:>16.2f}" if "cpu" in row else ""
        print(f"{name:<42}{clients:>8}{row['rate']:>9.0f}{times}{used}")
    best = max(
        (name for name, _ in found if name.startswith("in-process")),
        key=lambda name: median[name, 1]["rate"],
    )
    ours, plain_, inside = found["server", 64], found["plain endpoint", 64], found[best, 1]
    print("\nmedian over rounds of the ratio within a round, 64 clients")
    for about, ratios in {
        f"server / {best}": [one["rate"] / other["rate"] for one, other in zip(ours, inside, strict=True)],
        "server / plain endpoint": [one["rate"] / other["rate"] for one, other in zip(ours, plain_, strict=True)],
        "p99 / p50": [row["p99"] / row["p50"] for row in ours],
    }.items():  # fmt: skip
        print(f"{about:<64}{np.median(ratios):>8.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
