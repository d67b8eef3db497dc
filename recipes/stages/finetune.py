"""The backbone learns the task: the teacher."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from adapters.files import WEIGHTS, load_adapter, save_adapter
from adapters.strategy import prepare
from recipes.console import is_main, say
from recipes.errors import RecipeError
from recipes.ledger import Row
from recipes.proof import answer_splits, count, learning, measured, size
from recipes.training import Classifier, fit, set_dropout
from recipes.workspace import Workspace, torch_call

if TYPE_CHECKING:
    import numpy as np


def run(work: Workspace) -> None:
    """Train the strategy on the quantized backbone and write the row ``teacher``."""
    start = time.perf_counter()
    recipe, folder = work.recipe, work.folder / "teacher"
    backbone = work.load(work.quantization)
    set_dropout(backbone, recipe.train.dropout)
    model = prepare(backbone, recipe.strategy)
    trainable = learning(model)
    say(f"  {trainable:,} of {count(model):,} weights learn")
    history = fit(
        Classifier(model, work.task),
        work.examples("train", work.tokenizer),
        work.examples("validation", work.tokenizer),
        title="teacher",
        folder=folder / "checkpoints",
        settings=recipe.train,
        task=work.task,
        collate=work.task.collator(work.tokenizer),
        hardware=work.hardware,
        allow_fallback=recipe.allow_fallback,
        seed=recipe.seed,
    )
    if not is_main():
        return
    save_adapter(folder, model, recipe.strategy, work.rows.labels)
    work.save_history("teacher", history)
    logits = answer_splits(work, torch_call(model), work.tokenizer)
    _check_reload(work, logits["validation"])
    work.ledger.put(
        Row(
            stage="finetune",
            name="teacher",
            path="teacher",
            parameters=count(model),
            size_bytes=size(work.backbone.path, folder / WEIGHTS),
            trainable_parameters=trainable,
            threads=work.hardware.threads,
            seconds=time.perf_counter() - start,
            notes=work.missing_capabilities(),
            **measured(work, "teacher", logits),
        )
    )
    shutil.rmtree(folder / "checkpoints")


def _check_reload(work: Workspace, expected: np.ndarray) -> None:
    """Load what was saved into a fresh backbone and compare its logits with the trained model's."""
    import numpy as np

    recipe = work.recipe
    fresh = load_adapter(
        work.folder / "teacher",
        work.load(work.quantization),
        recipe.strategy,
        work.rows.labels,
    )
    again = answer_splits(work, torch_call(fresh), work.tokenizer, splits=("validation",))
    if not np.allclose(again["validation"], expected, atol=1e-4):
        raise RecipeError(
            f"The adapter saved in {work.folder / 'teacher'} answers differently after a reload. "
            f"The strategy {type(recipe.strategy).__name__} changes something that does not learn: "
            "make it a parameter with requires_grad in prepare()."
        )
