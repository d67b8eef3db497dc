"""ONNX nodes, added one after another without naming what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from onnx import NodeProto, TensorProto

#: Domains of operators that ONNX itself does not define: onnxruntime's own, those for classical
#: models, and those of onnxruntime-extensions.
RUNTIME, CLASSICAL, EXTENSIONS = "com.microsoft", "ai.onnx.ml", "ai.onnx.contrib"


class Nodes:
    """A growing list of nodes and the constants that they read.

    Args:
        prefix: Begins every name that is made here, so that none clashes with another graph's.

    Attributes:
        nodes: In their order of execution.
        constants: What they read besides each other and the graph's inputs.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def hold(self, value: np.ndarray) -> str:
        """Keep a constant and return its name."""
        from onnx import numpy_helper

        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def number(self, *values: int) -> str:
        """Keep a vector of whole numbers and return its name."""
        import numpy as np

        return self.hold(np.array(values, dtype=np.int64))

    def scalar(self, value: int) -> str:
        """Keep a whole number without axes and return its name."""
        import numpy as np

        return self.hold(np.array(value, dtype=np.int64))

    def words(self, *values: str) -> str:
        """Keep a vector of strings and return its name."""
        import numpy as np

        return self.hold(np.array(values, dtype=object))

    def add(self, kind: str, *inputs: str, output: str = "", domain: str = "", **given: Any) -> str:
        """Add a node with one output and return the output's name.

        Args:
            kind: Its operator.
            *inputs: Names of what it reads.
            output: What the output is to be called; a name is made if it does not matter.
            domain: Where the operator is defined.
            **given: The operator's attributes.
        """
        return self.add_many(kind, *inputs, outputs=[output], domain=domain, **given)[0]

    def add_many(
        self, kind: str, *inputs: str, outputs: Sequence[str], domain: str = "", **given: Any
    ) -> list[str]:
        """Add a node with several outputs and return their names; "" lets one be made."""
        from onnx import helper

        name = f"{self.prefix}{len(self.nodes)}_{kind}"
        names = [each or f"{name}_{place}" for place, each in enumerate(outputs)]
        node = helper.make_node(kind, inputs, names, name=name, domain=domain, **given)
        self.nodes.append(node)
        return names
