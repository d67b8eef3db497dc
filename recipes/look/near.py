"""Texts that are almost the same: rows of a test that were all but learned.

Candidates come from MinHash signatures in bands (Broder, 1997; the signatures and the index are
rensa's), and each is checked by the shingles that both texts share. Equal texts are another check's
matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from recipes.look.examples import Example
from recipes.look.findings import LISTED, NAMED, Finding, places
from recipes.recipe import DataSettings
from recipes.tasks.wording import agree, counted, shown

#: Shared part of all shingles from which on two texts count as near duplicates.
_ALIKE = 0.8
#: Characters of a shingle, and of a text that are read.
_SHINGLE, _READ = 5, 2000
#: 20 bands of 6 numbers find a pair that shares .8 in 99.8 % of cases, .6 in 62 %.
_NUMBERS, _BANDS, _SEED = 120, 20, 1
#: Texts whose signatures are made at a time, and candidates that are checked of one.
_BATCH, _CHECKED = 500, 20
_SPACE = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Pair:
    """A text that is almost the same as an earlier one.

    Attributes:
        one: The earlier row.
        other: The later row.
        alike: The share of shingles that are in both.
    """

    one: Example
    other: Example
    alike: float


def near_pairs(examples: Sequence[Example]) -> list[Pair]:
    """Find the rows whose text is almost that of an earlier row, but not the same.

    A row is compared with the first of each group of such texts, so that a thousand variants of one
    text cost a thousand comparisons and not a million. Rows to learn from come first.

    Args:
        examples: Rows with a text.
    """
    from rensa import RMinHash, RMinHashLSH

    order = sorted(examples, key=lambda example: example.origin.split != "train")
    index = RMinHashLSH(_ALIKE, _NUMBERS, _BANDS)
    kept: list[Example] = []
    seen: set[str] = set()
    found: list[Pair] = []
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        shingles = [sorted(_shingles(example.text)) for example in batch]
        signatures = RMinHash.from_token_sets(shingles, num_perm=_NUMBERS, seed=_SEED)
        for example, own, signature in zip(batch, shingles, signatures, strict=True):
            if example.text in seen:
                continue
            seen.add(example.text)
            candidates = islice(index.query(signature), _CHECKED)
            pair = _best(example, set(own), [kept[key] for key in candidates])
            if pair is not None:
                found.append(pair)
            else:
                index.insert(len(kept), signature)
                kept.append(example)
    return found


def near_findings(
    pairs: Sequence[Pair], examples: Sequence[Example], settings: DataSettings, whole: bool
) -> Iterator[Finding]:
    """Tell of near duplicates across splits, and of those that a drawn split would part.

    Args:
        pairs: From `near_pairs`.
        examples: The rows that were compared.
        settings: How splits are drawn.
        whole: Whether these were all rows.
    """
    sampled = "" if whole else (
        f" Looked for among {counted(len(examples), 'row')} drawn from all: with the others, there "
        "may be more."
    )  # fmt: skip
    splits = {example.origin.split for example in examples}
    across = [pair for pair in pairs if pair.one.origin.split != pair.other.origin.split]
    if across:
        yield _finding(
            "near-overlap",
            across,
            f"{counted(len(across), 'row')} of the validation and test data almost "
            f"{agree(len(across), 'repeat')} a row of another split, for example of the "
            f"training data.{sampled}",
            len([e for e in examples if e.origin.split != "train"]),
            "A run keeps them: it takes out equal texts only, so that the figures on these rows "
            "flatter.",
        )
    within = [pair for pair in pairs if pair.one.origin.split == pair.other.origin.split]
    if within and len(splits) > 1:
        yield _finding(
            "near-duplicates",
            within,
            f"{counted(len(within), 'row')} almost {agree(len(within), 'repeat')} an earlier row "
            f"of the same split.{sampled}",
            len(examples),
            "A run keeps them: it takes out equal texts only.",
        )
    elif within:
        test = settings.test_fraction
        parts = (test, (1 - test) * settings.validation_fraction)
        parted = 1 - sum(part**2 for part in (*parts, 1 - sum(parts)))
        yield _finding(
            "near-duplicates",
            within,
            f"{counted(len(within), 'row')} almost {agree(len(within), 'repeat')} an earlier "
            f"row.{sampled}",
            len(examples),
            f"A run draws its splits at random: {parted:.0%} of such pairs end up in two of them, "
            "and the figures flatter. Equal texts only are taken out.",
        )


def _finding(code: str, pairs: Sequence[Pair], what: str, among: int, does: str) -> Finding:
    return Finding(
        code,
        "warning" if len(pairs) >= 0.01 * among else "note",
        what,
        places([(pair.other.origin, pair.other.number) for pair in pairs]),
        does,
        "Keep one of each such group, or give splits of your own (data.validation, data.test) that "
        "hold a group together.",
        [
            f"{places([(p.other.origin, p.other.number)])} {shown(p.other.text)} ~ "
            f"{places([(p.one.origin, p.one.number)])} {shown(p.one.text)}"
            for p in pairs[:NAMED]
        ],
        [(pair.other.origin.name, pair.other.number) for pair in pairs[:LISTED]],
    )


def _best(example: Example, own: set[str], candidates: Sequence[Example]) -> Pair | None:
    pairs = [Pair(other, example, _jaccard(own, _shingles(other.text))) for other in candidates]
    best = max(pairs, key=lambda pair: pair.alike, default=None)
    return best if best is not None and best.alike >= _ALIKE else None


def _shingles(text: str) -> set[str]:
    """Return all runs of some characters, case and punctuation aside; a short text as a whole."""
    plain = _SPACE.sub(" ", text[:_READ].casefold()).strip() or text[:_READ]
    return {plain[at : at + _SHINGLE] for at in range(max(1, len(plain) - _SHINGLE + 1))}


def _jaccard(one: set[str], other: set[str]) -> float:
    both = len(one & other)
    return both / max(1, len(one) + len(other) - both)
