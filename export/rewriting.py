"""Reading and changing the exporter's graph: the few steps that every rewrite is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from onnxscript import ir

#: The domain of onnxruntime's own operators.
CONTRIB = "com.microsoft"


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the value's content if the graph holds it, else None."""
    if value is None or value.const_value is None:
        return None
    content: np.ndarray = value.const_value.numpy()
    return content


def made_by(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """Return the node that computes the value if it is of one of these kinds, else None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in kinds else None


def only_consumer(value: ir.Value, kind: str) -> ir.Node | None:
    """Return the node that alone reads the value if it is of this kind, else None."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = next(iter(uses)).node
    return node if node.op_type == kind else None


def given(node: ir.Node, place: int) -> ir.Value | None:
    """Return a node's input, or None where it is left out."""
    return node.inputs[place] if place < len(node.inputs) else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute, or the default where it is not given."""
    return node.attributes[name].value if name in node.attributes else default


def sizes(value: ir.Value | None) -> tuple[int | str, ...]:
    """Return the value's axes: a number where it is fixed, a name where it is free.

    An axis of which nothing is known gets a name of its own, so that it equals no other. A value
    of unknown rank has no axes.
    """
    if value is None or value.shape is None:
        return ()
    return tuple(
        size if isinstance(size, int) else (size.value or f"{value.name}:{axis}")
        for axis, size in enumerate(value.shape)
    )


def insert(
    before: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    shape: Sequence[int | str],
    *,
    domain: str = "",
    dtype: Any = None,
) -> ir.Value:
    """Put a node with one output before another one.

    Args:
        before: The node that it goes before.
        kind: Its operator.
        inputs: Its inputs; None for one that is left out.
        attributes: Its attributes.
        shape: The axes of its output, as `sizes` gives them.
        domain: Its operator's domain.
        dtype: The type of its output; float32 if not given.

    Returns:
        Its output.
    """
    from onnxscript import ir

    node = ir.node(kind, inputs, attributes, domain=domain)
    before.graph.insert_before(before, node)
    output = node.outputs[0]
    output.shape = ir.Shape(shape)
    output.dtype = ir.DataType.FLOAT if dtype is None else dtype
    return output


def hold(graph: ir.Graph, name: str, content: np.ndarray) -> ir.Value:
    """Give the graph a constant.

    Args:
        graph: The graph.
        name: What to call it; a number is added where the name is taken.
        content: Its content.

    Returns:
        The constant.
    """
    from onnxscript import ir

    count, free = 0, name
    while free in graph.initializers:
        count += 1
        free = f"{name}_{count}"
    value = ir.Value(name=free, const_value=ir.tensor(content, name=free))
    value.shape = ir.Shape(content.shape)
    value.dtype = value.const_value.dtype
    graph.register_initializer(value)
    return value
