"""What the models answer on the test rows: charts, comparisons and mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.problems.decision import Decision
from recipes.reporting import charts, label_charts, panels
from recipes.reporting.panels import Panel
from recipes.reporting.summary import Summary
from recipes.reporting.units import apart, one_line, percent, points
from recipes.tasks.wording import counted
from recipes.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

#: Characters of a test row's text that the report shows.
_SHOWN = 120


def answers_part(work: Workspace, summary: Summary) -> dict[str, Any]:
    """Return the parts of the report about answers and labels, by the names of the template.

    Parts that make no sense for a problem type are None, or empty.
    """
    parts: dict[str, Any] = dict.fromkeys(("confusion", "class_scores", "calibration", "numbers"))
    if work.rows.problem == "regression":
        wrong = misses(work, summary)
        parts |= {"numbers": numbers(work, summary), "classes": None, "pairs": []}
        takeaway = f"The test rows on which {summary.judged.name} is farthest off."
    elif work.rows.problem == "multi_label":
        wrong = misses(work, summary)
        parts |= {"class_scores": class_scores(work, summary), "pairs": []}
        parts["calibration"] = calibration(work, summary)
        parts["classes"] = panels.classes(work)
        takeaway = f"The test rows on which {summary.judged.name} is surest of wrong labels."
    else:
        wrong = mistakes(work, summary)
        parts |= {
            "confusion": confusion(work, summary),
            "class_scores": class_scores(work, summary),
            "calibration": calibration(work, summary),
            "pairs": frequent_confusions(work, summary),
            "classes": panels.classes(work),
        }
        takeaway = about_mistakes(wrong, summary)
    return {**parts, "mistakes": wrong, "mistakes_takeaway": takeaway}


def numbers(work: Workspace, summary: Summary) -> Panel:
    """How near the given numbers are to the true ones."""
    from recipes.problems.regression import Regression

    own, problem = summary.judged, work.problem
    assert isinstance(problem, Regression)
    given = problem.numbers(work.logits(own.name)["test"])
    truth = problem.numbers(work.rows.test.labels)
    sentence = (
        f"{own.name} is off by {own.metrics['mae']:.3g} on average and explains "
        f"{percent(own.metrics['r2'])} of the variance; rank correlation "
        f"{own.metrics['spearman']:.2f}."
    )
    chart = charts.numbers(truth.tolist(), given.tolist(), work.rows.labels[0])
    return Panel("numbers", f"{own.name} against the truth, on test", sentence, chart)


def misses(work: Workspace, summary: Summary, most: int = 10) -> list[dict[str, Any]]:
    """Return the test rows on which the shipped file is farthest off; fields as of `mistakes`."""
    import numpy as np

    problem, truth = work.problem, np.asarray(work.rows.test.labels)
    moved, teacher = (
        work.moved(name)["test"] for name in (summary.judged.name, summary.teacher.name)
    )
    given, teacher = problem.answers(moved), problem.answers(teacher)
    likely = problem.probabilities(moved)
    differ = (given != truth).reshape(likely.shape)
    off = (np.abs(likely - truth.reshape(likely.shape)) * differ).max(axis=1)
    wrong = np.flatnonzero(differ.any(axis=1))
    several = work.rows.problem == "multi_label"
    return [
        {
            "text": one_line(work.rows.test.texts[row], _SHOWN),
            "true": one_line(problem.told(truth[row]), 60),
            "given": one_line(problem.told(given[row]), 60),
            "probability": percent(float(off[row])) if several else "",
            "teacher": one_line(problem.told(teacher[row]), 60),
        }
        for row in wrong[np.argsort(-off[wrong], kind="stable")][:most]
    ]


def confusion(work: Workspace, summary: Summary) -> Panel:
    """Which labels the shipped file takes for which."""
    counts = confusions(work, summary.judged.name)
    wrong = int(counts.sum() - counts.trace())
    remarks = [f"{wrong:,} of {counted(int(counts.sum()), 'test row')} are answered wrongly"]
    if pairs := worst_pairs(counts):
        true, given, rows = pairs[0]
        names = [one_line(label, 40) for label in work.rows.labels]
        remarks.append(
            f"most often {names[true]} is taken for {names[given]} ({counted(rows, 'row')}, "
            f"{percent(rows / counts[true].sum())} of {names[true]})"
        )
    return Panel(
        "confusion",
        f"Confusion of {summary.judged.name} on test",
        "; ".join(remarks) + ".",
        label_charts.confusion(counts, work.rows.labels),
        wide=label_charts.is_wide(len(work.rows.labels)),
    )


def confusions(work: Workspace, name: str) -> np.ndarray:
    """Count a row's test answers, ``[true, given]``."""
    import numpy as np

    size = len(work.rows.labels)
    counts = np.zeros((size, size), dtype=int)
    given = work.problem.answers(work.moved(name)["test"])
    np.add.at(counts, (np.asarray(work.rows.test.labels), given), 1)
    return counts


