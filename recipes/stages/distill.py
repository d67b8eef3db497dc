"""The teacher's knowledge goes into a smaller student; beside it the same student learns alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill.learner import Learner
from distill.objectives import CrossEntropy, Objective, Pair, needed
from distill.signals import CachedTeacher, LiveTeacher, TeacherSignals
from distill.students import cut
from recipes import assets
from recipes.console import is_main, say
from recipes.distributed import main_first
from recipes.ledger import Row
from recipes.preflight import student_pair
from recipes.proof import agreement, answer_splits, check_reload, count, learning, measured, size
from recipes.training import fit, set_dropout
from recipes.workspace import Workspace, load_tokenizer, torch_call

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run(work: Workspace) -> None:
    """Train both students and write the rows ``student`` and ``student-alone``.

    The student starts from layers of the teacher and learns from its answers. The other one has
    never met a teacher: it starts from the same layers of the pretrained backbone and learns from
    the labels, for as many epochs.
    """
    settings = work.recipe.distill
    teacher = work.load(path=work.folder / "merged")
    pair = student_pair(work)
    if settings.student.layers is not None:
        say(f"  the student keeps layers {', '.join(map(str, pair.layer_map))} of the teacher")
        tokenizer = work.tokenizer
        student, alone = cut(teacher, pair.layer_map), cut(work.load(), pair.layer_map)
    else:
        path = assets.resolve(str(settings.student.model), "model", offline=work.offline).path
        tokenizer = load_tokenizer(path)
        student, alone = work.load(path=path), work.load(path=path)
    if "student" not in work.ledger:
        learner = Learner(student, settings.objectives, _signals(work, teacher, pair), pair)
        _learn(work, "student", learner, tokenizer, settings.objectives)
    if is_main():
        shutil.rmtree(work.folder / "signals", ignore_errors=True)
    labels_only: Sequence[Objective] = (CrossEntropy(),)
    _learn(work, "student-alone", Learner(alone, labels_only, None, pair), tokenizer, labels_only)


def _signals(work: Workspace, teacher: PreTrainedModel, pair: Pair) -> TeacherSignals | None:
    """Return where the teacher's answers come from; None if no objective wants any."""
    settings = work.recipe.distill
    needs = needed(settings.objectives)
    if not needs:
        return None
    live = LiveTeacher(
        teacher,
        work.tokenizer,
        work.rows.labels,
        max_length=work.max_length,
        layers=pair.layer_map if "hidden" in needs else (),
        same_tokens=pair.same_tokens,
    )
    if settings.teacher == "live":
        return live
    with main_first():
        return CachedTeacher(work.folder / "signals", live, work.rows.train.texts)


def _learn(
    work: Workspace,
    name: str,
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
    objectives: Sequence[Objective],
) -> None:
    """Train one student, save it, reload it, and write its row; a finished one is left alone."""
    folder = work.folder / name
    if name in work.ledger:  # finished before the run was cut off
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return
    start = time.perf_counter()
    student, recipe = learner.student, work.recipe
    set_dropout(student, recipe.distill.train.dropout)
    student.requires_grad_(True)
    if not recipe.distill.student.train_embeddings:
        _embeddings(student).requires_grad_(False)
    trainable = learning(student)
    trained = fit(
        learner,
        work.examples("train", tokenizer),
        work.examples("validation", tokenizer),
        title=name,
        folder=folder / "checkpoints",
        settings=recipe.distill.train,
        task=work.task,
        collate=work.task.collator(tokenizer),
        hardware=work.hardware,
        allow_fallback=recipe.allow_fallback,
        seed=recipe.seed,
    )
    if not is_main():
        return
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    work.save_history(name, trained.history)
    logits = answer_splits(work, torch_call(student), tokenizer)
    again = work.load(path=folder)
    check_reload(work, again, tokenizer, logits, f"The model in {folder}")
    taught = ", ".join(f"{type(o).__name__} × {o.weight:g}" for o in objectives)
    row = Row(
        stage="distill",
        name=name,
        path=name,
        parameters=count(again),
        size_bytes=size(folder),
        trainable_parameters=trainable,
        threads=work.hardware.threads,
        seconds=time.perf_counter() - start,
        tokens_per_second=trained.tokens_per_second,
        peak_memory_bytes=trained.peak_memory_bytes,
        agreement=agreement(work, "merged", logits),
        notes=[f"learnt from {taught}", *work.missing_capabilities()],
        **measured(work, name, logits),
    )
    work.ledger.put(row)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _embeddings(student: PreTrainedModel) -> PreTrainedModel:
    """Return the part of the encoder that turns tokens into vectors."""
    whole = getattr(student.base_model, "embeddings", None)
    return whole if whole is not None else student.get_input_embeddings()
