"""How long a fresh process of `edge.py` takes to its first answer, and how much memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from export.bundle import INT8_TOLERANCE, pack
from export.session import session_settings
from recipes.workspace import load_tokenizer

TEXT = "How far is the moon from the earth?"
TEXTS = [TEXT, "Who wrote the first novel?", "What is the capital of Peru?", "When was it built?"]


def cold_start(bundle: Path, starts: int) -> tuple[list[float], list[float]]:
    """Ask a bundle one question in processes of their own.

    The files are in the system's cache; what is measured is Python's start, the bundle's sums, the
    imports, the tokenizer, the model and the first answer.

    Args:
        bundle: The bundle.
        starts: How many processes, after one that does not count.

    Returns:
        Seconds to the first answer of each; its peak of resident memory by then in MB, nothing
        where the system does not tell.
    """
    command = [sys.executable, str(bundle / "edge.py")]
    seconds, memory = [], []
    for _ in range(starts + 1):
        start = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{TEXT}\n".encode())
            child.stdin.flush()
            if not child.stdout.readline():
                raise SystemExit("edge.py did not answer")
            seconds.append(time.perf_counter() - start)
            memory += _peak(child.pid)
            child.stdin.close()
    return seconds[1:], memory[1:]


def _peak(process: int) -> list[float]:
    """Read what the system itself counts: rusage would show the parent's size before the exec."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return [int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM:")]


def pack_student(folder: Path) -> Path:
    """Pack an int8 file that no run has made.

    Args:
        folder: With ``student.int8.onnx`` and ``tokenizer/``.

    Returns:
        The bundle.
    """
    import onnxruntime as rt

    tokenizer = load_tokenizer(folder / "tokenizer")
    model = folder / "student.int8.onnx"
    session = rt.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    count = session.get_outputs()[0].shape[1]
    return pack(
        folder / "bundle",
        name="benchmark",
        model=model,
        tokenizer=tokenizer.backend_tokenizer,
        labels=[f"label {number}" for number in range(count)],
        processing={
            "max_length": 128,
            "pad_token_id": int(tokenizer.pad_token_id),
            "inputs": [node.name for node in session.get_inputs()],
        },
        session=session_settings(1),
        golden_texts=TEXTS,
        tolerance=INT8_TOLERANCE,
        ledger=[],
        versions={},
        licenses={},
        card="# Benchmark\n",
    )
