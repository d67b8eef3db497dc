"""The backbone learns the task: the teacher."""

from __future__ import annotations

import shutil
import time

from adapters.files import WEIGHTS, load_adapter, save_adapter
from adapters.strategy import prepare
from recipes.console import is_main, say
from recipes.ledger import Row
from recipes.proof import answer_splits, check_reload, count, learning, measured, size
from recipes.training import Classifier, fit, set_dropout
from recipes.workspace import Workspace, torch_call


def run(work: Workspace) -> None:
    """Train the strategy on the quantized backbone and write the row ``teacher``."""
    start = time.perf_counter()
    recipe, folder = work.recipe, work.folder / "teacher"
    if "teacher" in work.ledger:  # killed while it tidied up
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return
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
    fresh = work.load(work.quantization)
    fresh = load_adapter(folder, fresh, recipe.strategy, work.rows.labels)
    check_reload(work, fresh, work.tokenizer, logits, f"The adapter in {folder}")
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
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
