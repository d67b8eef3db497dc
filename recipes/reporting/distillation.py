"""The part of the report about distillation: what a student has from its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.ledger import Row
from recipes.reporting import label_charts
from recipes.reporting.bootstrap import Gain, gain_by_headline, paired_gain
from recipes.reporting.panels import Panel
from recipes.reporting.summary import Summary, accuracy, called
from recipes.reporting.units import duration, one_line, percent, points
from recipes.students import described, is_cut_from_teacher
from recipes.tasks.wording import counted
from recipes.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

_STUDENTS = ("student", "student-alone")
#: Characters of a test row's text that are shown, and how many rows of each kind.
_SHOWN, _EXAMPLES = 120, 5
#: Stages whose seconds belong to the story.
_STAGES = ("finetune", "merge", "distill")


@dataclass(frozen=True)
class DistillationPart:
    """The part of the report about distillation.

    Attributes:
        verdict: Whether it earns its place, and on what evidence.
        start: What both students start from.
        right: On how many test rows the teacher is right, and on how many wrong; None of numbers,
            which are not right or wrong.
        students: A row of the table for each student; figures as text.
        classes: The chart of gains by label; None where texts have not one label.
        by_label: The same as a table: a row for each label.
        differences: Title and test rows of each kind of difference.
        cost: What the teacher cost, in a sentence.
        costs: A row of the table for each artefact.
    """

    verdict: str
    start: str
    right: tuple[int, int] | None
    students: Sequence[Mapping[str, str]]
    classes: Panel | None
    by_label: Sequence[Mapping[str, str]]
    differences: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
    cost: str
    costs: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Answers:
    """What teacher and students answer on the test rows.

    Attributes:
        names: What each answer is called; answers are positions in it. Those of texts with several
            labels are sets of labels.
        truth: The right answers, ``[rows]``.
        teacher: The teacher's answers, likewise.
        given: The answers of each student, likewise.
        sure: The probability that a student's answer comes with.
    """

    names: Sequence[str]
    truth: np.ndarray
    teacher: np.ndarray
    given: Mapping[str, np.ndarray]
    sure: Mapping[str, np.ndarray]

    def right(self, name: str) -> np.ndarray:
        """Tell which rows a student answers rightly, ``[rows]``."""
        return self.given[name] == self.truth  # type: ignore[no-any-return]


def distillation_part(work: Workspace, summary: Summary) -> DistillationPart | None:
    """Return the part of the report about distillation; None if a student is missing."""
    if not all(name in work.ledger for name in _STUDENTS):
        return None
    own, alone = (work.logits(name)["test"] for name in _STUDENTS)
    gain = gain_by_headline(work.problem, [own], [alone], work.rows.test.labels)
    if work.rows.problem == "regression":
        return DistillationPart(
            verdict=_judged(work, gain),
            start=_start(work, gain),
            right=None,
            students=[_scores(work.ledger[name]) for name in _STUDENTS],
            classes=None,
            by_label=(),
            differences=(),
            cost=_cost(work),
            costs=[_costs(row) for row in work.ledger if row.stage in _STAGES],
        )
    answers = _answers(work, summary.teacher.name)
    gains = _gains_by_label(answers) if work.rows.problem != "multi_label" else {}
    taught = answers.teacher == answers.truth
    return DistillationPart(
        verdict=_verdict(work, answers, gain),
        start=_start(work, gain),
        right=(int(taught.sum()), int((~taught).sum())),
        students=[_student(work.ledger[name], answers) for name in _STUDENTS],
        classes=_classes(answers, gains) if gains else None,
        by_label=_by_label(answers, gains),
        differences=_differences(work, answers),
        cost=_cost(work),
        costs=[_costs(row) for row in work.ledger if row.stage in _STAGES],
    )


def _answers(work: Workspace, teacher: str) -> _Answers:
    import numpy as np

    probabilities = {
        name: work.problem.probabilities(work.logits(name)["test"]) for name in _STUDENTS
    }
    given = {name: work.problem.answers(work.logits(name)["test"]) for name in _STUDENTS}
    taught = work.problem.answers(work.logits(teacher)["test"])
    every = np.concatenate([np.asarray(work.rows.test.labels), taught, *given.values()])
    if every.ndim == 1:
        names, places = list(work.rows.labels), every
    else:
        kinds, places = np.unique(every, axis=0, return_inverse=True)
        names = [work.problem.told(kind) for kind in kinds]
    truth, of_teacher, *of_students = np.split(places.reshape(-1), 2 + len(_STUDENTS))
    return _Answers(
        names=[one_line(name, 60) for name in names],
        truth=truth,
        teacher=of_teacher,
        given=dict(zip(_STUDENTS, of_students, strict=True)),
        sure={name: values.max(axis=1) for name, values in probabilities.items()},
    )


def _judged(work: Workspace, gain: Gain) -> str:
    if gain.low > 0:
        head = "Distillation earns its place"
    elif gain.high < 0:
        head = "Distillation does more harm than good here"
    else:
        head = "Distillation makes no difference here that chance would not"
    what = called(work.ledger["student"])
    return (
        f"{head}: the student's test {what} is {points(gain.mean)} against the one without a "
        f"teacher, 95% interval {_interval(gain)}."
    )


def _verdict(work: Workspace, answers: _Answers, gain: Gain) -> str:
    own, other = (answers.right(name) for name in _STUDENTS)
    right = "right in every label" if work.rows.problem == "multi_label" else "right"
    return (
        f"{_judged(work, gain)} It is {right} on "
        f"{counted(int((own & ~other).sum()), 'test row')} where that one is wrong, and wrong on "
        f"{int((other & ~own).sum()):,} where that one is right."
    )


def _interval(gain: Gain) -> str:
    return f"{points(gain.low)} to {points(gain.high)}"


def _start(work: Workspace, gain: Gain) -> str:
    settings = work.recipe.distill
    if not is_cut_from_teacher(settings):
        imitated = ", the student after a stage of imitation" if settings.imitate else ""
        start = f"Both start from {described(settings)} as they were pretrained{imitated}."
    elif work.recipe.strategy is None:
        start = (
            "Both start from the same layers of the teacher, the other one under a new head. What "
            "is compared is what the teacher's answers give, its weights apart."
        )
    else:
        start = (
            "They do not start alike: the student starts from layers of the fine-tuned teacher, "
            "the other one from the same layers of the pretrained backbone. What is compared is "
            "all that a teacher gives, its weights and its answers."
        )
    return f"{start} The interval is over test rows (paired bootstrap, {gain.draws:,} resamples)."


def _student(row: Row, answers: _Answers) -> dict[str, str]:
    given, taught = answers.given[row.name], answers.teacher == answers.truth
    same = given == answers.teacher
    return {
        **_scores(row),
        "agrees": percent(float(same.mean())),
        "agrees_right": _share(same[taught]),
        "agrees_wrong": _share(same[~taught]),
        "mends": _share(answers.right(row.name)[~taught]),
    }


def _scores(row: Row) -> dict[str, str]:
    f1, distance = row.metrics.get("macro_f1"), row.metrics.get("mae", 0.0)
    return {
        "name": row.name,
        "validation": percent(row.validation_score, 2),
        "test": percent(accuracy(row), 2),
        "second": percent(f1, 2) if f1 is not None else f"{distance:.4g}",
    }


def _share(rows: np.ndarray) -> str:
    return percent(float(rows.mean())) if len(rows) else ""


def _gains_by_label(answers: _Answers) -> dict[int, Gain]:
    """Return the gain of recall by label id, the largest first; labels without rows are left out.

    The accuracy on the rows of one label is its recall.
    """
    labels = sorted(set(answers.truth.tolist()))
    right = [answers.right(name)[None] for name in _STUDENTS]
    gains = {}
    for label in labels:
        gains[label] = paired_gain(*(found[:, answers.truth == label] for found in right))
    return dict(sorted(gains.items(), key=lambda item: -item[1].mean))


def _recall(answers: _Answers, name: str, label: int) -> float:
    return float(answers.right(name)[answers.truth == label].mean())


def _classes(answers: _Answers, gains: Mapping[int, Gain]) -> Panel:
    names, order, remarks = answers.names, list(gains), []
    for label, word in ((order[0], "gains"), (order[-1], "loses")):
        gain = gains[label]
        if (gain.mean > 0) == (word == "gains") and gain.mean:
            rows = counted(gain.rows, "test row")
            remarks.append(f"{names[label]} {word} most, {points(gain.mean)} on {rows}")
    beyond = sum(gain.low > 0 or gain.high < 0 for gain in gains.values())
    remarks.append(
        f"intervals of {beyond or 'none'} of {counted(len(gains), 'label')} leave out zero"
    )
    chart = label_charts.class_gains(
        {name: [_recall(answers, name, label) for label in gains] for name in _STUDENTS},
        [f"{points(gain.mean)} ({gain.rows:,})" for gain in gains.values()],
        [names[label] for label in order],
    )
    return Panel("class_gains", "Gain by label", f"Recall: {'; '.join(remarks)}.", chart)


def _by_label(answers: _Answers, gains: Mapping[int, Gain]) -> list[dict[str, str]]:
    return [
        {
            "label": answers.names[label],
            "rows": f"{gain.rows:,}",
            "student": percent(_recall(answers, "student", label)),
            "alone": percent(_recall(answers, "student-alone", label)),
            "gain": points(gain.mean),
            "interval": _interval(gain),
        }
        for label, gain in gains.items()
    ]


def _differences(work: Workspace, answers: _Answers) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the rows on which just one student is right, those first where both are surest."""
    import numpy as np

    own, other = (answers.right(name) for name in _STUDENTS)
    both_sure = np.sum([answers.sure[name] for name in _STUDENTS], axis=0)
    found = []
    for title, where in (
        ("Right with a teacher, wrong without", own & ~other),
        ("Wrong with a teacher, right without", other & ~own),
    ):
        rows = np.flatnonzero(where)
        if len(rows):
            shown = rows[np.argsort(-both_sure[rows], kind="stable")][:_EXAMPLES]
            how_many = f"{len(shown)} of {counted(len(rows), 'row')}"
            found.append((f"{title}: {how_many}", [_example(work, answers, row) for row in shown]))
    return found


