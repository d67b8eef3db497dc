"""An ONNX file as a function, run by OpenVINO instead of onnxruntime (the extra ``openvino``).

For comparison: the package ``onnxruntime-openvino`` would put it under onnxruntime, but it takes
onnxruntime's place in an environment and lags behind it. The package ``openvino`` reads ONNX by
itself and lives beside onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from export.errors import ExportError
from export.session import as_array

if TYPE_CHECKING:
    import numpy as np


def open_openvino(
    path: Path, threads: int, *, precision: Literal["f32", "auto"] = "f32"
) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """Return a function from inputs ``[batch, length]`` to logits ``[batch, classes]``.

    Args:
        path: The ONNX file. Of onnxruntime's own operators OpenVINO knows some, but not those of
            quantized attention.
        threads: Threads of one call; 0 for as many as the machine has cores.
        precision: Compute in float32 what the file has in float32, or as OpenVINO likes, which is
            bfloat16 where the processor has it.

    Raises:
        ExportError: The package is missing, or it cannot run the file.
    """
    try:
        import openvino
    except ImportError as error:
        raise ExportError(
            f"OpenVINO is not installed ({error}). Install it: pip install 'potstill[openvino]'."
        ) from error
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if precision != "auto":
        settings["INFERENCE_PRECISION_HINT"] = precision
    try:
        model = openvino.Core().compile_model(path, "CPU", settings)
    except RuntimeError as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1]
        raise ExportError(f"OpenVINO cannot run {path}: {reason}.") from error
    names = [node.any_name for node in model.inputs]
    request = model.create_infer_request()

    def call(batch: Mapping[str, Any]) -> np.ndarray:
        feed = {name: as_array(batch[name]) for name in names}
        answer: np.ndarray = request.infer(feed, share_inputs=True)[0]
        return answer

    return call
