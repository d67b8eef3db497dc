from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["model", "data"]


@dataclass(frozen=True)
class Asset:
    """A backbone or a data set that lies on this machine, ready to be read.

    Attributes:
        uri: What the recipe called it.
        kind: ``"model"`` or ``"data"``.
        path: A folder: of a model with ``config.json``, weights and tokenizer files, or of a data
            set with its raw files. Local data is the file itself.
        license: License of the weights or the data as an SPDX name where there is one, else
            ``"unknown"``.
        source: Where it comes from, one line, for the model card.
        fingerprint: SHA-256 (64 hex digits) that changes when the content changes.
    """

    uri: str
    kind: Kind
    path: Path
    license: str
    source: str
    fingerprint: str
