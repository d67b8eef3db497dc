"""Tables of the report that say how far its figures hold: for each label, part and probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.ledger import Row
from recipes.problems.decision import Decision
from recipes.problems.metrics import BINS
from recipes.reporting.summary import Summary, called, named
from recipes.reporting.units import one_line, percent, points
from recipes.tasks.wording import counted
from recipes.workspace import Workspace

#: Metrics that are no shares, and are written as they are.
_NUMBERS = ("log_loss", "brier", "mae", "rmse", "r2", "pearson", "spearman", "mcc", "qwk")
#: Parts of the test rows that are shown of one slice: the worst. Offsets that are told likewise.
_PARTS = 12


def between(row: Row) -> str:
    """Return the interval of a row's headline metric on the test rows; empty if there is none."""
    ends = row.intervals.get(row.headline)
    return f"{percent(ends[0])} to {percent(ends[1])}" if ends else ""


def certainty_part(work: Workspace, summary: Summary) -> dict[str, Any]:
    """Return what the report says of labels, parts and probabilities, by the template's names."""
    leaves = summary.leaves
    return {
        "figures": _figures(work),
        "figure_rows": [row.name for row in work.ledger],
        "by_class": _by_class(work, summary, leaves),
        "slices": _slices(leaves),
        "slices_takeaway": _about_slices(leaves),
        "decisions": decision_lines(leaves),
        "errors": _errors(leaves),
        "leaves": leaves.name,
        "judged": summary.judged.name,
    }


def _figures(work: Workspace) -> list[tuple[str, list[str]]]:
    """Return every metric of every row on the test split."""
    names = dict.fromkeys(name for row in work.ledger for name in row.metrics)
    return [
        (named(name), [_written(row.metrics.get(name), name) for row in work.ledger])
        for name in names
    ]


def _written(value: float | None, name: str) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if name in _NUMBERS else percent(value, 2)


def _by_class(work: Workspace, summary: Summary, leaves: Row) -> list[tuple[str, list[str]]]:
    """Return rows, precision, recall and F1 of each label, and how far F1 is from the teacher's."""
    truth, logits = work.rows.test.labels, work.logits(leaves.name)["test"]
    own = work.problem.by_class(logits, truth, Decision.of(leaves.decision)).get("labels", {})
    teacher = work.problem.by_class(work.logits(summary.teacher.name)["test"], truth)
    there = {label: found for label, found in own.items() if found["rows"]}
    return [
        (
            one_line(label, 40),
            [
                f"{found['rows']:,}",
                *(percent(found[name]) for name in ("precision", "recall", "f1")),
                percent(teacher["labels"][label]["f1"]),
                points(found["f1"] - teacher["labels"][label]["f1"]),
            ],
        )
        for label, found in sorted(there.items(), key=lambda item: item[1]["f1"])
    ]


def _slices(row: Row) -> list[dict[str, Any]]:
    """Return the tables of the parts of the test rows: title, headings and lines."""
    tables = []
    for name in dict.fromkeys(entry["slice"] for entry in row.slices):
        parts = [entry for entry in row.slices if entry["slice"] == name]
        lines = [
            (
                one_line(entry["value"], 40),
                [
                    f"{entry['rows']:,}",
                    _with_ends(entry[row.headline]),
                    _with_ends(entry.get("macro_f1")),
                    percent(entry["teacher"]),
                ],
            )
            for entry in parts[:_PARTS]
        ]
        more = len(parts) - len(lines)
        tables.append({"title": one_line(name, 60), "lines": lines, "more": more})
    return tables


def _with_ends(found: Sequence[float] | None) -> str:
    if found is None:
        return ""
    value, *ends = (percent(number) for number in found)
    return f"{value} ({ends[0].removesuffix('%')} to {ends[1]})" if ends else value


