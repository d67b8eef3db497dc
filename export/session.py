"""An ONNX file as a function, opened the way the edge runtime opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from export.bundle import Session


def session_settings(threads: int) -> Session:
    """Return the session options that every file is measured and shipped with.

    Args:
        threads: Threads within one operation; 0 for as many as the machine has cores.

    Returns:
        The ``session`` section of ``bundle.json``. Worker threads stop spinning when a call ends:
        they would steal the processor from whatever else runs on an edge server, and from the next
        artefact when several are timed in turn.
    """
    return {
        "intra_op_num_threads": threads,
        "graph_optimization_level": "ORT_ENABLE_ALL",
        "config": {"session.force_spinning_stop": "1"},
    }


def open_model(path: Path, threads: int) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """Return a function from a batch to logits ``[batch, classes]``.

    A batch holds the model's inputs, ``[batch, length]`` each, of which `export.edge.TOKENS` tokens
    go through the model at once. Where it also has ``windows``, with their ``counts`` and ``pool``,
    its rows are windows of texts, and the logits are those of the texts; see `export.edge.pooled`.

    Args:
        path: The ONNX file.
        threads: Threads within one operation.
    """
    import numpy as np
    import onnxruntime as rt

    from export.edge import TOKENS, pooled, session_options

    session = rt.InferenceSession(
        str(path), session_options(session_settings(threads)), providers=["CPUExecutionProvider"]
    )
    names = [node.name for node in session.get_inputs()]

    def call(batch: Mapping[str, Any]) -> np.ndarray:
        feed, windows = {name: as_array(batch[name]) for name in names}, batch.get("windows")
        rows, length = feed[names[0]].shape
        step = max(1, TOKENS // length)
        parts = [
            session.run(None, {name: values[at : at + step] for name, values in feed.items()})[0]
            for at in range(0, rows, step)
        ]
        logits: np.ndarray = np.concatenate(parts)
        return logits if windows is None else pooled(logits, windows.counts, windows.pool)

    return call


def as_array(value: Any) -> Any:
    """Return a tensor of any library as a numpy array."""
    return value.numpy() if hasattr(value, "numpy") else value
