"""A key mask as large as the keys, while a model is traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def key_masks() -> Iterator[None]:
    """Let transformers make masks ``[batch, 1, 1, keys]`` instead of ``[batch, 1, queries, keys]``.

    Its own mask of an encoder repeats the same row for every query and is put together from some
    twenty operators. Masks of another form (causal, with a window) are made as ever. It holds for
    models with eager attention, whose sum with the scores repeats the row by itself.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, bidirectional_mask_function

    whole = ALL_MASK_ATTENTION_FUNCTIONS["eager"]

    def keys_only(**settings: Any) -> Tensor | None:
        import torch

        mask, dtype = settings["attention_mask"], settings["dtype"]
        if mask is None or settings["mask_function"] is not bidirectional_mask_function:
            repeated: Tensor | None = whole(**settings)
            return repeated
        nothing = torch.zeros((), dtype=dtype)
        return torch.where(mask[:, None, None, :], nothing, torch.finfo(dtype).min)

    ALL_MASK_ATTENTION_FUNCTIONS["eager"] = keys_only
    try:
        yield
    finally:
        del ALL_MASK_ATTENTION_FUNCTIONS["eager"]
