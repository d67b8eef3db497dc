"""Weights in sixteen bits, arithmetic in thirty-two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.embedding_tables import Embeddings
from export.quantize import with_small_tables

if TYPE_CHECKING:
    from onnxscript import ir

#: Numbers in a tensor below which a node more costs what is saved.
_LEAST = 1024


def store_float16(source: Path, target: Path, *, embeddings: Embeddings = "int8") -> None:
    """Write a file of about half the size that answers nearly alike, on every processor.

    Weights are kept in float16 and turned back when onnxruntime opens the file. Few processors
    compute in float16; onnxruntime would cast before and after every node.

    Args:
        source: The float32 file.
        target: Where to write.
        embeddings: How tables of embeddings are held; see `export.embedding_tables`.

    Raises:
        ExportError: No table can be held as asked.
    """
    import onnx
    from onnxscript import ir

    model = with_small_tables(source, embeddings)
    graph = model.graph
    for value in list(graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT and value.const_value.size >= _LEAST:
            _halve(graph, value)
    onnx.save(ir.to_proto(model), target)


def _halve(graph: ir.Graph, value: ir.Value) -> None:
    import numpy as np
    from onnxscript import ir

    content = value.const_value.numpy()
    if np.abs(content).max() > np.finfo(np.float16).max:
        return
    name = value.name
    half = ir.Value(
        name=f"{name}.float16", const_value=ir.tensor(content.astype(np.float16)),
        shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16),
    )  # fmt: skip
    graph.register_initializer(half)
    wide = ir.node("Cast", [half], {"to": ir.DataType.FLOAT})
    graph.insert_before(graph[0], wide)
    output = wide.outputs[0]
    output.shape, output.dtype = value.shape, value.dtype
    value.replace_all_uses_with(output)
    del graph.initializers[name]
