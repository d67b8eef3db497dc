"""What a run stood on: versions, machine, seeds, and what was asked for and not there."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from recipes.workspace import Workspace

_PACKAGES = (
    "potstill",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "evaluate",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "tokenizers",
    "scikit-learn",
    "numpy",
)


def describe(work: Workspace) -> dict[str, Any]:
    """Return the content of ``environment.json``."""
    hardware = work.hardware
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "device": hardware.device,
        "processor": hardware.name,
        "processor_flags": list(hardware.flags),
        "threads": hardware.threads,
        "bf16": hardware.bf16,
        "vnni": hardware.vnni,
        "seeds": {"training": work.recipe.seed, "splits": work.recipe.data.split_seed},
        "missing": work.missing_capabilities(),
        "data": {
            "source": work.rows.source,
            "license": work.rows.license,
            "fingerprint": work.rows.fingerprint,
            "notes": list(work.rows.notes),
        },
        "backbone": {
            "source": work.backbone.source,
            "license": work.backbone.license,
            "fingerprint": work.backbone.fingerprint,
        },
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
