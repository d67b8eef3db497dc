"""The teacher's knowledge goes into a smaller student; beside it the same student learns alone."""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distill import Objective, objectives
from distill.learner import Learner
from recipes.console import is_main, say
from recipes.distributed import wait
from recipes.imbalance import called_here, class_weights, label_terms, say_measures
from recipes.imitation import Imitated, imitate
from recipes.ledger import Ledger, Row
from recipes.problems.metrics import higher_is_better
from recipes.proof import agreement, answer_splits, check_reload, count, learning, measured, size
from recipes.recipe import TrainSettings
from recipes.sampling import epoch_tokens
from recipes.several_students import STUDENT, students
from recipes.stages import SIGNALS
from recipes.students import Start, described, foretold, make, trimmed
from recipes.tasks import Split
from recipes.tasks.wording import counted
from recipes.teachers import keeps_signals, signals
from recipes.texts import more_texts, training_rows
from recipes.training import Example, Trained, fit, set_dropout
from recipes.workspace import Workspace, torch_call

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def run(work: Workspace) -> None:
    """Train both students and write the rows ``student`` and ``student-alone``.

    The student starts from layers of the teacher, or of another backbone, and learns from the
    teacher's answers. The other one has never met a teacher: it starts from the same layers as they
    were pretrained and learns from the labels, as long as the recipe says. Where a finished
    classifier is cut down, how it was pretrained is not known: both start from its layers, and only
    its answers make the difference.
    """
    settings = work.recipe.distill
    teacher = work.load(path=work.folder / "merged")
    lesson = _prepare(work, teacher)
    for name, one in students(work).items():
        if name not in work.ledger:
            _teach(one, name, teacher, lesson if name == STUDENT else _prepare(one, teacher))
    if is_main():
        for name in (
            "folds",
            "imitation",
            *(() if keeps_signals(work, lesson.start.pair) else (SIGNALS,)),
        ):
            shutil.rmtree(work.folder / name, ignore_errors=True)
    start, known, train = lesson.start, lesson.known, settings.train
    if (last := settings.refine) is not None:
        train = train.model_copy(update={"epochs": train.epochs + last.epochs})
    if settings.alone == "reading":
        wait()  # the row is written by the first process
        read = Ledger(work.ledger.path)[STUDENT].tokens_read
        epochs = max(1, round(read / _tokens(work, train, known)))
        train = train.model_copy(update={"epochs": epochs, "patience": None})
    terms = _weighted(work, called_here(work.problem, label_terms(settings.objectives)), known)
    training = _Training(Learner(start.alone, terms, None, start.pair), known, train)
    said = [f"learnt from the labels alone, for at most {counted(train.epochs, 'epoch')}"]
    if work.recipe.strategy is None and settings.student.model is None:
        said.append("starts from the teacher's own layers, as nothing else is known of them")
    _learn(work, "student-alone", start, [training], time.perf_counter(), said)


@dataclass(frozen=True)
class _Lesson:
    """What a student starts from and learns from.

    Attributes:
        start: The student and the one that learns alone.
        before: What imitation has made of it; None without.
        known: The training rows.
        examples: These, and what the teacher answers besides.
        texts: The texts of all of them.
        more: How many of these are no training rows.
    """

    start: Start
    before: Imitated | None
    known: Sequence[Example]
    examples: Sequence[Example]
    texts: Sequence[str]
    more: int

    @property
    def earlier(self) -> int:
        """Tokens read in the stage before."""
        return self.before.tokens if self.before is not None else 0


def _prepare(work: Workspace, teacher: PreTrainedModel) -> _Lesson:
    settings = work.recipe.distill
    start, rows, more = make(work, teacher), training_rows(work, settings.train), more_texts(work)
    texts = [*rows.texts, *more]
    for sentence in foretold(work, trimmed(work, start, texts)):
        say(f"  {sentence}")
    before: Imitated | None = None
    if settings.imitate is not None:
        before = imitate(work, start, teacher)
        start = replace(start, student=before.student)
    start = trimmed(work, start, texts)
    known = work.task.features(rows, start.tokenizer, work.max_length)
    unlabelled = Split(more, [work.problem.unlabelled] * len(more))
    examples = [*known, *work.task.features(unlabelled, start.tokenizer, work.max_length)]
    return _Lesson(start, before, known, examples, texts, len(more))


def _teach(work: Workspace, name: str, teacher: PreTrainedModel, lesson: _Lesson) -> None:
    """Let a student learn from the teacher, and write its row."""
    settings, start, before = work.recipe.distill, lesson.start, lesson.before
    begun = time.perf_counter() - (before.seconds if before is not None else 0)
    taught = signals(work, teacher, start, lesson.texts)
    say_measures(work.problem, settings.train, _labels(lesson.examples))
    given = called_here(work.problem, settings.objectives)

    def training(examples: Sequence[Example], train: TrainSettings) -> _Training:
        terms = _weighted(work, given, examples)
        return _Training(Learner(start.student, terms, taught, start.pair), examples, train)

    trainings = [training(lesson.examples, settings.train)]
    notes = _notes(work, lesson.more, before)
    if (last := settings.refine) is not None:
        train = settings.train.model_copy(update=last.model_dump())
        trainings.append(training(lesson.known, train))
        notes.append(f"refined on the training rows, for at most {counted(last.epochs, 'epoch')}")
    if name != STUDENT:
        notes.insert(0, described(settings))
    _learn(work, name, start, trainings, begun, notes, lesson.earlier)


