"""What HTTP costs: a bundle behind the server, in-process, and behind a plain endpoint.

python -m tests.benchmarks.serving BUNDLE [--texts TEXTS.txt] [--per-request 8] [--seconds 5]

In one run, in turns: the model called in this process in batches (the most that the machine gives;
the best of several ways), the server, and an endpoint as one writes it in ten lines of FastAPI,
without batching. Server and endpoint run in processes of their own and are loaded from another over
loopback, by 1, 8 and 64 clients, each of which sends one request after another on its connection.
All share the machine's cores, the clients too; what these take of them is printed.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
            start = time.perf_counter()
            with ThreadPoolExecutor(callers) as pool:
                call = partial(_call, model, batches, start + seconds / 2)
                done = sum(pool.map(call, range(callers)))
            name = f"in-process, {callers} × {threads} threads, {how}"
            rows[name] = {"rate": done / (time.perf_counter() - start)}
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
        asked = {
            "port": port,
            "requests": _bodies(texts, options.per_request),
            "clients": share,
            "seconds": options.seconds,
        }
        child.stdin.write(json.dumps(asked))
        child.stdin.close()
        children.append(child)
    answers = [json.loads(child.stdout.read()) for child in children if child.stdout]
    for child in children:
        child.wait()
    taken = [value for answer in answers for value in answer["taken"]]
    return {
        "rate": options.per_request * len(taken) / (options.seconds - WARM),
        **{f"p{each}": float(np.percentile(taken, each)) for each in (50, 95, 99)},
        "cpu": sum(answer["cpu"] for answer in answers) / options.seconds,
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
    taken = run(_send(asked["port"], requests, asked["clients"], asked["seconds"]))
    print(json.dumps({"taken": taken, "cpu": time.process_time()}))


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

    columns = ("rate", "p50", "p95", "p99", "cpu")
    print(f"{'median of the rounds':<40}{'clients':>8}{'texts/s':>9}", end="")
    print(f"{'p50 ms':>8}{'p95 ms':>8}{'p99 ms':>8}{'cores of the clients':>22}")
    middle = {}
    for (name, clients), rows in found.items():
        row = {each: float(np.median([row[each] for row in rows])) for each in rows[0]}
        middle[name, clients] = row["rate"]
        shown = (
            f"{row[each]:.2f}" if each == "cpu" else f"{row[each]:.1f}"
            for each in columns
            if each in row
        )
        widths = (9, 8, 8, 8, 22)
        cells = "".join(f"{text:>{width}}" for text, width in zip(shown, widths, strict=False))
        print(f"{name:<40}{clients:>8}{cells}")
    inside = [name for name, _ in found if name.startswith("in-process")]
    best = max(inside, key=lambda name: middle[name, 1])
    ours = found["server", CLIENTS[-1]]
    _ratio(f"server / {best}", ours, found[best, 1])
    _ratio("server / plain endpoint", ours, found["plain endpoint", CLIENTS[-1]])
    print(f"{'p99 / p50':<64}{np.median([row['p99'] / row['p50'] for row in ours]):>6.2f}")


def _ratio(about: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    """Print the median over the rounds of a ratio within a round, and how far it varies."""
    import numpy as np

    ratios = [one["rate"] / other["rate"] for one, other in zip(ours, theirs, strict=True)]
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{about + f', {CLIENTS[-1]} clients':<64}{np.median(ratios):>6.2f}  {spread}")


if __name__ == "__main__":
    main()
