"""Each rewrite of a graph, on graphs of a few nodes: what it changes, and what it leaves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.parser import parse_model
from onnxscript import ir
from onnxscript.ir.passes.common import RemoveUnusedNodesPass
from transformers import BertConfig
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

from export.activations import approximate_gelu
from export.attention import fuse_attention
from export.folding import fold_token_types
from export.masks import key_masks
from export.norms import keep_norms_apart
from export.tokens import keep_first_token

HEAD = '<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]>'
RANDOM = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


#: What the graphs may hold.
CONSTANTS = {
    **{name: numbers(8, 8) for name in ("w1", "w2", "w3")},
    **{name: numbers(8) for name in ("b1", "b2", "b3")},
    "first": np.array(0),
    "axis": np.array(1),
    "axes": np.array([1]),
    "words": numbers(20, 8),
    "types": numbers(2, 8),
    "positions": numbers(20, 8),
    "ones": np.ones((1, 20), dtype=np.int64),
    "zeros_and_ones": np.arange(20)[None] % 2,
}


def read(text: str) -> ir.Model:
    model = parse_model(HEAD + text)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(content, name)
        for name, content in CONSTANTS.items()
        if name in used
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def run(model: ir.Model, inputs: Mapping[str, Any]) -> list[np.ndarray]:
    raw = ir.to_proto(model).SerializeToString()
    answers: list[np.ndarray] = onnxruntime.InferenceSession(raw).run(None, dict(inputs))
    return answers


def rewrite(
    text: str, change: Callable[[Any], int], inputs: Mapping[str, Any]
) -> tuple[int, Counter[str]]:
    """Change the graph; it must answer as before. Return what the change told and what is left."""
    before, after = read(text), read(text)
    count = change(after.graph)
    RemoveUnusedNodesPass()(after)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    for one, other in zip(run(before, inputs), run(after, inputs), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
    return count, Counter(node.op_type for node in after.graph)


ATTENTION = """
g (float[b,s,8] q, float[b,s,8] k, float[b,s,8] v, float[b,1,s,s] mask, float[1,2,s,s] bias)
  => (float[b,s,8] y)