def _notes(work: Workspace, more: int, before: Imitated | None) -> list[str]:
    """Say what the student has learnt from."""
    settings = work.recipe.distill
    given = called_here(work.problem, settings.objectives)
    terms = (f"{objectives.name_of(type(o))} × {o.weight:g}" for o in given)
    notes = [f"learnt from {', '.join(terms)}"]
    if more:
        notes.append(f"the teacher answered {more:,} texts besides the training rows")
    if before is not None and settings.imitate is not None:
        whom = "the teacher" if settings.imitate.parent == "teacher" else "its backbone"
        notes.append(f"imitated {whom} on {before.texts:,} texts before")
    return notes


def _weighted(
    work: Workspace, terms: Sequence[Objective], examples: Sequence[Example]
) -> list[Objective]:
    """Let the terms that look at labels have the weights that the recipe asks for."""
    weights = class_weights(work.problem, work.recipe.distill.train, _labels(examples))
    return [term.weighted(weights) for term in terms]


def _labels(examples: Sequence[Example]) -> list[Any]:
    return [example["labels"] for example in examples]


def _tokens(work: Workspace, train: TrainSettings, examples: Sequence[Example]) -> float:
    """Return the tokens of an epoch."""
    classes = work.problem.classes(_labels(examples)) if train.resample else None
    return epoch_tokens(examples, classes, train.resample)


@dataclass(frozen=True)
class _Training:
    """One training of a student: its loss, what it reads, and how."""

    learner: Learner
    examples: Sequence[Example]
    settings: TrainSettings


def _learn(
    work: Workspace,
    name: str,
    start: Start,
    trainings: Sequence[_Training],
    begun: float,
    notes: Sequence[str],
    earlier: int = 0,
) -> None:
    """Train one student, save it, reload it, and write its row; a finished one is left alone.

    Args:
        work: The run.
        name: Of the row and the folder.
        start: From `recipes.students.make`.
        trainings: One after the other, of the same student.
        begun: When its work began, by `time.perf_counter`.
        notes: What is told of it.
        earlier: Tokens that it has read in a stage before.
    """
    folder, tokenizer = work.folder / name, start.tokenizer
    if name in work.ledger:  # finished before the run was cut off
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return
    learner, recipe = trainings[-1].learner, work.recipe
    student = learner.student
    set_dropout(student, trainings[-1].settings.dropout)
    student.requires_grad_(True)
    if not recipe.distill.student.train_embeddings:
        _embeddings(student).requires_grad_(False)
    trainable = learning(student)
    validation = work.examples("validation", tokenizer)
    history: list[dict[str, float]] = []
    read, passed, done, best = float(earlier), 0.0, [], -math.inf
    for number, one in enumerate(trainings):
        before = copy.deepcopy(student.state_dict()) if number else {}
        trained = fit(
            one.learner,
            one.examples,
            validation,
            title=f"{name}, refined" if number else name,
            folder=folder / "checkpoints" / ("refined" if number else ""),
            settings=one.settings,
            problem=work.problem,
            collate=work.task.collator(tokenizer),
            hardware=work.hardware,
            allow_fallback=recipe.allow_fallback,
            seed=recipe.seed,
        )
        done.append(trained)
        history += [{**entry, "epoch": passed + entry["epoch"]} for entry in trained.history]
        read += trained.history[-1]["epoch"] * _tokens(work, one.settings, one.examples)
        passed += trained.history[-1]["epoch"]
        score = _best(work, one.settings, trained)
        if score < best:  # the best epoch of all is kept
            student.load_state_dict(before)
        best = max(best, score)
    if not is_main():
        return
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    work.save_history(name, history)
    logits = answer_splits(work, torch_call(student), tokenizer)
    again = work.load(path=folder)
    check_reload(work, again, tokenizer, logits, f"The model in {folder}")
    row = Row(
        stage="distill",
        name=name,
        path=name,
        parameters=count(again),
        size_bytes=size(folder),
        trainable_parameters=trainable,
        threads=work.hardware.threads,
        seconds=time.perf_counter() - begun,
        teacher_seconds=getattr(learner.teacher, "seconds", 0.0),
        tokens_per_second=done[0].tokens_per_second,
        tokens_read=round(read),
        peak_memory_bytes=max(one.peak_memory_bytes for one in done),
        agreement=agreement(work, "merged", logits),
        notes=[*notes, *work.missing_capabilities()],
        **measured(work, name, logits, before="merged"),
    )
    work.ledger.put(row)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _best(work: Workspace, settings: TrainSettings, trained: Trained) -> float:
    """Return the validation metric of a training's best epoch; the higher the better."""
    metric = settings.metric or work.problem.headline
    sign = 1 if higher_is_better(metric) else -1
    name = f"eval_{metric}"
    return max(sign * entry[name] for entry in trained.history if name in entry)


def _embeddings(student: PreTrainedModel) -> PreTrainedModel:
    """Return the part of the encoder that turns tokens into vectors."""
    whole = getattr(student.base_model, "embeddings", None)
    return whole if whole is not None else student.get_input_embeddings()
