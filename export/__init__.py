"""How a model leaves: ONNX, int8, parity, the bundle and the edge runtime."""

from __future__ import annotations

from export.errors import ExportError
from export.parity import ParityError

__all__ = ["ExportError", "ParityError"]
