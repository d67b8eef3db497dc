"""What folding an adapter into its backbone changes, and what quantizing the result changes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.backbone import Quantization
from adapters.files import load_adapter, read_facts, saved_strategy
from adapters.merge import MergeInto, merge_adapter
from recipes.errors import RecipeError
from recipes.proof import on_validation
from recipes.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from transformers import PreTrainedModel

    from recipes.problems import Problem

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

    The first entry is the adapter unmerged, on the backbone quantized as it was trained. An adapter
    that does not know all of the run's labels, as after a phase, is asked about rows of its own.

    Args:
        work: Its run, with its data.
        folder: The adapter's folder.

    Raises:
        AdapterError: The adapter does not fit the run's backbone.
        RecipeError: The data cannot be read, or have no row with a label of the adapter's.
    """
    strategy, labels = saved_strategy(folder), read_facts(folder)["labels"]
    asked = _Asked.of(work, labels)

    def load(quantization: Quantization, path: Path | None = None) -> PreTrainedModel:
        return work.load(quantization, path, asked.some)

    def drift(into: str, held: Quantization, answers: np.ndarray) -> Drift:
        same, apart = asked.problem.same(answers, expected), abs(answers - expected)
        headline = asked.problem.headline
        score = asked.problem.metrics(answers, asked.truth)[headline]
        return Drift(into, held, float(same.mean()), float(apart.max()), headline, score)

    expected = asked.answers(load_adapter(folder, load(work.quantization), strategy, labels))
    found = [drift("", work.quantization, expected)]
    ways: tuple[MergeInto, ...] = ("original", "dequantized")
    for into in ways if work.quantization != "none" else ways[:1]:
        merged = merge_adapter(
            folder, load, strategy, labels, into=into, quantization=work.quantization
        )
        found.append(drift(into, "none", asked.answers(merged)))
        if not work.hardware.bitsandbytes:
            continue
        with tempfile.TemporaryDirectory() as place:
            merged.save_pretrained(place)
            for held in QUANTIZED:
                found.append(drift(into, held, asked.answers(load(held, Path(place)))))
    return found


@dataclass(frozen=True)
class _Asked:
    """The validation rows that an adapter can answer: those whose label it knows.

    Attributes:
        work: The run.
        some: The adapter's labels, if it does not know all of the data's, as after a phase.
        problem: What kind of answer it gives.
        places: Which rows.
        truth: What they say, in its own numbers.
    """

    work: Workspace
    some: Sequence[str] | None
    problem: Problem
    places: Sequence[int]
    truth: Sequence[Any]

    @classmethod
    def of(cls, work: Workspace, labels: Sequence[str]) -> _Asked:
        """Return them.

        Raises:
            RecipeError: No row has one of the labels.
        """
        rows, names = work.rows.validation, work.rows.labels
        if list(names) == list(labels):
            return cls(work, None, work.problem, range(len(rows)), rows.labels)
        numbers = {label: number for number, label in enumerate(labels)}
        exclusive = work.problem.exclusive
        known = [r for r, label in enumerate(rows.labels) if exclusive and names[label] in numbers]
        if not known:
            raise RecipeError(
                f"The adapter knows the labels {', '.join(labels)}, and no validation row has one "
                f"of them: the data's are {', '.join(names)}. Name the run that it comes from."
            )
        truth = [numbers[names[rows.labels[row]]] for row in known]
        return cls(work, labels, type(work.problem)(labels), known, truth)

    def answers(self, model: nn.Module) -> np.ndarray:
        """Return a model's logits on these rows, ``[rows, classes]``."""
        return on_validation(self.work, model, self.work.tokenizer)[list(self.places)]
