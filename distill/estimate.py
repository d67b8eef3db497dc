"""What a student will cost to keep and to ask, known before it has learnt anything."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: What a file holds beside the weights, in bytes: names, shapes, scales, the graph.
_OVERHEAD = 50_000
#: How many passes are timed; the median is reported.
_PASSES = 7


@dataclass(frozen=True)
class Estimate:
    """Size and speed of a model.

    Attributes:
        parameters: Number of weights; shared ones count once.
        float_bytes: Size of the exported float32 file, about.
        int8_bytes: Size of the exported file after quantization, about.
        latency_ms: Time for one text in PyTorch on this machine, in milliseconds; onnxruntime
            takes less.
    """

    parameters: int
    float_bytes: int
    int8_bytes: int
    latency_ms: float


def estimate(model: PreTrainedModel, *, tokens: int = 32, embedding_bits: int = 8) -> Estimate:
    """Estimate what a model will cost.

    Args:
        model: A plain float classifier; its weights and its mode stay as they are.
        tokens: Length of the text that is timed.
        embedding_bits: What quantization leaves of a weight in the tables of embeddings; of one in
            the linear layers it leaves eight.
    """
    from torch import nn

    saved = {
        id(module.weight): (32 - bits) * module.weight.numel()
        for kind, bits in ((nn.Linear, 8), (nn.Embedding, embedding_bits))
        for module in model.modules()
        if isinstance(module, kind)
    }
    parameters = sum(weight.numel() for weight in model.parameters())
    return Estimate(
        parameters=parameters,
        float_bytes=4 * parameters + _OVERHEAD,
        int8_bytes=4 * parameters - sum(saved.values()) // 8 + _OVERHEAD,
        latency_ms=_latency(model, tokens),
    )


def _latency(model: PreTrainedModel, tokens: int) -> float:
    """Return the median time of one text, after a first pass that is not counted."""
    import torch

    device = model.get_input_embeddings().weight.device
    inputs = {
        "input_ids": torch.arange(tokens, device=device)[None] % model.config.vocab_size,
        "attention_mask": torch.ones(1, tokens, dtype=torch.long, device=device),
    }
    times, training = [], model.training
    model.eval()
    with torch.inference_mode():
        for _ in range(_PASSES + 1):
            start = time.perf_counter()
            model(**inputs).logits.sum().item()  # an accelerator has finished only then
            times.append(1000 * (time.perf_counter() - start))
    model.train(training)
    return statistics.median(times[1:])
