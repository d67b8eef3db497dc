"""Characters that speak of a damaged file, of markup, and of a language."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from recipes.look.findings import Finding, Tally
from recipes.tasks.wording import counted, listed

#: Control characters; tabs and ends of lines are none here.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: What nobody sees: zero-width characters and marks of direction or of the file's beginning. The
#: joiners are left out: Persian, Indic scripts and emoji are written with them.
_UNSEEN = re.compile("[\u200b\u2060\ufeff\u202a-\u202e]")
_MARKUP = re.compile(r"&(?:[a-z]{2,8}|#\d{2,6});|</?(?:br|p|div|span|a|b|i)\b[^<>]{0,200}>", re.I)
#: Share of rows from which on a finding is a warning.
_MANY = 0.001
_AROUND = 12
#: Texts whose language is guessed, the shortest that can be, and characters that are read of one.
_GUESSED, _SHORTEST, _READ = 1000, 40, 500

_WORDS = {
    "mojibake": "text of another encoding read as the wrong one, such as “Ã©” for “é”",
    "replaced": "the character � in place of one that was lost",
    "control": "control characters",
    "unseen": "characters that nobody sees (zero width, marks of direction)",
    "markup": "HTML marks such as “&amp;” or “<br>”",
}
_WAYS = {
    "mojibake": "Mend the file with the command that comes with ftfy: ftfy IN.csv -o OUT.csv",
    "replaced": "Nothing brings them back: read the data anew where they come from, as UTF-8.",
    "control": "Take them out of the file, for example: ftfy IN.csv -o OUT.csv",
    "unseen": "Take them out of the file unless they mean something there.",
    "markup": "If the texts to come will have none, take it out: ftfy mends “&amp;” and the like.",
}


def problems_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is odd in a text, and the place that shows it."""
    if not text.isascii():
        from ftfy.badness import BADNESS_RE

        if found := BADNESS_RE.search(text):
            yield "mojibake", _around(text, found.start(), found.end())
        if (at := text.find("\ufffd")) >= 0:
            yield "replaced", _around(text, at, at + 1)
        if found := _UNSEEN.search(text):
            yield "unseen", _around(text, found.start(), found.end())
    if found := _CONTROL.search(text):
        yield "control", _around(text, found.start(), found.end())
    if ("&" in text or "<" in text) and (found := _MARKUP.search(text)):
        yield "markup", _around(text, found.start(), found.end())


def odd_characters(odd: dict[str, Tally], rows: int) -> Iterator[Finding]:
    """Tell of the texts with odd characters.

    Args:
        odd: From `Gathered.odd`.
        rows: How many rows there are.
    """
    for kind, words in _WORDS.items():
        if kind not in odd:
            continue
        tally = odd[kind]
        mild = kind in ("markup", "unseen") or tally.count < _MANY * rows
        yield Finding(
            kind,
            "note" if mild else "warning",
            f"{counted(tally.count, 'text')} ({tally.count / rows:.2%}) with {words}.",
            tally.where,
            "A run takes texts as they are.",
            _WAYS[kind],
            tally.examples,
        )


def languages(texts: Sequence[str]) -> tuple[str, str]:
    """Guess which languages some texts are in, and which scripts they are written in.

    The guess is py3langid's (Lui and Baldwin, 2012, retrained), and no more than a hint: texts
    below 40 characters are not asked about.

    Returns:
        Languages by their codes and scripts, each with its share; empty if there is too little.
    """
    long = [text[:_READ] for text in texts if len(text) >= _SHORTEST]
    guesses: Counter[str] = Counter()
    if long:
        from py3langid import classify

        guesses.update(str(classify(text)[0]) for text in long[:: -(-len(long) // _GUESSED)])
    letters: Counter[str] = Counter()
    for text in texts[:: -(-len(texts) // _GUESSED) or 1]:
        letters.update(_script(character) for character in text[:_READ] if character.isalpha())
    return _shares(guesses), _shares(letters)


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "unnamed").partition(" ")[0].capitalize()


def _shares(counts: Counter[str]) -> str:
    total = counts.total()
    told = [(name, n / total) for name, n in counts.most_common(8) if n >= 0.02 * total]
    return listed(f"{name} {share:.0%}" for name, share in told)


def _around(text: str, start: int, end: int) -> str:
    return text[max(0, start - _AROUND) : min(end, start + 20) + _AROUND]
