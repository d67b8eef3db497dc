"""What bitsandbytes gets wrong about 4-bit weights on some processors, put right."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn

_OPERATOR = "dequantize_4bit"
#: What a layer of bitsandbytes notes of the processor.
_PACKS = "support_avx512bf16_for_cpu"


def leave_packing(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew for processors with AVX-512 BF16.

    It would do so at the first answer without gradients, and round the scales to bfloat16: the
    model would change in the middle of its training, and differ from itself after a reload.

    Args:
        model: A model with quantized layers; changed in place.
    """
    for module in model.modules():
        if hasattr(module, _PACKS):
            setattr(module, _PACKS, False)


@cache
def mend_scales() -> bool:
    """Let 4-bit weights be turned back to float with the right scales, in this process.

    Where the processor has AVX-512, bitsandbytes 0.50 takes wrong scales for rows whose length is a
    multiple of 32 but not of the block size (64): its `quantize_4bit` is right, and what
    `dequantize_4bit` returns is off by a quarter of the weights' norm, by more or less with each
    number of threads. Where that is found, PyTorch is told to compute those rows by definition.

    Returns:
        Whether there was something to mend.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    # Blocks of unlike size: a wrong scale cannot be overlooked.
    probe = torch.arange(1.0, 1 + 32 * 32).reshape(32, 32)
    back = dequantize_4bit(*quantize_4bit(probe, quant_type="nf4"))
    if float((back - probe).norm() / probe.norm()) < 0.15:
        return False
    kernel = torch.library.get_kernel(f"bitsandbytes::{_OPERATOR}", "CPU")

    def dequantize(
        keys: Any, packed: Tensor, scales: Tensor, block: int, kind: str, shape: Any, to: dtype
    ) -> Any:
        if shape[-1] % block == 0:
            return kernel.call_boxed(keys, packed, scales, block, kind, shape, to)
        return by_definition(packed, scales, block, kind, shape).to(to)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that another kernel was there
        _library().impl(_OPERATOR, dequantize, "CPU", with_keyset=True, allow_override=True)
    return True


@cache
def _library() -> Any:
    """Return what holds the operator; it is withdrawn as soon as nobody keeps this."""
    import torch

    return torch.library.Library("bitsandbytes", "IMPL")  # type: ignore[no-untyped-call]


def by_definition(
    packed: Tensor, scales: Tensor, block: int, kind: str, shape: Sequence[int]
) -> Tensor:
    """Turn 4-bit weights back to float (Dettmers et al., 2023, arXiv:2305.14314).

    Args:
        packed: Two codes a byte, the first one in the upper half.
        scales: The largest magnitude of each block.
        block: Weights that share a scale, in the order in which a row follows a row.
        kind: ``"nf4"`` or ``"fp4"``.
        shape: Of the weights.

    Returns:
        The weights in float32.
    """
    import torch
    from bitsandbytes.functional import get_4bit_type

    bytes_ = packed.view(torch.uint8).reshape(-1)
    codes = torch.stack((bytes_ >> 4, bytes_ & 15), dim=1).reshape(-1)[: torch.Size(shape).numel()]
    values: Tensor = get_4bit_type(kind, device=packed.device)[codes.int()]
    each = scales.float().repeat_interleave(block)[: len(values)]
    return (values * each).reshape(tuple(shape))
