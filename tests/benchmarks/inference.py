"""Teacher, merged model and student in every form, against each other and the processor.

python -m tests.benchmarks.inference                    MPNet, MiniLM and three layers of it
python -m tests.benchmarks.inference runs/lora_cls --teacher mpnet-base
python -m tests.benchmarks.inference --threads 1 --shapes 1x16 16x32

Timed are: the teacher in PyTorch, float32 and, where the processor computes in it, bfloat16; the
merged model and the student as ONNX in float32, as int8 the way onnxruntime's own guide makes it
(plain export, quant_pre_process, quantize_dynamic, defaults throughout), in OpenVINO if it is
installed, and as dynamic int8 on this project's graph. This project's files are read as `edge.py`
reads them, so many tokens at once; the guide's takes a batch as it is. A run gives the merged
model, the student and the file that it has shipped, named by the step of the ladder that it took;
accuracies are printed from its ledger. Without one, heads are random, which changes no time. Rows
are full of tokens: no padding.

All take turns, and every ratio is of times of the same turn, because a machine's speed drifts: the
median of the turns, and their tenth and ninetieth percentile. With one thread the process's own
processor time counts, so that other work on the machine disturbs less. The int8 peak is what a
quantized product of 1024 × 1024 matrices reaches in onnxruntime, in the same turns; a row's
distance is its time over what its encoder's products, of every layer and token, would take at that
speed: a form that leaves out what the head does not read can be under 1. `Δ logit` is the largest
difference from the same model's float32 logits in PyTorch, beside the range of those.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as rt
import torch

from adapters.backbone import encoder_layers, load_backbone
from distill.students import cut, kept_layers
from export.check import processor
from export.edge import MODEL_FILE, session_options
from export.graph import export_onnx
from export.openvino import open_openvino
from export.quantize import quantize_int8
from export.session import open_model, session_settings
from recipes import assets
from recipes.console import hush
from recipes.ledger import Ledger
from recipes.workspace import load_tokenizer, torch_call
from tests.benchmarks.cold_start import cold_start, pack_student
from tests.benchmarks.int8_peak import OPERATIONS, product

Batch = dict[str, Any]
LABELS = [f"label {number}" for number in range(6)]
PEAK = "int8 peak"
OURS, PLAIN = "int8, our graph", "int8, onnxruntime's guide"


@dataclass(frozen=True)
class Contender:
    """Something that answers a batch.

    Attributes:
        call: Batch to logits.
        model: The PyTorch model that it answers for, which knows its operations.
        megabytes: Of the file, or of the float32 weights.
        rival: The name of what it has to beat.
    """

    call: Callable[[Mapping[str, Any]], np.ndarray]
    model: Any
    megabytes: float
    rival: str | None = None


def main() -> None:
    """Make the contenders, time them in turns, print tables."""
    options = _options()
    hush()
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} threads", flush=True)
    with tempfile.TemporaryDirectory() as name:
        contenders = _contenders(options, Path(name))
        teacher = next(iter(contenders))
        for rows, length in options.shapes:
            times = _turns(contenders, _batch(rows, length), options.threads, options.turns)
            _print(f"{rows} × {length}", contenders, times, (rows, length), teacher)
        _print_answers(contenders, teacher)
        if options.run:
            _print_ledger(options.run)
        packed = options.run / "bundle" if options.run else None
        seconds, memory = cold_start(packed or pack_student(Path(name)), options.starts)
        print(f"\ncold start of edge.py, the student's bundle, {options.starts} fresh processes")
        print(f"first answer after {_spread([1000 * each for each in seconds])} ms")
        told = f"{_spread(memory)} MB" if memory else "unknown: only Linux tells"
        print(f"peak of resident memory {told}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, help="folder of a run that has shipped")
    parser.add_argument("--teacher", help="catalogue name, hub:… or folder; default: mpnet-base")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=15, help="a shape; fewer where they are long")
    parser.add_argument("--starts", type=int, default=9, help="of edge.py")
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=lambda text: tuple(map(int, text.split("x"))),
        default=[(1, 16), (1, 128), (16, 32), (64, 128)],
        metavar="BATCHxLENGTH",
    )
    return parser.parse_args()


# --- What is timed ----------------------------------------------------------------------------


def _contenders(options: argparse.Namespace, folder: Path) -> dict[str, Contender]:
    teacher = load_backbone(assets.resolve(options.teacher or "mpnet-base", "model").path, LABELS)
    merged, student, origin = _models(options.run)
    load_tokenizer(origin).save_pretrained(folder / "tokenizer")
    found = {"teacher, PyTorch float32": _torch(teacher)}
    if _flags() & {"avx512_bf16", "amx_bf16", "bf16"}:
        found["teacher, PyTorch bf16"] = _torch(teacher, bf16=True)
    else:
        print("bf16 is skipped: the processor does not compute in it")
    if not importlib.util.find_spec("openvino"):
        print("OpenVINO is skipped: it is not installed (pip install openvino)")
    for name, model in (("merged", merged), ("student", student)):
        found |= _files(name, model, folder, options.threads)
    if options.run:
        path = options.run / "bundle" / MODEL_FILE
        call = open_model(path, options.threads)
        shipped = Contender(call, student, path.stat().st_size / 1e6, f"student, {PLAIN}")
        found[f"shipped: {_step(options.run)}"] = shipped
    return found


def _step(run: Path) -> str:
    """Return which form of the student's file a run has shipped."""
    row = Ledger(run / "ledger.json")["student-int8"]
    return next(str(entry["step"]) for entry in row.ladder if entry["chosen"])


