"""What the machine can do, and what was asked of it in vain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapters.backbone import Quantization
from adapters.errors import AdapterError

Precision = Literal["auto", "bf16", "float32"]


@dataclass(frozen=True)
class Hardware:
    """The machine as training and timing see it.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        name: The processor's or the graphics card's own name.
        threads: How many threads PyTorch and onnxruntime use on the processor.
        bf16: Whether the device computes in bfloat16 natively; emulated, it is some hundred times
            slower than float32 and never worth it.
        vnni: Whether the processor multiplies 8-bit integers without saturating.
        flags: Names of the processor's vector extensions.
        bitsandbytes: Whether 4- and 8-bit weights can be had: bitsandbytes is installed and loads.
    """

    device: str
    name: str
    threads: int
    bf16: bool
    vnni: bool
    flags: tuple[str, ...]
    bitsandbytes: bool = True

    def quantization_for(self, wanted: Quantization, allow_fallback: bool) -> Quantization:
        """Return how the backbone is held: as wanted, or in float where that cannot be had.

        Raises:
            AdapterError: It cannot be had, and falling back is not allowed.
        """
        if wanted == "none" or self.bitsandbytes:
            return wanted
        if not allow_fallback:
            raise AdapterError(
                f"backbone.quantization={wanted} was asked for, but bitsandbytes is not installed "
                "or does not load here. Install it (pip install bitsandbytes), or set "
                "backbone.quantization=none, or allow_fallback=true to go on in float32."
            )
        return "none"

    def bf16_for(
        self, precision: Precision, allow_fallback: bool, key: str = "train.precision"
    ) -> bool:
        """Tell whether to compute in bfloat16.

        Args:
            precision: What the recipe asks for.
            allow_fallback: Whether float32 will do where the device lacks it.
            key: What asks, for the message.

        Raises:
            AdapterError: It was demanded, the device lacks it, and falling back is not allowed.
        """
        if precision == "bf16" and not self.bf16 and not allow_fallback:
            raise AdapterError(
                f"{key}=bf16 was asked for, but {self.name} has no bfloat16 arithmetic. "
                f"Set {key}=auto, or allow_fallback=true to go on in float32."
            )
        return precision != "float32" and self.bf16


_VECTOR_FLAGS = (
    "avx2",
    "avx512_f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)


def inspect_hardware(device: Literal["auto", "cpu", "cuda"], threads: int | None) -> Hardware:
    """Look at the machine and set PyTorch's thread count.

    Args:
        device: ``"auto"`` takes a CUDA device where there is one.
        threads: Threads on the processor; None for as many as PyTorch takes by itself.

    Raises:
        AdapterError: ``cuda`` was asked for and PyTorch sees no such device.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise AdapterError(
            "device=cuda was asked for, but PyTorch sees no CUDA device. "
            "Set device=auto, or install a CUDA build of torch and check `nvidia-smi`."
        )
    if threads is not None:
        torch.set_num_threads(threads)
    able = torch.cpu.get_capabilities()
    use_cuda = has_cuda and device != "cpu"
    return Hardware(
        device="cuda" if use_cuda else "cpu",
        name=torch.cuda.get_device_name() if use_cuda else str(able.get("cpu_name", "this CPU")),
        threads=torch.get_num_threads(),
        bf16=(
            torch.cuda.is_bf16_supported(including_emulation=False)
            if use_cuda
            else any(able.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
        ),
        vnni=any(
            able.get(flag) for flag in ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")
        )
        or able.get("architecture") != "x86_64",
        flags=tuple(flag for flag in _VECTOR_FLAGS if able.get(flag)),
        bitsandbytes=_has_bitsandbytes(),
    )


def _has_bitsandbytes() -> bool:
    try:
        import bitsandbytes  # noqa: F401
    except Exception:  # it looks for drivers and libraries on import, and fails in many ways
        return False
    return True
