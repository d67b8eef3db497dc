"""Eight-bit integers for an ONNX classifier."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from export.activations import approximate_gelu
from export.errors import ExportError
from export.tables import Embeddings, shrink_tables

#: What is quantized beside the tables of embeddings: products with weights. onnxruntime's tool would
#: take ONNX's own ``Attention`` for its contributed operator of that name.
_KINDS = ["MatMul", "Gemm"]


def quantize_int8(source: Path, target: Path, *, embeddings: Embeddings = "int8") -> None:
    """Quantize weights ahead and activations at run time, one scale for each output channel.

    Weights take seven of the eight bits. Processors without VNNI add pairs of 8-bit products in 16
    bits and saturate there; with seven bits nothing can saturate, so that the file answers alike
    on every processor (onnxruntime's quantization guide, "reduce_range"). Tables of embeddings are
    only looked up and take all their bits.

    Args:
        source: The float32 file.
        target: Where to write.
        embeddings: How tables of embeddings are held; see `export.tables`.

    Raises:
        ExportError: onnxruntime cannot quantize the graph, or no table can be held as asked.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The tool advises a pre-processing step on the root logger; fusing has done its work already.
    logging.getLogger().setLevel(logging.ERROR)
    graph = _prepared(source, embeddings)
    try:
        quantize_dynamic(
            graph,
            target,
            op_types_to_quantize=_KINDS,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            # Fused operators hide the types of their outputs from the tool's shape inference.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    except (RuntimeError, ValueError) as error:
        raise ExportError(
            f"{source.name} cannot be quantized to int8: {error}. Set export.quantization=none to "
            "ship float32."
        ) from error


def _prepared(source: Path, embeddings: Embeddings) -> Any:
    from onnxscript import ir
    from onnxscript.ir.passes.common import RemoveUnusedNodesPass

    model = ir.load(source)
    approximate_gelu(model.graph)
    shrink_tables(model.graph, embeddings)
    RemoveUnusedNodesPass()(model)  # the float tables among them
    return ir.to_proto(model)