def _about_slices(row: Row) -> str:
    """Name the parts that are worse than the whole by more than chance."""
    whole = row.score
    judged = [entry for entry in row.slices if len(entry[row.headline]) > 1]
    low = [
        f"{one_line(entry['value'], 40)} ({entry['slice']}, {counted(entry['rows'], 'row')})"
        for entry in judged
        if entry[row.headline][2] < whole
    ]
    told = f"{row.name}, {called(row)} on parts of the test rows, with 95% intervals"
    few = len(row.slices) - len(judged)
    told += f" but for {counted(few, 'part')} of too few rows for one. " if few else ". "
    if not low:
        return told + f"No part is below the {percent(whole)} of all rows by more than chance."
    more = f" and {len(low) - 5} more" if len(low) > 5 else ""
    told += f"Below the {percent(whole)} of all rows by more than chance: " + (
        f"{', '.join(low[:5])}{more}."
    )  # fmt: skip
    # An interval of 95% lies below what it should hold once in forty times.
    chance = round(len(judged) / 40)
    return told + (
        f" Each part was looked at by itself: of {len(judged)}, chance alone puts about {chance} "
        "there."
        if chance
        else ""
    )


def decision_lines(row: Row) -> list[str]:
    """Say how answers are made of a bundle's logits, a sentence each; nothing if as they are."""
    found = row.decision
    if not found:
        return []
    before, after = found["calibration"]["bundle"]["test"]
    lines = []
    if found["temperature"] != 1:
        lines.append(
            f"Logits are divided by a temperature of {found['temperature']:.3f}, fitted on "
            f"{found['fitted_on']:,} validation rows: the expected calibration error on test "
            f"({BINS} bins) goes from {percent(before, 2)} to {percent(after, 2)}, the log loss "
            f"from {_losses(found)}. On {row.examples:,} rows a model that is perfectly calibrated "
            f"would be seen with an error of {percent(found['calibration_noise']['test'][0], 2)}, "
            f"at times {percent(found['calibration_noise']['test'][1], 2)}."
        )
    if fit := found.get("offsets_fit"):
        lines.append(_offsets_line(fit))
    if fit := found.get("precision_fit"):
        lines.append(_precision_line(fit, bool(found["offsets"]) and row.headline == "micro_f1"))
    return lines


def _losses(found: Mapping[str, Any]) -> str:
    return " to ".join(f"{loss:.4f}" for loss in found["log_loss"]["test"])


def _offsets_line(fit: dict[str, Any]) -> str:
    gain, metric = sum(fit["gains"]) / len(fit["gains"]), named(fit["metric"])
    if not fit["kept"]:
        return (
            f"Offsets for {metric} were tried and left out: on validation rows that they were not "
            f"fitted on they gained {points(gain, 2)} on average, and not in every repeat."
        )
    without, with_them = fit["splits"]["test"]
    strongest = sorted((k for k in fit["fitted"].items() if k[1]), key=lambda k: -abs(k[1]))
    told = [f"{one_line(label, 40)} {offset:+.1f}" for label, offset in strongest[:_PARTS]]
    told += [f"{len(strongest) - _PARTS} more"] if len(strongest) > _PARTS else []
    offsets = ", ".join(told)
    return (
        f"Each label's score gets an offset for {metric} ({offsets}): "
        f"{points(gain, 2)} on validation rows that it was not fitted on; on test {metric} goes "
        f"from {percent(without, 2)} to {percent(with_them, 2)}."
    )


def _precision_line(fit: dict[str, Any], with_offset: bool) -> str:
    wished = percent(fit["wished"])
    if fit["threshold"] is None:
        return (
            f"A precision of {wished} was wished, and no threshold gives it on the validation "
            "rows: none is withheld."
        )
    found = fit["splits"]["test"]
    sure = f", {percent(fit['confidence'], 0)} sure of it" if fit["confidence"] else ""
    right = percent(found["precision"], 2) if "precision" in found else "none"
    return (
        f"For a precision of {wished}{sure}, a label is given from a probability"
        f"{', offset included,' if with_offset else ''} of {fit['threshold']:.4f} on: on test "
        f"{percent(found['coverage'], 2)} of the labels that would be given otherwise, and {right} "
        "of these are right. All other figures count what it withholds as given."
    )


def _errors(row: Row) -> list[tuple[str, list[str]]]:
    """Return the calibration errors, before and after, on the validation and the test rows."""
    return [
        (name, [percent(value, 2) for split in ("validation", "test") for value in found[split]])
        for name, found in row.decision.get("calibration", {}).items()
    ]