def _example(work: Workspace, answers: _Answers, row: int) -> dict[str, Any]:
    names, truth = answers.names, answers.truth[row]
    given = {"teacher": answers.teacher[row]}
    given |= {name: answers.given[name][row] for name in _STUDENTS}
    return {
        "text": one_line(work.rows.test.texts[row], _SHOWN),
        "true": names[truth],
        "answers": [
            {
                "label": names[label],
                "sure": percent(answers.sure[name][row], 0) if name in answers.sure else "",
                "right": bool(label == truth),
            }
            for name, label in given.items()
        ],
    }


def _cost(work: Workspace) -> str:
    rows = [row for row in work.ledger if row.stage in _STAGES]
    teacher = sum(row.seconds for row in rows if row.name in ("teacher", "merged"))
    student, alone = (work.ledger[name].seconds for name in _STUDENTS)
    said = (
        f"The teacher itself took {duration(teacher)}; its student {duration(student)}, the one "
        f"without a teacher {duration(alone)}."
    )
    answers, epochs = work.ledger["student"].teacher_seconds, work.recipe.distill.train.epochs
    aside = ", refining aside" if work.recipe.distill.refine is not None else ""
    if answers:
        said += (
            f" The teacher answered each text once, which took {duration(answers)}; asked at every "
            f"step of up to {counted(epochs, 'epoch')} it would have taken "
            f"{duration(epochs * answers)}{aside}."
        )
    return said


def _costs(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "seconds": f"{row.seconds:,.0f}",
        "tokens": f"{row.tokens_read / 1e6:,.2f}" if row.tokens_read else "",
        "speed": f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "",
        "notes": row.notes if row.stage == "distill" else (),
    }
