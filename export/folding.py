"""Leaner embeddings: no sum that is the same for every token, no row that no token can reach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from export.rewriting import attribute, constant, given, hold, made_by, only_consumer

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


def drop_positions(graph: ir.Graph, max_length: int) -> int:
    """Drop the positions that no token of a text can have.

    A table of 512 positions is half unused where texts are cut at 256 tokens. A longer text is
    refused afterwards: its positions are out of the table's bounds.

    Args:
        graph: The exporter's graph.
        max_length: Tokens of a text, at most.

    Returns:
        How many rows were dropped. Positions that are not counted as in encoders of the BERT,
        RoBERTa, DistilBERT, ELECTRA and MPNet kinds stay.
    """
    dropped = 0
    for node in [node for node in graph if node.op_type == "Gather"]:
        table, fixed = constant(node.inputs[0]), constant(node.inputs[1])
        if table is None or table.ndim != 2 or fixed is not None or attribute(node, "axis", 0) != 0:
            continue
        highest = _highest(node.inputs[1], max_length)
        if highest is None:
            continue
        if (left := len(table) - highest - 1) > 0:
            name = f"{node.inputs[0].name}.short"
            node.replace_input_with(0, hold(graph, name, table[: highest + 1]))
            dropped += left
    return dropped


def _highest(value: ir.Value | None, length: int) -> int | None:
    """Return the highest number that a row of so many tokens has; None if that is not known.

    Positions are a constant ``[1, P]`` from 0 up, of which as many are taken as there are tokens;
    or where padding shifts them, ``cumsum(token != padding) * (token != padding) + offset``.
    """
    from onnxscript import ir

    if value is None:
        return None
    if (content := constant(value)) is not None:
        plain = content.size == 1 and content.dtype.kind == "i" and content.min() >= 0
        return int(content.max()) if plain else None
    if value.dtype == ir.DataType.BOOL:
        return 1
    node = made_by(value, "Cast", "CumSum", "Mul", "Add", "Slice")
    if node is None:
        return None
    if node.op_type == "Slice":
        return length - 1 if _counts(node) else None
    parts = [_highest(each, length) for each in node.inputs]
    known = [each for each in parts if each is not None]
    if len(known) < len(parts):
        return None
    if node.op_type == "CumSum":
        return known[0] * length if known[1] == 1 else None  # along the tokens of a row
    return {"Cast": known[0], "Mul": math.prod(known), "Add": sum(known)}[node.op_type]


def _counts(node: ir.Node) -> bool:
    """Tell whether a slice takes the first numbers of a constant row that counts from 0 up."""
    row, start, axes = (constant(given(node, place)) for place in (0, 1, 3))
    if row is None or start is None or axes is None or row.ndim != 2 or len(row) != 1:
        return False
    counts = bool((row[0] == range(row.shape[1])).all())
    return counts and not start.any() and axes.tolist() == [1]