def _models(run: Path | None) -> tuple[Any, Any, Path]:
    if run:
        merged, student = (_load(run / name) for name in ("merged", "student"))
        return merged, student, run / "student"
    origin = assets.resolve("minilm-l6", "model").path
    merged = load_backbone(origin, LABELS)
    return merged, cut(copy.deepcopy(merged), kept_layers(3, 6)).eval(), origin


def _load(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager", local_files_only=True
    ).eval()


def _torch(model: Any, *, bf16: bool = False) -> Contender:
    size = 4e-6 * sum(each.numel() for each in model.parameters())
    inside = copy.deepcopy(model).bfloat16() if bf16 else model
    answer = torch_call(inside)

    def call(batch: Mapping[str, Any]) -> np.ndarray:
        return answer({name: torch.from_numpy(value) for name, value in batch.items()})

    return Contender(call, model, size / 2 if bf16 else size)


def _files(name: str, model: Any, folder: Path, threads: int) -> dict[str, Contender]:
    """Export one model in every form."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    forms = ("plain", "prepared", "guide", "full", "int8")
    plain, prepared, guide, full, small = (folder / f"{name}.{form}.onnx" for form in forms)
    example = {key: torch.from_numpy(value) for key, value in _batch(2, 9).items()}
    export_onnx(model, example, plain, optimize="none")
    export_onnx(model, example, full, max_length=256)  # as lora_cls does
    # The tool's symbolic shape inference gives up on the exporter's graph; its message says so.
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, guide)
    quantize_int8(full, small)

    def opened(path: Path, rival: str | None = None) -> Contender:
        return Contender(open_model(path, threads), model, path.stat().st_size / 1e6, rival)

    call = _open_whole(guide, threads)
    found = {
        f"{name}, ONNX float32": opened(full),
        f"{name}, {PLAIN}": Contender(call, model, guide.stat().st_size / 1e6),
    }
    if importlib.util.find_spec("openvino"):
        call = open_openvino(plain, threads, precision="auto")
        found[f"{name}, OpenVINO"] = Contender(call, model, plain.stat().st_size / 1e6)
    return found | {f"{name}, {OURS}": opened(small, f"{name}, {PLAIN}")}


def _open_whole(path: Path, threads: int) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """Open a file as the guide does, so that a batch goes through the model as it is."""
    settings = session_options(session_settings(threads))
    session = rt.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def call(batch: Mapping[str, Any]) -> np.ndarray:
        logits: np.ndarray = session.run(None, {name: batch[name] for name in names})[0]
        return logits

    return call


def _flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    return set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()


def _batch(rows: int, length: int) -> Batch:
    ids = np.random.default_rng(0).integers(1000, 20_000, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


# --- Timing -----------------------------------------------------------------------------------


def _turns(
    contenders: Mapping[str, Contender], batch: Batch, threads: int, turns: int
) -> dict[str, list[float]]:
    """Return each contender's seconds a call, one median a turn."""
    calls: dict[str, Callable[[], Any]] = {
        name: (lambda each=each: each.call(batch)) for name, each in contenders.items()
    }
    calls[PEAK] = product(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    while len(times[PEAK]) < turns:
        for name, call in calls.items():
            times[name].append(_median(call, clock))
        if len(times[PEAK]) >= 3 and time.perf_counter() - begun > 90:
            break
    return times


def _median(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Return a call's median seconds, over a tenth of a second or one call that takes longer."""

    def timed() -> float:
        start = clock()
        call()
        return clock() - start

    first = timed()  # brings back the caches that the one before took
    if first > 0.5:
        return first
    taken, end = [timed()], time.perf_counter() + 0.1
    while time.perf_counter() < end:
        taken.append(timed())
    return statistics.median(taken)


def _operations(model: Any, rows: int, length: int) -> int:
    """Count the encoder's multiplications and additions, of every layer and token."""
    layers = encoder_layers(model).values()
    weights = sum(
        each.weight.numel()
        for layer in layers
        for each in layer.modules()
        if isinstance(each, torch.nn.Linear)
    )
    scores = 2 * len(layers) * length * model.config.hidden_size
    return 2 * rows * length * (weights + scores)


# --- Printing ---------------------------------------------------------------------------------


def _spread(values: Sequence[float]) -> str:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return f"{middle:.2f} ({low:.2f} … {high:.2f})"


def _ratios(one: Sequence[float], other: Sequence[float]) -> str:
    return _spread([each / against for each, against in zip(one, other, strict=True)])


def _print(
    shape: str,
    contenders: Mapping[str, Contender],
    times: Mapping[str, Sequence[float]],
    size: tuple[int, int],
    teacher: str,
) -> None:
    speeds = [1e-9 * OPERATIONS / seconds for seconds in times[PEAK]]
    print(
        f"\n{shape}: {len(speeds)} turns; int8 peak {_spread(speeds)} billion operations a second"
    )
    heads = ("median ms (p10 … p90)", "× teacher", "× guide's int8", "distance to peak")
    print(f"{'':<36}" + "".join(f"{head:>26}" for head in heads))
    for name, each in contenders.items():
        ideal = _operations(each.model, *size) / OPERATIONS
        cells = [
            _spread([1000 * seconds for seconds in times[name]]),
            _ratios(times[teacher], times[name]),
            _ratios(times[each.rival], times[name]) if each.rival else "",
            _ratios(times[name], [ideal * seconds for seconds in times[PEAK]]),
        ]
        print(f"{name:<36}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


def _print_answers(contenders: Mapping[str, Contender], teacher: str) -> None:
    batch = _batch(16, 32)
    print(f"\n{'':<36}{'MB':>10}{'× smaller than teacher':>24}{'Δ logit':>12}{'of range':>12}")
    for name, each in contenders.items():
        exact = _torch(each.model).call(batch)
        apart = float(np.abs(each.call(batch) - exact).max())
        smaller = contenders[teacher].megabytes / each.megabytes
        print(
            f"{name:<36}{each.megabytes:>10.1f}{smaller:>24.1f}{apart:>12.4f}{np.ptp(exact):>12.2f}"
        )


def _print_ledger(run: Path) -> None:
    """Print what the run has measured of its student's files."""
    ledger = Ledger(run / "ledger.json")
    print(f"\n{'':<36}{'valid. %':>10}{'test %':>10}{'labels of the row before %':>30}")
    for name in ("merged", "student", "student-onnx", "student-int8"):
        row = ledger[name]
        cells = (row.validation["accuracy"], row.metrics["accuracy"], row.agreement["labels"])
        valid, test, labels = (f"{100 * cell:.2f}" for cell in cells)
        print(f"{name:<36}{valid:>10}{test:>10}{labels:>30}")


if __name__ == "__main__":
    main()