<int64[4] part = {0,0,2,4}, int64[3] whole = {0,0,8}, float scale = {0.5}> {
  q1 = Reshape(q, part)
  q2 = Transpose<perm = [0,2,1,3]>(q1)
  k1 = Reshape(k, part)
  k2 = Transpose<perm = [0,2,3,1]>(k1)
  v1 = Reshape(v, part)
  v2 = Transpose<perm = [0,2,1,3]>(v1)
  raw = MatMul(q2, k2)
  scaled = Mul(raw, scale)
  near = Add(scaled, bias)
  scores = Add(near, mask)
  shares = Softmax<axis = -1>(scores)
  y1 = MatMul(shares, v2)
  y2 = Transpose<perm = [0,2,1,3]>(y1)
  y3 = Reshape(y2, whole)
  y = Relu(y3)
}"""


@pytest.mark.parametrize(
    ("old", "new", "bias", "fused"),
    [
        ("", "", (1, 2, 5, 5), 1),
        ("Add(scaled, bias)", "Add(bias, scaled)", (1, 2, 5, 5), 1),
        ("Mul(raw, scale)", "Div(raw, scale)", (1, 2, 5, 5), 1),
        ("float[1,2,s,s] bias", "float[b,1,s,s] bias", (3, 1, 5, 5), 1),
        ("Add(near, mask)", "Identity(near)", (1, 2, 5, 5), 0),
        ("Softmax<axis = -1>(scores)", "Softmax<axis = -1>(near)", (1, 2, 5, 5), 1),
        ("Softmax<axis = -1>(scores)", "Softmax<axis = -1>(scaled)", (1, 2, 5, 5), 1),
        # Not the operator's attention, or not known to be.
        ("axis = -1", "axis = 2", (1, 2, 5, 5), 0),
        ("float[1,2,s,s] bias", "float[1,1,1,s] bias", (1, 1, 1, 5), 0),
        ("float[1,2,s,s] bias", "float[s,s] bias", (5, 5), 0),
        ("Mul(raw, scale)", "Mul(raw, bias)", (1, 2, 5, 5), 0),
        ("(float[b,s,8] y)", "(float[b,s,8] y, float[b,2,s,s] shares)", (1, 2, 5, 5), 0),
        ("(float[b,s,8] y)", "(float[b,s,8] y, float[b,s,8] y3)", (1, 2, 5, 5), 0),
        ("k1 = Reshape(k, part)", "k0 = Relu(q2)\n  k1 = Identity(k0)", (1, 2, 5, 5), 0),
    ],
)
def test_attention_of_a_known_form_becomes_one_node(
    old: str, new: str, bias: tuple[int, ...], fused: int
) -> None:
    mask = np.where(RANDOM.random((3, 1, 1, 5)) < 0.6, 0, -1e30).astype(np.float32)
    mask[0] = -1e30
    inputs = {name: numbers(3, 5, 8) for name in "qkv"}
    inputs |= {"bias": numbers(*bias), "mask": mask.repeat(5, axis=2)}
    text = ATTENTION.replace(old, new, 1)
    if "k0" in new:  # [batch, heads, length, size] already
        text = text.replace("perm = [0,2,3,1]", "perm = [0,1,3,2]")
    count, left = rewrite(text, fuse_attention, inputs)
    assert count == left["Attention"] == fused
    assert left["Softmax"] == 1 - fused


def test_layers_that_add_the_same_to_their_scores_share_the_sum() -> None:
    body = ATTENTION[ATTENTION.index("  q1 =") : ATTENTION.index("  y = ")]
    again = re.sub(r"\b(q[12]|k[12]|v[12]|raw|scaled|near|scores|shares|y[123])\b", r"\1_", body)
    text = ATTENTION.replace("  y = Relu(y3)", again + "  y = Sub(y3, y3_)")
    text = text.replace("Reshape(q, part)", "Reshape(k, part)", 1)
    inputs = {name: numbers(3, 5, 8) for name in "qkv"}
    inputs |= {"bias": numbers(1, 2, 5, 5), "mask": numbers(3, 1, 5, 5)}
    count, left = rewrite(text, fuse_attention, inputs)
    assert count == left["Attention"] == 2
    assert left["Sum"] == 1


LAYER = """
g (float[b,s,8] x, float[b,1,s,s] mask) => (float[b,8] y) <float[b,s,8] a> {
  hidden = LayerNormalization<axis = -1>(x, b1, b2)
  q = MatMul(hidden, w1)
  k = MatMul(hidden, w2)
  a = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, hidden, mask)
  r = Add(a, hidden)
  n = LayerNormalization<axis = -1>(r, b1, b2)
  f = Gelu(n)
  last = Add(f, n)
  y = Gather<axis = 1>(last, first)
}"""


@pytest.mark.parametrize(
    ("old", "new", "narrow"),
    [
        ("", "", 6),  # q, a, r, n, f, last
        ("Gather<axis = 1>(last, first)", "ReduceMax<keepdims = 0>(last, axes)", 0),
        ("(float[b,8] y)", "(float[b,8] y, float[b,s,8] last)", 0),
        ("(float[b,8] y)", "(float[b,8] y, float[b,s,8] f)", 1),
        ("f = Gelu(n)", "f = CumSum(n, axis)", 1),
        ("(hidden, w1)", "(hidden, moved)", 5),
    ],
)
def test_a_layer_of_which_the_first_token_is_read_computes_only_that(
    old: str, new: str, narrow: int
) -> None:
    text = LAYER.replace(old, new)
    if "moved" in new:  # a matrix that the graph computes may hold anything, tokens too
        text = text.replace("  q = ", "  moved = Relu(w3)\n  q = ")
    inputs = {"x": numbers(3, 4, 8), "mask": numbers(3, 1, 4, 4)}
    count, _ = rewrite(text, keep_first_token, inputs)
    assert count == narrow


EMBEDDINGS = """
g (int64[b,s] ids, int64[2] shape, int64[b,s] given) => (float[b,s,8] y) {
  repeated = Expand(ones, shape)
  word = Gather(words, ids)
  kind = Gather(types, repeated)
  place = Gather(positions, ids)
  one = Add(word, kind)
  y = Add(one, place)
}"""


@pytest.mark.parametrize(
    ("old", "new", "folded"),
    [
        ("", "", 1),
        ("Expand(ones, shape)", "Expand(zeros_and_ones, shape)", 0),
        ("Gather(types, repeated)", "Gather(types, given)", 0),
        ("Gather(words, ids)", "Gather(positions, ids)", 0),  # others read the table too
    ],
)
def test_one_token_type_is_folded_into_the_positions(old: str, new: str, folded: int) -> None:
    inputs = {"ids": RANDOM.integers(0, 20, (3, 20)), "shape": np.array([3, 20])}
    inputs["given"] = RANDOM.integers(0, 2, (3, 20))
    count, left = rewrite(EMBEDDINGS.replace(old, new), fold_token_types, inputs)
    assert (count, left["Gather"], left["Add"]) == (folded, 3 - folded, 2 - folded)


def test_a_residual_sum_stays_apart_from_the_norm() -> None:
    text = """
    g (float[b,s,8] x, float[b,s,8] z) => (float[b,s,8] y) {
      shifted = Add(x, b3)
      n1 = LayerNormalization<axis = -1>(shifted, b1, b2)
      total = Add(n1, z)
      y = LayerNormalization<axis = -1>(total, b1, b2)
    }"""
    inputs = {name: numbers(3, 5, 8) for name in "xz"}
    count, left = rewrite(text, keep_norms_apart, inputs)
    assert count == 1
    assert left == {"Add": 1, "Sum": 1, "LayerNormalization": 2}


def test_masks_repeat_one_row_only_where_every_query_has_the_same() -> None:
    config = BertConfig(attn_implementation="eager")
    embedded, mask = torch.zeros(2, 4, 8), torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])

    def made(kind: Callable[..., Any]) -> torch.Tensor:
        answer: torch.Tensor = kind(
            config, inputs_embeds=embedded, attention_mask=mask, past_key_values=None
        )
        return answer

    whole, causal = made(create_bidirectional_mask), made(create_causal_mask)
    with key_masks():
        lean = made(create_bidirectional_mask)
        assert torch.equal(made(create_causal_mask), causal)
    assert torch.equal(lean < 0, whole < 0)
    assert ((lean == 0) | (lean < -1e38)).all()
    assert lean.stride(2) == 0  # a row for every query
    assert made(create_bidirectional_mask).shape == whole.shape


def test_an_approximate_gelu_is_closer_than_a_step_of_eight_bits() -> None:
    text = "g (float[n] x) => (float[n] y, float[n] z) { y = Gelu(x)  z = Tanh(x) }"
    exact, approximate = read(text), read(text)
    assert approximate_gelu(approximate.graph) == 1
    inputs = {"x": np.linspace(-8, 8, 10_001, dtype=np.float32)}
    one, other = (run(model, inputs)[0] for model in (exact, approximate))
    assert 0 < np.abs(one - other).max() < 5e-4
