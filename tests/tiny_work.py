"""A run on tiny models in which nothing has been done yet, and what its stages give to `fit`."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import tiny

from adapters.hardware import Hardware
from adapters.tiny import save_tiny_backbone
from recipes.reading import read_recipe
from recipes.workspace import Workspace

CPU = Hardware("cpu", "some CPU", 1, bf16=False, vnni=False, flags=())


class StopError(Exception):
    """What a stand-in raises once it has seen enough."""


def stop(*_: Any, **__: Any) -> None:
    raise StopError


def workspace(folder: Path, backbone: Path, *overrides: str) -> Workspace:
    """Return a workspace in a folder.

    Some 85 rows are for training, 10 for validation and 24 for the test.

    Args:
        folder: The run's folder; its data lie beside it.
        backbone: From `tiny.backbone`.
        *overrides: Of the recipe.
    """
    folder.mkdir(exist_ok=True)
    data = folder.with_suffix(".csv")
    if not data.exists():
        tiny.table(data, 120)
    base = [
        f"data.train={data}",
        f"backbone.model={backbone}",
        "backbone.quantization=none",
        "distill.student.layers=2",
    ]
    return Workspace(read_recipe("lora_cls", [*base, *overrides]), folder, CPU, offline=True)


#: Every letter and digit, as the beginning of a word and within one.
CHARACTERS = [
    prefix + character
    for prefix in ("", "##")
    for character in string.ascii_lowercase + string.digits
    if prefix + character not in tiny.VOCABULARY
]


def wordy(folder: Path, words: int) -> Path:
    """Save a backbone that knows every character, and some words more than the data hold."""
    extra = [*CHARACTERS, *(f"extra{i}" for i in range(words))]
    save_tiny_backbone(folder, vocabulary=len(tiny.VOCABULARY) + len(extra), layers=4)
    tiny.tokenizer(extra).save_pretrained(folder)
    return folder


def held_out(work: Workspace) -> list[str]:
    """Return the texts that nobody may learn from."""
    return [*work.rows.validation.texts, *work.rows.test.texts]
