"""Eight-bit integers whose ranges are known ahead, from examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.activations import approximate_gelu
from export.embedding_tables import Embeddings
from export.errors import ExportError
from export.quantize import KINDS, of_weights, quantizer, with_small_tables

if TYPE_CHECKING:
    import numpy as np


def quantize_static_int8(
    source: Path,
    target: Path,
    calibration: Iterable[Mapping[str, np.ndarray]],
    *,
    embeddings: Embeddings = "int8",
) -> None:
    """Quantize weights and activations ahead, the latter by the ranges that they take on examples.

    The file has the QDQ form: a pair of ``QuantizeLinear`` and ``DequantizeLinear`` before each
    product, which onnxruntime fuses when it opens the file. Products give floats: quantized once
    more behind each of them, three layers of MiniLM kept 97.9 % of their labels on the validation
    rows of TREC instead of 99.8 %.

    Args:
        source: The float32 file.
        target: Where to write.
        calibration: Inputs of training texts, never of test texts: ``[batch, length]`` each.
        embeddings: How tables of embeddings are held; see `export.embedding_tables`.

    Raises:
        QuantizerError: onnxruntime cannot quantize the graph.
        ExportError: There is nothing to calibrate on, or no table can be held as asked.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxscript import ir

    batches = list(calibration)
    if not batches:
        raise ExportError(
            "Static quantization needs texts to calibrate on: give some to learn from."
        )
    model = with_small_tables(source, embeddings)
    approximate_gelu(model.graph)
    shrunk = target.with_name(f".{target.name}.float")
    onnx.save(ir.to_proto(model), shrunk)
    settings = of_weights(per_channel=True)
    settings["extra_options"]["OpTypesToExcludeOutputQuantization"] = list(KINDS)
    try:
        with quantizer(source):
            quantize_static(
                shrunk,
                target,
                _reader(batches),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                op_types_to_quantize=list(KINDS),
                **settings,
            )
    finally:
        shrunk.unlink()


def _reader(batches: Iterable[Mapping[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> Any:
            return next(self.batches, None)

    return Reader()
