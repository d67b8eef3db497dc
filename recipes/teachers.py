"""Who answers the texts that a student learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters.classifier import load_classifier
from distill import CachedTeacher, LiveTeacher, TeacherSignals
from distill.cache import check_cacheable
from distill.calibration import fit_temperature
from distill.combined import Mean, OutOfFold, PerExample, Weighted, skill_weights
from distill.errors import DistillError
from distill.objective import Pair, asked, needed
from distill.signals import Teacher
from recipes import assets
from recipes.console import say
from recipes.distributed import main_first
from recipes.folds import fold_teachers
from recipes.long_text import reading
from recipes.stages import SIGNALS
from recipes.students import Start, same_tokens
from recipes.texts import origins
from recipes.workspace import Workspace, load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Validation texts that a teacher is asked at a time.
_BATCH = 64


def check_signals(work: Workspace, pair: Pair) -> None:
    """Check that the teachers that the recipe names can give what its objectives want.

    Raises:
        DistillError: They cannot.
    """
    settings = work.recipe.distill
    wants = asked(settings.objectives, pair)[1]
    if wants and (settings.teachers or settings.folds):
        raise DistillError(
            f"The objectives want {', '.join(sorted(wants))}, which only one teacher can give. "
            "Leave distill.teachers and distill.folds out, or keep to objectives about answers, "
            "such as kl and ce."
        )
    means = {"teachers": work.problem.exclusive, "calibrate": "calibrate" in work.problem.decides}
    for key, has_one in means.items():
        if getattr(settings, key) and not has_one:
            raise DistillError(
                f"distill.{key} has no meaning for a problem of the type {work.rows.problem}. "
                "Leave it out."
            )
    if settings.teacher == "cached":
        check_cacheable(wants)


def signals(
    work: Workspace, teacher: PreTrainedModel, start: Start, texts: Sequence[str]
) -> TeacherSignals | None:
    """Return where the teacher's answers come from; None if no objective wants any.

    Args:
        work: The run.
        teacher: The run's own teacher as plain weights.
        start: The student and its tokenizer.
        texts: All texts that will be asked for.
    """
    settings = work.recipe.distill
    if not needed(settings.objectives):
        return None
    asker = _combined(work, teacher, start)
    if settings.teacher == "live":
        return asker
    with main_first():
        size = CachedTeacher.estimate(asker, texts)
        say(f"  the teacher answers {len(set(texts)):,} texts, {size / 1e6:.1f} MB on disk")
        found = CachedTeacher(work.folder / SIGNALS, asker, texts)
    if found.reused:
        say(f"  it had answered them before, in {found.seconds:.0f} s")
    return found


def keeps_signals(work: Workspace, pair: Pair) -> bool:
    """Return whether the teacher's answers stay in the run when the student has learnt from them.

    Logits alone are small, and spare a later ``--from distill``, or a run that takes this one's
    teacher, from asking again. States are many times the training texts.
    """
    settings = work.recipe.distill
    return settings.teacher == "cached" and not asked(settings.objectives, pair)[1]


def _combined(work: Workspace, teacher: PreTrainedModel, start: Start) -> Teacher:
    """Return all teachers as one."""
    settings, rows = work.recipe.distill, work.rows.train
    own: Teacher
    if settings.folds is None:
        own = _live(work, teacher, work.tokenizer, start)
    else:
        models, fold_of = fold_teachers(work, settings.folds)
        folds = {text: fold_of[row] for text, row in origins(work).items()}
        learnt = [_live(work, one, work.tokenizer, start) for one in models]
        own = OutOfFold(learnt, folds, exclusive=work.problem.exclusive)
    others = [_live(work, *further_teacher(work, name), start) for name in settings.teachers]
    heard = [own, *others]
    if len(heard) == 1:
        return own
    if settings.combine == "mean":
        return Mean(heard)
    if settings.combine == "choice":
        return PerExample(heard, dict(zip(rows.texts, rows.labels, strict=True)))
    answers = [_on_validation(work, one) for one in heard]
    weights = skill_weights(answers, work.rows.validation.labels)
    names = ("the run's own", *settings.teachers)
    told = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True))
    say(f"  teachers weighted by their skill on validation rows: {told}")
    return Weighted(heard, weights)


def further_teacher(work: Workspace, name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a teacher that was trained elsewhere, and its tokenizer.

    Args:
        work: The run, in whose order its labels are put.
        name: From ``distill.teachers``.

    Raises:
        RecipeError: It cannot be found, or its tokenizer cannot be used.
        AdapterError: It is no finished classifier, or was trained for other labels.
    """
    path = assets.resolve(name, "model", offline=work.offline).path
    model = load_classifier(
        path, work.rows.labels, device=work.hardware.device, kind=work.problem.kind
    )
    return model, load_tokenizer(path)


def _live(
    work: Workspace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, start: Start
) -> LiveTeacher:
    settings = work.recipe.distill
    live = LiveTeacher(
        model,
        tokenizer,
        work.rows.labels,
        max_length=work.max_length,
        wants=asked(settings.objectives, start.pair)[1],
        same_tokens=same_tokens(work, start.tokenizer, tokenizer),
        reading=reading(work.recipe.data.long, work.max_length, work.task.pairs),
        bf16=work.hardware.bf16_for(settings.train.precision, work.recipe.allow_fallback),
    )
    if settings.calibrate:
        logits = _on_validation(work, live)
        found = fit_temperature(*work.problem.choices(logits, work.rows.validation.labels))
        live.temperature = found
        say(f"  the teacher's logits are divided by {found:.2f}, fitted on validation rows")
    return live


def _on_validation(work: Workspace, teacher: Teacher) -> np.ndarray:
    """Return a teacher's logits on the validation rows, ``[rows, classes]``."""
    import numpy as np

    texts = work.rows.validation.texts
    parts = [
        teacher.ask(texts[first : first + _BATCH]).logits.float().cpu().numpy()
        for first in range(0, len(texts), _BATCH)
    ]
    return np.concatenate(parts)
