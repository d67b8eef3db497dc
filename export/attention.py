"""One operator for attention: from the exporter's dozen nodes to onnxruntime's own kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from export.rewriting import (
    CONTRIB,
    attribute,
    constant,
    given,
    hold,
    insert,
    made_by,
    only_consumer,
    sizes,
)

if TYPE_CHECKING:
    from onnxscript import ir

#: From [batch, length, heads, size] to what the two products of attention take.
_QUERIES, _KEYS = [0, 2, 1, 3], [0, 2, 3, 1]
#: Where ``MultiHeadAttention`` takes a mask of keys and a bias of scores.
_KEEP, BIAS = 4, 5


@dataclass(frozen=True)
class _Heads:
    """A projection ``[batch, length, heads × size]`` that is parted into heads."""

    value: ir.Value
    heads: int
    size: int


@dataclass(frozen=True)
class _Scores:
    """Scaled products of queries and keys, and what is added to them before the softmax."""

    queries: ir.Value
    keys: ir.Value
    scale: float
    added: tuple[ir.Value, ...]


@dataclass(frozen=True)
class _Terms:
    """What is added to the scores, as the operator takes it.

    Attributes:
        keep: ``[batch, keys]``, 0 where a key is padding.
        padding: What is added to the scores of padding.
        bias: ``[batch or 1, heads or 1, queries, keys]``.
    """

    keep: ir.Value | None = None
    padding: float = 0.0
    bias: ir.Value | None = None


def fuse_attention(graph: ir.Graph) -> int:
    """Replace softmax attention by ``com.microsoft::MultiHeadAttention``.

    An attention is replaced where every node of it has a known form: projections parted into heads
    by one reshape, scores scaled by a constant, a key mask as `export.masks` makes it, a bias that
    is as large as the scores but for the batch and the heads. Anything else is left as it is:
    rotary positions, shared key heads, disentangled attention.

    Args:
        graph: The exporter's graph, with known shapes.

    Returns:
        How many were replaced.
    """
    softmaxes = [node for node in graph if node.op_type == "Softmax"]
    return sum(_fuse(softmax) for softmax in softmaxes)


def merge_projections(graph: ir.Graph) -> int:
    """Give an attention its three projections: ``com.microsoft::Attention``, one weight matrix.

    It is the faster kernel of the two, and its 8-bit form ``QAttention`` quantizes the input once.
    An attention with a bias on the scores keeps its own projections: the 8-bit form has no such
    input, and onnxruntime's quantizer would drop it silently.

    Args:
        graph: A graph that went through `fuse_attention`.

    Returns:
        How many were merged.
    """
    nodes = [node for node in graph if node.op_type == "MultiHeadAttention"]
    return sum(_merge(node) for node in nodes)


def _fuse(softmax: ir.Node) -> bool:
    if attribute(softmax, "axis", -1) not in (-1, 3):
        return False
    scores = _scores(softmax.inputs[0])
    product = only_consumer(softmax.outputs[0], "MatMul")
    if scores is None or product is None or product.inputs[0] is not softmax.outputs[0]:
        return False
    queries, keys = _heads(scores.queries, _QUERIES), _heads(scores.keys, _KEYS)
    values, joined = _heads(product.inputs[1], _QUERIES), _joined(product)
    if queries is None or keys is None or values is None or joined is None:
        return False
    terms = _terms(scores.added, (*sizes(scores.queries)[:3], sizes(scores.keys)[3]))
    width = (*sizes(queries.value)[:2], values.heads * values.size)
    same = (queries.heads, queries.size) == (keys.heads, keys.size)
    if terms is None or not same or queries.heads != values.heads or sizes(joined) != width:
        return False
    node, heads = joined.producer(), {"num_heads": queries.heads, "scale": scores.scale}
    keep = None if terms.keep is None else _as_int32(terms.keep, node)
    fused = insert(
        node,
        "MultiHeadAttention",
        [queries.value, keys.value, values.value, None, keep, terms.bias],
        {**heads, "mask_filter_value": terms.padding},
        width,
        domain=CONTRIB,
    )
    joined.replace_all_uses_with(fused)
    return True


def _scores(value: ir.Value | None) -> _Scores | None:
    """Follow what a softmax takes to the product of queries and keys."""
    node = made_by(value, "MatMul", "Mul", "Div", "Add")
    if node is None:
        return None
    one, other = node.inputs
    if node.op_type == "MatMul":
        return _Scores(one, other, 1.0, ()) if len(sizes(one)) == len(sizes(other)) == 4 else None
    if node.op_type == "Add":
        return _plus(_scores(one), other) or _plus(_scores(other), one)
    inner, factor = _scores(one), constant(other)
    if inner is None or inner.added or factor is None or factor.size != 1:
        return None
    scale = float(factor.item())
    scale = inner.scale * scale if node.op_type == "Mul" else inner.scale / scale
    return _Scores(inner.queries, inner.keys, scale, ())


def _plus(scores: _Scores | None, term: ir.Value) -> _Scores | None:
    if scores is None:
        return None
    return _Scores(scores.queries, scores.keys, scores.scale, (*scores.added, term))


def _heads(value: ir.Value | None, axes: list[int]) -> _Heads | None:
    """Follow heads, whose axes stand in the given order, back to the projection."""
    order = [0, 1, 2, 3]
    while (node := made_by(value, "Transpose")) is not None:
        turned = attribute(node, "perm")
        order = [turned[axis] for axis in order]
        value = node.inputs[0]
    parted = made_by(value, "Reshape")
    if parted is None or order != axes or len(sizes(value)) != 4:
        return None
    batch, length, heads, size = sizes(value)
    if not isinstance(heads, int) or not isinstance(size, int):
        return None
    whole = parted.inputs[0]
    return _Heads(whole, heads, size) if sizes(whole) == (batch, length, heads * size) else None


def _joined(product: ir.Node) -> ir.Value | None:
    """Follow the product of attention and values to where its heads are joined again."""
    turned = only_consumer(product.outputs[0], "Transpose")
    if turned is None or attribute(turned, "perm") != tuple(_QUERIES):
        return None
    joined = only_consumer(turned.outputs[0], "Reshape")
    return None if joined is None or joined.outputs[0].is_graph_output() else joined.outputs[0]


def _terms(added: tuple[ir.Value, ...], scores: tuple[int | str, ...]) -> _Terms | None:
    """Sort what is added to the scores ``[batch, heads, queries, keys]``; None if it is new."""
    terms = _Terms()
    for value in added:
        mask = _mask(value)
        if mask is not None and terms.keep is None:
            terms = _Terms(*mask, terms.bias)
            continue
        bias = _unexpanded(value, scores)
        axes = sizes(bias)
        fits = len(axes) == 4 and axes[2:] == scores[2:]
        fits = fits and axes[0] in (1, scores[0]) and axes[1] in (1, scores[1])
        if not fits or terms.bias is not None:
            return None
        terms = _Terms(terms.keep, terms.padding, bias)
    return terms


def _mask(value: ir.Value) -> tuple[ir.Value, float] | None:
    """Recognise a key mask ``[batch, 1, 1, keys]``: 0 where it is set and one number elsewhere."""
    node = made_by(value, "Where")
    if node is None:
        return None
    keep, zero, padding = node.inputs[0], constant(node.inputs[1]), constant(node.inputs[2])
    if zero is None or padding is None or zero.any() or padding.size != 1:
        return None
    while (inner := made_by(keep, "Unsqueeze", "Cast")) is not None:
        keep = inner.inputs[0]
    axes = sizes(keep)
    if len(axes) != 2 or sizes(value) != (axes[0], 1, 1, axes[1]):
        return None
    return keep, float(padding.item())


def _unexpanded(value: ir.Value, scores: tuple[int | str, ...]) -> ir.Value:
    """Undo repeating a bias over the batch: the operator does without."""
    node = made_by(value, "Expand")
    if node is not None and sizes(node.inputs[0])[:1] == (1,) and sizes(value)[2:] == scores[2:]:
        return node.inputs[0]
    return value


def _as_int32(keep: ir.Value, before: ir.Node) -> ir.Value:
    """Cast a mask once for all attentions that take it."""
    from onnxscript import ir

    for node in keep.consumers():
        if node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.INT32:
            return node.outputs[0]
    return insert(
        before, "Cast", [keep], {"to": ir.DataType.INT32}, sizes(keep), dtype=ir.DataType.INT32
    )


def _merge(node: ir.Node) -> bool:
    found = [_projection(value) for value in node.inputs[:3]]
    linear = [entry for entry in found if entry is not None]
    if given(node, BIAS) is not None or len(linear) < 3 or node.outputs[0].is_graph_output():
        return False
    sources, weights, biases = zip(*linear, strict=True)
    if len(set(sources)) > 1 or len({sizes(value) for value in weights}) > 1:
        return False
    fused = insert(
        node,
        "Attention",
        [
            sources[0],
            _side_by_side(node.graph, weights),
            _side_by_side(node.graph, biases),
            given(node, _KEEP),
        ],
        {name: attribute(node, name) for name in ("num_heads", "scale", "mask_filter_value")},
        sizes(node.outputs[0]),
        domain=CONTRIB,
    )
    node.outputs[0].replace_all_uses_with(fused)
    return True


def _projection(value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Recognise ``source @ weights + bias`` with constant weights and bias."""
    added = made_by(value, "Add")
    product = None if added is None else made_by(added.inputs[0], "MatMul")
    if added is None or product is None:
        return None
    (source, weights), bias = product.inputs, added.inputs[1]
    ranks = [0 if constant(held) is None else len(sizes(held)) for held in (weights, bias)]
    return (source, weights, bias) if ranks == [2, 1] else None


def _side_by_side(graph: ir.Graph, parts: Sequence[ir.Value]) -> ir.Value:
    """Join constants at their last axis, once for all layers that share them."""
    import numpy as np

    name = "+".join(part.name for part in parts)
    if name in graph.initializers:
        return graph.initializers[name]
    return hold(graph, name, np.concatenate([constant(part) for part in parts], axis=-1))
