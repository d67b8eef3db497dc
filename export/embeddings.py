"""Leaner embeddings: what is the same for every token is added to a table ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.rewriting import constant, hold, made_by, only_consumer

if TYPE_CHECKING:
    from onnxscript import ir

#: Operators that only move or repeat the numbers of their first input.
_MOVES = ("Expand", "Gather", "GatherElements", "Reshape", "Slice", "Unsqueeze")


def fold_token_types(graph: ir.Graph) -> int:
    """Add the embedding of the one token type to the table of positions.

    A classifier of single texts knows one type; the exporter's graph looks it up for every token.
    ``words + types[0] + positions[i]`` becomes ``words + (positions + types[0])[i]``.

    Args:
        graph: The exporter's graph.

    Returns:
        How many look-ups were folded.
    """
    lookups = [node for node in graph if node.op_type == "Gather"]
    return sum(_fold(node) for node in lookups)


def _fold(lookup: ir.Node) -> bool:
    table, place = constant(lookup.inputs[0]), _repeated(lookup.inputs[1])
    inner = only_consumer(lookup.outputs[0], "Add")
    outer = None if inner is None else only_consumer(inner.outputs[0], "Add")
    if table is None or place is None or inner is None or outer is None or table.ndim != 2:
        return False
    positions = next((node for value in outer.inputs if (node := made_by(value, "Gather"))), None)
    if positions is None or len(positions.inputs[0].uses()) != 1:
        return False
    sums = constant(positions.inputs[0])
    if sums is None or sums.shape[1:] != table.shape[1:]:
        return False
    name = f"{positions.inputs[0].name}.typed"
    positions.replace_input_with(0, hold(lookup.graph, name, sums + table[place]))
    words = next(value for value in inner.inputs if value is not lookup.outputs[0])
    inner.outputs[0].replace_all_uses_with(words)
    return True


def _repeated(value: ir.Value | None) -> int | None:
    """Return the number that a value consists of, whatever its size; None if that is not known."""
    while (node := made_by(value, *_MOVES)) is not None:
        value = node.inputs[0]
    content = constant(value)
    if content is None or not content.size or (content != content.flat[0]).any():
        return None
    return int(content.flat[0])
