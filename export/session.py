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
    """Return a function from inputs ``[batch, length]`` to logits ``[batch, classes]``.

    Args:
        path: The ONNX file.
        threads: Threads within one operation.
    """
    import onnxruntime as rt

    from export.edge import session_options

    session = rt.InferenceSession(
        str(path), session_options(session_settings(threads)), providers=["CPUExecutionProvider"]
    )
    names = [node.name for node in session.get_inputs()]

    def call(batch: Mapping[str, Any]) -> np.ndarray:
        answer: np.ndarray = session.run(None, {name: as_array(batch[name]) for name in names})[0]
        return answer

    return call


def as_array(value: Any) -> Any:
    """Return a tensor of any library as a numpy array."""
    return value.numpy() if hasattr(value, "numpy") else value
