"""Raw files of catalogue data to rows: columns ``text`` and ``label``, mostly both strings.

Rows come in file order and are not deduplicated: the task does that, and counts what it removed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from pandas import DataFrame

_AIRLINES = re.compile(
    r"@(virginamerica|united|southwestair|americanair|usairways|jetblue)", re.IGNORECASE
)


def _frame(rows: Iterable[tuple[str, str]]) -> DataFrame:
    from pandas import DataFrame

    return DataFrame(list(rows), columns=["text", "label"])


def _lines(path: Path) -> list[str]:
    # Not splitlines, which also splits at characters that occur within texts.
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def _trec_questions(path: Path) -> list[tuple[str, str]]:
    # The file holds smaller subsets (1,000 to 4,000 questions) first; its end is the whole set.
    lines = _lines(path)[-5452:]
    return [(text, label) for label, text in (line.split(" ", 1) for line in lines)]


def read_trec(path: Path) -> dict[str, DataFrame]:
    """Read 5,452 TREC questions with their coarse class, for example ``LOC``."""
    return {"all": _frame((text, label.split(":")[0]) for text, label in _trec_questions(path))}


def read_trec_fine(path: Path) -> dict[str, DataFrame]:
    """Read 5,452 TREC questions with their fine class, for example ``LOC:city``."""
    return {"all": _frame(_trec_questions(path))}


def read_trec_both(path: Path) -> dict[str, DataFrame]:
    """Read 5,452 TREC questions with both labels, for example ``["LOC", "LOC:city"]``."""
    from pandas import DataFrame

    rows = _trec_questions(path)
    labels = [[label.split(":")[0], label] for _, label in rows]
    return {"all": DataFrame({"text": [text for text, _ in rows], "label": labels})}


def read_trec_pairs(path: Path) -> dict[str, DataFrame]:
    """Read pairs of TREC questions: do both ask for the same fine class, ``same`` or ``different``?

    Half of the pairs are of one class; of the others, half are at least of one coarse class. Each
    question is in pairs of one split only.
    """
    import random

    chance = random.Random(0)
    rows = list(dict.fromkeys(_trec_questions(path)))
    chance.shuffle(rows)
    ends = (0, len(rows) * 7 // 10, len(rows) * 8 // 10, len(rows))
    return {
        name: _question_pairs(rows[start:end], chance)
        for name, start, end in zip(("train", "validation", "test"), ends, ends[1:], strict=False)
    }


def _question_pairs(rows: list[tuple[str, str]], chance: random.Random) -> DataFrame:
    from pandas import DataFrame

    coarse: dict[str, list[tuple[str, str]]] = {}
    fine: dict[str, list[str]] = {}
    for text, label in rows:
        fine.setdefault(label, []).append(text)
        coarse.setdefault(label.split(":")[0], []).append((text, label))
    pairs = []
    for number, (text, label) in enumerate(rows):
        if number % 2 == 0 and len(fine[label]) > 1:
            other = chance.choice([one for one in fine[label] if one != text])
            pairs.append((text, other, "same"))
            continue
        near = coarse[label.split(":")[0]] if number % 4 == 1 else rows
        strangers = [one for one, its in near if its != label] or [
            one for one, its in rows if its != label
        ]
        pairs.append((text, chance.choice(strangers), "different"))
    return DataFrame(pairs, columns=["text", "pair", "label"])


def read_movie_ratings(path: Path) -> dict[str, DataFrame]:
    """Read 10,605 film-review sentences with the mean rating of 20 people, -4 to 4."""
    from pandas import DataFrame

    fields = [line.split("\t") for line in _lines(path)[1:]]
    ratings = [float(rating) for _, rating, _ in fields]
    return {"all": DataFrame({"text": [text for _, _, text in fields], "rating": ratings})}


def read_movie_stars(path: Path) -> dict[str, DataFrame]:
    """Read the same sentences with one to five stars: the rating in five steps of equal width."""
    frame = read_movie_ratings(path)["all"]
    stars = ((frame["rating"] + 4) / 1.6).astype(int).clip(0, 4) + 1
    return {"all": frame.assign(stars=stars)[["text", "stars"]]}


def read_movie_sentiment(path: Path) -> dict[str, DataFrame]:
    """Read 10,072 film-review sentences; those that 20 people rated between -0.5 and 0.5 are out.

    The scale runs from -4 to 4, so what is left is ``negative`` or ``positive`` with some margin.
    """
    fields = (line.split("\t") for line in _lines(path)[1:])
    rated = [(float(rating), text) for _, rating, text in fields]
    return {
        "all": _frame(
            (text, "positive" if rating > 0 else "negative")
            for rating, text in rated
            if abs(rating) >= 0.5
        )
    }


def read_sms_spam(path: Path) -> dict[str, DataFrame]:
    """Read 5,574 text messages, ``ham`` or ``spam``.

    The CSV was made carelessly: wherever a message has a stray quotation mark, the lines after it,
    still in the collection's own form ``ham<TAB>message``, are part of the same field.
    """
    rows: list[tuple[str, str]] = []
    with path.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    for record in records:
        first, *swallowed = re.split(r"\n(?=(?:ham|spam)\t)", record["text"])
        rows.append((first, "spam" if record["spam"] == "1" else "ham"))
        for line in swallowed:
            label, text = line.split("\t", 1)
            rows.append((text, label))
    return {"all": _frame(rows)}


def read_airline_tweets(path: Path) -> dict[str, DataFrame]:
    """Read tweets that address one of six airlines: ``negative``, ``neutral`` or ``positive``.

    The file joins several Twitter collections; the airline one is found by its mentions. 25 texts
    occur with contradicting labels and are left out. 14,400 distinct texts remain. The file was
    last saved as Mac Roman, after earlier changes of encoding had garbled curly quotes and emoji
    in about 6 % of the tweets; they are left as they are.
    """
    with path.open(encoding="mac_roman", newline="") as file:
        records = [row for row in csv.DictReader(file) if _AIRLINES.search(row["text"])]
    labels: dict[str, set[str]] = {}
    for row in records:
        labels.setdefault(row["text"], set()).add(row["sentiment"])
    return {
        "all": _frame(
            (row["text"], row["sentiment"]) for row in records if len(labels[row["text"]]) == 1
        )
    }


def read_newsgroups(train: Path, test: Path) -> dict[str, DataFrame]:
    """Read the official split of 20 Newsgroups: 11,293 posts to train on, 7,528 to test on.

    Orange's .tab format: tab-separated, with names, types and roles in the first three rows.
    """
    return {"train": _tab(train), "test": _tab(test)}


def _tab(path: Path) -> DataFrame:
    pairs = (line.split("\t") for line in _lines(path)[3:])
    return _frame((text, label) for label, text in pairs)


def read_plain_text(dialog: Path, *snippets: Path) -> dict[str, DataFrame]:
    """Read about 110,000 distinct lines of at least three words, in the column ``text``.

    In the dialogue file a line holds what two people say in turn, so most of what is said is there
    twice. The snippets are tables with a header and the text in the third column; their ratings
    are not read.
    """
    from pandas import DataFrame

    said = [part.strip() for line in _lines(dialog) for part in line.split("\t")]
    for path in snippets:
        said += [line.split("\t", 2)[2].strip() for line in _lines(path)[1:]]
    distinct = dict.fromkeys(text for text in said if len(text.split()) >= 3)
    return {"all": DataFrame({"text": list(distinct)})}


READERS: dict[str, Callable[..., dict[str, DataFrame]]] = {
    "trec": read_trec,
    "trec_fine": read_trec_fine,
    "trec_both": read_trec_both,
    "trec_pairs": read_trec_pairs,
    "movie_sentiment": read_movie_sentiment,
    "movie_ratings": read_movie_ratings,
    "movie_stars": read_movie_stars,
    "plain_text": read_plain_text,
    "sms_spam": read_sms_spam,
    "airline_tweets": read_airline_tweets,
    "newsgroups": read_newsgroups,
}
