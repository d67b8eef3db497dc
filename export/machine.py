"""What this process may use of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use, at least 1.

    The cores that it is bound to, and in a container no more than its share of processor time
    (``docker --cpus``), which Linux writes as microseconds of each period, or ``max``. macOS and
    Windows tell only how many there are.

    Args:
        quota: Where Linux tells the share.
    """
    bound = hasattr(os, "sched_getaffinity")
    found = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    try:
        share, period = (int(each) for each in quota.read_text("ascii").split())
    except (OSError, ValueError):  # no such file, or no limit
        return found
    return max(1, min(found, -(-share // period)))
