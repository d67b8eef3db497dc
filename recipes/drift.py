"""What folding an adapter into its backbone changes, and what quantizing the result changes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.backbone import Quantization
from adapters.files import load_adapter, saved_strategy
from adapters.merge import MergeInto, merge_adapter
from recipes.proof import on_validation
from recipes.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

#: How a merged model may be held besides in float.
QUANTIZED: tuple[Quantization, ...] = ("nf4", "int8")


@dataclass(frozen=True)
class Drift:
    """One way to hold what an adapter has learnt, against the adapter unmerged.

    Attributes:
        merged_into: Weights into which it was folded; empty for the adapter unmerged.
        held_in: How the weights are held: ``none`` (float), ``nf4`` or ``int8``.
        labels: Share of validation rows with the answer of the adapter unmerged.
        max_logit_difference: Largest difference of a logit on these rows.
        headline: The metric that the data's problem is judged by.
        score: That metric on these rows.
    """

    merged_into: str
    held_in: Quantization
    labels: float
    max_logit_difference: float
    headline: str
    score: float


def measure_drift(work: Workspace, folder: Path) -> list[Drift]:
    """Merge an adapter in every way there is and hold each against the adapter unmerged.

    The first entry is the adapter unmerged, on the backbone quantized as it was trained.

    Args:
        work: Its run, with its data.
        folder: The adapter's folder.

    Raises:
        AdapterError: The adapter does not fit the run's backbone or labels.
        RecipeError: The data cannot be read.
    """
    strategy, labels, tokenizer = saved_strategy(folder), work.rows.labels, work.tokenizer
    unmerged = load_adapter(folder, work.load(work.quantization), strategy, labels)
    expected = on_validation(work, unmerged, tokenizer)
    found = [_drift(work, "", work.quantization, expected, expected)]
    ways: tuple[MergeInto, ...] = ("original", "dequantized")
    for into in ways if work.quantization != "none" else ways[:1]:
        merged = merge_adapter(
            folder, work.load, strategy, labels, into=into, quantization=work.quantization
        )
        found.append(_drift(work, into, "none", on_validation(work, merged, tokenizer), expected))
        if not work.hardware.bitsandbytes:
            continue
        with tempfile.TemporaryDirectory() as place:
            merged.save_pretrained(place)
            for held in QUANTIZED:
                answers = on_validation(work, work.load(held, path=Path(place)), tokenizer)
                found.append(_drift(work, into, held, answers, expected))
    return found


def _drift(
    work: Workspace, into: str, held: Quantization, answers: np.ndarray, expected: np.ndarray
) -> Drift:
    problem = work.problem
    return Drift(
        into,
        held,
        float(problem.same(answers, expected).mean()),
        float(abs(answers - expected).max()),
        problem.headline,
        problem.metrics(answers, work.rows.validation.labels)[problem.headline],
    )
