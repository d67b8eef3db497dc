"""OpenVINO answers as onnxruntime does, or says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_bundle import save_model, table

from export.errors import ExportError
from export.openvino import open_openvino
from export.session import open_model


def test_it_answers_as_onnxruntime_does(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino")
    path = save_model(tmp_path / "model.onnx", table())
    one, other = open_openvino(path, 1), open_model(path, 1)
    for shape in ((1, 3), (4, 7)):
        ids = np.arange(np.prod(shape)).reshape(shape) % 18
        mask = np.ones_like(ids)
        mask[-1, 2:] = 0
        batch = {"input_ids": ids, "attention_mask": mask}
        np.testing.assert_allclose(one(batch), other(batch), atol=1e-5)


def test_operators_that_it_does_not_know_are_named(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino")
    node = helper.make_node("QAttention", ["x"], ["y"], domain="com.microsoft")
    shape = ["n", 2]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"model\.onnx: .*com\.microsoft\.QAttention"):
        open_openvino(tmp_path / "model.onnx", 1)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match=r"potstill\[openvino\]"):
        open_openvino(tmp_path / "model.onnx", 1)
