"""How an artefact is measured and held against the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.errors import RecipeError
from recipes.problems.decision import AS_IT_IS, Decision
from recipes.problems.resampling import interval
from recipes.workspace import SPLITS, Workspace, by_length, torch_call

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from transformers import PreTrainedTokenizerBase


#: The largest difference of a logit that saving and loading may make: rounding in sums.
_RELOAD_TOLERANCE = 1e-4


def answer_splits(
    work: Workspace,
    call: Callable[[Mapping[str, Any]], np.ndarray],
    tokenizer: PreTrainedTokenizerBase,
    splits: Sequence[str] = SPLITS,
    batch_size: int = 64,
) -> dict[str, np.ndarray]:
    """Return an artefact's logits by split, ``[rows, classes]``, of so many rows at a time."""
    collate = work.task.collator(tokenizer)
    return {
        split: by_length(call, work.examples(split, tokenizer), collate, batch_size)
        for split in splits
    }


def on_validation(
    work: Workspace, model: nn.Module, tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    """Return a PyTorch model's logits on the validation rows, ``[rows, classes]``."""
    return answer_splits(work, torch_call(model), tokenizer, splits=("validation",))["validation"]


def measured(
    work: Workspace,
    name: str,
    logits: Mapping[str, np.ndarray],
    before: str | None = None,
    decision: Decision = AS_IT_IS,
) -> dict[str, Any]:
    """Keep an artefact's logits and return the fields of its row that follow from them.

    What is known of single labels is kept beside the logits, as ``predictions/NAME.json``.

    Args:
        work: The run.
        name: The row's name.
        logits: Its logits by split, ``[rows, outputs]``.
        before: The row that it is compared with; None for the one above it.
        decision: How answers are made of the logits.

    Returns:
        ``split``, ``examples``, ``headline``, ``problem``, ``metrics``, ``validation``,
        ``intervals`` and ``differences``.
    """
    work.save_logits(name, logits)
    truth = {split: getattr(work.rows, split).labels for split in SPLITS}
    problem = work.problem
    scores = {s: problem.all_metrics(logits[s], truth[s], decision) for s in SPLITS}
    work.save_classes(name, {s: problem.by_class(logits[s], truth[s], decision) for s in SPLITS})
    return {
        "split": "test",
        "examples": len(work.rows.test),
        "headline": problem.headline,
        "problem": work.rows.problem,
        "metrics": scores["test"],
        "validation": scores["validation"],
        **_certainty(work, name, decision.moved(logits["test"], problem.labels), before),
    }


def _certainty(
    work: Workspace, name: str, logits: np.ndarray, before: str | None
) -> dict[str, Any]:
    """Return the fields ``intervals`` and ``differences`` of a row with these test logits."""
    before = before or work.ledger.above(name)
    others = [one for one in dict.fromkeys((before, "teacher")) if one and one != name]
    others = [one for one in others if one in work.ledger]
    truth = work.rows.test.labels
    models = [logits, *(work.logits(other)["test"] for other in others)]
    scores = [work.problem.metrics(model, truth) for model in models]
    drawn = work.problem.resampled(models, truth)
    return {
        "intervals": {figure: interval(values[0]) for figure, values in drawn.items()},
        "differences": [
            {
                "from": other,
                **{
                    figure: [
                        scores[0][figure] - scores[place][figure],
                        *interval(values[0] - values[place]),
                    ]
                    for figure, values in drawn.items()
                },
            }
            for place, other in enumerate(others, start=1)
        ],
    }


def check_reload(
    work: Workspace,
    reloaded: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    expected: Mapping[str, np.ndarray],
    what: str,
) -> None:
    """Compare a model that was read back from disk with the one that was written.

    Args:
        work: The run.
        reloaded: The model that was read back.
        tokenizer: Its tokenizer.
        expected: Logits by split of the model that was written.
        what: What was written and where, for the message.

    Raises:
        RecipeError: Their logits on the validation split differ, or are no numbers.
    """
    import numpy as np

    if not np.isfinite(expected["validation"]).all():
        raise RecipeError(
            f"{what} answers with what is no number (NaN or infinity): training it went out of all "
            "bounds. Lower the learning rate (train.learning_rate, of a student "
            "distill.train.learning_rate) or max_grad_norm beside it."
        )
    again = on_validation(work, reloaded, tokenizer)
    largest = float(np.abs(again - expected["validation"]).max())
    if not largest <= _RELOAD_TOLERANCE:
        raise RecipeError(
            f"{what} answers differently after it was saved and reloaded: logits differ by "
            f"{largest:.3g}. Something that a strategy or a model changes is not saved: make it a "
            "parameter with requires_grad in prepare(), or choose another strategy or backbone."
        )


def agreement(
    work: Workspace, name: str, logits: Mapping[str, np.ndarray], split: str = "test"
) -> dict[str, Any]:
    """Compare logits with those of an earlier row, on one split.

    Returns:
        ``with``, the share of equal ``labels``, ``max_probability_shift`` and
        ``max_logit_difference``.
    """
    import numpy as np

    own, other = logits[split], work.logits(name)[split]
    likely = work.problem.probabilities
    return {
        "with": name,
        "labels": float(work.problem.same(own, other).mean()),
        "max_probability_shift": float(np.abs(likely(own) - likely(other)).max()),
        "max_logit_difference": float(np.abs(own - other).max()),
    }


def count(model: nn.Module) -> int:
    """Return how many weights a model has; those held in four bits count singly."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += state.shape.numel() if state is not None else parameter.numel()
    return total


def learning(model: nn.Module) -> int:
    """Return how many of a model's weights learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def size(*paths: Path) -> int:
    """Return the bytes of weight files: of files as they are, of folders all weights in them."""
    total = 0
    for path in paths:
        files = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.bin")]
        total += sum(file.stat().st_size for file in files)
    return total
