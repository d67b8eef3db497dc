"""Which nodes of a graph suffer most from 8-bit integers, by trying each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from export.embedding_tables import Embeddings
from export.quantize import quantizable, quantize_int8
from export.session import open_model


def most_sensitive(
    source: Path,
    batches: Sequence[Mapping[str, Any]],
    *,
    embeddings: Embeddings = "int8",
    threads: int = 0,
) -> list[str]:
    """Quantize one node at a time, and sort the nodes by what that does to the logits.

    Args:
        source: The float32 file.
        batches: Inputs of validation rows, ``[batch, length]`` each.
        embeddings: How tables of embeddings are held meanwhile, as in the file to come.
        threads: Threads within one operation; 0 for as many as the machine has cores.

    Returns:
        Names for `quantize_int8`, the node with the largest mean squared difference first.

    Raises:
        ExportError: onnxruntime cannot quantize the graph.
    """
    import numpy as np

    whole = open_model(source, threads)
    expected = [whole(batch) for batch in batches]
    found: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.onnx"
        for name in quantizable(source):
            quantize_int8(source, trial, embeddings=embeddings, only=[name])
            call = open_model(trial, threads)
            errors = [np.square(call(b) - e) for b, e in zip(batches, expected, strict=True)]
            # What is not a number is worse than anything that is.
            found[name] = float(np.nan_to_num(np.concatenate(errors).mean(), nan=np.inf))
    return sorted(found, key=lambda name: -found[name])
