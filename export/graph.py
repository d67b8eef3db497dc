"""From a PyTorch classifier to an ONNX graph with a free batch size and length."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from export.attention import fuse_attention
from export.errors import ExportError
from export.folding import drop_positions, fold_token_types
from export.masks import key_masks
from export.norms import keep_norms_apart
from export.rewriting import CONTRIB
from export.tokens import keep_first_token

if TYPE_CHECKING:
    from onnxscript import ir
    from torch import Tensor, nn

#: What the exporter writes. From 23 on it makes one node of rotary positions, whose tables
#: onnxruntime 1.32 refuses.
OPSET = 20
#: The first with ``Attention``; a graph goes there when its attention is fused.
_ATTENTION_OPSET = 23
#: How far a graph is rewritten; see `export_onnx`.
Optimize = Literal["none", "basic", "full"]


def export_onnx(
    model: nn.Module,
    example: Mapping[str, Tensor],
    path: Path,
    *,
    optimize: Optimize = "full",
    max_length: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Write a classifier as one ONNX file.

    The graph comes from PyTorch's dynamo exporter, the only one that keeps shapes free in
    attention layers. Its inputs are those of ``example``, ``[batch, length]`` int64 each, and its
    output is ``logits`` ``[batch, classes]``.

    Args:
        model: A classifier in float32 with eager attention, whose answer has ``logits``.
        example: Inputs to trace with: two rows or more of several tokens, equal padding or not.
        path: Where to write.
        optimize: ``"none"`` leaves the exporter's graph; ``"basic"`` lets onnxruntime's transformer
            tools fuse layer norms, activations and their biases; ``"full"`` fuses attention,
            makes the mask once, folds the token types and leaves out of the last layer what the
            head does not read. Attention of other forms than in encoders of the BERT, RoBERTa,
            DistilBERT, ELECTRA and MPNet kinds stays as it is.
        max_length: Tokens at which texts are cut. A ``"full"`` graph keeps no positions past them,
            and refuses more; None keeps all.
        metadata: Entries for the file's own metadata.

    Returns:
        What a reader should know about the graph, a sentence each.

    Raises:
        ExportError: The architecture cannot be exported.
    """
    import onnx

    with key_masks() if optimize == "full" else nullcontext():
        program = _trace(model, example)
    notes = _rewrite(program.model, max_length) if optimize == "full" else []
    notes = [f"opset {program.model.opset_imports['']}", *notes]
    graph = program.model_proto
    if optimize == "basic":
        graph = _fuse(graph, model)
    _forget_the_source(graph)
    _name_free_axes(graph)
    for key, value in (metadata or {}).items():
        graph.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(graph)
    onnx.save_model(graph, str(path))
    return notes


def _trace(model: nn.Module, example: Mapping[str, Tensor]) -> Any:
    import torch

    # The exporter mentions packages that it looks for in vain and that we do not need.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    names = list(example)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        return torch.onnx.export(
            _LogitsOnly(model, names).eval(),
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


def _rewrite(model: ir.Model, max_length: int | None) -> list[str]:
    """Rewrite the exporter's graph where its forms are known, and say what that came to."""
    from onnxscript.ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.version_converter import convert_version

    graph, remove_unused = model.graph, RemoveUnusedNodesPass()
    fold_token_types(graph)
    dropped = 0 if max_length is None else drop_positions(graph, max_length)
    attentions = fuse_attention(graph)
    remove_unused(model)  # what the fused nodes have left would still read every token
    shortened = keep_first_token(graph)
    keep_norms_apart(graph)
    remove_unused(model)
    notes = [f"attentions fused: {attentions}"]
    if attentions:
        convert_version(model, _ATTENTION_OPSET)
    else:
        notes = ["attention not fused: it has none of the forms that export.attention knows"]
    if dropped:
        notes.append(f"positions past {max_length} tokens dropped: {dropped}")
    if shortened:
        notes.append("past its keys and values, the last layer computes the first token only")
    return notes


def _fuse(graph: Any, model: nn.Module) -> Any:
    """Fuse what onnxruntime's transformer tools recognize; the exporter's attention is not in it.

    Args:
        graph: The model's protobuf.
        model: What it was exported from.
    """
    import onnx
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_by_fusion

    config: Any = model.config
    options = FusionOptions("bert")
    # The exporter writes layer norms as one node; the tool would only add an operator for those
    # without a mean that ONNX does not know, and the checker refuses it.
    options.enable_layer_norm = False
    # onnxruntime's operator for embeddings takes the mask for a length, and so padding on the left
    # for text, and its 8-bit form does not give MPNet's embeddings.
    options.enable_embed_layer_norm = False
    fused = optimize_by_fusion(
        graph,
        model_type="bert",
        num_heads=getattr(config, "num_attention_heads", 0),
        hidden_size=getattr(config, "hidden_size", 0),
        optimization_options=options,
    ).model
    if all(opset.domain != CONTRIB for opset in fused.opset_import):
        fused.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return fused


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
