"""Folding a trained adapter into plain weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adapters.backbone import Quantization, float_weight, is_linear
from adapters.files import load_adapter
from adapters.strategy import Strategy, finish

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MergeInto = Literal["original", "dequantized"]


def merge_adapter(
    folder: Path,
    load: Callable[[Quantization], PreTrainedModel],
    strategy: Strategy,
    labels: Sequence[str],
    *,
    into: MergeInto,
    quantization: Quantization,
) -> PreTrainedModel:
    """Return a plain float model that holds what the adapter learnt.

    An adapter learns beside quantized weights. Folded into the original weights it meets slightly
    other ones than it learnt beside; folded into the dequantized weights it meets the same values,
    rounding errors included. Which gives the better model is a matter of the data; both differ a
    little from the adapter unmerged.

    Args:
        folder: What `adapters.files.save_adapter` wrote.
        load: Loads the backbone at a given quantization.
        strategy: The strategy of the adapter.
        labels: Label names in the order of their ids.
        into: Fold into the checkpoint's own weights or into the dequantized ones.
        quantization: At which quantization the adapter was trained.

    Returns:
        The merged model, in evaluation mode, nothing quantized.

    Raises:
        AdapterError: The adapter does not fit.
    """
    if into == "original" or quantization == "none":
        return finish(load_adapter(folder, load("none"), strategy, labels), strategy)
    model = load(quantization)
    head = model.potstill_head
    model = model.dequantize()
    model.potstill_head = head
    prepared = load_adapter(folder, model, strategy, labels)
    # A strategy may have changed the weights before they were quantized again.
    for name, layer in load_adapter(folder, load(quantization), strategy, labels).named_modules():
        if is_linear(layer) and not layer.weight.is_floating_point():
            prepared.get_submodule(name).weight.data = float_weight(layer)
    return finish(prepared, strategy)
