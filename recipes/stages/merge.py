"""The adapter becomes part of plain float weights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from adapters.merge import MergeInto, merge_adapter
from recipes.drift import QUANTIZED
from recipes.ledger import Row
from recipes.proof import (
    agreement,
    answer_splits,
    check_reload,
    count,
    measured,
    on_validation,
    size,
)
from recipes.workspace import Workspace, torch_call

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel


def run(work: Workspace) -> None:
    """Merge as the recipe says, note what the other way would change, write the row ``merged``."""
    start = time.perf_counter()
    folder = work.folder / "merged"
    into = work.recipe.merge.into
    model = _merged(work, into)
    model.save_pretrained(folder)
    work.tokenizer.save_pretrained(folder)
    logits = answer_splits(work, torch_call(model), work.tokenizer)
    again = work.load(path=folder)
    check_reload(work, again, work.tokenizer, logits, f"The merged model in {folder}")
    notes = []
    if work.recipe.strategy is not None:
        notes.append(_drift(work, f"{into} weights", logits["validation"]))
    if work.quantization != "none":
        other: MergeInto = "dequantized" if into == "original" else "original"
        answers = on_validation(work, _merged(work, other), work.tokenizer)
        notes.append(_drift(work, f"{other} weights", answers))
    if work.hardware.bitsandbytes:
        for held in QUANTIZED:
            answers = on_validation(work, work.load(held, path=folder), work.tokenizer)
            notes.append(_drift(work, f"{into} weights and held in {held}", answers))
    work.ledger.put(
        Row(
            stage="merge",
            name="merged",
            path="merged",
            parameters=count(again),
            size_bytes=size(folder),
            threads=work.hardware.threads,
            seconds=time.perf_counter() - start,
            agreement=agreement(work, "teacher", logits),
            notes=notes,
            **measured(work, "merged", logits, before="teacher"),
        )
    )


def _merged(work: Workspace, into: MergeInto) -> PreTrainedModel:
    if work.recipe.strategy is None:
        return work.load_taught()
    return merge_adapter(
        work.folder / "teacher",
        work.load,
        work.strategy,
        work.rows.labels,
        into=into,
        quantization=work.quantization,
    )


def _drift(work: Workspace, into: str, answers: np.ndarray) -> str:
    found = agreement(work, "teacher", {"validation": answers}, split="validation")
    return (
        f"merged into {into}: logits differ from the adapter unmerged by at most "
        f"{found['max_logit_difference']:.3g}, {found['labels']:.2%} of validation labels agree"
    )
