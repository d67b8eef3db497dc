"""Activations that cost less where eight bits follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxscript import ir


def approximate_gelu(graph: ir.Graph) -> int:
    """Compute Gelu by a hyperbolic tangent instead of the error function.

    The two differ by less than 5e-4 (Hendrycks and Gimpel, 2016, give both). A step of an 8-bit
    activation is twenty times that, and the tangent takes three quarters of the time.

    Args:
        graph: A graph that is to be quantized.

    Returns:
        How many were changed.
    """
    from onnxscript import ir

    exact = [node for node in graph if node.op_type == "Gelu" and not node.domain]
    for node in exact:
        node.attributes["approximate"] = ir.AttrString("approximate", "tanh")
    return len(exact)
