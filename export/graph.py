"""From a PyTorch classifier to an ONNX graph with a free batch size and length."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from export.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 20


def export_onnx(
    model: nn.Module,
    example: Mapping[str, Tensor],
    path: Path,
    *,
    optimize: Literal["none", "full"] = "full",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a classifier as one ONNX file.

    The graph comes from PyTorch's dynamo exporter, the only one that keeps shapes free in
    attention layers. Its inputs are those of ``example``, ``[batch, length]`` int64 each, and its
    output is ``logits`` ``[batch, classes]``.

    Args:
        model: A classifier in float32, whose answer has ``logits``.
        example: Inputs to trace with: two rows or more of several tokens, equal padding or not.
        path: Where to write.
        optimize: ``"full"`` lets onnxruntime's transformer tools fuse layer norms, activations and
            their biases; ``"none"`` leaves the exporter's graph.
        metadata: Entries for the file's own metadata.

    Raises:
        ExportError: The architecture cannot be exported.
    """
    import onnx
    import torch

    # The exporter mentions packages that it looks for in vain and that we do not need.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    names = list(example)
    wrapped = _LogitsOnly(model.eval(), names)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        program = torch.onnx.export(
            wrapped,
            tuple(example[name] for name in names),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(free for _ in names),),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
        )
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} does not export to ONNX: {type(error).__name__}: {error}. "
            "Choose another student (distill.student.model=…)."
        ) from error
    assert program is not None
    graph = program.model_proto
    if optimize == "full":
        graph = _fuse(graph, model)
    _forget_the_source(graph)
    _name_free_axes(graph)
    for key, value in (metadata or {}).items():
        graph.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(graph)
    onnx.save_model(graph, str(path))


def _fuse(graph: Any, model: nn.Module) -> Any:
    """Fuse what onnxruntime's transformer tools recognise; attention is not among it today."""
    import onnx
    from onnxruntime.transformers.optimizer import optimize_model

    config: Any = model.config
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(graph, str(path))
        fused = optimize_model(
            str(path),
            model_type="bert",
            num_heads=getattr(config, "num_attention_heads", 0),
            hidden_size=getattr(config, "hidden_size", 0),
            opt_level=0,
        )
    graph = fused.model
    if all(opset.domain != "com.microsoft" for opset in graph.opset_import):
        graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return graph


def _forget_the_source(graph: Any) -> None:
    """Drop what the exporter notes beside each operator: source lines with this machine's paths.

    They have no place in a file that is shipped, and two runs of one recipe could not be equal.
    """
    inside = graph.graph
    entries = [*inside.node, *inside.input, *inside.output, *inside.value_info, *inside.initializer]
    for entry in [graph, inside, *entries]:
        del entry.metadata_props[:]
        entry.doc_string = ""


def _name_free_axes(graph: Any) -> None:
    for value in graph.graph.input:
        for axis, name in zip(value.type.tensor_type.shape.dim, ("batch", "length"), strict=True):
            axis.dim_param = name
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def _LogitsOnly(model: nn.Module, names: list[str]) -> nn.Module:  # noqa: N802
    """Wrap a classifier so that it takes its inputs by position and answers the logits alone."""
    from torch import nn

    class LogitsOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Tensor) -> Tensor:
            logits: Tensor = self.model(**dict(zip(names, inputs, strict=True))).logits
            return logits

    return LogitsOnly()
