"""The most memory that a part of a run has held."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory(device: str) -> None:
    """Begin to measure anew; where the system cannot, `peak_memory` gives 0."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif _RESET.exists():
        _RESET.write_text("5")  # Linux: resets the high-water mark of resident memory


def peak_memory(device: str) -> int:
    """Return the most bytes held since `reset_peak_memory`: of the GPU, or of the process.

    Only CUDA and Linux tell; elsewhere it is 0.
    """
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    if not _RESET.exists():
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii", errors="replace"))
    return 1024 * int(found[1]) if found else 0
