"""Eight-bit integers for an ONNX classifier."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.activations import approximate_gelu
from export.embedding_tables import Embeddings, shrink_tables
from export.errors import ExportError

if TYPE_CHECKING:
    from onnxscript import ir

#: What is quantized beside the tables of embeddings: products with weights. onnxruntime's tool
#: would take ONNX's own operator ``Attention`` for its contributed one of that name.
KINDS = ("MatMul", "Gemm")


class QuantizerError(ExportError):
    """onnxruntime's quantizer cannot take the graph; another form of it may still go."""


def quantize_int8(
    source: Path,
    target: Path,
    *,
    per_channel: bool = True,
    embeddings: Embeddings = "int8",
    only: Sequence[str] | None = None,
    keep_float: Sequence[str] = (),
) -> None:
    """Quantize weights ahead and activations at run time.

    Weights take seven of the eight bits. Processors without VNNI add pairs of 8-bit products in 16
    bits and saturate there; with seven bits nothing can saturate, so that the file answers alike
    on every processor (onnxruntime's quantization guide, "reduce_range"). Tables of embeddings are
    only looked up and take all their bits.

    Args:
        source: The float32 file.
        target: Where to write.
        per_channel: One scale for each output channel of a weight, or one for the whole.
        embeddings: How tables of embeddings are held; see `export.embedding_tables`.
        only: Names of the nodes to quantize, as `quantizable` gives them; None for all.
        keep_float: Names of nodes to leave in float.

    Raises:
        QuantizerError: onnxruntime cannot quantize the graph.
        ExportError: No table can be held as asked.
    """
    from onnxruntime.quantization import quantize_dynamic
    from onnxscript import ir

    model = with_small_tables(source, embeddings)
    approximate_gelu(model.graph)
    with quantizer(source):
        quantize_dynamic(
            ir.to_proto(model),
            target,
            op_types_to_quantize=list(KINDS),
            nodes_to_quantize=None if only is None else _quantizer_names(only),
            nodes_to_exclude=_quantizer_names(keep_float),
            **of_weights(per_channel),
        )


def with_small_tables(source: Path, embeddings: Embeddings) -> ir.Model:
    """Return a file's model with small tables of embeddings, and all else in float.

    Raises:
        ExportError: No table can be held as asked.
    """
    from onnxscript import ir
    from onnxscript.ir.passes.common import RemoveUnusedNodesPass

    model = ir.load(source)
    shrink_tables(model.graph, embeddings)
    RemoveUnusedNodesPass()(model)  # the float tables among them
    return model


def quantizable(source: Path) -> list[str]:
    """Return the names of a file's nodes that `quantize_int8` quantizes, in their order."""
    import onnx

    graph = onnx.load(source).graph
    held = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    return [
        node.name
        for node in graph.node
        if node.op_type in KINDS and len(node.input) > 1 and node.input[1] in held
    ]


def _quantizer_names(names: Sequence[str]) -> list[str]:
    """Add the names that nodes have after the tool has written ``Gemm`` as a product and a sum."""
    return [known for name in names for known in (name, f"{name}_MatMul")]


def of_weights(per_channel: bool) -> dict[str, Any]:
    """Return what onnxruntime's quantizers are told of weights."""
    import onnx
    from onnxruntime.quantization import QuantType

    return {
        "per_channel": per_channel,
        "reduce_range": True,
        "weight_type": QuantType.QInt8,
        # Fused operators hide the types of their outputs from the tool's shape inference.
        "extra_options": {"DefaultTensorType": onnx.TensorProto.FLOAT},
    }


@contextmanager
def quantizer(source: Path) -> Iterator[None]:
    """Run one of onnxruntime's quantizers.

    Its advice to pre-process, which fusing has done already, is silenced.

    Args:
        source: The float32 file, for the message.

    Raises:
        QuantizerError: It cannot quantize the graph.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise QuantizerError(
            f"{source.name} cannot be quantized to int8: {error}. Set export.quantization=none to "
            "ship float32."
        ) from error
    finally:
        root.setLevel(level)