def scores_by_label(work: Workspace, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 of each label on the test rows and in how many rows it is right, ``[labels]``."""
    import numpy as np

    if work.rows.problem != "multi_label":
        counts = confusions(work, name)
        return f1_by_label(counts), counts.sum(axis=1)
    given = work.problem.answers(work.moved(name)["test"])
    truth = np.asarray(work.rows.test.labels)
    both = 2 * (given * truth).sum(axis=0) / np.maximum(1, given.sum(axis=0) + truth.sum(axis=0))
    return both, truth.sum(axis=0)


def worst_pairs(counts: np.ndarray, most: int = 8) -> list[tuple[int, int, int]]:
    """Return true label, given label and rows of the most frequent confusions."""
    pairs = [(int(t), int(g), int(counts[t, g])) for t, g in zip(*counts.nonzero(), strict=True)]
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    return sorted(wrong, key=lambda pair: -pair[2])[:most]


def frequent_confusions(work: Workspace, summary: Summary) -> list[dict[str, Any]]:
    """Return the most frequent confusions: ``true``, ``given``, ``rows`` and ``share``."""
    counts = confusions(work, summary.judged.name)
    names = [one_line(label, 60) for label in work.rows.labels]
    return [
        {
            "true": names[true],
            "given": names[given],
            "rows": rows,
            "share": percent(rows / counts[true].sum()),
        }
        for true, given, rows in worst_pairs(counts)
    ]


def calibration(work: Workspace, summary: Summary) -> Panel:
    """Whether the model's probabilities can be believed."""
    from recipes.problems.metrics import expected_calibration_error, reliability

    parts, errors, gaps = {}, {}, {}
    for name in dict.fromkeys(("teacher", summary.leaves.name)):
        if name in work.ledger:
            probabilities, truth = _chosen(work, name)
            parts[name] = reliability(probabilities, truth)
            errors[name] = expected_calibration_error(probabilities, truth)
            right = float((probabilities.argmax(axis=1) == truth).mean())
            gaps[name] = float(probabilities.max(axis=1).mean()) - right
    own = summary.leaves.name
    sure = gaps[own] + right  # the last of both
    word = "over-confident" if gaps[own] > 0 else "under-confident"
    judged = "well calibrated" if abs(gaps[own]) < 0.01 else f"{word} by {apart(gaps[own])}"
    sentence = (
        f"{own} gives {_what(work, own)} a probability of "
        f"{percent(sure)} on average and is right on {percent(right)}: {judged} on the whole; "
        f"expected calibration error {percent(errors[own])}"
    )
    if "teacher" in errors and own != "teacher":
        sentence += f", teacher {percent(errors['teacher'])}"
    titles = {name: f"{name} (error {percent(error)})" for name, error in errors.items()}
    chart = charts.calibration(parts, titles)
    return Panel("calibration", "Can its probabilities be believed?", sentence + ".", chart)


def _what(work: Workspace, name: str) -> str:
    """Say what has the probability that calibration is about."""
    if work.rows.problem == "multi_label":
        return "its decisions for or against a label"
    chosen_otherwise = work.rows.problem == "ordinal" or work.ledger[name].decision.get("offsets")
    return "the likeliest label" if chosen_otherwise else "its answers"


def _chosen(work: Workspace, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities on the test rows, as calibrated as a row leaves, and what is right."""
    from export.edge import probabilities

    temperature = Decision.of(work.ledger[name].decision).temperature
    logits, right = work.problem.choices(work.logits(name)["test"], work.rows.test.labels)
    return probabilities(logits / temperature, "single_label"), right


def class_scores(work: Workspace, summary: Summary) -> Panel:
    """Which labels are hard, and which suffered on the way."""
    names = [name for name in ("teacher", "student") if name in work.ledger]
    names += [summary.judged.name]
    scores = {name: scores_by_label(work, name)[0] for name in names}
    support = scores_by_label(work, names[-1])[1]
    own = scores[names[-1]]
    order = sorted((int(i) for i in support.nonzero()[0]), key=lambda i: own[i])
    labels = [one_line(label, 40) for label in work.rows.labels]
    worst = order[0]
    remarks = [
        f"The weakest label is {labels[worst]}: F1 {percent(own[worst])} on "
        f"{counted(int(support[worst]), 'test row')}"
    ]
    if "teacher" in scores:
        losses = {i: own[i] - scores["teacher"][i] for i in order}
        fallen = min(losses, key=lambda i: losses[i])
        if losses[fallen] < -0.0005:
            remarks.append(
                f"against the teacher {labels[fallen]} loses most ({points(losses[fallen])})"
            )
    chart = label_charts.class_scores(
        {name: [float(values[i]) for i in order] for name, values in scores.items()},
        [work.rows.labels[i] for i in order],
    )
    return Panel("class_scores", "F1 by label", "; ".join(remarks) + ".", chart)


def f1_by_label(counts: np.ndarray) -> np.ndarray:
    """Return F1 of each label ``[labels]`` from counts ``[true, given]``; 0 where undefined."""
    import numpy as np

    both: np.ndarray = np.maximum(1, counts.sum(axis=0) + counts.sum(axis=1))
    scores: np.ndarray = 2 * counts.diagonal() / both
    return scores


def mistakes(work: Workspace, summary: Summary, most: int = 10) -> list[dict[str, Any]]:
    """Return the test rows that the shipped file gets wrong with most confidence.

    Returns:
        ``text``, ``true``, ``given``, ``probability`` of the given label, and ``teacher``, the
        teacher's answer.
    """
    import numpy as np

    own = summary.judged
    temperature = Decision.of(own.decision).temperature
    probabilities = work.problem.probabilities(work.logits(own.name)["test"] / temperature)
    teacher, given = (
        work.problem.answers(work.moved(name)["test"])
        for name in (summary.teacher.name, summary.judged.name)
    )
    truth = np.asarray(work.rows.test.labels)
    sure = np.take_along_axis(probabilities, given[:, None], axis=1)[:, 0]
    wrong = np.flatnonzero(given != truth)
    names = [one_line(label, 40) for label in work.rows.labels]
    return [
        {
            "text": one_line(work.rows.test.texts[row], _SHOWN),
            "true": names[truth[row]],
            "given": names[given[row]],
            "probability": percent(sure[row]),
            "teacher": names[teacher[row]],
        }
        for row in wrong[np.argsort(-sure[wrong], kind="stable")][:most]
    ]


def about_mistakes(rows: list[dict[str, Any]], summary: Summary) -> str:
    """Say how many of the shown mistakes are the teacher's too."""
    same = sum(row["teacher"] == row["given"] for row in rows)
    advice = ": where both insist, look at the label first" if same else ""
    return (
        f"The test rows that {summary.judged.name} gets wrong with most confidence. On {same} of "
        f"these {len(rows)} {summary.teacher.name} gives the same answer{advice}."
    )
