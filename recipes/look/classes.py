"""The labels: how many, how balanced, and what a run refuses about them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from recipes.look.findings import Finding
from recipes.look.gathering import Gathered
from recipes.problems import problems
from recipes.recipe import DataSettings, Recipe
from recipes.tasks.columns import LIKELY_MISSING, folded
from recipes.tasks.wording import counted, listed, shown

#: Rows of the largest class for one of the smallest: worth knowing, and worth a warning.
_UNEVEN, _VERY_UNEVEN = 3, 10
#: Rows below which a class can hardly be learned or measured.
FEW = 10
_DRAW = "data.test and data.validation name files of your own"


def by_split(gathered: Gathered) -> dict[str, Counter[str]]:
    """Return the rows of each label in each split that is there."""
    found: dict[str, Counter[str]] = {}
    for origin, counts in gathered.labels.items():
        found.setdefault(origin.split, Counter()).update(counts)
    return found


def distinct(gathered: Gathered) -> Counter[str]:
    """Return the different texts of each label to learn from; of equal ones the first counts."""
    import numpy as np

    prints = gathered.prints
    equals = prints.equals()
    train = np.isin(
        equals.origins, [at for at, o in enumerate(prints.origins) if o.split == "train"]
    )
    if equals.every > 1 or (gathered.sets and not gathered.sets.keys() >= prints.labels.keys()):
        return by_split(gathered).get("train", Counter())
    given = np.isin(equals.first, equals.first[~train])
    # Of texts that a given test or validation file has, too, none is left to learn from.
    kept = train & ~equals.again & ~given & (equals.labels >= 0)
    counts = np.bincount(equals.labels[kept], minlength=len(prints.labels))
    found: Counter[str] = Counter()
    for label, count in zip(prints.labels, counts.tolist(), strict=True):
        for name in gathered.sets.get(label, (label,)):
            found[name] += count
    return found


def class_findings(gathered: Gathered, recipe: Recipe, problem: str) -> Iterator[Finding]:
    """Tell what is wrong with the labels, as far as each row has one of several.

    Args:
        gathered: The rows.
        recipe: Says which labels are left out, and what a run may do about uneven ones.
        problem: Name of the problem type.
    """
    settings, ordered = recipe.data, problem == "ordinal"
    counts = by_split(gathered)
    train = counts.get("train", Counter())
    if len(train) < 2:
        yield _one_class(train)
        return
    texts = distinct(gathered)
    yield from rare_labels(settings, counts, texts)
    if len(train) < 2:
        yield _one_class(train)
        return
    yield from _unknown(counts)
    yield from _too_few(counts, texts, ordered)
    yield from _fractions(counts, texts, settings)
    yield from uneven(train, recipe, problem)
    yield from odd_names(train)


def rare_labels(
    settings: DataSettings,
    counts: Mapping[str, Counter[str]],
    texts: Counter[str],
    several: bool = False,
) -> Iterator[Finding]:
    """Tell of the labels that ``data.min_rows`` takes out, and take them out of the counts.

    They are those that `recipes.tasks.targets.without_rare` takes out.

    Args:
        settings: Of which `DataSettings.min_rows` and `DataSettings.rare` are used.
        counts: Rows of each label by split.
        texts: Different texts of each label.
        several: Whether a row has any number of them.
    """
    least = settings.min_rows
    if least is None:
        return
    needed = min(least, 1 if several else 1 + (3 - len(counts)))
    train = counts["train"]
    rare = {
        label: train[label]
        for label in dict.fromkeys(label for each in counts.values() for label in each)
        if train[label] < least or texts[label] < needed
    }
    if rare:
        yield _rare(rare, settings)
    for counter in (*counts.values(), texts):
        for label in rare:
            counter.pop(label, None)


def _rare(rare: Mapping[str, int], settings: DataSettings) -> Finding:
    merged = settings.rare == "merge"
    them = "it" if len(rare) == 1 else "them"
    return Finding(
        "rare-class",
        "note",
        f"{counted(len(rare), 'label')} of fewer than {settings.min_rows} rows, or on too few "
        f"different texts: {told(rare)}.",
        does=f"A run makes one label of {them}." if merged else f"A run leaves {them} out.",
        change=f"data.min_rows={settings.min_rows} says so; data.rare="
        f"{f'drop leaves {them} out' if merged else f'merge makes one label of {them}'}.",
    )


def _one_class(train: Mapping[str, int]) -> Finding:
    label = listed(map(shown, train)) or "none"
    return Finding(
        "one-class",
        "error",
        f"All rows to learn from have one label: {label}.",
        does="A run refuses the data: a classifier needs at least two classes.",
        change="Add rows of another class, or name another column: data.label=NAME.",
    )


def _unknown(counts: Mapping[str, Counter[str]]) -> Iterator[Finding]:
    for split in ("validation", "test"):
        strange = {
            label: n for label, n in counts.get(split, {}).items() if label not in counts["train"]
        }
        if strange:
            yield Finding(
                "unknown-label",
                "error",
                f"{counted(sum(strange.values()), 'row')} of the {split} data with a label that no "
                f"training row has: {listed(map(shown, strange), 5)}.",
                does="A run refuses the data.",
                change="Add training rows with the label, correct it, or take the rows out.",
            )


def scarce(
    counts: Mapping[str, Counter[str]], texts: Counter[str]
) -> tuple[list[str], dict[str, int], dict[str, int]]:
    """Return the splits that a run draws, and labels on too few and on few different texts.

    Args:
        counts: Rows by split and label.
        texts: Different texts by label.
    """
    drawn = [split for split in ("test", "validation") if split not in counts]
    own = {label: texts[label] for label in counts["train"]}
    needed = 1 + len(drawn)
    rare = {label: number for label, number in own.items() if number < needed}
    few = {label: number for label, number in own.items() if needed <= number < FEW}
    return drawn, rare, few


def _too_few(
    counts: Mapping[str, Counter[str]], texts: Counter[str], ordered: bool
) -> Iterator[Finding]:
    drawn, rare, few = scarce(counts, texts)
    needed = 1 + len(drawn)
    if rare:
        yield Finding(
            "rare-class",
            "error",
            f"{'1 class' if len(rare) == 1 else f'{len(rare):,} classes'} with fewer than {needed} "
            f"different {'text' if needed == 1 else 'texts'} to learn from: {told(rare)}.",
            does=f"A run refuses the data: it draws the {' and the '.join(drawn)} split, and each "
            "class has to be in every split."
            if drawn
            else "A run refuses the data: nothing is left to learn the class from.",
            change=f"Add rows, or leave such classes out (data.min_rows=N); {_DRAW}."
            if ordered
            else "Add rows, or leave such classes out (data.min_rows=N; with data.rare=merge they "
            f"become one); {_DRAW}.",
        )
    if few:
        them = "it" if len(few) == 1 else "them"
        yield Finding(
            "small-class",
            "warning",
            f"Fewer than {FEW} different texts: {told(few)}.",
            does=f"A run learns {them}, but its figures say little about {them}.",
            change="Add rows, or merge such classes with others.",
        )


def _fractions(
    counts: Mapping[str, Counter[str]], texts: Counter[str], settings: DataSettings
) -> Iterator[Finding]:
    left, classes = texts.total(), len(counts["train"])
    for split in ("test", "validation"):
        if split in counts:
            continue
        fraction = getattr(settings, f"{split}_fraction")
        drawn = math.ceil(fraction * left)
        if min(drawn, left - drawn) < classes:
            yield Finding(
                "fraction",
                "error",
                f"data.{split}_fraction={fraction} would draw {drawn:,} of {left:,} texts: fewer "
                f"rows than the {classes:,} classes on one side.",
                does="A run refuses the data.",
                change=f"Add rows, or set data.{split}_fraction so that both sides hold a row of "
                "each class.",
            )
            return
        left -= drawn


def uneven(train: Counter[str], recipe: Recipe, problem: str) -> Iterator[Finding]:
    """Tell of labels with far more rows than others, and what of a run helps against that.

    Args:
        train: Rows of each label.
        recipe: The run's.
        problem: Name of the problem type, which says what means something there.
    """
    (most, many), (least, few) = train.most_common()[0], train.most_common()[-1]
    ratio = many / few
    if ratio >= _UNEVEN:
        yield Finding(
            "imbalance",
            "warning" if ratio >= _VERY_UNEVEN else "note",
            f"{shown(most)} has {counted(many, 'row')}, {shown(least)} {few:,}: {ratio:.0f} to 1.",
            does="A run learns from every row alike unless it is told otherwise, and "
            f"{problems.get(problem).headline.replace('_f1', ' F1')} is mostly that of the "
            "frequent labels.",
            change=_measures(recipe, problem),
        )


def _measures(recipe: Recipe, problem: str) -> str:
    """Name the keys against uneven labels that a run takes for a problem type."""
    known = problems.get(problem)
    # A teacher that is taken as it is has no training; the loss of a student is written otherwise.
    where = "train" if recipe.strategy is not None else "distill.train"
    keys = [f"{where}.class_weights=balanced", f"{where}.resample=sqrt"]
    keys += ["train.loss=focal"] if recipe.strategy is not None else []
    if known.offset_search is not None and "macro_f1" in known.offset_search.metrics:
        keys.append("decide.offsets=macro_f1")
    others = f", and compare on validation rows what else helps: {', '.join(keys)}" if keys else ""
    return (
        f"Let macro F1 choose the epoch ({where}.metric=macro_f1){others}. More rows of the rare "
        "labels help most."
    )


def odd_names(train: Counter[str]) -> Iterator[Finding]:
    """Tell of labels that may mean that there is none, and of those that are almost the same."""
    missing = {label: n for label, n in train.items() if label.lower() in LIKELY_MISSING}
    if missing:
        yield Finding(
            "missing-name",
            "warning",
            f"Labels that may mean that there is none: {told(missing)}.",
            does="A run takes them as class names, as written.",
            change="If they do, empty those fields.",
        )
    groups: dict[str, list[str]] = {}
    for label in train:
        groups.setdefault(folded(label), []).append(label)
    alike = [label for labels in groups.values() if len(labels) > 1 for label in labels]
    if alike:
        yield Finding(
            "alike-names",
            "warning",
            "Labels that differ only in case, blanks or what is not seen: "
            f"{listed(map(shown, alike))}.",
            does="A run takes them for different classes.",
            change="Write each class in one way.",
        )


def told(counts: Mapping[str, int]) -> str:
    """Name labels, each with a number, the smallest first."""
    fewest = sorted(counts.items(), key=lambda entry: entry[1])
    return listed((f"{shown(label)} ({count:,})" for label, count in fewest), 5)
