"""Layer norms that stay apart from the sums before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.rewriting import constant, insert, made_by, sizes

if TYPE_CHECKING:
    from onnxscript import ir


def keep_norms_apart(graph: ir.Graph) -> int:
    """Write a residual sum before a layer norm as ``Sum`` instead of ``Add``.

    onnxruntime fuses ``Add`` and ``LayerNormalization`` into ``SkipLayerNormalization`` whenever it
    opens a file, and that kernel works through its rows a number at a time: 128 rows of 384
    numbers take it 0.29 ms, and 0.06 ms in two nodes (onnxruntime 1.32 on an AMD EPYC, AVX2, one
    thread). ``Sum`` computes the same and is left alone.

    Args:
        graph: The exporter's graph, with known shapes.

    Returns:
        How many sums were renamed.
    """
    norms = [node for node in graph if node.op_type == "LayerNormalization"]
    return sum(_rename(made_by(norm.inputs[0], "Add")) for norm in norms)


def _rename(total: ir.Node | None) -> bool:
    if total is None or any(constant(value) is not None for value in total.inputs):
        return False
    output = total.outputs[0]
    if output.is_graph_output():
        return False
    output.replace_all_uses_with(insert(total, "Sum", total.inputs, {}, sizes(output)))
    return True
