"""A classifier reads the first token: the last layer need not compute the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.attention import MASK
from export.rewriting import attribute, constant, given, hold, insert, sizes

if TYPE_CHECKING:
    from onnxscript import ir

#: Operators that treat each number by itself.
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Pow", "Gelu", "Relu", "Tanh", "Sigmoid", "Erf"}


def keep_first_token(graph: ir.Graph) -> int:
    """Compute only the first token where nothing reads the others.

    A head that reads ``hidden[:, 0]`` leaves the last layer's other tokens unread, and so their
    queries and their feed-forward block; keys and values are still needed of all. Whatever works
    on each token by itself is moved behind the choice of the first one. No number that is read
    changes.

    Args:
        graph: A graph that went through `export.attention.fuse_attention`.

    Returns:
        How many nodes compute one token instead of all.
    """
    import numpy as np

    narrow = _read_at_the_first(graph)
    if not narrow:
        return 0
    zero, one, two = (hold(graph, f"number_{n}", np.array([n], dtype=np.int64)) for n in range(3))
    first: dict[tuple[ir.Value, int], ir.Value] = {}
    for node in reversed(narrow):  # in the graph's order: a choice stands before all its readers
        for place, axis in narrow[node].items():
            value = node.inputs[place]
            if value.producer() in narrow:
                continue
            if (value, axis) not in first:
                shape = (*sizes(value)[:axis], 1, *sizes(value)[axis + 1 :])
                where = [value, zero, one, one if axis == 1 else two]
                first[value, axis] = insert(node, "Slice", where, {}, shape)
            node.replace_input_with(place, first[value, axis])
        _shorten(node.outputs[0])
    return len(narrow)


def _read_at_the_first(graph: ir.Graph) -> dict[ir.Node, dict[int, int]]:
    """Find the nodes of which only the first token is read, the last one first.

    Returns:
        Node to its inputs with tokens: the input's place and its axis of tokens.
    """
    narrow: dict[ir.Node, dict[int, int]] = {}
    for node in reversed(graph):
        output, inputs = node.outputs[0], _tokenwise(node)
        uses = () if output.is_graph_output() else output.uses()
        if (
            inputs
            and uses
            and all(_takes_first(use.node) or use.idx in narrow.get(use.node, {}) for use in uses)
        ):
            narrow[node] = inputs
    return narrow


def _takes_first(node: ir.Node) -> bool:
    if node.op_type != "Gather" or len(sizes(node.inputs[0])) != 3:
        return False
    index = constant(node.inputs[1])
    return attribute(node, "axis", 0) == 1 and index is not None and not index.any()


def _tokenwise(node: ir.Node) -> dict[int, int]:
    """Return the inputs with tokens of a node that treats each token by itself, else nothing."""
    if len(node.outputs) != 1 or len(sizes(node.outputs[0])) != 3:
        return {}
    if node.op_type == "Attention":  # each query by itself, and its row of the mask
        return {0: 1} if given(node, MASK) is None else {0: 1, MASK: 2}
    fixed = [constant(value) is not None for value in node.inputs]
    if node.op_type == "MatMul":
        alike = not fixed[0] and fixed[1] and len(sizes(node.inputs[1])) == 2
        return {0: 1} if alike else {}
    if node.op_type == "LayerNormalization":
        return {0: 1} if attribute(node, "axis", -1) == -1 and all(fixed[1:]) else {}
    if node.op_type not in _ELEMENTWISE:
        return {}
    ranks = [len(sizes(value)) for value in node.inputs]
    known = all(rank <= 1 if held else rank == 3 for held, rank in zip(fixed, ranks, strict=True))
    return {place: 1 for place, held in enumerate(fixed) if not held} if known else {}


def _shorten(value: ir.Value) -> None:
    from onnxscript import ir

    batch, _, width = value.shape
    value.shape = ir.Shape([batch, 1, width])
