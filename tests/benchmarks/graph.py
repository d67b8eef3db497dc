"""What each step of `export.optimize` is worth, in float32 and in dynamic int8.

python tests/benchmarks/graph.py [RUN] [--architecture bert] [--layers 3] [--threads 1]

The student of a finished run, or a random encoder as wide as MiniLM (384, 12 heads). The files take
turns call by call, because a machine's speed drifts; what counts is the ratio. With one thread
the thread's own processor time is counted, so that other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import torch

from export.graph import Optimize, export_onnx
from export.quantize import quantize_int8
from export.session import open_model
from recipes.console import hush

SHAPES = ((1, 16), (1, 128), (16, 32), (64, 128))
Call = Callable[[Mapping[str, Any]], np.ndarray]


def main() -> None:
    """Export in each way, time the files and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--architecture", default="bert")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="a file and shape")
    options = parser.parse_args()
    hush()
    model = _student(options.run) if options.run else _random(options.architecture, options.layers)
    with tempfile.TemporaryDirectory() as folder:
        calls = _export(model, Path(folder), options.threads)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    print(f"{'batch × length':<16}" + "".join(f"{name:>18}" for name in calls))
    for rows, length in SHAPES:
        times = _interleaved(calls, _batch(rows, length), clock, options.seconds)
        middle = {name: 1000 * statistics.median(taken) for name, taken in times.items()}
        cells = (f"{ms:9.2f} ms {middle['none'] / ms:4.2f}×" for ms in middle.values())
        print(f"{f'{rows} × {length}':<16}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def _student(run: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        run / "student", attn_implementation="eager"
    )


def _random(architecture: str, layers: int) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 384,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    }
    if architecture == "distilbert":
        sizes = {"dim": 384, "n_layers": layers, "n_heads": 12, "hidden_dim": 1536}
    config = AutoConfig.for_model(architecture, vocab_size=30522, **sizes)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


def _batch(rows: int, length: int) -> dict[str, Any]:
    """Return random ids with a third of the text or more in each row, all of it in the first."""
    chance = np.random.default_rng(0)
    long = chance.integers(length // 3, length + 1, rows)
    long[0] = length
    mask = (np.arange(length) < long[:, None]).astype(np.int64)
    return {"input_ids": chance.integers(5, 30000, (rows, length)) * mask, "attention_mask": mask}


def _export(model: Any, folder: Path, threads: int) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    example = {name: torch.from_numpy(value) for name, value in _batch(2, 9).items()}
    for optimize in get_args(Optimize):
        whole, small = folder / f"{optimize}.onnx", folder / f"{optimize}.int8.onnx"
        notes = export_onnx(model, example, whole, optimize=optimize)
        quantize_int8(whole, small)
        calls[optimize], calls[f"{optimize} int8"] = (
            open_model(p, threads) for p in (whole, small)
        )
        nodes = [len(onnx.load(path).graph.node) for path in (whole, small)]
        print(f"{optimize}: {nodes[0]} nodes, {nodes[1]} in int8; {'; '.join(notes)}", flush=True)
    return {name: calls[name] for name in sorted(calls, key=lambda name: "int8" in name)}


def _interleaved(
    calls: Mapping[str, Call], batch: Mapping[str, Any], clock: Callable[[], float], seconds: float
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end or len(times["none"]) < 3:
        for name, call in calls.items():
            start = clock()
            call(batch)
            times[name].append(clock() - start)
    return times


if __name__ == "__main__":
    main()
