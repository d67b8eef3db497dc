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


def estimate(model: PreTrainedModel, *, tokens: int = 32, int8_embeddings: bool = True) -> Estimate:
    """Estimate what a model will cost.

    Args:
        model: A plain float classifier; its weights and its mode stay as they are.
        tokens: Length of the text that is timed.
        int8_embeddings: Whether quantization takes the tables of embeddings as well as the linear
            layers.
    """
    from torch import nn

    quantized = (nn.Linear, nn.Embedding) if int8_embeddings else (nn.Linear,)
    small = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, quantized)}
    parameters = sum(weight.numel() for weight in model.parameters())
    return Estimate(
        parameters=parameters,
        float_bytes=4 * parameters + _OVERHEAD,
        int8_bytes=4 * parameters - 3 * sum(small.values()) + _OVERHEAD,
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
