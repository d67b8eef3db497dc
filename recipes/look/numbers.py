"""Numbers in place of labels: far and likely wrong ones, and columns that give them away.

But for those that are far from all others, it goes by a number's rank among all, from 0 to 1: no
scale and no few huge numbers matter then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from recipes.look.examples import Example
from recipes.look.findings import LISTED, NAMED, Finding, places
from recipes.look.leaks import by_form, leaking_column, number_in, three
from recipes.look.suspects import DOES, LEAST, MANY, first_rows, words_of
from recipes.tasks.columns import number
from recipes.tasks.wording import agree, counted, measured, shown

if TYPE_CHECKING:
    import numpy as np

_FOLDS, _SEED = 5, 0
#: Share of the ranks' variance that has to be explained: by texts, to judge a row by its text; by
#: a column alone, to call it a leak.
_WORTH, _GIVEN_AWAY = 0.3, 0.9
#: A rank is off if the text's own is so far away, and so many times the usual distance.
_FAR, _TIMES = 0.3, 4
#: So many times the range of the middle half a number may be away from the median.
_BEYOND = 20
#: Rows by which columns are judged.
_ROWS = 4000


def number_findings(
    examples: Sequence[Example], embeddings: np.ndarray | None, left_out: dict[str, str]
) -> Iterator[Finding]:
    """Tell of rows whose number is likely wrong, and of columns that give it away.

    Args:
        examples: Rows with a number each, in the order of the sample.
        embeddings: ``[rows, width]`` of the same rows, or None.
        left_out: Where to say why nothing could be judged.
    """
    import numpy as np

    rows = [row for row in first_rows(examples) if number_of(examples[row]) is not None]
    chosen = [examples[row] for row in rows]
    numbers = np.array([number_of(example) for example in chosen], dtype=np.float64)
    if len(chosen) < LEAST or len(set(numbers.tolist())) < 2:
        left_out["label errors and leaks"] = f"needs {LEAST} texts with different numbers"
        return
    yield from _far(chosen, numbers)
    ranks = _ranks(numbers)
    vectors = None if embeddings is None else embeddings[rows]
    yield from _suspects(chosen, numbers, ranks, vectors, left_out)
    step = -(-len(chosen) // _ROWS)
    yield from _columns(chosen[::step], ranks[::step])


def number_of(example: Example) -> float | None:
    """Return the number that a row has in place of a label; None if there is none."""
    return number(example.label or "")


def _far(examples: Sequence[Example], numbers: np.ndarray) -> Iterator[Finding]:
    """Tell of numbers that are so far from the others that they decide the scale."""
    import numpy as np

    low, middle, high = np.quantile(numbers, [0.25, 0.5, 0.75])
    away = np.abs(numbers - middle)
    rows = np.flatnonzero(away > _BEYOND * (high - low))
    if high == low or not len(rows):
        return
    found = [examples[row] for row in rows[np.argsort(-away[rows], kind="stable")].tolist()]
    yield Finding(
        "far-numbers",
        "warning",
        f"{counted(len(found), 'row')} {agree(len(found), 'have')} a number far from all others, "
        f"such as {found[0].label}; half of all lie between {measured(low, high - low)} and "
        f"{measured(high, high - low)}.",
        places([(example.origin, example.number) for example in found]),
        "A run learns numbers in deviations from their mean, and such a one decides both.",
        "Mend these numbers, or take the rows out.",
    )


def _ranks(numbers: np.ndarray) -> np.ndarray:
    """Return ranks from 0 to 1; equal numbers have the mean of theirs."""
    from scipy.stats import rankdata  # type: ignore[import-untyped, unused-ignore]

    found: np.ndarray = (rankdata(numbers) - 0.5) / len(numbers)
    return found


def _explained(given: np.ndarray, ranks: np.ndarray) -> float:
    return 1 - float(((given - ranks) ** 2).mean() / ranks.var())


def _suspects(
    examples: Sequence[Example],
    numbers: np.ndarray,
    ranks: np.ndarray,
    embeddings: np.ndarray | None,
    left_out: dict[str, str],
) -> Iterator[Finding]:
    import numpy as np
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    folds = KFold(_FOLDS, shuffle=True, random_state=_SEED)
    with threadpool_limits(1, "blas"):
        given = cross_val_predict(Ridge(), words_of(examples), ranks, cv=folds)
        if embeddings is not None:
            given = (given + cross_val_predict(Ridge(), embeddings, ranks, cv=folds)) / 2
    explained = _explained(given, ranks)
    if explained < _WORTH:
        left_out["label errors"] = (
            f"simple regressions explain {max(0.0, explained):.0%} of the numbers' spread on rows "
            "that they have not seen: too little to judge numbers by"
        )
        return
    off = np.abs(given - ranks)
    # The median of a normal distribution's distances is .6745 of its deviation.
    suspects = np.flatnonzero(off > max(_FAR, _TIMES * float(np.median(off)) / 0.6745))
    if not len(suspects):
        return
    suspects = suspects[np.argsort(-off[suspects], kind="stable")]
    share = len(suspects) / len(examples)
    likely = np.quantile(numbers, given.clip(0, 1))
    found = [(examples[row], float(likely[row])) for row in suspects.tolist()]
    yield Finding(
        "label-errors",
        "warning" if share >= MANY else "note",
        f"{counted(len(suspects), 'row')} ({share:.1%}) of {len(examples):,} judged likely "
        f"{agree(len(suspects), 'have')} a wrong number, or {agree(len(suspects), 'are')} hard: "
        f"regressions that have not seen {'it' if len(suspects) == 1 else 'them'}, which explain "
        f"{explained:.0%} of the spread, are far off. The farthest first.",
        places([(example.origin, example.number) for example, _ in found]),
        DOES,
        "Read them and correct the numbers. The list is in what --json FILE writes, and in a run's "
        "baseline/data.json.",
        [
            f"{places([(example.origin, example.number)])}: {shown(example.text, 80)} says "
            f"{example.label}, looks like {measured(number, numbers.std())}"
            for example, number in found[:NAMED]
        ],
        [(example.origin.name, example.number) for example, _ in found[:LISTED]],
    )


def _columns(rows: Sequence[Example], ranks: np.ndarray) -> Iterator[Finding]:
    import numpy as np

    for name in dict.fromkeys(name for example in rows for name in example.others):
        values = np.array([example.others.get(name, "") for example in rows], dtype=object)
        ways = {
            "its value": _by_value(values),
            "the form of its value": _by_value(by_form(values)),
            "the number in it": _by_number(values),
        }
        score, way = max((_held_out(answer, ranks), way) for way, answer in ways.items())
        if score >= _GIVEN_AWAY:
            yield leaking_column(
                name,
                f"tells the number: {way} explains {score:.1%} of the spread on rows held out.",
                three(rows),
            )


_Answer = Callable[[Any, Any, Any], Any]


def _held_out(answer: _Answer, ranks: np.ndarray) -> float:
    import numpy as np
    from sklearn.model_selection import KFold

    given = np.zeros(len(ranks))
    for known, asked in KFold(_FOLDS, shuffle=True, random_state=_SEED).split(ranks):
        given[asked] = answer(known, asked, ranks)
    return _explained(given, ranks)


def _by_value(values: Any) -> _Answer:
    """Answer the mean rank of the same value; of an unknown one, that of all."""

    def answer(known: np.ndarray, asked: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        import numpy as np

        seen: defaultdict[str, list[float]] = defaultdict(list)
        for row in known:
            seen[values[row]].append(float(ranks[row]))
        means = {value: sum(each) / len(each) for value, each in seen.items()}
        usual = float(ranks[known].mean())
        return np.array([means.get(values[row], usual) for row in asked])

    return answer


def _by_number(values: Any) -> _Answer:
    """Answer by ranges of the number in a value."""
    import numpy as np

    numbers = np.array([number_in(value) for value in values])[:, None]

    def answer(known: np.ndarray, asked: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        from sklearn.tree import DecisionTreeRegressor

        tree = DecisionTreeRegressor(max_leaf_nodes=64, min_samples_leaf=4, random_state=_SEED)
        found: np.ndarray = tree.fit(numbers[known], ranks[known]).predict(numbers[asked])
        return found

    return answer
