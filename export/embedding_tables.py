"""Tables of embeddings in eight or four bits, looked up row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from export.errors import ExportError
from export.rewriting import constant, hold, insert, sizes

if TYPE_CHECKING:
    import numpy as np
    from onnxscript import ir

#: How a table of embeddings is held.
Embeddings = Literal["int8", "int4"]
#: Numbers in a table below which nothing is gained: a bias of positions, for example.
_LEAST = 1024
#: Numbers of a row that share a scale of a 4-bit table, at most.
_BLOCK = 32
#: Shares of a block's range of which the best becomes its 4-bit range: to clip the one largest
#: number is often better than to be coarse with all others.
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
#: Rows that are searched at once.
_ROWS = 4096


def shrink_tables(graph: ir.Graph, embeddings: Embeddings) -> int:
    """Replace look-ups in float tables by look-ups in small integers.

    A table of eight bits has a scale for each row. On MiniLM's words that is 0.7 % off, against
    8.6 % with the one scale of seven bits that onnxruntime's quantizer gives the whole table, and
    costs two more nodes. A table of four bits has a scale for up to 32 numbers and is 8.2 % off.
    Two numbers share a byte, and standard operators take them apart: onnxruntime's own operator,
    ``GatherBlockQuantized``, takes three times as long for 16 tokens and six times for 512
    (onnxruntime 1.32, one thread).

    Args:
        graph: A graph with float tables.
        embeddings: ``"int8"``; or ``"int4"`` for the tables of tokens, all others in eight bits.

    Returns:
        How many look-ups were replaced.

    Raises:
        ExportError: Four bits are asked for, and no table of tokens was found to hold in them.
    """
    lookups = [node for node in graph if _is_lookup(node)]
    words = [node for node in lookups if embeddings == "int4" and _halves(node, graph)]
    if embeddings == "int4" and not words:
        raise ExportError(
            "export.embeddings=int4: the graph looks its tokens up in no table that can be held in "
            "four bits. Set export.optimize=full, or export.embeddings=int8."
        )
    for node in lookups:
        replaced = _nibbles(node) if node in words else _bytes(node)
        node.outputs[0].replace_all_uses_with(replaced)
        graph.remove(node, safe=True)
    return len(lookups)


def _is_lookup(node: ir.Node) -> bool:
    """Tell whether a node takes rows out of a float table that is worth shrinking."""
    if node.op_type != "Gather" or node.domain or node.outputs[0].is_graph_output():
        return False
    table, axis = constant(node.inputs[0]), node.attributes.get("axis")
    if table is None or table.ndim != 2 or (axis is not None and axis.as_int() != 0):
        return False
    return table.size >= _LEAST and table.dtype.name == "float32" and bool(_axes(node))


def _axes(node: ir.Node) -> tuple[int | str, ...]:
    """Return the axes of what is looked up, without that of the table; none if they are unknown."""
    return sizes(node.outputs[0])[:-1] or sizes(node.inputs[1])


def _halves(node: ir.Node, graph: ir.Graph) -> bool:
    """Tell whether a look-up is one of tokens, in rows of an even number of numbers."""
    table = constant(node.inputs[0])
    return node.inputs[1] in graph.inputs and table is not None and table.shape[1] % 2 == 0


def _table(node: ir.Node) -> np.ndarray:
    table = constant(node.inputs[0])
    assert table is not None
    return table


def _bytes(node: ir.Node) -> ir.Value:
    """Look rows of eight bits up, and multiply each by its own scale, kept in float16."""
    import numpy as np

    table = _table(node)
    scales = (np.abs(table).max(axis=1, keepdims=True) / 127).astype(np.float16)
    scales[scales == 0] = 1
    numbers = np.clip(np.rint(table / scales.astype(np.float32)), -127, 127)
    rows = _take(node, "int8", numbers.astype(np.int8))
    factors = _take(node, "scales", scales)
    return insert(node, "Mul", [_wide(node, rows), _wide(node, factors)], {}, sizes(rows))


def _wide(node: ir.Node, value: ir.Value) -> ir.Value:
    from onnxscript import ir

    return insert(node, "Cast", [value], {"to": ir.DataType.FLOAT}, sizes(value))


def _nibbles(node: ir.Node) -> ir.Value:
    """Look rows of four bits up, take their halves apart and multiply each block by its scale.

    A byte holds a number of the row's first half and, shifted, one of its second, so that halves
    need no interleaving. Numbers are stored with 8 added.
    """
    import numpy as np
    from onnxscript import ir

    table, uint8 = _table(node), ir.DataType.UINT8
    count, width = table.shape
    block = max(size for size in range(1, _BLOCK + 1) if width % size == 0)
    numbers, scales = _in_four_bits(table.reshape(count, width // block, block))
    stored = (numbers.reshape(count, width) + 8).astype(np.uint8)
    packed = stored[:, : width // 2] | (stored[:, width // 2 :] << 4)

    def held(name: str, content: object) -> ir.Value:
        return hold(node.graph, f"int4.{name}", np.array(content))

    rows = _take(node, "int4", packed)
    axes, half = _axes(node), sizes(rows)
    low = insert(node, "BitwiseAnd", [rows, held("low", np.uint8(15))], {}, half, dtype=uint8)
    shift = {"direction": "RIGHT"}
    high = insert(node, "BitShift", [rows, held("high", np.uint8(4))], shift, half, dtype=uint8)
    whole = insert(node, "Concat", [low, high], {"axis": -1}, (*axes, width), dtype=uint8)
    one, eight = held("one", np.float32(1)), held("eight", np.uint8(8))
    wide = insert(node, "DequantizeLinear", [whole, one, eight], {}, (*axes, width))
    parts = (*axes, width // block, block)
    parted = held("parted", [*(0 for _ in axes), width // block, block])
    joined = held("joined", [*(0 for _ in axes), width])
    blocks = insert(node, "Reshape", [wide, parted], {}, parts)
    factors = _wide(node, _take(node, "scales", scales))
    scaled = insert(node, "Mul", [blocks, factors], {}, parts)
    return insert(node, "Reshape", [scaled, joined], {}, (*axes, width))


def _take(node: ir.Node, name: str, table: np.ndarray) -> ir.Value:
    """Look something up that goes by the same rows as the table of a node."""
    held = hold(node.graph, f"{node.inputs[0].name}.{name}", table)
    shape = (*_axes(node), *table.shape[1:])
    return insert(node, "Gather", [held, node.inputs[1]], {}, shape, dtype=held.dtype)


def _in_four_bits(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers from -8 to 7 and the scales of blocks ``[rows, blocks, size]``.

    The number that is farthest from zero goes to -8, the longer side, so that a scale can be
    negative; of the ranges in `_SHARES` the one with the least squared error is taken.

    Returns:
        Numbers ``[rows, blocks, size]`` and scales ``[rows, blocks, 1]`` in float16.
    """
    import numpy as np

    numbers, scales = np.empty(blocks.shape, np.int8), np.empty((*blocks.shape[:2], 1), np.float16)
    for first in range(0, len(blocks), _ROWS):
        part = blocks[first : first + _ROWS]
        farthest = np.abs(part).argmax(axis=2, keepdims=True)
        largest = np.take_along_axis(part, farthest, axis=2)
        least = np.full(largest.shape, np.inf, np.float32)
        for share in _SHARES:
            tried = (largest * (share / -8)).astype(np.float16)
            tried[tried == 0] = 1
            factor = tried.astype(np.float32)
            rounded = np.clip(np.rint(part / factor), -8, 7)
            error = np.square(rounded * factor - part).sum(axis=2, keepdims=True)
            better = error < least
            least = np.where(better, error, least)
            whole = slice(first, first + len(part))
            scales[whole] = np.where(better, tried, scales[whole])
            numbers[whole] = np.where(better, rounded, numbers[whole])
    return numbers, scales
