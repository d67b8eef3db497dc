"""The fastest product of 8-bit matrices that onnxruntime has on this processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as rt
from onnx import numpy_helper
from onnx.parser import parse_model

from export.edge import session_options
from export.session import session_settings

_WIDE = 1024
#: Multiplications and additions of one product.
OPERATIONS = 2 * _WIDE**3


def product(threads: int) -> Callable[[], Any]:
    """Return a product of unsigned and signed bytes, the fastest kind that onnxruntime has."""
    model = parse_model(
        f"""<ir_version: 10, opset_import: ["": 20]>
        g (uint8[n,{_WIDE}] a) => (int32[n,{_WIDE}] y) <uint8 zero = {{128}}> {{
          y = MatMulInteger(a, b, zero)
        }}"""
    )
    chance = np.random.default_rng(0)
    weights = chance.integers(-64, 64, (_WIDE, _WIDE)).astype(np.int8)
    model.graph.initializer.append(numpy_helper.from_array(weights, "b"))
    settings = session_options(session_settings(threads))
    session = rt.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    feed = {"a": chance.integers(0, 256, (_WIDE, _WIDE)).astype(np.uint8)}
    return lambda: session.run(None, feed)
