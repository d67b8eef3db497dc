"""Small integers: are they near the float file, and is a table of four bits read rightly?"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxscript import ir
from onnxscript.ir.passes.common import RemoveUnusedNodesPass

from export.embedding_tables import shrink_tables
from export.errors import ExportError


def lookup(table: np.ndarray, times: int = 1) -> ir.Model:
    """Make a graph that looks tokens up in a table, once or more, and adds the rows up."""
    make, width = helper.make_tensor_value_info, table.shape[1]
    found = [f"found_{number}" for number in range(times)]
    graph = helper.make_graph(
        [
            *(helper.make_node("Gather", ["table", "tokens"], [name]) for name in found),
            helper.make_node("Sum", found, ["rows"]),
        ],
        "lookup",
        [make("tokens", TensorProto.INT64, ["batch", "length"])],
        [make("rows", TensorProto.FLOAT, ["batch", "length", width])],
        [numpy_helper.from_array(table, "table")],
    )
    opset = helper.make_opsetid("", 20)
    return ir.from_proto(helper.make_model(graph, opset_imports=[opset], ir_version=10))


def read(model: ir.Model, tokens: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    answer: np.ndarray = session.run(None, {"tokens": tokens})[0]
    return answer


def shrunk(table: np.ndarray, embeddings: Any) -> ir.Model:
    model = lookup(table)
    assert shrink_tables(model.graph, embeddings) == 1
    RemoveUnusedNodesPass()(model)
    return model


def error(table: np.ndarray, found: np.ndarray) -> float:
    return float(np.linalg.norm(found - table) / np.linalg.norm(table))


def random_table(rows: int = 90, width: int = 48) -> np.ndarray:
    table = np.random.default_rng(0).normal(0, 0.05, (rows, width)).astype(np.float32)
    table[3] = 0
    table[5] *= 100
    return table


@pytest.mark.parametrize("width", [32, 48, 62, 384])
def test_small_tables_give_the_rows_of_the_float_table(width: int) -> None:
    table = random_table(width=width)
    tokens = np.random.default_rng(1).permutation(90)[None].repeat(2, axis=0)
    whole = read(lookup(table), tokens)
    for embeddings, most in (("int8", 0.01), ("int4", 0.16)):
        found = read(shrunk(table, embeddings), tokens)
        # Each row by itself: one that is a hundred times as large makes no other coarse.
        for one, other in zip(found[0], whole[0], strict=True):
            assert np.linalg.norm(one - other) <= most * np.linalg.norm(other)
        assert np.array_equal(found[0], found[1])


def test_four_bits_take_half_of_eight_and_few_scales() -> None:
    table = random_table(rows=2000, width=384)
    sizes = {
        kind: len(ir.to_proto(model).SerializeToString())
        for kind, model in (
            ("float", lookup(table)),
            ("int8", shrunk(table, "int8")),
            ("int4", shrunk(table, "int4")),
        )
    }
    assert sizes["int8"] < 0.27 * sizes["float"]
    assert sizes["int4"] < 0.15 * sizes["float"]


def test_a_clipped_block_is_nearer_than_its_full_range() -> None:
    table = np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
    tokens = np.arange(60)[None]
    scale = np.abs(table).max(axis=1, keepdims=True) / 7
    plain = np.clip(np.rint(table / scale), -8, 7) * scale
    assert error(table, read(shrunk(table, "int4"), tokens)[0]) < 0.9 * error(table, plain)


def test_what_is_no_table_of_tokens_is_named() -> None:
    model = lookup(random_table(width=47))  # an odd row has no halves
    with pytest.raises(ExportError, match=r"export\.embeddings=int8"):
        shrink_tables(model.graph, "int4")
    assert shrink_tables(lookup(random_table(rows=8, width=12)).graph, "int8") == 0


def test_a_table_that_is_read_twice_is_shrunk_for_both() -> None:
    table, tokens = random_table(), np.arange(90)[None]
    model = lookup(table, times=2)
    assert shrink_tables(model.graph, "int4") == 2
    assert error(2 * table, read(model, tokens)[0]) < 0.12
