"""A key mask that few operators make, while a model is traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def key_masks() -> Iterator[None]:
    """Let transformers repeat a row of padding for every query instead of computing each anew.

    Its own mask of an encoder, ``[batch, 1, queries, keys]``, is put together from some twenty
    operators. Masks of another form (causal, with a window) are made as ever. It holds for models
    with eager attention.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, bidirectional_mask_function

    whole = ALL_MASK_ATTENTION_FUNCTIONS["eager"]

    def keys_only(**settings: Any) -> Tensor | None:
        import torch

        mask, dtype = settings["attention_mask"], settings["dtype"]
        if mask is None or settings["mask_function"] is not bidirectional_mask_function:
            made: Tensor | None = whole(**settings)
            return made
        nothing = torch.zeros((), dtype=dtype)
        # Not the least number itself: onnxruntime takes that for minus infinity, and answers a row
        # without any text with zeros instead of the mean that a softmax gives.
        row = torch.where(mask[:, None, None, :], nothing, torch.finfo(dtype).min / 2)
        return row.expand(-1, 1, settings["q_length"], -1)

    ALL_MASK_ATTENTION_FUNCTIONS["eager"] = keys_only
    try:
        yield
    finally:
        del ALL_MASK_ATTENTION_FUNCTIONS["eager"]
